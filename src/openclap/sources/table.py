"""A table that a person wrote: one row a sound, in CSV, TSV, JSON, JSON lines or parquet.

    file (or path, audio, file_name, …)  the sound, relative to the table or absolute, or an address; without
                                         any, the address in url, or an id that sounds beside the table are named by
    captions                             a list, or text split at " | "
    caption, text, caption1, caption2 …  one caption each
    tags                                 a list, or text split at ","
    id, label, group, source, author,
    original_title (or title), licence
    (or license), link (or url),
    description, split, youtube_id       text
    start_s, length_s, rate,
    freesound_id                         numbers; with a start_s, 0 too, a row is that stretch of its file alone

All names are in `fields`; `Columns` says which columns hold files and captions where names do not. Files and captions
are needed, the rest is optional. Where none of the files is where the table says, sounds of these names are looked for
in all folders beside the table. The CSV files that LAION-Audio-630K was released as (url, caption1, caption2, …) are
such tables.

JSON is a list of objects, an object that holds one ({"data": [...]}, as WavCaps has it), or captions by file
({"a.wav": "A dog barks."}). Text may be in UTF-8, in UTF-16 with a byte order mark, or in cp1252 or latin-1.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from openclap.errors import DataError, require
from openclap.sources.fields import FILES, IDS, Fields, as_texts, plain
from openclap.sources.layout import SUFFIXES, sounds
from openclap.sources.record import Record
from openclap.sources.source import Root, Source
from openclap.sources.text import UTF_8, decode_text, separator_of

Row = dict[str, Any]
Rows = list[Row]

LOOKED_AT = 50
"""Rows that show whether sounds are where a table says."""
MOST = 0.5
"""Of a column's cells, so many are names of sounds where the column says which sound a row is about."""
MOST_SOUNDS = 2_000_000
"""Files that are looked through for sounds of a table's names."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a table hold what, where their names do not say so.

    Attributes:
        audio: the column of the sounds; "" for the usual names.
        captions: the columns of captions; () for the usual names.
    """

    audio: str = ""
    captions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A table as it was read.

    Attributes:
        records: one a row, in row order.
        audio: the columns that named the sounds, as the table writes them.
        captions: those of captions.
        encoding: of its text; "" for parquet.
    """

    path: Path
    records: list[Record]
    audio: tuple[str, ...]
    captions: tuple[str, ...]
    encoding: str
    columns: tuple[str, ...]

    @property
    def said(self) -> str:
        """What was recognised: "a table of 89 rows: sound from 'path', caption from 'text', encoded in cp1252"."""
        captions = f"caption from {named(self.captions)}" if self.captions else "no column of captions"
        encoding = f", encoded in {self.encoding}" if self.encoding not in ("", UTF_8) else ""
        rows = "1 row" if len(self.records) == 1 else f"{len(self.records)} rows"
        return f"a table of {rows}: sound from {named(self.audio)}, {captions}{encoding}"


def named(columns: tuple[str, ...]) -> str:
    """Columns in quotes."""
    return ", ".join(f"'{column}'" for column in columns)


def read_table(path: str | os.PathLike[str], *, captions_needed: bool = True) -> list[Record]:
    """The records of a table: `open_table` without what was recognised."""
    return open_table(path, captions_needed=captions_needed).records


def open_table(
    path: str | os.PathLike[str],
    *,
    columns: Columns = Columns(),
    captions_needed: bool = False,
    root: Path | None = None,
) -> Table:
    """Read one record a row, in row order; `root` is where sounds are looked for, the table's folder without it.

    The group defaults to the Freesound user or the YouTube video where the row tells, otherwise to the file; the id to
    the file as the table writes it, the source to the table's name. A row without a caption gives a record with
    captions=(); wholly blank rows are passed over.

    Raises DataError when there is no such table, it cannot be read, has no rows, has no column for files
    or captions, or has rows that name no file.
    """
    table = Path(path)
    there, rows, encoding = _read(table)
    if not rows:
        raise DataError(f"{table}: the table has no rows, expected one row for each sound.")
    fields = Fields.of(there, _present(table, there, columns.captions))
    _present(table, there, (columns.audio,) if columns.audio else ())
    files, places = _files(table, fields, rows, wanted=columns.audio, root=root)
    if captions_needed and not fields.captions:
        raise DataError(
            f"{table}: no column holds captions. Found: {', '.join(there)}; "
            "expected captions, caption, text, or caption1, caption2 and so on."
        )
    records = [_record(fields, files, places, row, table) for row in rows]
    nameless = [number for number, record in enumerate(records, 1) if record is None]
    if nameless:
        raise DataError(
            f"{table}: {len(nameless)} rows name no file (the first is row {nameless[0]}, header and blank "
            f"rows not counted). Fill in their '{fields.names[files[0]]}' or delete the rows."
        )
    return Table(
        table,
        [record for record in records if record is not None],
        tuple(fields.names[name] for name in files),
        tuple(fields.names[name] for name in fields.captions),
        encoding,
        tuple(there),
    )


def read(root: Root) -> Iterator[Record]:
    """Records of the table at `root`, which need not have captions: they can be made of titles and tags later."""
    return iter(open_table(root).records)


def _present(table: Path, there: list[str], wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The columns that somebody named. Raises DataError for one that is not there."""
    if missing := [name for name in wanted if plain(name) not in map(plain, there)]:
        raise DataError(f"{table}: has no column '{missing[0]}'. Found: {', '.join(there)}.")
    return wanted


