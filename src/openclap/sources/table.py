"""A table that a person wrote: one row a sound, in CSV, TSV, JSON lines or parquet.

    file (or path, audio)               the sound, relative to the table or absolute, or an address; without
                                        any of the three, the address in url
    captions                            a list, or text split at " | "
    caption, caption1, caption2, …      one caption each
    tags                                a list, or text split at ","
    id, label, group, source, author,
    original_title (or title), licence
    (or license), link (or url),
    description, split, youtube_id      text
    start_s, length_s, rate,
    freesound_id                        numbers; with a start_s, 0 too, a row is that stretch of its file alone

Files and captions are needed, the rest is optional. Names are matched without regard to case, surrounding spaces or a
final colon. The CSV files that LAION-Audio-630K was released as (url, caption1, caption2, …) are such tables.
"""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from openclap.errors import DataError, require
from openclap.sources.fields import Fields, as_texts
from openclap.sources.record import Record
from openclap.sources.source import Root, Source

Row = dict[str, Any]
Rows = list[Row]

_FILE = ("file", "path", "audio")


def read_table(path: str | os.PathLike[str], *, captions_needed: bool = True) -> list[Record]:
    """Read one record a row, in row order.

    The group defaults to the Freesound user or the YouTube video where the row tells, otherwise to the file; the id to
    the file as the table writes it, the source to the table's name. A row without a caption gives a record with
    captions=(); wholly blank rows are passed over.

    Raises DataError when there is no such table, it cannot be read, has no rows, has no column for files
    or captions, or has rows that name no file.
    """
    table = Path(path)
    columns, rows = _read(table)
    if not rows:
        raise DataError(f"{table}: the table has no rows, expected one row for each sound.")
    fields = Fields.of(columns)
    files = _file_columns(fields, columns, table)
    if captions_needed and not fields.captions:
        raise DataError(
            f"{table}: no column holds captions. Found: {', '.join(columns)}; "
            "expected captions, caption, or caption1, caption2 and so on."
        )
    records = [_record(fields, files, row, table) for row in rows]
    nameless = [number for number, record in enumerate(records, 1) if record is None]
    if nameless:
        raise DataError(
            f"{table}: {len(nameless)} rows name no file (the first is row {nameless[0]}, header and blank "
            f"rows not counted). Fill in their '{fields.names[files[0]]}' or delete the rows."
        )
    return [record for record in records if record is not None]


def read(root: Root) -> Iterator[Record]:
    """Records of the table at `root`, which need not have captions: they can be made of titles and tags later."""
    return iter(read_table(root, captions_needed=False))


def _file_columns(fields: Fields, columns: list[str], table: Path) -> tuple[str, ...]:
    """The columns that say where the sounds are, by preference. Raises DataError when there is none."""
    files = tuple(name for name in _FILE if name in fields.names) or tuple({"url"} & fields.names.keys())
    if not files:
        raise DataError(
            f"{table}: no column says where the sounds are. Found: {', '.join(columns) or 'none'}; "
            f"expected one of: {', '.join(_FILE)}."
        )
    return files


def _record(fields: Fields, files: tuple[str, ...], row: Row, table: Path) -> Record | None:
    """The row as a record; None if it names no file."""
    file = fields.text(row, *files)
    if file is None:
        return None
    remote = "://" in file
    values = {
        "id": file,
        "source": table.stem,
        "group": file if remote else _place(table, file),
        **fields.values(row),
        "audio": file if remote else table.parent / file,
    }
    if values.get("link") == file:
        del values["link"]  # where the sound is, not a page about it
    return Record(**values)


def _place(table: Path, file: str) -> str:
    """One name for one file, however the table writes it: its path from the table's folder."""
    folder = table.parent.absolute()
    return Path(os.path.relpath(folder / file, folder)).as_posix()


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
    return columns, [row for row in rows if any(as_texts(value) for value in row.values())]


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


def _csv(polars: Any, table: Path) -> Any:
    return polars.read_csv(table, infer_schema=False, separator=_separator(table))


def _separator(table: Path) -> str:
    """What parts the names of the first line: spreadsheets write semicolons where a comma stands in numbers. Raises
    DataError for text in UTF-16, which they write too."""
    with table.open("rb") as file:
        first = file.readline()
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{table}: is text in UTF-16. Save it again as CSV in UTF-8.")
    return next((mark for mark in ",;\t" if mark.encode() in first), ",")


_READERS: dict[str, Callable[[Path], tuple[list[str], Rows]]] = {
    ".csv": _with_polars(_csv),
    ".tsv": _with_polars(lambda polars, table: polars.read_csv(table, infer_schema=False, separator="\t")),
    ".jsonl": _json_lines,
    ".parquet": _with_polars(lambda polars, table: polars.read_parquet(table)),
}

SOURCE = Source(
    name="table",
    title="A table",
    read=read,
    page="docs/howto/add-a-source.md",
    needs="one CSV, TSV, JSON lines or parquet file with a column file, path, audio or url.",
    licence="as its column says",
)
