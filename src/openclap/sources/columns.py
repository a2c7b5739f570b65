"""Match the columns of a table, or the keys of an object, to the fields of a record by their names.

Case, surrounding spaces and a final colon are ignored, and spaces and hyphens count as underscores.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from openclap.sources.files import as_float, as_int
from openclap.sources.grouping import freesound_id, freesound_user
from openclap.sources.licence import normalise_licence
from openclap.sources.phrases import phrases_of_json
from openclap.sources.youtube import video_id, youtube_video

TEXT_FIELDS: dict[str, tuple[str, ...]] = {
    "id": ("id",),
    "title": ("original_title", "title"),
    "description": ("description",),
    "label": ("label", "class", "category", "class_name"),
    "group": ("group",),
    "source": ("source",),
    "licence": ("licence", "license"),
    "author": ("author", "username", "uploader"),
    "link": ("link", "url"),
    "split": ("split",),
    "youtube_id": ("youtube_id", "ytid"),
}
"""Fields of a record that hold one text, each with the names of its columns, by preference."""

TAGS = ("tags", "tag", "keywords")
PHRASES = "phrases"
FLOATS = ("start_s", "length_s")
INTEGERS = ("rate", "freesound_id")
CAPTIONS = ("captions", "caption", "text")
OTHER_CAPTIONS = ("texts", "sentence", "sentences", "caption_text", "text_caption", "audio_caption")
"""Read as captions where no column has one of the usual names."""
FILES = (
    *("file", "path", "audio", "file_name", "filename", "audio_path", "audio_file", "audio_filepath", "audio_filename"),
    *("audio_file_name", "filepath", "file_path", "wav", "wav_path", "wav_file", "sound", "sound_path", "sound_file"),
    *("sound_name", "fname", "location"),
)
"""Columns that name the audio file, by preference."""
IDS = ("id", "audio_id", "sound_id", "clip_id", "audiocap_id", "youtube_id", "ytid", "uid", "key", "name", "stem")
"""Columns that may name an audio file without its suffix, where a table has no column of files."""
_PLACEHOLDERS = frozenset({"nan", "none", "null", "n/a", "<na>", "#n/a", "nat"})
_ADDRESSES = ("link", "url", "download_url")
_NUMBERED_CAPTION = re.compile(r"captions?_?(\d+)")
_SEPARATORS = {"captions": " | ", **dict.fromkeys(TAGS, ",")}
_NORMALISED: dict[str, Callable[[str], str | None]] = {"licence": normalise_licence, "youtube_id": video_id}
_BETWEEN_WORDS = re.compile(r"[\s-]+")

_Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """The columns of a table that fill the fields of a record.

    Attributes:
        names: the table's own column names by their normalised names (`normalise_column`), which the others use.
        texts: a record's field and the columns that fill it, by preference.
    """

    names: Mapping[str, str]
    captions: _Names
    texts: tuple[tuple[str, _Names], ...]
    tags: _Names
    numbers: _Names
    addresses: _Names

    @classmethod
    def of(cls, columns: Iterable[str], captions: tuple[str, ...] = ()) -> ColumnMap:
        """Map columns by their names; `captions` names the columns of captions where the user says so.

        Otherwise those are captions, caption, text, caption1, caption2, …, or, without any, one of OTHER_CAPTIONS.
        """
        return _map_columns(tuple(columns), captions)

    def values(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a record that the row fills, all but `audio`.

        Without a group of its own, a row's group is the Freesound user or the YouTube video, where the row names one.
        """
        values: dict[str, Any] = {
            "captions": tuple([text for name in self.captions for text in self._texts(row, name)]),
            "tags": tuple(next((tags for name in self.tags if (tags := self._texts(row, name))), ())),
        }
        for field, names in self.texts:
            if text := self.text(row, *names):
                values[field] = _NORMALISED[field](text) if field in _NORMALISED else text
        for name in self.numbers:
            cell = row.get(self.names[name])
            if (value := as_float(cell) if name in FLOATS else as_int(cell)) is not None:
                values[name] = value
        if self.addresses and "freesound_id" not in values:
            ids = (freesound_id(self.text(row, name)) for name in self.addresses)
            if (identity := next(filter(None, ids), None)) is not None:
                values["freesound_id"] = identity
        if PHRASES in self.names and (phrases := phrases_of_json(row.get(self.names[PHRASES]))):
            values[PHRASES] = phrases
        if "group" not in values and (group := _upload_group(values)):
            values["group"] = group
        return values

    def text(self, row: Mapping[str, Any], *names: str) -> str | None:
        """Return the text of the first of the columns `names` that this row fills."""
        for name in names:
            cell = row.get(self.names[name])
            # datasets' columns of audio are structures of bytes and path
            if text := cell_text(cell.get("path") if isinstance(cell, dict) else cell):
                return text
        return None

    def _texts(self, row: Mapping[str, Any], name: str) -> list[str]:
        return cell_texts(row.get(self.names[name]), _SEPARATORS.get(name))


def _upload_group(values: Mapping[str, Any]) -> str | None:
    """Return the group of all clips of one upload."""
    if "youtube_id" in values:
        return youtube_video(values["youtube_id"])
    return freesound_user(values.get("author")) if "freesound_id" in values else None


@lru_cache(maxsize=256)  # objects beside sounds are mapped one by one, and mostly have the same keys
def _map_columns(columns: tuple[str, ...], captions: tuple[str, ...]) -> ColumnMap:
    names: dict[str, str] = {}
    for column in columns:
        names.setdefault(normalise_column(column), column)

    def present(wanted: Iterable[str]) -> _Names:
        return tuple(name for name in wanted if name in names)

    numbered = {name: int(match[1]) for name in names if (match := _NUMBERED_CAPTION.fullmatch(name))}
    usual = (*CAPTIONS, *sorted(numbered, key=lambda name: numbered[name]))
    # One of these at most: two of them are mostly the same texts under two names.
    by_name = present(usual) or present(OTHER_CAPTIONS)[:1]
    return ColumnMap(
        names,
        captions=present(map(normalise_column, captions)) if captions else by_name,
        texts=tuple((field, columns) for field, wanted in TEXT_FIELDS.items() if (columns := present(wanted))),
        tags=present(TAGS),
        numbers=present((*FLOATS, *INTEGERS)),
        addresses=present(_ADDRESSES),
    )


def normalise_column(column: str) -> str:
    """Return a column's name as it is matched: "Audio File:" → "audio_file"."""
    return _BETWEEN_WORDS.sub("_", column.strip().lower().removesuffix(":").rstrip())


def is_placeholder(text: str) -> bool:
    """Return whether a text is blank or a missing value as programs write it: nan, None, null, N/A."""
    return not text.strip() or text.strip().lower() in _PLACEHOLDERS


def cell_text(value: Any) -> str | None:
    """Return a cell as text; None for null, NaN, placeholders and containers.

    Whole numbers lose the ".0" that a column gets when other rows are null.
    """
    if isinstance(value, str):
        return None if is_placeholder(value) else value.strip()
    if value is None or isinstance(value, (list, tuple, dict, bytes)):
        return None
    if isinstance(value, float):
        if math.isnan(value):
            return None
        value = int(value) if value.is_integer() else value
    return str(value)


def cell_texts(value: Any, separator: str | None = None) -> list[str]:
    """Return a cell as several texts: the items of a list, the parts between separators, or its one text."""
    parts = [value]
    if isinstance(value, (list, tuple)):
        parts = list(value)
    elif separator is not None:
        parts = (cell_text(value) or "").split(separator)
    return [text for part in parts if (text := cell_text(part))]
