"""Read data sets of the Hugging Face library `datasets`: tables with audio inside, or audio with a metadata file.

Tables are parquet, as `push_to_hub` and `to_parquet` write it, or Arrow, as `save_to_disk` does. A column of structures
`{bytes, path}` holds the audio, the others are matched by name (`columns`); the numbers of a ClassLabel become its
names. Audio inside is extracted to files once (`extracted_audio`).

An `audiofolder` has `metadata.csv`, `metadata.jsonl` or `metadata.parquet` with `file_name`, relative to the metadata;
without one, the folder of a file is its label, as in `datasets`. Splits are read from names (`split_names`).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from openclap.errors import DataError, require
from openclap.sources.columns import ColumnMap
from openclap.sources.extracted_audio import default_folder, extract_audio, own_group
from openclap.sources.files import (
    DamagedTableError,
    audio_files,
    files_under,
    log,
    parquet_columns,
    parquet_rows,
    relative_name,
)
from openclap.sources.record import Record
from openclap.sources.source import Root, Source
from openclap.sources.split_names import SPLIT_WORDS, split_of, split_of_folders
from openclap.sources.text_encoding import guess_separator, read_text

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
SAVE_TO_DISK_FILES = ("dataset_dict.json", "dataset_info.json", "state.json")
"""Files that `save_to_disk` writes beside Arrow files."""
_BATCH = 16
"""Rows that are read at once: few, because each may hold megabytes of audio."""

ColumnTypes = dict[str, Any]
_CellRows = Iterator[tuple[Any, ...]]


def read(root: Root, *, cache: Path | None = None, captions: tuple[str, ...] = ()) -> Iterator[Record]:
    """Yield records, file by file. `root` may be a single table.

    A table that is damaged or has no column of audio is logged, and the others are read.

    Args:
        cache: the folder that audio inside tables is extracted to.
        captions: the columns of captions, where their names do not say so.
    """
    place = Path(root)
    folder = place.parent if place.is_file() else place
    tables, metadata = tables_of(place), metadata_of(place)
    if reads_tables(tables, metadata):
        return (
            record for table in tables for record in _from_table(folder, table, cache or default_folder(), captions)
        )
    if metadata:
        return (record for path in metadata for record in _from_metadata(folder, path, captions))
    if place.is_dir() and (found := list(audio_files(folder))):
        return _from_folders(folder, found)
    raise SOURCE.missing(root, "*.parquet", "*.arrow", *METADATA, "sounds")


def tables_of(root: Path) -> list[Path]:
    """List a data set's tables: parquet, or Arrow files as `save_to_disk` writes them."""
    if root.is_file():
        return [root] if root.suffix in (".parquet", ".arrow") else []
    files = sorted(files_under(root))
    parquet = [path for path in files if path.suffix == ".parquet" and path.name not in METADATA]
    # A data set that was pushed to the hub and saved to disk in one folder is there twice: parquet is preferred.
    # Files named cache-… are results of datasets' map().
    return parquet or [path for path in files if path.suffix == ".arrow" and not path.name.startswith("cache-")]


def metadata_of(root: Path) -> list[Path]:
    """List the metadata files of an `audiofolder`."""
    if root.is_file():
        return [root] if root.name in METADATA else []
    found = sorted(files_under(root))
    return [path for name in METADATA for path in found if path.name == name]


def reads_tables(tables: Sequence[Path], metadata: Sequence[Path]) -> bool:
    """Return whether a data set is read from its tables, and not from its metadata.

    Parquet files without audio beside a metadata file hold other facts; the metadata describes the audio files then.
    """
    return bool(tables) and (not metadata or any(map(has_audio, tables)))


def describes_files(metadata: Path) -> bool:
    """Return whether a metadata file has a column `file_name`; other collections use the same names of files.

    True for an unreadable file too, so that reading it reports the damage.
    """
    columns = metadata_columns(metadata)
    return "file_name" in columns or not columns


