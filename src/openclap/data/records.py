"""Convert records to rows of a table, and back.

`n`, a record's position among all records of a data set, identifies it in every later step.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openclap.captions.rules import Caption
from openclap.errors import require
from openclap.sources.phrases import phrases_of_json, phrases_to_json
from openclap.sources.record import Record
from openclap.types import Phrase

if TYPE_CHECKING:
    import polars

BATCH = 50_000
"""Rows converted at a time, to bound the memory of Python objects."""
FIELDS = tuple(field.name for field in dataclasses.fields(Record) if field.name not in ("audio", "captions", "phrases"))


@dataclass(frozen=True, slots=True)
class Captioned:
    """A record and all its captions, including sentences made from its title and tags."""

    record: Record
    captions: tuple[Caption, ...]


def schema() -> dict[str, Any]:
    """Columns of a table of records: those of `Record`, and the origin of each caption."""
    pl = require("polars", "data")
    # Types are stated and not inferred, or a table whose first rows are empty would get other columns.
    texts = dict.fromkeys(("id", "audio", "source"), pl.String)
    facts = dict.fromkeys(("label", "group", "title", "licence", "author", "link", "description", "split"), pl.String)
    return {
        "n": pl.UInt32,
        **texts,
        **dict.fromkeys(("captions", "made", "tags"), pl.List(pl.String)),
        **facts,
        "start_s": pl.Float64,
        "length_s": pl.Float64,
        "rate": pl.Int64,
        "freesound_id": pl.Int64,
        "youtube_id": pl.String,
        "phrases": pl.List(pl.Struct({"phrase": pl.String, "segments": pl.List(pl.List(pl.Float64))})),
    }


def with_phrases(frame: polars.DataFrame) -> polars.DataFrame:
    """Add the column `phrases`, without phrases, to a table of records or a manifest written before there was one."""
    pl = require("polars", "data")
    if "phrases" in frame.columns:
        return frame
    return frame.with_columns(phrases=pl.lit([], schema()["phrases"]))


def frames(rows: Iterable[Captioned]) -> Iterator[polars.DataFrame]:
    """Yield tables of at most BATCH rows; `valid` tells whether all text is UTF-8, other characters become "?"."""
    source, count = iter(rows), 0
    while (part := list(islice(source, BATCH))) or not count:  # without any row, yield one empty table
        try:
            yield _frame(part, count).with_columns(valid=True)
        except UnicodeEncodeError:
            # Only a batch with such text is converted row by row; all others take the fast way.
            plain = [_valid(row) for row in part]
            yield _frame(plain, count).with_columns(
                valid=require("polars", "data").Series([row == other for row, other in zip(part, plain, strict=True)])
            )
        count += len(part)
        if len(part) < BATCH:
            return


def _frame(rows: list[Captioned], start: int) -> polars.DataFrame:
    pl = require("polars", "data")
    values: dict[str, list[Any]] = {
        "n": list(range(start, start + len(rows))),
        # One column for paths and URLs; a URL is recognised by its "://" when a record is read back.
        "audio": [os.fspath(row.record.audio) for row in rows],
        "captions": [_joined(caption.text for caption in row.captions) for row in rows],
        "made": [_joined(caption.made for caption in row.captions) for row in rows],
        **{name: [getattr(row.record, name) for row in rows] for name in FIELDS if name != "tags"},
        "tags": [_joined(row.record.tags) for row in rows],
        "phrases": [phrases_to_json(row.record.phrases) if row.record.phrases else None for row in rows],
    }
    columns = schema()
    lists = [name for name, kind in columns.items() if kind == pl.List(pl.String)]
    # Lists travel as joined strings and are split by polars: see SEPARATOR.
    flat = columns | dict.fromkeys(lists, pl.String)
    frame: polars.DataFrame = pl.DataFrame([pl.Series(name, values[name], kind) for name, kind in flat.items()])
    return frame.with_columns(pl.col(lists).str.split(SEPARATOR).fill_null([]), pl.col("phrases").fill_null([]))


SEPARATOR = "\x1f"
"""Between the texts of a list while a table is built: lists of Python objects take five times as long."""


def _joined(texts: Iterable[str]) -> str | None:
    return SEPARATOR.join(text.replace(SEPARATOR, " ") for text in texts) or None


def _valid(row: Captioned) -> Captioned:
    plain = {name: _replaced(getattr(row.record, name)) for name in FIELDS}
    name = os.fspath(row.record.audio)
    audio = row.record.audio if _replaced(name) == name else _replaced(name)
    phrases = tuple(Phrase(_replaced(each.text), each.segments) for each in row.record.phrases)
    record = dataclasses.replace(row.record, audio=audio, phrases=phrases, **plain)
    return Captioned(record, tuple(Caption(_replaced(each.text), each.made) for each in row.captions))


def _replaced(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_replaced(part) for part in value)
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def captioned(frame: polars.DataFrame) -> Iterator[tuple[int, Captioned]]:
    """Yield `n` and the record of each row."""
    for row in frame.select(list(schema())).iter_rows(named=True):
        n, captions, made = row.pop("n"), row.pop("captions"), row.pop("made")
        audio = row.pop("audio")
        # A record has its source's captions; sentences made from them are kept apart, so that they can be made again.
        given = tuple(text for text, how in zip(captions, made, strict=True) if how == "given")
        values = {
            "audio": audio if "://" in audio else Path(audio),
            "captions": given,
            "tags": tuple(row["tags"]),
            "phrases": phrases_of_json(row["phrases"]),
        }
        record = Record(**row | values)
        yield n, Captioned(record, tuple(map(Caption, captions, made)))
