"""Which clips are also in the sets that models are evaluated on, so that they can be left out of training.

Two clips overlap when they come from one upload (a Freesound id, a YouTube video) or are the same sound, sample for
sample. What part of the upload each was cut from plays no role: five seconds of it give the rest away, ESC-50 does
not say where its cuts begin, and AudioSet, AudioCaps and VGGSound take one segment of a video, though not always the
same one.

The published table (Wu et al. 2023, arXiv:2211.06687) is read as a count of the evaluation set's clips: UrbanSound8K
cuts 8,732 clips from 1,302 uploads, and 1,218 of them in FSD50K alone cannot all be uploads. For AudioCaps it is one
of captions: 4,875 are the five of each of its 975 clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from openclap.data.held import ALL, KEYS, Held, held_in, plain
from openclap.errors import require
from openclap.sources.record import Record

if TYPE_CHECKING:
    from polars import DataFrame, Series


def overlaps(record: Record, held: Sequence[Held], pcm_sha256: str | None = None) -> tuple[str, ...]:
    """The labels of all sets in which a record, or its sound, is. For many records there is `overlapping`."""
    polars = require("polars", "data")
    ids = (record.freesound_id, record.youtube_id, pcm_sha256)
    clip = held_in(polars.DataFrame({key: [value] for key, value in zip(KEYS, ids, strict=True)}), record.id)
    return tuple(each.label for each in held if any(_found(clip, each, key)[0] for key in KEYS))


def overlapping(clips: DataFrame, held: Sequence[Held]) -> Series:
    """For each row of `clips`, the label of the first set in `held` that it is in; null for those to train on.

    `clips` has some of the columns `KEYS`. Raises DataError when it has none.
    """
    polars = require("polars", "data")
    ids = held_in(clips, "the clips")
    labels: Series = polars.Series("overlap", [None], dtype=polars.String).new_from_index(0, len(clips))
    for each in reversed(held):
        found = np.logical_or.reduce([_found(ids, each, key) for key in KEYS])
        labels = labels.set(polars.Series(found), each.label)
    return labels


@dataclass(frozen=True, slots=True)
class Overlap:
    """Of a held-out split, how much is in one split that is trained on.

    Attributes:
        clips, captions: that come from the same uploads.
        same_sound: further clips, which are there sample for sample under another id or none.
        published: what LAION counted, in `unit`; None where they did not.
    """

    held: str
    held_split: str
    found_in: str
    split: str
    clips: int
    captions: int
    same_sound: int
    published: int | None
    unit: Literal["clips", "captions"]

    @property
    def counted(self) -> int:
        """What is to be compared with the published count."""
        return self.clips if self.unit == "clips" else self.captions


def overlap_table(held: Sequence[Held], trained_on: Sequence[Held]) -> list[Overlap]:
    """Count each held-out split in each split that is trained on, but not in itself."""
    return [
        _overlap(one, other)
        for one in held
        for other in trained_on
        if (plain(one.name), plain(one.split)) != (plain(other.name), plain(other.split))
    ]


def to_markdown(table: Sequence[Overlap]) -> str:
    """The table as Markdown: one line for each pair of sets, the splits of the second side by side."""
    lines = [
        "| held out | found in | splits | by id | published | other id, same sound |",
        "|---|---|---|---:|---:|---:|",
    ]
    for held, held_split, found_in in dict.fromkeys((row.held, row.held_split, row.found_in) for row in table):
        rows = [row for row in table if (row.held, row.held_split, row.found_in) == (held, held_split, found_in)]
        cells = [
            held if held_split == ALL else f"{held} {held_split}",
            found_in,
            " / ".join(row.split for row in rows),
            _side_by_side([row.counted for row in rows]) + ("" if rows[0].unit == "clips" else " captions"),
            _side_by_side([row.published for row in rows]),
            _side_by_side([row.same_sound for row in rows]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


_IN_CLOTHO = (("clotho", "train"), ("clotho", "valid"), ("clotho", "test"))
_IN_FSD50K = (("fsd50k", "train"), ("fsd50k", "valid"), ("fsd50k", "test"))
PUBLISHED: dict[tuple[str, str, str, str], int] = {
    (*held, *split): count
    for held, splits, counts in [
        (("esc50", ALL), _IN_CLOTHO, (94, 27, 34)),
        (("esc50", ALL), _IN_FSD50K, (399, 60, 171)),
        (("urbansound8k", ALL), _IN_CLOTHO, (411, 150, 209)),
        (("urbansound8k", ALL), _IN_FSD50K, (697, 180, 341)),
        (("clotho", "test"), _IN_FSD50K, (54, 15, 33)),
        (("fsd50k", "test"), _IN_CLOTHO, (137, 31, 33)),
        (("audiocaps", "test"), (("audioset", "unbalancedtrain"),), (4875,)),
    ]
    for split, count in zip(splits, counts, strict=True)
}
"""What LAION counted: (held-out set, its split, set trained on, its split), as `plain` writes them."""


def _overlap(held: Held, other: Held) -> Overlap:
    by_id = _found(held, other, "freesound_id") | _found(held, other, "youtube_id")
    names = (plain(held.name), plain(held.split), plain(other.name), plain(other.split))
    return Overlap(
        held.name,
        held.split,
        other.name,
        other.split,
        clips=int(by_id.sum()),
        captions=int(held.clips["captions"].to_numpy()[by_id].sum()),
        same_sound=int((_found(held, other, "pcm_sha256") & ~by_id).sum()),
        published=PUBLISHED.get(names),
        unit="captions" if names[0] == "audiocaps" else "clips",
    )


def _found(clips: Held, other: Held, key: str) -> NDArray[np.bool_]:
    """Which of `clips` the other set has under the same key; what has no such key is in none."""
    rows = clips.clips.select(key).with_row_index("row").join(other.clips.select(key), on=key, how="semi")["row"]
    found = np.zeros(len(clips.clips), bool)
    found[rows.to_numpy()] = True
    return found


def _side_by_side(counts: Sequence[int | None]) -> str:
    if all(count is None for count in counts):
        return "–"
    return " / ".join("–" if count is None else f"{count:,}" for count in counts)
