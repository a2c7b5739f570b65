"""Find clips that are also in evaluation sets, so that training data can be decontaminated.

Two clips overlap when they come from one upload (a Freesound id, a YouTube video) or are the same sound, sample for
sample. The segment of the upload is ignored: five seconds of a recording are enough to recognise the rest, ESC-50 does
not publish where its cuts begin, and AudioSet, AudioCaps and VGGSound may take different segments of one video. Ids
come from records, from file names, or from a saved file of ids; no audio is needed for them.

The published table (Wu et al. 2023, arXiv:2211.06687) is read as a count of the evaluation set's clips: UrbanSound8K
cuts 8,732 clips from 1,302 uploads, and 1,218 of them in FSD50K alone cannot all be uploads. For AudioCaps it is one
of captions: 4,875 are the five of each of its 975 clips.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from openclap.errors import DataError, require
from openclap.formatting import markdown_table
from openclap.sources.record import Record
from openclap.sources.youtube import clip_id, normalised_ids
from openclap.storage import new_file

if TYPE_CHECKING:
    import polars
    from polars import DataFrame, Series

KEYS = ("freesound_id", "youtube_id", "pcm_sha256")
"""The columns by which clips are compared; null where a clip has no such id."""
ALL = "all"
"""The split name of a set without splits."""


@dataclass(frozen=True, slots=True, eq=False)
class SplitIds:
    """Ids and sound hashes of the clips of one split.

    Attributes:
        name: of the set, such as "Clotho".
        split: such as "test"; "all" for a set without splits.
        clips: one row per clip with the columns `KEYS` and `captions`, the number of its captions.
    """

    name: str
    split: str
    clips: polars.DataFrame

    @property
    def label(self) -> str:
        """Name of set and split in a column of overlaps."""
        return self.name if self.split == ALL else f"{self.name} {self.split}"


def ids_of_records(records: Iterable[Record], name: str, split: str = ALL) -> SplitIds:
    """Collect the ids of a split's records."""
    polars = require("polars", "data")
    rows = [(record.freesound_id, record.youtube_id, len(record.captions)) for record in records]
    schema = {"freesound_id": polars.Int64, "youtube_id": polars.String, "captions": polars.Int64}
    return ids_of_frame(polars.DataFrame(rows, schema=schema, orient="row"), name, split)


def ids_of_frame(frame: polars.DataFrame, name: str, split: str = ALL) -> SplitIds:
    """Take the ids of a frame that has some of the columns `KEYS`, and `captions` (1 without it).

    Raises DataError when it has none of `KEYS`, or columns of other types.
    """
    polars = require("polars", "data")
    if not set(KEYS) & set(frame.columns):
        raise DataError(f"{name} {split}: no column identifies its clips, expected one of: {', '.join(KEYS)}.")
    text = polars.String
    kinds = {"freesound_id": polars.Int64, "youtube_id": text, "pcm_sha256": text, "captions": polars.Int64}
    lacking = {"captions": polars.lit(1)} | {key: polars.lit(None) for key in KEYS}
    # All columns are present with one type, so that any two frames can be joined.
    columns = [
        (polars.col(key) if key in frame.columns else lacking[key]).cast(kind).alias(key) for key, kind in kinds.items()
    ]
    try:
        clips = frame.select(columns) if len(frame) else polars.DataFrame(schema=kinds)
        # Ids of one form, or files of ids and older manifests that write "Y" or times would share none with other sets.
        return SplitIds(name, split, clips.with_columns(youtube_id=normalised_ids(polars.col("youtube_id"))))
    except polars.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{name} {split}: invalid ids ({reason}). Expected numbers and text.") from error


def ids_of_file_names(files: Iterable[str], name: str, split: str = ALL) -> SplitIds:
    """Parse the ids in the file names of a set in `FILE_NAMES` or `YOUTUBE_SETS`.

    Raises DataError for an unknown set, and for names of another form.
    """
    polars = require("polars", "data")
    known = {normalise_name(each): each for each in (*FILE_NAMES, *YOUTUBE_SETS)}.get(normalise_name(name))
    if known is None:
        expected = ", ".join((*FILE_NAMES, *YOUTUBE_SETS))
        raise DataError(f"{name}: its file names contain no known ids, expected one of: {expected}.")
    kind = "youtube_id" if known in YOUTUBE_SETS else "freesound_id"
    return ids_of_frame(polars.DataFrame({kind: [_id_in_name(known, file) for file in files]}), name, split)


