"""A folder of the Hugging Face library `datasets`: tables with sounds inside, or sounds with a metadata file.

Parquet, as `push_to_hub` and `to_parquet` write it, or Arrow, as `save_to_disk` does: a column of structures
`{bytes, path}` holds the sounds, the rest is matched by name (`fields`); numbers of a ClassLabel become its names.
Sounds inside are written out once (`embedded`).

`audiofolder`: `metadata.csv`, `metadata.jsonl` or `metadata.parquet` with `file_name`, from its own folder; without
one, the folder that a sound lies in is its label, as `datasets` has it. Splits are read from names (`splits`).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from openclap.errors import DataError, require
from openclap.sources.embedded import default_folder, group_of, write_out
from openclap.sources.fields import Fields
from openclap.sources.layout import DamagedTableError, files_under, inside, log, parquet_columns, parquet_rows, sounds
from openclap.sources.record import Record
from openclap.sources.source import Root, Source
from openclap.sources.splits import WORDS, split_of, split_of_folders
from openclap.sources.text import read_text, separator_of

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
SAVED = ("dataset_dict.json", "dataset_info.json", "state.json")
"""What `save_to_disk` writes beside Arrow files."""
_BATCH = 16
"""Rows at once, for each may hold a sound of megabytes."""

Columns = dict[str, Any]
_Rows = Iterator[tuple[Any, ...]]


def read(root: Root, *, cache: Path | None = None, captions: tuple[str, ...] = ()) -> Iterator[Record]:
    """Records, file by file; `cache` is where sounds inside tables are written out, `captions` which columns hold
    captions where their names do not say so. `root` may be a single table.

    A table that is damaged or has no column of sounds is logged, and the others are read.
    """
    place = Path(root)
    folder = place.parent if place.is_file() else place
    metadata = metadata_of(place)
    if (tables := tables_of(place)) and not (metadata and not any(map(has_sounds, tables))):
        return (each for table in tables for each in _from_table(folder, table, cache or default_folder(), captions))
    if metadata:
        return (record for path in metadata for record in _from_metadata(folder, path, captions))
    if place.is_dir() and (found := list(sounds(folder))):
        return _from_folders(folder, found)
    raise SOURCE.missing(root, "*.parquet", "*.arrow", *METADATA, "sounds")


def tables_of(root: Path) -> list[Path]:
    """The tables in which a data set holds its sounds: parquet, or Arrow files as `save_to_disk` writes them."""
    if root.is_file():
        return [root] if root.suffix in (".parquet", ".arrow") else []
    files = sorted(files_under(root))
    parquet = [path for path in files if path.suffix == ".parquet" and path.name not in METADATA]
    return parquet or [path for path in files if path.suffix == ".arrow" and not path.name.startswith("cache-")]


def metadata_of(root: Path) -> list[Path]:
    """The files that say of sounds what they are, as `audiofolder` has them."""
    if root.is_file():
        return [root] if root.name in METADATA else []
    found = sorted(files_under(root))
    return [path for name in METADATA for path in found if path.name == name]


def names_files(metadata: Path) -> bool:
    """Does metadata say of `file_name` what it is? Other collections call their tables so, too."""
    there = columns_in(metadata)
    return "file_name" in there or not there


def columns_in(metadata: Path) -> tuple[str, ...]:
    """The columns of the first row; () for a file that is damaged, which whoever reads it says."""
    try:
        return tuple(next(_metadata_rows(metadata), {}))
    except DataError:
        return ()


def columns_of(table: Path) -> Columns:
    """The columns of a parquet or Arrow file, with their types. Raises DamagedTableError."""
    if table.suffix != ".arrow":
        return parquet_columns(table)[0]
    return dict(_arrow(table, rows=1).schema)


def has_sounds(table: Path) -> bool:
    """Does one of a parquet or Arrow file's columns hold sounds?"""
    try:
        return any(map(holds_sounds, columns_of(table).values()))
    except DamagedTableError:
        return False


def _opened(table: Path) -> tuple[Columns, dict[str, str], Callable[[list[str]], _Rows]]:
    """A table's columns with their types, the notes of its writer, and the cells of columns, row by row."""
    if table.suffix != ".arrow":
        columns, notes = parquet_columns(table)
        return columns, notes, lambda names: parquet_rows(table, names[:1], names[1:], batch=_BATCH)
    frame = _arrow(table)
    return dict(frame.schema), _saved_notes(table), lambda names: iter(frame.select(names).iter_rows())


def _arrow(table: Path, rows: int | None = None) -> Any:
    polars = require("polars", "data")
    try:
        return polars.read_ipc_stream(table, n_rows=rows)
    except (OSError, polars.exceptions.PolarsError) as error:
        why = next(iter(str(error).splitlines()), "no reason was given").rstrip(".")
        raise DamagedTableError(f"{table}: cannot be read as Arrow ({why}). Save the data set again.") from error


