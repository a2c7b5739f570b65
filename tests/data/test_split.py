"""Splits: by group, seeded, blind to row order."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclap.data.split import group_of, split_by_group
from openclap.errors import ConfigError
from openclap.sources import Record

THREE = {"train": 0.7, "valid": 0.1, "test": 0.2}


def record(number: int, group: str | None) -> Record:
    return Record(str(number), Path(f"{number}.wav"), ("x",), "s", group=group)


groups = st.lists(st.one_of(st.none(), st.text("abcdefgh", min_size=1, max_size=2)), max_size=40)


@given(groups, st.integers(0, 3), st.randoms())
def test_all_records_once_no_group_twice_in_any_row_order(names: list[str | None], seed: int, random: object) -> None:
    records = [record(number, name) for number, name in enumerate(names)]
    parts = split_by_group(records, THREE, seed)
    assert sorted(r.id for part in parts.values() for r in part) == sorted(r.id for r in records)
    homes = [(group_of(r), name) for name, part in parts.items() for r in part]
    assert len({group for group, _ in homes}) == len(set(homes))

    shuffled = list(records)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    again = split_by_group(shuffled, THREE, seed)
    assert {name: {r.id for r in part} for name, part in again.items()} == {
        name: {r.id for r in part} for name, part in parts.items()
    }
    if len({group for group, _ in homes}) >= len(THREE):
        assert all(parts.values())


def test_shares_are_kept_and_the_seed_matters() -> None:
    records = [record(number, None) for number in range(1000)]
    first, second = split_by_group(records, THREE, 0), split_by_group(records, THREE, 1)
    assert {name: len(part) for name, part in first.items()} == {"train": 700, "valid": 100, "test": 200}
    assert first["test"] != second["test"]


def test_rows_of_one_file_stay_together_without_a_group() -> None:
    twins = [Record(str(row), Path("same.wav"), ("x",), "s") for row in range(10)]
    assert sorted(len(part) for part in split_by_group(twins).values()) == [0, 10]


def test_a_large_group_leaves_something_for_every_split() -> None:
    for seed in range(20):
        records = [record(number, "big") for number in range(50)] + [record(50, "small"), record(51, "tiny")]
        assert all(split_by_group(records, seed=seed).values())


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
def test_impossible_splits(splits: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        split_by_group([record(0, None)], splits)


def test_no_session_dominates_a_small_split() -> None:
    records = [record(number, "session") for number in range(30)] + [record(30 + n, None) for n in range(170)]
    for seed in range(10):
        parts = split_by_group(records, THREE, seed)
        assert {r.group for r in parts["test"]} | {r.group for r in parts["valid"]} == {None}
        assert abs(len(parts["test"]) - 40) <= 1 and abs(len(parts["valid"]) - 20) <= 1


def test_a_group_that_is_all_there_is_goes_to_training() -> None:
    parts = split_by_group([record(number, "only") for number in range(50)])
    assert {name: len(part) for name, part in parts.items()} == {"train": 50, "test": 0}