def _id_in_name(known: str, file: str) -> int | str:
    if known in YOUTUBE_SETS:
        if clip := clip_id(file):
            return clip.video
        raise DataError(f"{file}: is not a file name of {known}, expected the id of a YouTube video (with a time).")
    if match := FILE_NAMES[known].fullmatch(Path(file).name):
        return int(match["freesound_id"])
    raise DataError(f"{file}: is not a file name of {known}, expected the form {FILE_NAMES[known].pattern}.")


YOUTUBE_SETS = ("AudioSet", "AudioCaps", "VGGSound")
"""Sets whose files have ids of YouTube clips in their names (`openclap.sources.youtube`)."""
FILE_NAMES: dict[str, re.Pattern[str]] = {
    "ESC-50": re.compile(r"\d+-(?P<freesound_id>\d+)-[A-Z]-\d+\.\w+"),
    "UrbanSound8K": re.compile(r"(?P<freesound_id>\d+)-\d+-\d+-\d+\.\w+"),
    "FSD50K": re.compile(r"(?P<freesound_id>\d+)\.\w+"),
}
"""Forms of file names: fold, id, take and class (ESC-50); id, class, occurrence and slice (UrbanSound8K); the id
(FSD50K)."""


def normalise_name(name: str) -> str:
    """Normalise a name: without case, hyphens and blanks, and one name for each split."""
    letters = re.sub(r"[^a-z0-9]", "", name.lower())
    return _SPLIT_NAMES.get(letters, letters)


_SPLIT_NAMES = {
    "val": "valid",
    "validation": "valid",
    "dev": "train",
    "development": "train",
    "eval": "test",
    "evaluation": "test",
    "unbalanced": "unbalancedtrain",
}
"""Clotho calls its three splits development, validation and evaluation."""


def save_ids(splits: Sequence[SplitIds], path: Path) -> None:
    """Write splits to one parquet file: ids, hashes and numbers of captions. A split without clips adds no row."""
    polars = require("polars", "data")
    frames = [
        each.clips.select(polars.lit(each.name).alias("set"), polars.lit(each.split).alias("split"), *KEYS, "captions")
        for each in splits
    ]
    with new_file(path) as file:
        polars.concat(frames).write_parquet(file)


def load_ids(path: Path) -> list[SplitIds]:
    """Read a file of `save_ids`, or any parquet file with the columns set, split and some of `KEYS`.

    Raises DataError for a missing file, and for one with other columns.
    """
    polars = require("polars", "data")
    try:
        with path.open("rb") as file:
            frame = polars.read_parquet(file)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file, expected a parquet file of ids.") from error
    except (OSError, polars.exceptions.PolarsError) as error:
        raise DataError(f"{path}: cannot be read as parquet ({str(error).splitlines()[0].rstrip('.')}).") from error
    if not {"set", "split"} <= set(frame.columns):
        raise DataError(f"{path}: contains no ids of sets, expected the columns set, split, {', '.join(KEYS)}.")
    groups = frame.partition_by("set", "split", maintain_order=True, as_dict=True)
    return [ids_of_frame(group, str(name), str(split)) for (name, split), group in groups.items()]


def overlaps(record: Record, evaluation_sets: Sequence[SplitIds], pcm_sha256: str | None = None) -> tuple[str, ...]:
    """Labels of all splits that contain a record or its sound. For many records, use `overlapping`."""
    polars = require("polars", "data")
    ids = (record.freesound_id, record.youtube_id, pcm_sha256)
    clip = ids_of_frame(polars.DataFrame({key: [value] for key, value in zip(KEYS, ids, strict=True)}), record.id)
    return tuple(each.label for each in evaluation_sets if any(_contained(clip, each, key)[0] for key in KEYS))


