"""Which clips a set holds, by what tells one clip from another: ids of uploads, and hashes of sound.

No audio is needed: ids come from records, from file names, or from a file of ids that somebody saved.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from openclap.errors import DataError, require
from openclap.sources.record import Record
from openclap.storage import new_file

if TYPE_CHECKING:
    import polars

KEYS = ("freesound_id", "youtube_id", "pcm_sha256")
"""The columns by which clips overlap; null where a clip has no such thing."""
ALL = "all"
"""The split of a set that is held out as a whole."""


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """What is known of the clips of a split: of one to be held out, or of one to be trained on.

    Attributes:
        name: of the set, such as "Clotho".
        split: such as "test"; "all" for a set without splits.
        clips: one row a clip, the columns `KEYS` and `captions`, the number of its captions.
    """

    name: str
    split: str
    clips: polars.DataFrame

    @property
    def label(self) -> str:
        """What the set and split are called in a column of overlaps."""
        return self.name if self.split == ALL else f"{self.name} {self.split}"


def held_from(records: Iterable[Record], name: str, split: str = ALL) -> Held:
    """The ids of a split's records."""
    polars = require("polars", "data")
    rows = [(record.freesound_id, record.youtube_id, len(record.captions)) for record in records]
    schema = {"freesound_id": polars.Int64, "youtube_id": polars.String, "captions": polars.Int64}
    return held_in(polars.DataFrame(rows, schema=schema, orient="row"), name, split)


def held_in(frame: polars.DataFrame, name: str, split: str = ALL) -> Held:
    """The ids in a frame of clips that has some of the columns `KEYS` and `captions` (one each without it).

    Raises DataError when it has none of `KEYS`, or they hold something else.
    """
    polars = require("polars", "data")
    if not set(KEYS) & set(frame.columns):
        raise DataError(f"{name} {split}: no column says what its clips are, expected one of: {', '.join(KEYS)}.")
    text = polars.String
    kinds = {"freesound_id": polars.Int64, "youtube_id": text, "pcm_sha256": text, "captions": polars.Int64}
    lacking = {"captions": polars.lit(1)} | {key: polars.lit(None) for key in KEYS}
    columns = [
        (polars.col(key) if key in frame.columns else lacking[key]).cast(kind).alias(key) for key, kind in kinds.items()
    ]
    try:
        return Held(name, split, frame.select(columns) if len(frame) else polars.DataFrame(schema=kinds))
    except polars.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{name} {split}: invalid ids ({reason}). Expected numbers and text.") from error


def held_from_names(files: Iterable[str], name: str, split: str = ALL) -> Held:
    """The ids in the file names of a set of `NAMES`: a listing is enough, no audio is needed.

    Raises DataError for an unknown set, and for names that are not of its form.
    """
    polars = require("polars", "data")
    pattern = {plain(known): pattern for known, pattern in NAMES.items()}.get(plain(name))
    if pattern is None:
        raise DataError(f"{name}: its file names tell nothing, expected one of: {', '.join(NAMES)}.")
    kind = next(iter(pattern.groupindex))
    ids = []
    for file in files:
        found = pattern.fullmatch(Path(file).name)
        if not found:
            raise DataError(f"{file}: is no file name of {name}, expected the form {pattern.pattern}.")
        ids.append(int(found[kind]) if kind == "freesound_id" else found[kind])
    return held_in(polars.DataFrame({kind: ids}), name, split)


_VIDEO = re.compile(r"Y?(?P<youtube_id>[\w-]{11})(?:_\d+(?:\.\d+)?){0,2}\.\w+")
NAMES: dict[str, re.Pattern[str]] = {
    "ESC-50": re.compile(r"\d+-(?P<freesound_id>\d+)-[A-Z]-\d+\.\w+"),
    "UrbanSound8K": re.compile(r"(?P<freesound_id>\d+)-\d+-\d+-\d+\.\w+"),
    "FSD50K": re.compile(r"(?P<freesound_id>\d+)\.\w+"),
    "AudioSet": _VIDEO,
    "AudioCaps": _VIDEO,
    "VGGSound": _VIDEO,
}
"""How sets name their files: fold, id, take and class; id, class, occurrence and slice; the id; a video's id, with a
"Y" before it in some copies, and with start and end behind it in others."""


def plain(name: str) -> str:
    """A name without regard to case, hyphens and blanks; the splits' other names as one."""
    letters = re.sub(r"[^a-z0-9]", "", name.lower())
    return _SPLITS.get(letters, letters)


_SPLITS = {
    "val": "valid",
    "validation": "valid",
    "dev": "train",
    "development": "train",
    "eval": "test",
    "evaluation": "test",
    "unbalanced": "unbalancedtrain",
}
"""Clotho calls its three splits development, validation and evaluation."""


def save_held(held: Sequence[Held], path: Path) -> None:
    """Write splits to one parquet file: ids, hashes and numbers of captions. A split without clips leaves nothing."""
    polars = require("polars", "data")
    frames = [
        each.clips.select(polars.lit(each.name).alias("set"), polars.lit(each.split).alias("split"), *KEYS, "captions")
        for each in held
    ]
    with new_file(path) as file:
        polars.concat(frames).write_parquet(file)


def load_held(path: Path) -> list[Held]:
    """Read what `save_held` wrote, or any parquet file with the columns set, split and some of `KEYS`.

    Raises DataError when there is no such file, or it holds something else.
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
        raise DataError(f"{path}: holds no ids of sets, expected the columns set, split, {', '.join(KEYS)}.")
    groups = frame.partition_by("set", "split", maintain_order=True, as_dict=True)
    return [held_in(group, str(name), str(split)) for (name, split), group in groups.items()]