def metadata_columns(metadata: Path) -> tuple[str, ...]:
    """Return the columns of the first row; () for a damaged file."""
    try:
        return tuple(next(_metadata_rows(metadata), {}))
    except DataError:
        return ()


def column_types(table: Path) -> ColumnTypes:
    """Return the columns of a parquet or Arrow file with their types. Raises DamagedTableError."""
    if table.suffix != ".arrow":
        return parquet_columns(table)[0]
    return dict(_read_arrow(table, rows=1).schema)


def has_audio(table: Path) -> bool:
    """Return whether a column of a parquet or Arrow file holds audio."""
    try:
        return any(map(is_audio_type, column_types(table).values()))
    except DamagedTableError:
        return False


def _open_table(table: Path) -> tuple[ColumnTypes, dict[str, str], Callable[[list[str]], _CellRows]]:
    """Return a table's columns with their types, its metadata, and a function that yields the named cells by row."""
    if table.suffix != ".arrow":
        columns, metadata = parquet_columns(table)
        return columns, metadata, lambda names: parquet_rows(table, names[:1], names[1:], batch=_BATCH)
    frame = _read_arrow(table)
    return dict(frame.schema), _saved_metadata(table), lambda names: iter(frame.select(names).iter_rows())


def _read_arrow(table: Path, rows: int | None = None) -> Any:
    polars = require("polars", "data")
    try:
        return polars.read_ipc_stream(table, n_rows=rows)
    except (OSError, polars.exceptions.PolarsError) as error:
        why = next(iter(str(error).splitlines()), "no reason was given").rstrip(".")
        raise DamagedTableError(f"{table}: cannot be read as Arrow ({why}). Save the data set again.") from error


def _saved_metadata(table: Path) -> dict[str, str]:
    """Return the column features that `save_to_disk` writes beside Arrow files, in the form of a parquet file's
    metadata."""
    try:
        return {"huggingface": json.dumps({"info": json.loads((table.parent / "dataset_info.json").read_bytes())})}
    except (OSError, ValueError):
        return {}


def _from_table(root: Path, table: Path, cache: Path, captions: tuple[str, ...]) -> Iterator[Record]:
    name = relative_name(root, table)
    try:
        columns, metadata, cells_of = _open_table(table)
        audio_column = next((column for column, kind in columns.items() if is_audio_type(kind)), None)
        if audio_column is None:
            log.warning("%s: has no column of audio ({bytes, path}) and was left out.", table)
            return
        rest = [column for column in columns if column != audio_column]
        classes, column_map = _class_names(metadata), ColumnMap.of(rest, captions)
        for number, (cell, *cells) in enumerate(cells_of([audio_column, *rest])):
            path, content = (cell["path"] or "", cell["bytes"]) if cell else ("", None)
            if not path and not content:
                log.warning("%s: row %d holds no audio and was left out.", table, number)
                continue
            row = {column: _name_classes(value, classes.get(column)) for column, value in zip(rest, cells, strict=True)}
            # Each row may embed its audio or refer to it; content wins, since the path may be of another machine.
            audio = extract_audio(content, path, cache) if content else table.parent / path
            group = own_group(audio) if content else f"{root.resolve().name}:{path}"
            # Column values override these defaults, but never the file that was found.
            # A table's rows may have no names; table and row number identify them.
            identity = {"id": path or f"{name}/{number}", "source": root.resolve().name, "group": group}
            yield Record(**{**identity, "split": split_of(name), **column_map.values(row), "audio": audio})
    except DamagedTableError as error:
        log.warning("%s", error)


def is_audio_type(kind: Any) -> bool:
    """Return whether a column has the structure that `datasets` stores audio in."""
    return {field.name for field in getattr(kind, "fields", ())} == {"bytes", "path"}


