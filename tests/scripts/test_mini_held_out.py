"""The demo's test split stays out of the bundled model's training, in any package and in any copy.

`scripts.mini.groups` marks its groups and their near-duplicates among all packages (test_mini_data.py), and
`learned_from` leaves them out; here the list of sounds beside the weights is compared with the demo's table and sounds.
"""

from __future__ import annotations

import csv
import re
from dataclasses import replace

import pytest
from scripts.mini.features import Row
from scripts.mini.groups import Groups, same_recordings
from scripts.mini.train import learned_from

from openclap.checkpoints.bundled import FOLDER
from openclap.data.split import split_by_group
from openclap.demo.run import SOUNDS, SPLIT_SEED, SPLITS, TABLE

ORIGINAL = re.compile(r"/sounds/(\d+)|freesound\.org/s/(\d+)")
"""Uploads to Freesound in links."""


@pytest.fixture(scope="module")
def sounds() -> list[dict[str, str]]:
    """The sounds that the shipped weights learned from."""
    with (FOLDER / "sounds.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def held_out() -> list[dict[str, str]]:
    """The demo's test split, as `openclap demo` packs it (tests/scripts/test_mini_data.py compares the two)."""
    with TABLE.open(encoding="utf-8", newline="") as stream:
        demo = list(csv.DictReader(stream))
    parts = split_by_group([row["group"] for row in demo], SPLITS, SPLIT_SEED)
    return [row for row in demo if parts[row["group"]] == "test"]


def leaks(sounds: list[dict[str, str]], held_out: list[dict[str, str]]) -> list[str]:
    """The sounds among `sounds` that are in the demo's test split, in one of its groups, or of one of its originals.

    By package and name as well as by group, since a group that spans packages may have another name in either table.
    """
    groups, names, originals = set(), set(), set()
    for row in held_out:
        groups.add(row["group"])
        names.add((row["source"].partition(":")[2], row["original_title"].partition(";")[0]))
        originals |= set(ORIGINAL.findall(row["link"].lower()))
    return [
        row["key"]
        for row in sounds
        if row["group"] in groups
        or (row["package"], row["key"]) in names
        or originals & set(ORIGINAL.findall(row["source"].lower()))
    ]


def test_it_never_learned_from_the_demo_test_split(
    sounds: list[dict[str, str]], held_out: list[dict[str, str]]
) -> None:
    packages = {row["source"].partition(":")[2] for row in held_out}
    assert len(held_out) > 100 and len(packages & {row["package"] for row in sounds}) >= 2
    assert not leaks(sounds, held_out)


def test_a_sound_of_the_demo_test_split_would_be_noticed(held_out: list[dict[str, str]]) -> None:
    held = next(row for row in held_out if ORIGINAL.search(row["link"]))
    source, title = held["source"].partition(":")[2], held["original_title"].partition(";")[0]
    other = {"package": "other", "key": "other", "group": "other", "source": "https://example.org/"}
    for change in (
        {"package": source, "key": title},
        {"group": held["group"]},
        {"source": f"cut from {held['link']}, and louder"},
    ):
        assert leaks([other, other | change], held_out) == [change.get("key", "other")]


def test_no_recording_is_on_both_sides_of_the_demo_split(held_out: list[dict[str, str]]) -> None:
    """Mini learned from the training side, so a near-duplicate there would be one of a held-out sound. Compared by
    samples, as `make mini` compares all packages."""
    tested = {row["file"] for row in held_out}
    paths = sorted(SOUNDS.glob("*.ogg"))
    names = ["test" if path.name in tested else "training" for path in paths]
    found = same_recordings([str(path) for path in paths], names, Groups(names))
    assert not [(paths[one].name, paths[other].name) for one, other in found]


def test_nothing_is_learned_from_a_group_with_a_held_out_sound() -> None:
    free = Row("a.flac", "a", "a", ("a dog",), "dog", ship=True, demo_held_out=False, caption_from="name")
    held = replace(free, path="b.flac", group="b", demo_held_out=True)
    copy = replace(free, path="c.flac", package="c", group="b")
    closed = replace(free, path="d.flac", group="d", ship=False)
    assert learned_from([copy, held, free, closed]).tolist() == [2]
