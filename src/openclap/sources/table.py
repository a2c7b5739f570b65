"""Read a table of audio and captions, one row per sound: CSV, TSV, JSON, JSON lines or parquet.

    file (or path, audio, file_name, …)  the audio file, relative to the table or absolute, or a URL; without such a
                                         column, the URL in url, or an id that names files beside the table
    captions                             a list, or text split at " | "
    caption, text, caption1, caption2 …  one caption each
    tags                                 a list, or text split at ","
    id, label, group, source, author,
    original_title (or title), licence
    (or license), link (or url),
    description, split, youtube_id       text
    start_s, length_s, rate,
    freesound_id                         numbers; with start_s (0 included) a row is that part of its file only

All names are in `columns`; `ColumnChoice` names the columns of files and captions where their names are others. Where
none of the files exists at its path, files of these names are searched in all folders beside the table. The CSV files
that LAION-Audio-630K was released as (url, caption1, caption2, …) are such tables.

JSON is a list of objects, an object that holds such a list ({"data": [...]}, as in WavCaps), or captions by file
({"a.wav": "A dog barks."}). Text may be UTF-8, UTF-16 with a byte order mark, cp1252 or latin-1.
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
from openclap.formatting import join_first
from openclap.sources.columns import FILES, IDS, ColumnMap, cell_texts, normalise_column
from openclap.sources.files import AUDIO_AND_VIDEO_SUFFIXES, audio_files
from openclap.sources.record import Record
from openclap.sources.source import Root, Source
from openclap.sources.text_encoding import UTF_8, decode_text, guess_separator

TableRow = dict[str, Any]
TableRows = list[TableRow]

SAMPLED_ROWS = 50
"""Rows that are sampled to see whether files exist at their paths."""
LEAST_NAMED = 0.5
"""A column with any other name is used for file names if at least this share of its cells names existing files."""
MOST_FILES = 2_000_000
"""Limit on the files that are searched for a table's names."""


@dataclass(frozen=True, slots=True)
class ColumnChoice:
    """The user's choice of columns, where their names are not the usual ones.

    Attributes:
        audio: the column of audio files; "" to go by name.
        captions: the columns of captions; () to go by name.
    """

    audio: str = ""
    captions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SoundTable:
    """A table that was read.

    Attributes:
        records: one per row, in row order.
        audio: the columns of audio files that were read, under the table's own names.
        captions: the columns of captions that were read.
        encoding: of the text; "" for parquet.
        columns: all columns of the table.
    """

    path: Path
    records: list[Record]
    audio: tuple[str, ...]
    captions: tuple[str, ...]
    encoding: str
    columns: tuple[str, ...]

    @property
    def summary(self) -> str:
        """The table and its columns in words: "a table of 89 rows: sound from 'path', caption from 'text', encoded in
        cp1252"."""
        captions = f"caption from {quote_columns(self.captions)}" if self.captions else "no column of captions"
        encoding = f", encoded in {self.encoding}" if self.encoding not in ("", UTF_8) else ""
        rows = "1 row" if len(self.records) == 1 else f"{len(self.records)} rows"
        return f"a table of {rows}: sound from {quote_columns(self.audio)}, {captions}{encoding}"


def quote_columns(columns: tuple[str, ...]) -> str:
    """Join column names, each in quotes."""
    return ", ".join(f"'{column}'" for column in columns)


def read_table(path: str | os.PathLike[str], *, captions_needed: bool = True) -> list[Record]:
    """Return the records of a table; see `open_table`."""
    return open_table(path, captions_needed=captions_needed).records


