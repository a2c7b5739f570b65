"""Join the groups of one recording across packages, so that splits never separate its copies.

Two groups are joined where their sounds name the same original on Freesound, or where two of their sounds are one
recording: their mean spectra differ by at most `NEAR_DB`, and their samples, aligned at 8 kHz as by
`openclap duplicates`, have a similarity of at least `ALIKE`. Rendered instruments are left as they are.

N sounds, B bands, S samples at 8 kHz.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence, Set

import numpy as np
import polars as pl

from openclap.arrays import Wave
from openclap.audio.alignment import RATE, align, excerpt
from openclap.audio.inputs import blocks

BANDS, FRAME = 24, 512
ALIKE = 0.85
"""Less than for duplicates: a false join costs a split little, and a copy on both its sides makes a score a lie. Known
copies that were cut and changed, such as OpenClonk's switches made of a door, have 0.87."""
NEAR_DB = 3.0
"""The largest root mean square difference of two spectra to be aligned. Copies in another format differ by less than
1 dB, cut ones by less than 2, two takes of one sound mostly by more."""
MOST = 8
"""The most neighbours of a sound that are aligned: drum hits have hundreds."""


def merge_groups(table: pl.DataFrame, held_out: Set[str]) -> pl.DataFrame:
    """Join groups, and add the column `demo_held_out`: whether a group holds one of the groups `held_out`."""
    rows = table.to_dicts()
    groups = Groups(row["group"] for row in rows)
    by_original: dict[str, str] = {}
    for row in rows:
        for original in re.findall(r"/sounds/(\d+)|freesound\.org/s/(\d+)", row["source"].lower()):
            groups.join(by_original.setdefault("".join(original), row["group"]), row["group"])
    recorded = [row for row in rows if row["caption_from"] != "rendered"]
    names = [row["group"] for row in recorded]
    for one, other in same_recordings([row["path"] for row in recorded], names, groups):
        print(f"one recording: {recorded[one]['path']} and {recorded[other]['path']}")
        groups.join(names[one], names[other])
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


def same_recordings(paths: Sequence[str], names: Sequence[str], groups: Groups) -> Iterator[tuple[int, int]]:
    """Yield pairs of sounds that are one recording, of groups that are not joined yet."""
    # In half precision, or the samples of all sounds would fill a gigabyte.
    waves = [excerpt(blocks(path, RATE, path)).astype(np.float16) for path in paths]
    spectra_NB = np.stack([spectrum(wave.astype(np.float32)) for wave in waves])
    for number in range(1, len(paths)):
        far_N = np.sqrt(((spectra_NB[:number] - spectra_NB[number]) ** 2).mean(axis=1))
        for other in np.argsort(far_N, kind="stable")[:MOST]:
            if far_N[other] > NEAR_DB:
                break
            if groups.find(names[other]) != groups.find(names[number]) and (
                align(waves[other].astype(np.float32), waves[number].astype(np.float32)).similarity >= ALIKE
            ):
                yield int(other), number


def spectrum(wave_S: Wave) -> np.ndarray:
    """(B,) mean power in bands of equal width, in dB; 0 is the mean of the bands, so that levels do not matter."""
    padded = np.pad(wave_S, (0, -len(wave_S) % FRAME if len(wave_S) > FRAME else max(0, FRAME - len(wave_S))))
    power_F = (np.abs(np.fft.rfft(padded.reshape(-1, FRAME) * np.hanning(FRAME), axis=1)) ** 2).mean(axis=0)
    bands_B = power_F[1 : 1 + FRAME // 2 // BANDS * BANDS].reshape(BANDS, -1).mean(axis=1)
    level_B = 10 * np.log10(bands_B + 1e-12 * bands_B.max() + 1e-20)
    return level_B - level_B.mean()
