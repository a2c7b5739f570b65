"""Splits: by group, seeded, independent of the order of records."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclap.data.split import Shortfall, shortfalls, split_by_group
from openclap.errors import ConfigError
from support.errors import raises_naming

THREE = {"train": 0.7, "valid": 0.1, "test": 0.2}

groups = st.lists(st.text("abcdefgh", min_size=1, max_size=2), max_size=40)


def sizes(of: list[str], seed: int = 0, splits: dict[str, float] = THREE) -> Counter[str]:
    home = split_by_group(of, splits, seed)
    return Counter(home[group] for group in of)


@given(groups, st.integers(0, 3), st.randoms())
def test_each_group_has_one_split_in_any_order(names: list[str], seed: int, random: object) -> None:
    home = split_by_group(names, THREE, seed)
    assert set(home) == set(names) and set(home.values()) <= set(THREE)
    shuffled = list(names)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert split_by_group(shuffled, THREE, seed) == home
    if len(set(names)) >= len(THREE):
        assert set(home.values()) == set(THREE)


def test_split_sizes_and_seed() -> None:
    names = [f"{number}.wav" for number in range(1000)]
    assert sizes(names) == {"train": 700, "valid": 100, "test": 200}
    assert split_by_group(names, THREE, 0) != split_by_group(names, THREE, 1)


def test_large_group_leaves_no_split_empty() -> None:
    for seed in range(20):
        assert len(sizes(["big"] * 50 + ["small", "tiny"], seed, {"train": 0.8, "test": 0.2})) == 2


@pytest.mark.parametrize(
    "splits",
    [
        {},
        {"train": 0.5},
        {"train": 1.2, "test": -0.2},
        {"train": float("nan")},
        {"../x": 1.0},
        {"": 1.0},
        {".a": 1.0},
    ],
)
def test_invalid_splits(splits: dict[str, float]) -> None:
    with raises_naming(ConfigError):
        split_by_group(["a"], splits)


def test_no_group_dominates_a_small_split() -> None:
    names = ["session"] * 30 + [f"{number}.wav" for number in range(170)]
    for seed in range(10):
        assert split_by_group(names, THREE, seed)["session"] == "train"
        counts = sizes(names, seed)
        assert abs(counts["test"] - 40) <= 1 and abs(counts["valid"] - 20) <= 1


def test_single_group_goes_to_the_largest_split() -> None:
    assert sizes(["only"] * 50, splits={"train": 0.8, "test": 0.2}) == {"train": 50}


@pytest.mark.parametrize("size", [9, 20, 40])
def test_small_split_is_filled_where_all_groups_are_large(size: int) -> None:
    names = [f"session {number}" for number in range(10) for _ in range(size)]
    for seed in range(10):
        assert sizes(names, seed, {"train": 0.8, "test": 0.2}) == {"train": 8 * size, "test": 2 * size}


TWO = {"train": 0.8, "test": 0.2}


def test_split_of_the_requested_size_is_not_reported() -> None:
    assert shortfalls(TWO, {"train": {"a": 70}, "test": {"b": 18}}) == []
    assert shortfalls(TWO, {"train": {"a": 4}, "test": {"b": 1, "c": 1}}) == []  # one clip too many of six
    assert shortfalls({"train": 1.0}, {"train": {"a": 5}}) == []
    assert shortfalls(TWO, {}) == []


def test_split_far_off_its_size_is_reported() -> None:
    [found] = shortfalls(TWO, {"train": {"a": 85, "b": 7}, "test": {"c": 8}})
    assert found == Shortfall(
        "test",
        False,
        "test has 8 of 100 clips, 8 % for 20 %: groups stay together, and the largest of 3 (a) has 85 clips.",
    )


def test_empty_split_is_reported_with_its_cause() -> None:
    [one] = shortfalls(TWO, {"train": {"all": 89}})
    assert one.empty and one.sentence.startswith("No clip is in test: all 89 are of one group (all)")
    empty = {each.split: each.sentence for each in shortfalls(TWO, {}, own=30)}
    assert "the source itself puts all 30 clips in other splits" in empty["test"]
