"""Join the groups of one recording across packages, so that splits never separate its copies.

Two groups are joined where their sounds name the same original on Freesound, or where two of their sounds are one
recording: neighbours by aiSFX's embeddings (cosine of at least `CANDIDATE`) whose samples, aligned at 8 kHz, have at
least the similarity that `openclap duplicates` asks for. Rendered instruments are left as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Set

import numpy as np
import polars as pl

import openclap
from openclap.audio.alignment import RATE, align, excerpt
from openclap.audio.inputs import blocks
from openclap.recording_comparison import SAME

CANDIDATE = 0.85
"""The least cosine of two sounds to be aligned. Of the pairs that alignment joins, hardly any lies below 0.9."""
MOST = 20
"""The most neighbours of a sound that are aligned: drum hits have hundreds."""


def merge_groups(table: pl.DataFrame, held_out: Set[str]) -> pl.DataFrame:
    """Join groups, and add the column `demo_held_out`: whether a group holds one of the groups `held_out`."""
    rows = table.to_dicts()
    recorded = [number for number, row in enumerate(rows) if row["caption_from"] != "rendered"]
    groups = Groups(row["group"] for row in rows)
    by_original: dict[str, str] = {}
    for row in rows:
        for original in re.findall(r"/sounds/(\d+)|freesound\.org/s/(\d+)", row["source"].lower()):
            groups.join(by_original.setdefault("".join(original), row["group"]), row["group"])
    for one, other in same_recordings([rows[number]["path"] for number in recorded], groups, rows, recorded):
        groups.join(rows[one]["group"], rows[other]["group"])
    held = {groups.find(group) for group in held_out}
    joined = [groups.find(row["group"]) for row in rows]
    return table.with_columns(
        pl.Series("group", joined), pl.Series("demo_held_out", [group in held for group in joined])
    )


class Groups:
    """Disjoint sets of names. A set is named by its first member in the order of the alphabet."""

    def __init__(self, names: Iterable[str]) -> None:
        self._parent = {name: name for name in names}

    def find(self, name: str) -> str:
        while self._parent.setdefault(name, name) != name:
            name = self._parent[name]
        return name

    def join(self, one: str, other: str) -> None:
        first, second = sorted((self.find(one), self.find(other)))
        self._parent[second] = first


def same_recordings(
    paths: list[str], groups: Groups, rows: list[dict[str, str]], numbers: list[int]
) -> Iterator[tuple[int, int]]:
    """Yield pairs of rows whose sounds are one recording, of groups that are not joined yet."""
    vectors_ND = openclap.load("demo-start").embed_audio(paths)
    for place, number in enumerate(numbers):
        cosine_N = vectors_ND[:place] @ vectors_ND[place]
        for other in np.argsort(-cosine_N, kind="stable")[:MOST]:
            if cosine_N[other] < CANDIDATE:
                break
            pair = number, numbers[int(other)]
            if groups.find(rows[pair[0]]["group"]) == groups.find(rows[pair[1]]["group"]):
                continue
            one_S, other_S = (excerpt(blocks(rows[n]["path"], RATE, rows[n]["path"])) for n in pair)
            if align(one_S, other_S).similarity >= SAME:
                yield pair