class _Sounds:
    """The sounds under a folder by their names, with and without suffix; a name of two sounds stands for none."""

    def __init__(self, folder: Path) -> None:
        self._by_name: dict[str, Path | None] = {}
        self._by_stem: dict[str, Path | None] = {}
        for path in islice(sounds(folder), MOST_SOUNDS):
            self._by_name[path.name] = None if path.name in self._by_name else path
            self._by_stem[path.stem] = None if path.stem in self._by_stem else path

    @property
    def empty(self) -> bool:
        return not self._by_name

    def find(self, file: str) -> Path | None:
        """The sound that a table calls so; its folder and its suffix may be others, and WavCaps writes Y before ids."""
        name = PurePosixPath(file.replace("\\", "/")).name
        stem = PurePosixPath(name).stem if PurePosixPath(name).suffix.lower() in SUFFIXES else name
        return self._by_name.get(name) or self._by_stem.get(stem) or self._by_stem.get(f"Y{stem}")


Places = Callable[[str], Path]


def _files(
    table: Path, fields: Fields, rows: Rows, *, wanted: str, root: Path | None
) -> tuple[tuple[str, ...], Places]:
    """The columns that say where the sounds are, by preference, and the place of each sound. Raises DataError when
    there is no such column."""
    files = (plain(wanted),) if wanted else tuple(name for name in FILES if name in fields.names)
    base = root or table.parent
    if files:
        filled = [text for row in rows[:LOOKED_AT] if (text := fields.text(row, *files))]
        some = [text for text in filled if "://" not in text]
        if (filled and not some) or any(_is_file(table.parent / file) for file in some):
            return files, lambda file: table.parent / file
        if root and any(_is_file(root / file) for file in some):
            return files, lambda file: root / file
    found = _Sounds(base)

    def place(file: str) -> Path:
        return found.find(file) or table.parent / file

    if files and (wanted or any(found.find(text) for row in rows if (text := fields.text(row, *files)))):
        return files, place
    # WavCaps has a column 'audio' that names no file beside the ids that do.
    if best := _names_sounds(fields, rows, found):
        return (best,), place
    if files:
        return files, place
    if "url" in fields.names:
        return ("url",), lambda file: table.parent / file
    there = list(fields.names.values())
    raise DataError(
        f"{table}: no column says where the sounds are. Found: {', '.join(there) or 'none'}; "
        f"expected one of: {', '.join(FILES[:6])}.{_headless(there)}"
    )


def _names_sounds(fields: Fields, rows: Rows, found: _Sounds) -> str | None:
    """The column whose cells are names of sounds that are there: an id, or, where most of its cells are, any other."""
    if found.empty:
        return None
    share = {}
    for name in fields.names:
        texts = [text for row in rows if (text := fields.text(row, name))]
        share[name] = sum(found.find(text) is not None for text in texts) / (len(texts) or 1)
    ids = [name for name in IDS if share.get(name)]
    others = [name for name in share if share[name] >= MOST]
    return max(ids or others, key=lambda name: share[name], default=None)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or holds a null byte
        return False


def _headless(there: list[str]) -> str:
    """A hint where the first row is no header."""
    if any(PurePosixPath(name).suffix.lower() in SUFFIXES for name in there):
        return " The first row seems to be a sound already: put a header above it, such as file,caption."
    return ""


def _record(fields: Fields, files: tuple[str, ...], places: Places, row: Row, table: Path) -> Record | None:
    """The row as a record; None if it names no file."""
    file = fields.text(row, *files)
    if file is None:
        return None
    audio = file if "://" in file else places(file)
    values = {
        "id": file,
        "source": table.stem,
        "group": audio if isinstance(audio, str) else _place(table, audio),
        **fields.values(row),
        "audio": audio,
    }
    if values.get("link") == file:
        del values["link"]  # where the sound is, not a page about it
    return Record(**values)


def _place(table: Path, audio: Path) -> str:
    """One name for one file, however the table writes it: its path from the table's folder."""
    folder = table.parent.absolute()
    return Path(os.path.relpath(audio.absolute(), folder)).as_posix()