def open_table(
    path: str | os.PathLike[str],
    *,
    columns: ColumnChoice = ColumnChoice(),
    captions_needed: bool = False,
    root: Path | None = None,
) -> SoundTable:
    """Read one record per row, in row order.

    Defaults: the group is the Freesound user or the YouTube video where the row names one, otherwise the file; the id
    is the file as the table writes it, the source the table's name. A row without captions gives a record with
    captions=(); blank rows are skipped.

    Args:
        root: the folder that is searched for audio files; the default is the table's.

    Raises DataError when the table is missing or cannot be read, has no rows, has no column of files (or captions, if
    they are needed), or has rows that name no file.
    """
    table = Path(path)
    present, rows, encoding = _read_rows(table)
    if not rows:
        raise DataError(f"{table}: the table has no rows, expected one row for each sound.")
    _check_present(table, present, columns)
    column_map = ColumnMap.of(present, columns.captions)
    file_columns, locate = _find_files(table, column_map, rows, wanted=columns.audio, root=root)
    if captions_needed and not column_map.captions:
        raise DataError(
            f"{table}: no column holds captions. Found: {', '.join(present)}; "
            "expected captions, caption, text, or caption1, caption2 and so on."
        )
    records = [_record(column_map, file_columns, locate, row, table) for row in rows]
    nameless = [number for number, record in enumerate(records, 1) if record is None]
    if nameless:
        raise DataError(
            f"{table}: {len(nameless)} rows name no file (the first is row {nameless[0]}, header and blank "
            f"rows not counted). Fill in their '{column_map.names[file_columns[0]]}' or delete the rows."
        )
    return SoundTable(
        table,
        [record for record in records if record is not None],
        tuple(column_map.names[name] for name in file_columns),
        tuple(column_map.names[name] for name in column_map.captions),
        encoding,
        tuple(present),
    )


def read(root: Root) -> Iterator[Record]:
    """Return the records of the table at `root`. Captions are optional: rules make them from titles and tags later."""
    return iter(open_table(root).records)


def _check_present(table: Path, present: list[str], columns: ColumnChoice) -> None:
    """Raise DataError for a chosen column that the table lacks."""
    wanted = (*columns.captions, *((columns.audio,) if columns.audio else ()))
    known = {normalise_column(name) for name in present}
    if missing := [name for name in wanted if normalise_column(name) not in known]:
        raise DataError(f"{table}: has no column '{missing[0]}'. Found: {', '.join(present)}.")


class _FileIndex:
    """The audio files under a folder by name, with and without suffix. A name that two files share finds neither."""

    def __init__(self, folder: Path) -> None:
        self._by_name: dict[str, Path | None] = {}
        self._by_stem: dict[str, Path | None] = {}
        for path in islice(audio_files(folder), MOST_FILES):
            # None marks a name that is taken twice, so that captions are never given to the wrong file.
            self._by_name[path.name] = None if path.name in self._by_name else path
            self._by_stem[path.stem] = None if path.stem in self._by_stem else path

    @property
    def is_empty(self) -> bool:
        return not self._by_name

    def find(self, file: str) -> Path | None:
        """Find the file that a table names, whatever its folder and suffix; WavCaps puts a "Y" before YouTube ids."""
        name = PurePosixPath(file.replace("\\", "/")).name
        stem = PurePosixPath(name).stem if PurePosixPath(name).suffix.lower() in AUDIO_AND_VIDEO_SUFFIXES else name
        return self._by_name.get(name) or self._by_stem.get(stem) or self._by_stem.get(f"Y{stem}")


Locate = Callable[[str], Path]
"""Returns the path of a file that a table names."""