def _class_names(metadata: dict[str, str]) -> dict[str, list[str]]:
    """Return the class names of each ClassLabel column, from the features that `datasets` writes into the file."""
    try:
        features = json.loads(metadata.get("huggingface", "{}"))["info"]["features"]
        return {column: names for column, feature in features.items() if (names := _label_names(feature))}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _label_names(feature: Any) -> list[str] | None:
    """Return the names of a ClassLabel, or of a list of them, in any form that versions of `datasets` write."""
    if isinstance(feature, list):  # one of the forms in which versions of datasets write a list of labels
        return _label_names(feature[0]) if feature else None
    if not isinstance(feature, dict):
        return None
    return feature.get("names") if feature.get("_type") == "ClassLabel" else _label_names(feature.get("feature"))


def _name_classes(value: Any, names: Sequence[str] | None) -> Any:
    """Replace class numbers in a cell by names; unlabelled (-1) and unknown numbers by None."""
    if names is None or value is None:
        return value
    if isinstance(value, (list, tuple)):
        return [_name_classes(item, names) for item in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None


def _from_metadata(root: Path, metadata: Path, captions: tuple[str, ...]) -> Iterator[Record]:
    """Yield a record per row; paths are relative to the metadata. Rows without a file_name are logged and left out."""
    dropped = 0
    for row in _metadata_rows(metadata):
        file = row.get("file_name")
        if not isinstance(file, str) or not file.strip():
            dropped += 1
            continue
        name = (metadata.parent.relative_to(root) / file).as_posix()
        values = ColumnMap.of(row, captions).values(row)
        identity = {"id": name, "source": root.resolve().name, "group": f"{root.resolve().name}:{name}"}
        yield Record(**{**identity, "split": split_of_folders(name), **values, "audio": metadata.parent / file})
    if dropped:
        log.warning("%s: %d rows have no file_name and were left out.", metadata, dropped)


def _metadata_rows(metadata: Path) -> Iterator[dict[str, Any]]:
    if metadata.suffix == ".parquet":
        names = list(parquet_columns(metadata)[0])
        yield from (dict(zip(names, cells, strict=True)) for cells in parquet_rows(metadata, names[:1], names[1:]))
        return
    try:
        text, _ = read_text(metadata)
    except (OSError, ValueError) as error:
        raise DataError(f"{metadata}: cannot be read as text ({error}). Save it again as UTF-8.") from error
    if metadata.suffix == ".csv":
        try:
            # restkey collects surplus cells under a name that no field has
            yield from csv.DictReader(io.StringIO(text, newline=""), restkey="", delimiter=guess_separator(text))
        except csv.Error as error:
            raise DataError(f"{metadata}: cannot be read as CSV ({error}). Save it again.") from error
        return
    for line in text.split("\n"):
        try:
            row = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError):
            row = {}
        if row is not None:
            yield row if isinstance(row, dict) else {}  # an empty row is counted and logged as one without file_name


def _from_folders(root: Path, found: Sequence[Path]) -> Iterator[Record]:
    """Yield records of a folder without tables or metadata.

    Folders are labels if all files are equally deep and not all folders are splits.
    """
    names = [relative_name(root, path) for path in found]
    parents = {path.parent.name for path in found if path.parent != root}
    splits = {word for words in SPLIT_WORDS.values() for word in words}
    are_labels = len({name.count("/") for name in names}) == 1 and len(parents) > 1 and not parents <= splits
    for path, name in zip(found, names, strict=True):
        yield Record(
            id=name,
            audio=path,
            captions=(),
            source=root.resolve().name,
            label=path.parent.name if are_labels else None,
            group=f"{root.resolve().name}:{name}",
            title=path.name,
            split=split_of_folders(name),
        )


SOURCE = Source(
    name="hugging_face",
    title="A Hugging Face data set",
    read=read,
    page="https://huggingface.co/docs/datasets/audio_dataset",
    needs="parquet or Arrow files with a column of audio; or audio files with metadata.csv, metadata.jsonl or "
    "metadata.parquet, or a folder for each label.",
    licence="as its column says",
)
