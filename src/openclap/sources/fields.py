"""Which of a table's columns, or an object's keys, say what: the names that people give them.

Names are matched without regard to case, surrounding spaces or a final colon.
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
CAPTIONS = ("captions", "caption")
_ADDRESSES = ("link", "url", "download_url")
_NUMBERED_CAPTION = re.compile(r"caption_?(\d+)")
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
    def of(cls, columns: Iterable[str], more_captions: tuple[str, ...] = ()) -> Fields:
        """What columns hold; `more_captions` are names beside caption, captions, caption1, caption2, …"""
        return _fields_of(tuple(columns), more_captions)

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
            if text := as_text(row.get(self.names[name])):
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
def _fields_of(columns: tuple[str, ...], more_captions: tuple[str, ...]) -> Fields:
    names: dict[str, str] = {}
    for column in columns:
        names.setdefault(column.strip().lower().removesuffix(":").rstrip(), column)

    def there(wanted: Iterable[str]) -> _Columns:
        return tuple(name for name in wanted if name in names)

    numbered = {name: int(found[1]) for name in names if (found := _NUMBERED_CAPTION.fullmatch(name))}
    return Fields(
        names,
        captions=there((*CAPTIONS, *more_captions, *sorted(numbered, key=lambda name: numbered[name]))),
        texts=tuple((field, here) for field, wanted in TEXTS.items() if (here := there(wanted))),
        tags=there(TAGS),
        numbers=there((*NUMBERS, *WHOLE_NUMBERS)),
        addresses=there(_ADDRESSES),
    )


def as_text(value: Any) -> str | None:
    """A cell as text; None for null, NaN, blanks and what is no text. Whole numbers lose the `.0` that nulls bring."""
    if isinstance(value, str):
        return value.strip() or None
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