def _saved_notes(table: Path) -> dict[str, str]:
    """What `save_to_disk` writes of a data set's columns beside its Arrow files, as parquet files hold it."""
    try:
        return {"huggingface": json.dumps({"info": json.loads((table.parent / "dataset_info.json").read_bytes())})}
    except (OSError, ValueError):
        return {}


def _from_table(root: Path, table: Path, cache: Path, captions: tuple[str, ...]) -> Iterator[Record]:
    name = inside(root, table)
    try:
        columns, notes, cells_of = _opened(table)
        sound = next((column for column, kind in columns.items() if holds_sounds(kind)), None)
        if sound is None:
            log.warning("%s: has no column of sounds ({bytes, path}) and was left out.", table)
            return
        rest = [column for column in columns if column != sound]
        classes, fields = _class_names(notes), Fields.of(rest, captions)
        for place, (cell, *cells) in enumerate(cells_of([sound, *rest])):
            path, content = (cell["path"] or "", cell["bytes"]) if cell else ("", None)
            if not path and not content:
                log.warning("%s: row %d holds no sound and was left out.", table, place)
                continue
            row = {column: _named(value, classes.get(column)) for column, value in zip(rest, cells, strict=True)}
            audio = write_out(content, path, cache) if content else table.parent / path
            group = group_of(audio) if content else f"{root.resolve().name}:{path}"
            identity = {"id": path or f"{name}/{place}", "source": root.resolve().name, "group": group}
            yield Record(**{**identity, "split": split_of(name), **fields.values(row), "audio": audio})
    except DamagedTableError as error:
        log.warning("%s", error)


def holds_sounds(kind: Any) -> bool:
    """Is a column's type the structure that `datasets` stores sounds as?"""
    return {field.name for field in getattr(kind, "fields", ())} == {"bytes", "path"}


def _class_names(notes: dict[str, str]) -> dict[str, list[str]]:
    """The names behind numbers, by column, from what `datasets` writes into the file."""
    try:
        features = json.loads(notes.get("huggingface", "{}"))["info"]["features"]
        return {column: names for column, feature in features.items() if (names := _names(feature))}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _names(feature: Any) -> list[str] | None:
    """The names of a ClassLabel, or of a list of them, in any of the forms that versions of `datasets` write."""
    if isinstance(feature, list):
        return _names(feature[0]) if feature else None
    if not isinstance(feature, dict):
        return None
    return feature.get("names") if feature.get("_type") == "ClassLabel" else _names(feature.get("feature"))


def _named(value: Any, names: Sequence[str] | None) -> Any:
    """A cell with the names in place of the numbers."""
    if names is None or value is None:
        return value
    if isinstance(value, (list, tuple)):
        return [_named(each, names) for each in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None


def _from_metadata(root: Path, metadata: Path, captions: tuple[str, ...]) -> Iterator[Record]:
    """A row of metadata says of `file_name`, from its own folder; rows without one are logged and left out."""
    lost = 0
    for row in _metadata_rows(metadata):
        file = row.get("file_name")
        if not isinstance(file, str) or not file.strip():
            lost += 1
            continue
        name = (metadata.parent.relative_to(root) / file).as_posix()
        values = Fields.of(row, captions).values(row)
        identity = {"id": name, "source": root.resolve().name, "group": f"{root.resolve().name}:{name}"}
        yield Record(**{**identity, "split": split_of_folders(name), **values, "audio": metadata.parent / file})
    if lost:
        log.warning("%s: %d rows have no file_name and were left out.", metadata, lost)


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
            yield from csv.DictReader(io.StringIO(text, newline=""), restkey="", delimiter=separator_of(text))
        except csv.Error as error:
            raise DataError(f"{metadata}: cannot be read as CSV ({error}). Save it again.") from error
        return
    for line in text.split("\n"):
        try:
            row = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError):
            row = {}
        if row is not None:
            yield row if isinstance(row, dict) else {}


def _from_folders(root: Path, found: Sequence[Path]) -> Iterator[Record]:
    """Sounds alone: folders are labels where all sounds lie equally deep and the folders are not only splits."""
    names = [inside(root, path) for path in found]
    parents = {path.parent.name for path in found if path.parent != root}
    splits = {word for words in WORDS.values() for word in words}
    labelled = len({name.count("/") for name in names}) == 1 and len(parents) > 1 and not parents <= splits
    for path, name in zip(found, names, strict=True):
        yield Record(
            id=name,
            audio=path,
            captions=(),
            source=root.resolve().name,
            label=path.parent.name if labelled else None,
            group=f"{root.resolve().name}:{name}",
            title=path.name,
            split=split_of_folders(name),
        )


SOURCE = Source(
    name="hugging_face",
    title="A Hugging Face data set",
    read=read,
    page="https://huggingface.co/docs/datasets/audio_dataset",
    needs="parquet or Arrow files with a column of sounds; or sounds with metadata.csv, metadata.jsonl or "
    "metadata.parquet, or a folder a label.",
    licence="as its column says",
)
