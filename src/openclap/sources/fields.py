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

from openclap.sources.identity import freesound_id
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
CAPTIONS = ("captions", "caption")
_NUMBERED_CAPTION = re.compile(r"caption_?(\d+)")
_SEPARATORS = {"captions": " | ", "tags": ",", "tag": ",", "keywords": ","}


@dataclass(frozen=True, slots=True)
class Fields:
    """Columns by their plain names, and which of them hold captions."""

    names: Mapping[str, str]
    captions: tuple[str, ...]

    @classmethod
    def of(cls, columns: Iterable[str], more_captions: tuple[str, ...] = ()) -> Fields:
        """What columns hold; `more_captions` are names beside caption, captions, caption1, caption2, …"""
        return _fields_of(tuple(columns), more_captions)

    def values(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What a record takes from a row; all of it but `audio`, and only what the row fills."""
        values: dict[str, Any] = {field: text for field, names in TEXTS.items() if (text := self.text(row, *names))}
        values["captions"] = tuple(text for name in self.captions for text in self.texts(row, name))
        values["tags"] = tuple(next((texts for name in TAGS if (texts := self.texts(row, name))), ()))
        if "licence" in values:
            values["licence"] = normalise(values["licence"])
        numbers = {
            "start_s": number(self.cell(row, "start_s")),
            "length_s": number(self.cell(row, "length_s")),
            "rate": whole(self.cell(row, "rate")),
            "freesound_id": whole(self.cell(row, "freesound_id")) or self._linked_id(row),
        }
        return values | {field: value for field, value in numbers.items() if value is not None}

    def cell(self, row: Mapping[str, Any], name: str) -> Any:
        """What a row holds under a plain name; None where there is no such column."""
        return row.get(self.names[name]) if name in self.names else None

    def text(self, row: Mapping[str, Any], *names: str) -> str | None:
        """The first of the columns `names` that this row fills."""
        return next((text for name in names if (text := as_text(self.cell(row, name)))), None)

    def texts(self, row: Mapping[str, Any], name: str) -> list[str]:
        """A column that may hold several texts."""
        return as_texts(self.cell(row, name), _SEPARATORS.get(name))

    def _linked_id(self, row: Mapping[str, Any]) -> int | None:
        return freesound_id(self.text(row, "link")) or freesound_id(self.text(row, "url", "download_url"))


@lru_cache(maxsize=256)
def _fields_of(columns: tuple[str, ...], more_captions: tuple[str, ...]) -> Fields:
    names: dict[str, str] = {}
    for column in columns:
        names.setdefault(column.strip().lower().removesuffix(":").rstrip(), column)
    numbered = {name: int(found[1]) for name in names if (found := _NUMBERED_CAPTION.fullmatch(name))}
    captions = [name for name in (*CAPTIONS, *more_captions) if name in names]
    return Fields(names, (*captions, *sorted(numbered, key=lambda name: numbered[name])))


def as_text(value: Any) -> str | None:
    """A cell as text; None for null, NaN, blanks and what is no text. Whole numbers lose the `.0` that nulls bring."""
    if value is None or isinstance(value, (list, tuple, dict, bytes)):
        return None
    if isinstance(value, float):
        if math.isnan(value):
            return None
        value = int(value) if value.is_integer() else value
    return str(value).strip() or None


def as_texts(value: Any, separator: str | None = None) -> list[str]:
    """A cell as several texts: a list's, those between separators, or the one that it holds."""
    parts = [value]
    if isinstance(value, (list, tuple)):
        parts = list(value)
    elif separator is not None:
        parts = (as_text(value) or "").split(separator)
    return [text for part in parts if (text := as_text(part))]
