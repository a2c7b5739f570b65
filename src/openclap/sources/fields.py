"""Which of a table's columns, or an object's keys, say what: the names that people give them.

Names are matched without regard to case, surrounding spaces or a final colon, and a space or hyphen is an underscore.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from openclap.sources.identity import freesound_id, freesound_user, youtube_video
from openclap.sources.layout import number, whole
from openclap.sources.licence import normalise

TEXTS: dict[str, tuple[str, ...]] = {
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
"""Fields of a record that hold one text, and the names of columns for each, by preference."""

TAGS = ("tags", "tag", "keywords")
NUMBERS = ("start_s", "length_s")
WHOLE_NUMBERS = ("rate", "freesound_id")
CAPTIONS = ("captions", "caption", "text")
OTHER_CAPTIONS = ("texts", "sentence", "sentences", "caption_text", "text_caption", "audio_caption")
"""Taken for captions where no column is called so."""
FILES = (
    *("file", "path", "audio", "file_name", "filename", "audio_path", "audio_file", "audio_filepath", "audio_filename"),
    *("audio_file_name", "filepath", "file_path", "wav", "wav_path", "wav_file", "sound", "sound_path", "sound_file"),
    *("sound_name", "fname", "location"),
)
"""Of the sound, by preference."""
IDS = ("id", "audio_id", "sound_id", "clip_id", "audiocap_id", "youtube_id", "ytid", "uid", "key", "name", "stem")
"""By which a table may call its sounds, where it names no files: their names without suffix."""
_NOTHING = frozenset({"nan", "none", "null", "n/a", "<na>", "#n/a", "nat"})
_ADDRESSES = ("link", "url", "download_url")
_NUMBERED_CAPTION = re.compile(r"captions?_?(\d+)")
_SEPARATORS = {"captions": " | ", **dict.fromkeys(TAGS, ",")}

_Columns = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fields:
    """Columns by their plain names, and which of them fill which field of a record."""

    names: Mapping[str, str]
    captions: _Columns
    texts: tuple[tuple[str, _Columns], ...]
    tags: _Columns
    numbers: _Columns
    addresses: _Columns

    @classmethod
    def of(cls, columns: Iterable[str], captions: tuple[str, ...] = ()) -> Fields:
        """What columns hold; `captions` are the columns that hold captions, by their own names, where somebody says so.

        Otherwise these are captions, caption, text, caption1, caption2, …, or, without any, one of OTHER_CAPTIONS.
        """
        return _fields_of(tuple(columns), captions)

    def values(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What a record takes from a row; all of it but `audio`, and only what the row fills.

        Without a group of its own, the group is the Freesound user or the YouTube video where the row tells.
        """
        values: dict[str, Any] = {
            "captions": tuple([text for name in self.captions for text in self._several(row, name)]),
            "tags": tuple(next((tags for name in self.tags if (tags := self._several(row, name))), ())),
        }
        for field, names in self.texts:
            if text := self.text(row, *names):
                values[field] = normalise(text) if field == "licence" else text
        for name in self.numbers:
            cell = row.get(self.names[name])
            if (value := number(cell) if name in NUMBERS else whole(cell)) is not None:
                values[name] = value
        if self.addresses and "freesound_id" not in values:
            found = (freesound_id(self.text(row, name)) for name in self.addresses)
            if (identity := next(filter(None, found), None)) is not None:
                values["freesound_id"] = identity
        if "group" not in values and (group := _upload(values)):
            values["group"] = group
        return values

    def text(self, row: Mapping[str, Any], *names: str) -> str | None:
        """The first of the columns `names`, which must be there, that this row fills."""
        for name in names:
            cell = row.get(self.names[name])
            if text := as_text(cell.get("path") if isinstance(cell, dict) else cell):
                return text
        return None

    def _several(self, row: Mapping[str, Any], name: str) -> list[str]:
        return as_texts(row.get(self.names[name]), _SEPARATORS.get(name))


def _upload(values: Mapping[str, Any]) -> str | None:
    """The group by where a sound was uploaded."""
    if "youtube_id" in values:
        return youtube_video(values["youtube_id"])
    return freesound_user(values.get("author")) if "freesound_id" in values else None


@lru_cache(maxsize=256)
def _fields_of(columns: tuple[str, ...], captions: tuple[str, ...]) -> Fields:
    names: dict[str, str] = {}
    for column in columns:
        names.setdefault(plain(column), column)

    def there(wanted: Iterable[str]) -> _Columns:
        return tuple(name for name in wanted if name in names)

    numbered = {name: int(found[1]) for name in names if (found := _NUMBERED_CAPTION.fullmatch(name))}
    usual = there((*CAPTIONS, *sorted(numbered, key=lambda name: numbered[name]))) or there(OTHER_CAPTIONS)[:1]
    return Fields(
        names,
        captions=there(map(plain, captions)) if captions else usual,
        texts=tuple((field, here) for field, wanted in TEXTS.items() if (here := there(wanted))),
        tags=there(TAGS),
        numbers=there((*NUMBERS, *WHOLE_NUMBERS)),
        addresses=there(_ADDRESSES),
    )


def plain(column: str) -> str:
    """A column's name as it is matched."""
    return _BETWEEN_WORDS.sub("_", column.strip().lower().removesuffix(":").rstrip())


_BETWEEN_WORDS = re.compile(r"[\s-]+")


def says_nothing(text: str) -> bool:
    """Is it blank, or what programs write where there is nothing: nan, None, null, N/A?"""
    return not text.strip() or text.strip().lower() in _NOTHING


def as_text(value: Any) -> str | None:
    """A cell as text; None for null, NaN, blanks, their names (`says_nothing`) and what is no text. Whole numbers lose
    the `.0` that nulls bring."""
    if isinstance(value, str):
        return None if says_nothing(value) else value.strip()
    if value is None or isinstance(value, (list, tuple, dict, bytes)):
        return None
    if isinstance(value, float):
        if math.isnan(value):
            return None
        value = int(value) if value.is_integer() else value
    return str(value)


def as_texts(value: Any, separator: str | None = None) -> list[str]:
    """A cell as several texts: a list's, those between separators, or the one that it holds."""
    parts = [value]
    if isinstance(value, (list, tuple)):
        parts = list(value)
    elif separator is not None:
        parts = (as_text(value) or "").split(separator)
    return [text for part in parts if (text := as_text(part))]