def _find_files(
    table: Path, column_map: ColumnMap, rows: TableRows, *, wanted: str, root: Path | None
) -> tuple[tuple[str, ...], Locate]:
    """Choose the columns that name the audio files, by preference, and how their paths are found.

    Tried in this order: paths from the table's folder, paths from `root`, names of files anywhere under the root, ids
    in any column, URLs. Raises DataError when nothing fits.
    """
    names = (normalise_column(wanted),) if wanted else tuple(name for name in FILES if name in column_map.names)
    if names:
        filled = [text for row in rows[:SAMPLED_ROWS] if (text := column_map.text(row, *names))]
        paths = [text for text in filled if "://" not in text]
        only_urls = bool(filled) and not paths
        if only_urls or any(_is_file(table.parent / path) for path in paths):
            return names, lambda file: table.parent / file
        if root and any(_is_file(root / path) for path in paths):
            return names, lambda file: root / file
    # Last of all, because it lists every file under the folder.
    index = _FileIndex(root or table.parent)

    def locate(file: str) -> Path:
        # A file that is nowhere keeps the table's path, so that errors name what the user wrote.
        return index.find(file) or table.parent / file

    if names and (wanted or any(index.find(text) for row in rows if (text := column_map.text(row, *names)))):
        return names, locate
    # WavCaps has a column 'audio' of placeholders beside the ids that name its files.
    if best := _column_of_file_names(column_map, rows, index):
        return (best,), locate
    if names:
        return names, locate
    if "url" in column_map.names:
        return ("url",), lambda file: table.parent / file
    present = list(column_map.names.values())
    raise DataError(
        f"{table}: no column says where the sounds are. Found: {', '.join(present) or 'none'}; "
        f"expected one of: {', '.join(FILES[:6])}.{_missing_header_hint(present)}"
    )


def _column_of_file_names(column_map: ColumnMap, rows: TableRows, index: _FileIndex) -> str | None:
    """Return the column with most cells that name existing files: an id, or any other where most cells do."""
    if index.is_empty:
        return None
    share = {}
    for name in column_map.names:
        texts = [text for row in rows if (text := column_map.text(row, name))]
        share[name] = sum(index.find(text) is not None for text in texts) / (len(texts) or 1)
    ids = [name for name in IDS if share.get(name)]
    others = [name for name in share if share[name] >= LEAST_NAMED]
    return max(ids or others, key=lambda name: share[name], default=None)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # the name is too long or holds a null byte
        return False


def _missing_header_hint(present: list[str]) -> str:
    """Return a hint where the first row is no header."""
    if any(PurePosixPath(name).suffix.lower() in AUDIO_AND_VIDEO_SUFFIXES for name in present):
        return " The first row seems to be a sound already: put a header above it, such as file,caption."
    return ""


def _record(
    column_map: ColumnMap, file_columns: tuple[str, ...], locate: Locate, row: TableRow, table: Path
) -> Record | None:
    """Turn a row into a record; None if it names no file."""
    file = column_map.text(row, *file_columns)
    if file is None:
        return None
    audio = file if "://" in file else locate(file)
    values = {
        "id": file,
        "source": table.stem,
        "group": audio if isinstance(audio, str) else _group_name(table, audio),
        **column_map.values(row),
        "audio": audio,
    }
    if values.get("link") == file:
        del values["link"]  # the address of the audio, not of a page about it
    return Record(**values)


def _group_name(table: Path, audio: Path) -> str:
    """Return one name for one file, however the table writes it: its path from the table's folder."""
    folder = table.parent.absolute()
    return Path(os.path.relpath(audio.absolute(), folder)).as_posix()


def _read_rows(table: Path) -> tuple[list[str], TableRows, str]:
    """Return the columns, the rows that are not blank, and the encoding of the text."""
    kinds = ", ".join(_READERS)
    if table.is_dir():
        tables = sorted(path.name for path in table.iterdir() if path.suffix.lower() in _READERS)
        there = f"In it are: {join_first(tables)}" if tables else "None is in it"
        raise DataError(f"{table}: is a folder, expected one table ({kinds}). {there}.")
    if not table.is_file():
        raise DataError(f"{table}: no such file, expected a table of sounds and captions.")
    reader = _READERS.get(table.suffix.lower())
    if reader is None:
        raise DataError(f"{table}: cannot read a table of this kind, expected one of: {kinds}.")
    try:
        content = table.read_bytes()
        if not content:
            raise DataError(f"{table}: the table is empty (0 bytes), expected one row for each sound.")
        columns, rows, encoding = reader(table, content)
    except OSError as error:
        raise DataError(f"{table}: cannot be read ({error.strerror or error}).") from error
    except RecursionError:
        raise DataError(f"{table}: is nested too deeply, expected one plain object for each sound.") from None
    return columns, [row for row in rows if any(cell_texts(value) for value in row.values())], encoding


