"""A table that a person wrote: one row a sound, in CSV, TSV, JSON lines or parquet.

    file (or path, audio)               the sound, relative to the table or absolute
    captions                            a list, or text split at " | "
    caption, caption1, caption2, …      one caption each
    tags                                a list, or text split at ","
    id, label, group, source, author,
    original_title (or title), licence
    (or license), link (or url)         text

Files and captions are needed, the rest is optional. Names are matched without
regard to case, surrounding spaces or a final colon.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openclap.errors import DataError, require
from openclap.sources.record import Record

Row = dict[str, Any]
Rows = list[Row]

_SEPARATORS = {"captions": " | ", "tags": ","}
_FILE = ("file", "path", "audio")
_NUMBERED_CAPTION = re.compile(r"caption_?(\d+)")


def read_table(path: str | os.PathLike[str]) -> list[Record]:
    """Read one record a row, in row order.

    The group defaults to the file, the id to the file as the table writes it, the source to the table's
    name. A row without a caption gives a record with captions=(); wholly blank rows are passed over.

    Raises DataError when there is no such table, it cannot be read, has no rows, has no column for files
    or captions, or has rows that name no file.
    """
    table = Path(path)
    columns, rows = _read(table)
    if not rows:
        raise DataError(f"{table}: the table has no rows, expected one row for each sound.")
    layout = _Layout.of(columns, table)
    records = [layout.record(row, table) for row in rows]
    nameless = [number for number, record in enumerate(records, 1) if record is None]
    if nameless:
        raise DataError(
            f"{table}: {len(nameless)} rows name no file (the first is row {nameless[0]}, header and blank "
            f"rows not counted). Fill in their '{layout.names[layout.files[0]]}' or delete the rows."
        )
    return [record for record in records if record is not None]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Which of a table's columns hold what: plain names to theirs, and what holds files and captions."""

    names: dict[str, str]
    files: Sequence[str]
    captions: Sequence[str]

    @classmethod
    def of(cls, columns: Sequence[str], table: Path) -> _Layout:
        names: dict[str, str] = {}
        for column in columns:
            names.setdefault(column.strip().lower().removesuffix(":").rstrip(), column)
        files = [name for name in _FILE if name in names]
        numbered = {name: int(found[1]) for name in names if (found := _NUMBERED_CAPTION.fullmatch(name))}
        captions: list[str] = [name for name in ("captions", "caption") if name in names]
        captions += sorted(numbered, key=lambda name: numbered[name])
        found_names = ", ".join(columns) or "none"
        if not files:
            raise DataError(
                f"{table}: no column says where the sounds are. Found: {found_names}; "
                f"expected one of: {', '.join(_FILE)}."
            )
        if not captions:
            raise DataError(
                f"{table}: no column holds captions. Found: {found_names}; "
                "expected captions, caption, or caption1, caption2 and so on."
            )
        return cls(names, files, captions)

    def record(self, row: Row, table: Path) -> Record | None:
        """The row as a record; None if it names no file."""
        file = self._text(row, *self.files)
        if file is None:
            return None
        return Record(
            id=self._text(row, "id") or file,
            audio=table.parent / file,
            captions=tuple(text for name in self.captions for text in self._texts(row, name)),
            source=self._text(row, "source") or table.stem,
            tags=tuple(self._texts(row, "tags")),
            label=self._text(row, "label"),
            group=self._text(row, "group") or _place(table, file),
            title=self._text(row, "original_title", "title"),
            licence=self._text(row, "licence", "license"),
            author=self._text(row, "author"),
            link=self._text(row, "link", "url"),
        )

    def _text(self, row: Row, *names: str) -> str | None:
        """The first of `names` that this row fills."""
        cells = (row.get(self.names[name]) for name in names if name in self.names)
        return next((text for cell in cells if (text := _text(cell))), None)

    def _texts(self, row: Row, name: str) -> list[str]:
        return _texts(row.get(self.names[name]), _SEPARATORS.get(name)) if name in self.names else []


def _place(table: Path, file: str) -> str:
    """One name for one file, however the table writes it: its path from the table's folder."""
    folder = table.parent.absolute()
    return Path(os.path.relpath(folder / file, folder)).as_posix()


def _text(value: Any) -> str | None:
    """A cell as text; None for null, NaN and blanks. Whole numbers lose the `.0` that nulls bring."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None


def _texts(value: Any, separator: str | None = None) -> list[str]:
    """A cell as several texts: a list's, those between separators, or the one that it holds."""
    parts = [value]
    if isinstance(value, (list, tuple)):
        parts = list(value)
    elif separator is not None:
        parts = (_text(value) or "").split(separator)
    return [text for part in parts if (text := _text(part))]


def _read(table: Path) -> tuple[list[str], Rows]:
    reader = _READERS.get(table.suffix.lower())
    if reader is None:
        raise DataError(f"{table}: cannot read a table of this kind, expected one of: {', '.join(_READERS)}.")
    if not table.is_file():
        raise DataError(f"{table}: no such file, expected a table of sounds and captions.")
    try:
        if table.stat().st_size == 0:
            raise DataError(f"{table}: the table is empty (0 bytes), expected one row for each sound.")
        columns, rows = reader(table)
    except OSError as error:
        raise DataError(f"{table}: cannot be read ({error.strerror or error}).") from error
    return columns, [row for row in rows if any(_texts(value) for value in row.values())]


def _with_polars(read: Callable[[Any, Path], Any]) -> Callable[[Path], tuple[list[str], Rows]]:
    def rows_of(table: Path) -> tuple[list[str], Rows]:
        polars = require("polars", "data")
        try:
            frame = read(polars, table)
        except polars.exceptions.PolarsError as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise DataError(
                f"{table}: cannot be read as {table.suffix[1:]} ({reason}). "
                "Save it again, text in UTF-8 with one header row."
            ) from error
        return frame.columns, frame.to_dicts()

    return rows_of


def _json_lines(table: Path) -> tuple[list[str], Rows]:
    """Line by line and not with polars, which turns a list into its text where other rows hold plain text."""
    rows: Rows = []
    try:
        for number, line in enumerate(table.read_text(encoding="utf-8-sig").split("\n"), 1):
            if line.strip():
                rows.append(json.loads(line))
                if not isinstance(rows[-1], dict):
                    raise DataError(f'{table}: line {number} is not an object, expected {{"file": …, "caption": …}}.')
    except UnicodeDecodeError as error:
        raise DataError(f"{table}: cannot be read as UTF-8 ({error.reason}). Save it again as UTF-8.") from error
    except RecursionError:
        raise DataError(f"{table}: line {number} is nested too deeply, expected one plain object a line.") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{table}: line {number} is not JSON ({error.msg}), expected one object a line.") from error
    return list(dict.fromkeys(column for row in rows for column in row)), rows


_READERS: dict[str, Callable[[Path], tuple[list[str], Rows]]] = {
    ".csv": _with_polars(lambda polars, table: polars.read_csv(table, infer_schema=False)),
    ".tsv": _with_polars(lambda polars, table: polars.read_csv(table, infer_schema=False, separator="\t")),
    ".jsonl": _json_lines,
    ".parquet": _with_polars(lambda polars, table: polars.read_parquet(table)),
}
