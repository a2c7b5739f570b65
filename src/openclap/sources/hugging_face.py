"""A folder of the Hugging Face library `datasets`: parquet with sounds inside, or sounds with a metadata file.

Parquet, as `push_to_hub` and `to_parquet` write it: a column of structures `{bytes, path}` holds the sounds, the rest
is matched by name (`fields`; `text` is a caption too); numbers of a ClassLabel become its names. Sounds inside are
written out once (`embedded`).

`audiofolder`: `metadata.csv` or `metadata.jsonl` with `file_name`, from its own folder; without one, the folder that a
sound lies in is its label, as `datasets` has it. Splits are read from names (`splits`).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from openclap.errors import DataError
from openclap.sources.embedded import default_folder, group_of, write_out
from openclap.sources.fields import Fields
from openclap.sources.layout import DamagedTableError, inside, log, parquet_columns, parquet_rows, sounds
from openclap.sources.record import Record
from openclap.sources.source import Root, Source
from openclap.sources.splits import WORDS, split_of, split_of_folders

METADATA = ("metadata.csv", "metadata.jsonl")
_CAPTIONS = ("text",)
_BATCH = 16
"""Rows at once, for each may hold a sound of megabytes."""


def read(root: Root, *, cache: Path | None = None) -> Iterator[Record]:
    """Records, file by file; `cache` is where sounds inside parquet files are written out.

    A parquet file that is damaged or has no column of sounds is logged, and the others are read.
    """
    folder = Path(root)
    if tables := sorted(folder.rglob("*.parquet")):
        return (record for table in tables for record in _from_parquet(folder, table, cache or default_folder()))
    if metadata := [path for name in METADATA for path in sorted(folder.rglob(name))]:
        return (record for path in metadata for record in _from_metadata(folder, path))
    if found := list(sounds(folder)):
        return _from_folders(folder, found)
    if next(folder.rglob("*.arrow"), None):
        raise DataError(
            f"{root}: holds Arrow files, as save_to_disk writes them. "
            "Write parquet instead: datasets.load_from_disk(…).to_parquet(…) for each split."
        )
    raise SOURCE.missing(root, "*.parquet", *METADATA, "sounds")


def _from_parquet(root: Path, table: Path, cache: Path) -> Iterator[Record]:
    name = inside(root, table)
    try:
        columns, notes = parquet_columns(table)
        sound = next((column for column, kind in columns.items() if _holds_sounds(kind)), None)
        if sound is None:
            log.warning("%s: has no column of sounds ({bytes, path}) and was left out.", table)
            return
        rest = [column for column in columns if column != sound]
        classes, fields = _class_names(notes), Fields.of(rest, _CAPTIONS)
        for place, (cell, *cells) in enumerate(parquet_rows(table, [sound, *rest], batch=_BATCH)):
            path, content = cell["path"] or "", cell["bytes"]
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


def _holds_sounds(kind: Any) -> bool:
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


def _from_metadata(root: Path, metadata: Path) -> Iterator[Record]:
    """A row of metadata says of `file_name`, from its own folder; rows without one are logged and left out."""
    lost = 0
    for row in _metadata_rows(metadata):
        file = row.get("file_name")
        if not isinstance(file, str) or not file.strip():
            lost += 1
            continue
        name = (metadata.parent.relative_to(root) / file).as_posix()
        values = Fields.of(row, _CAPTIONS).values(row)
        identity = {"id": name, "source": root.resolve().name, "group": f"{root.resolve().name}:{name}"}
        yield Record(**{**identity, "split": split_of_folders(name), **values, "audio": metadata.parent / file})
    if lost:
        log.warning("%s: %d rows have no file_name and were left out.", metadata, lost)


def _metadata_rows(metadata: Path) -> Iterator[dict[str, Any]]:
    with metadata.open(encoding="utf-8-sig", errors="openclap-latin-1", newline="") as file:
        if metadata.suffix == ".csv":
            try:
                yield from csv.DictReader(file, restkey="")
            except csv.Error as error:
                raise DataError(f"{metadata}: cannot be read as CSV ({error}). Save it again.") from error
            return
        for line in file:
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
    needs="parquet files with a column of sounds; or sounds with metadata.csv or metadata.jsonl, or a folder a label.",
    licence="as its column says",
)