def overlapping(clips: DataFrame, evaluation_sets: Sequence[SplitIds]) -> Series:
    """For each row of `clips`, the label of the first split that contains it; null where none does.

    `clips` must have some of the columns `KEYS`. Raises DataError when it has none.
    """
    polars = require("polars", "data")
    ids = ids_of_frame(clips, "the clips")
    labels: Series = polars.Series("overlap", [None], dtype=polars.String).new_from_index(0, len(clips))
    # Backwards, so that the label of the first set is written last and stays.
    for each in reversed(evaluation_sets):
        # Any one key suffices: most clips have only one of them.
        contained = np.logical_or.reduce([_contained(ids, each, key) for key in KEYS])
        labels = labels.set(polars.Series(contained), each.label)
    return labels


@dataclass(frozen=True, slots=True)
class Overlap:
    """The overlap of an evaluation split with a training split.

    Attributes:
        clips, captions: from the same uploads.
        same_sound: further clips that are there sample for sample, under another id or none.
        published: LAION's count, in `unit`; None where they published none.
    """

    evaluation_set: str
    evaluation_split: str
    training_set: str
    split: str
    clips: int
    captions: int
    same_sound: int
    published: int | None
    unit: Literal["clips", "captions"]

    @property
    def counted(self) -> int:
        """The count to compare with the published one."""
        return self.clips if self.unit == "clips" else self.captions


def overlap_table(evaluation: Sequence[SplitIds], training: Sequence[SplitIds]) -> list[Overlap]:
    """Count each evaluation split in each training split, except in itself."""
    return [
        _overlap(tested, trained)
        for tested in evaluation
        for trained in training
        if _normalised(tested) != _normalised(trained)
    ]


def _normalised(ids: SplitIds) -> tuple[str, str]:
    return normalise_name(ids.name), normalise_name(ids.split)


def to_markdown(table: Sequence[Overlap]) -> str:
    """Format the table: one line for each pair of sets, the training splits side by side."""
    lines = [["evaluation set", "found in", "splits", "by id", "published", "other id, same sound"]]
    pairs = dict.fromkeys((row.evaluation_set, row.evaluation_split, row.training_set) for row in table)
    for pair in pairs:
        rows = [row for row in table if (row.evaluation_set, row.evaluation_split, row.training_set) == pair]
        name, split, training_set = pair
        lines.append(
            [
                name if split == ALL else f"{name} {split}",
                training_set,
                " / ".join(row.split for row in rows),
                _side_by_side([row.counted for row in rows]) + ("" if rows[0].unit == "clips" else " captions"),
                _side_by_side([row.published for row in rows]),
                _side_by_side([row.same_sound for row in rows]),
            ]
        )
    return markdown_table(lines, right=(3, 4, 5)) + "\n"


_IN_CLOTHO = (("clotho", "train"), ("clotho", "valid"), ("clotho", "test"))
_IN_FSD50K = (("fsd50k", "train"), ("fsd50k", "valid"), ("fsd50k", "test"))
PUBLISHED: dict[tuple[str, str, str, str], int] = {
    (*tested, *split): count
    for tested, splits, counts in [
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
"""LAION's counts by (evaluation set, its split, training set, its split), normalised."""


def _overlap(tested: SplitIds, trained: SplitIds) -> Overlap:
    # Counted apart from equal sounds, because the published counts are by id.
    by_id = _contained(tested, trained, "freesound_id") | _contained(tested, trained, "youtube_id")
    names = (*_normalised(tested), *_normalised(trained))
    return Overlap(
        tested.name,
        tested.split,
        trained.name,
        trained.split,
        clips=int(by_id.sum()),
        captions=int(tested.clips["captions"].to_numpy()[by_id].sum()),
        same_sound=int((_contained(tested, trained, "pcm_sha256") & ~by_id).sum()),
        published=PUBLISHED.get(names),
        unit="captions" if names[0] == "audiocaps" else "clips",
    )


def _contained(clips: SplitIds, other: SplitIds, key: str) -> NDArray[np.bool_]:
    """Which of `clips` the other split contains under the same key; a null matches nothing."""
    # A semi-join: rows with a partner, each once; polars joins no nulls.
    rows = clips.clips.select(key).with_row_index("row").join(other.clips.select(key), on=key, how="semi")["row"]
    contained = np.zeros(len(clips.clips), bool)
    contained[rows.to_numpy()] = True
    return contained


def _side_by_side(counts: Sequence[int | None]) -> str:
    if all(count is None for count in counts):
        return "–"
    return " / ".join("–" if count is None else f"{count:,}" for count in counts)