def _read(table: Path) -> tuple[list[str], Rows, str]:
    """Columns, rows that are not blank, and the encoding of the text."""
    reader = _READERS.get(table.suffix.lower())
    if reader is None:
        raise DataError(f"{table}: cannot read a table of this kind, expected one of: {', '.join(_READERS)}.")
    if not table.is_file():
        raise DataError(f"{table}: no such file, expected a table of sounds and captions.")
    try:
        content = table.read_bytes()
        if not content:
            raise DataError(f"{table}: the table is empty (0 bytes), expected one row for each sound.")
        columns, rows, encoding = reader(table, content)
    except OSError as error:
        raise DataError(f"{table}: cannot be read ({error.strerror or error}).") from error
    except RecursionError:
        raise DataError(f"{table}: is nested too deeply, expected one plain object for each sound.") from None
    return columns, [row for row in rows if any(as_texts(value) for value in row.values())], encoding


def _text(table: Path, content: bytes) -> tuple[str, str]:
    try:
        return decode_text(content)
    except ValueError as error:
        raise DataError(f"{table}: cannot be read as text ({error}). Save it again as UTF-8.") from error


def _with_polars(table: Path, read: Callable[[Any], Any]) -> tuple[list[str], Rows]:
    polars = require("polars", "data")
    try:
        frame = read(polars)
    except polars.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(
            f"{table}: cannot be read as {table.suffix[1:]} ({reason}). "
            "Save it again, text in UTF-8 with one header row."
        ) from error
    return frame.columns, frame.to_dicts()


def _csv(table: Path, content: bytes) -> tuple[list[str], Rows, str]:
    text, encoding = _text(table, content)
    separator = separator_of(text)
    if table.suffix.lower() == ".tsv" and "\t" in text.split("\n", 1)[0]:
        separator = "\t"
    encoded = io.BytesIO(content if encoding == UTF_8 else text.encode())
    columns, rows = _with_polars(
        table, lambda polars: polars.read_csv(encoded, infer_schema=False, separator=separator)
    )
    return columns, rows, encoding


def _parquet(table: Path, content: bytes) -> tuple[list[str], Rows, str]:
    return *_with_polars(table, lambda polars: polars.read_parquet(io.BytesIO(content))), ""


def _json(table: Path, content: bytes) -> tuple[list[str], Rows, str]:
    """One value, or one a line: people give either suffix to both."""
    text, encoding = _text(table, content)
    lines = table.suffix.lower() != ".json" and not text.lstrip().startswith("[")
    try:
        rows = _lines(table, text) if lines else _objects(table, json.loads(text))
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise DataError(
                f"{table}: is not JSON ({error.msg}, line {error.lineno}), expected a list of objects."
            ) from error
        rows = _lines(table, text)
    return list(dict.fromkeys(column for row in rows for column in row)), rows, encoding


def _lines(table: Path, text: str) -> Rows:
    """Line by line and not with polars, which turns a list into its text where other rows hold plain text."""
    rows: Rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise DataError(f"{table}: line {number} is not JSON ({error.msg}), expected one object a line.") from error
        except RecursionError:
            raise DataError(f"{table}: line {number} is nested too deeply, expected one plain object.") from None
        if not isinstance(rows[-1], dict):
            raise DataError(f'{table}: line {number} is not an object, expected {{"file": …, "caption": …}}.')
    return rows


def _objects(table: Path, value: Any) -> Rows:
    """The rows of a JSON value: a list of objects, the longest such list in an object, columns, or what is said by
    file."""
    if isinstance(value, dict):
        lists = [each for each in value.values() if isinstance(each, list) and each and isinstance(each[0], dict)]
        value = max(lists, key=len) if lists else _by_column(value) or _by_file(value)
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise DataError(f'{table}: holds no list of objects, expected [{{"file": …, "caption": …}}, …].')
    return value


def _by_column(value: dict[str, Any]) -> Rows | None:
    """Rows of {"file": [...], "caption": [...]}, or {"file": {"0": …}, …}, as pandas writes tables."""
    if not any(plain(name) in (*FILES, *IDS) for name in value):
        return None
    columns = {name: list(each.values()) if isinstance(each, dict) else each for name, each in value.items()}
    if (
        not all(isinstance(each, list) for each in columns.values())
        or len({len(each) for each in columns.values()}) > 1
    ):
        return None
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def _by_file(value: dict[str, Any]) -> Rows | None:
    """Rows of {"a.wav": "A dog."}, {"a.wav": ["A dog.", …]} or {"a.wav": {"caption": …}}."""
    if all(isinstance(each, dict) for each in value.values()):
        return [{"file": file, **each} for file, each in value.items()]
    if all(isinstance(each, (str, list)) for each in value.values()):
        return [{"file": file, "captions": [each] if isinstance(each, str) else each} for file, each in value.items()]
    return None


_READERS: dict[str, Callable[[Path, bytes], tuple[list[str], Rows, str]]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _json,
    ".ndjson": _json,
    ".json": _json,
    ".parquet": _parquet,
}
TABLES = tuple(_READERS)
"""The suffixes of tables that are read."""

SOURCE = Source(
    name="table",
    title="A table",
    read=read,
    page="docs/howto/add-a-source.md",
    needs="one CSV, TSV, JSON, JSON lines or parquet file with a column file, path, audio, file_name or url.",
    licence="as its column says",
)