def _text(table: Path, content: bytes) -> tuple[str, str]:
    try:
        return decode_text(content)
    except ValueError as error:
        raise DataError(f"{table}: cannot be read as text ({error}). Save it again as UTF-8.") from error


def _with_polars(table: Path, read: Callable[[Any], Any]) -> tuple[list[str], TableRows]:
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


def _csv(table: Path, content: bytes) -> tuple[list[str], TableRows, str]:
    text, encoding = _text(table, content)
    separator = guess_separator(text)
    # Commas in captions would outnumber the tabs.
    if table.suffix.lower() == ".tsv" and "\t" in text.split("\n", 1)[0]:
        separator = "\t"
    encoded = io.BytesIO(content if encoding == UTF_8 else text.encode())  # polars reads UTF-8 only
    columns, rows = _with_polars(
        table, lambda polars: polars.read_csv(encoded, infer_schema=False, separator=separator)
    )
    return columns, rows, encoding


def _parquet(table: Path, content: bytes) -> tuple[list[str], TableRows, str]:
    return *_with_polars(table, lambda polars: polars.read_parquet(io.BytesIO(content))), ""


def _json(table: Path, content: bytes) -> tuple[list[str], TableRows, str]:
    """Read one JSON value or one per line, whichever the suffix: people give either suffix to both."""
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


def _lines(table: Path, text: str) -> TableRows:
    """Read JSON lines without polars, which turns a list into its text where other rows hold plain text."""
    rows: TableRows = []
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


def _objects(table: Path, value: Any) -> TableRows:
    """Return the rows of a JSON value: a list of objects, the longest such list in an object, columns, or values by
    file."""
    if isinstance(value, dict):
        # The longest list: WavCaps puts small lists of settings beside the data.
        lists = [inner for inner in value.values() if isinstance(inner, list) and inner and isinstance(inner[0], dict)]
        value = max(lists, key=len) if lists else _by_column(value) or _by_file(value)
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise DataError(f'{table}: holds no list of objects, expected [{{"file": …, "caption": …}}, …].')
    return value


def _by_column(value: dict[str, Any]) -> TableRows | None:
    """Return the rows of {"file": [...], "caption": [...]}, or {"file": {"0": …}, …}, as pandas writes tables."""
    if not any(normalise_column(name) in (*FILES, *IDS) for name in value):
        return None
    columns = {name: list(cells.values()) if isinstance(cells, dict) else cells for name, cells in value.items()}
    if not all(isinstance(cells, list) for cells in columns.values()):
        return None
    if len({len(cells) for cells in columns.values()}) > 1:
        return None
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def _by_file(value: dict[str, Any]) -> TableRows | None:
    """Return the rows of {"a.wav": "A dog."}, {"a.wav": ["A dog.", …]} or {"a.wav": {"caption": …}}."""
    if all(isinstance(facts, dict) for facts in value.values()):
        return [{"file": file, **facts} for file, facts in value.items()]
    if all(isinstance(texts, (str, list)) for texts in value.values()):
        return [
            {"file": file, "captions": [texts] if isinstance(texts, str) else texts} for file, texts in value.items()
        ]
    return None


_READERS: dict[str, Callable[[Path, bytes], tuple[list[str], TableRows, str]]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _json,
    ".ndjson": _json,
    ".json": _json,
    ".parquet": _parquet,
}
TABLE_SUFFIXES = tuple(_READERS)

SOURCE = Source(
    name="table",
    title="A table",
    read=read,
    page="docs/howto/add-a-source.md",
    needs="one CSV, TSV, JSON, JSON lines or parquet file with a column file, path, audio, file_name or url.",
    licence="as its column says",
)
