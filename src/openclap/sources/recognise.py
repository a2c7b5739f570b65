"""Recognise the form of a collection: a table, a folder, a Hugging Face data set or shards, and choose its source.

All commands share this function, and print the result before they begin.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from openclap.errors import ConfigError, DataError
from openclap.sources import SOURCES, Record, hugging_face, shards
from openclap.sources.fields import Fields
from openclap.sources.layout import SUFFIXES, DamagedTableError, files_under, log, sounds
from openclap.sources.table import TABLES, Columns, Table, named, open_table

MOST_TABLES, LARGEST_TABLE = 20, 2**30
"""Tables beside sounds that are looked into, and bytes of each."""
FITS = 0.5
"""A table says what sounds are when so many of its rows, or of the sounds, are in both."""
_GENERAL = ("folder", "table", "hugging_face", "shards")
_NEEDS_ONLY_SOUNDS = (
    *_GENERAL,
    *("free_to_use_sounds", "sonniss_game_effects", "paramount_motion", "we_sound_effects", "gtzan"),
)


@dataclass(frozen=True, slots=True)
class Reading:
    """How something is read, where that is not left to `recognise`.

    Attributes:
        source: a name in SOURCES; None for whatever is recognised.
        columns: which columns of a table hold what.
    """

    source: str | None = None
    columns: Columns = field(default_factory=Columns)


@dataclass(frozen=True, slots=True)
class Recognised:
    """A collection, and the source that reads it.

    Attributes:
        source: the name in SOURCES.
        read: the records, from the first on at each call.
        said: what was recognised, in a sentence.
        unread: tables among the sounds that the source does not read.
    """

    path: Path
    source: str
    read: Callable[[], Iterator[Record]]
    said: str
    unread: tuple[Path, ...] = ()
    columns: tuple[str, ...] = ()
    """Of tables without captions, those that may hold some."""


def recognise(path: Path, reading: Reading = Reading()) -> Recognised:
    """Choose the source that reads the collection at `path`.

    Raises DataError for nothing that could be read, and for several tables that speak of the same sounds; ConfigError
    for an unknown source, and for columns where there is no table.
    """
    if reading.source is not None and reading.source not in SOURCES:
        raise ConfigError(f"--source is {reading.source!r}, expected one of: {', '.join(SOURCES)}.")
    if not path.exists():
        raise DataError(
            f"{path}: no such file or folder. Expected a folder of sounds, a table ({', '.join(TABLES)}), a Hugging "
            "Face data set, or shards."
        )
    found = (
        _by_name(path, reading)
        if reading.source
        else _file(path, reading)
        if path.is_file()
        else _folder(path, reading)
    )
    if reading.columns != Columns() and found.source not in ("table", "hugging_face"):
        raise ConfigError(f"{path}: was read as {SOURCES[found.source].title.lower()}, which has no columns to name.")
    return found


def _by_name(path: Path, reading: Reading) -> Recognised:
    assert reading.source is not None
    if reading.source == "table":
        return _table(path, path, [open_table(path, columns=reading.columns)])
    if reading.source == "hugging_face":
        return _hugging_face(path, reading)
    source = SOURCES[reading.source]
    return Recognised(path, source.name, lambda: source.read(path), f"Read {path} as {source.title}.")


def _file(path: Path, reading: Reading) -> Recognised:
    if path.suffix.lower() == ".tar":
        return _shards(path)
    if path.suffix.lower() in SUFFIXES:
        raise DataError(f"{path}: is one sound, expected a folder of sounds, a table, or shards.")
    if path.suffix in (".parquet", ".arrow") and hugging_face.has_sounds(path):
        return _hugging_face(path, reading)
    return _table(path, path, [open_table(path, columns=reading.columns)])


def _folder(root: Path, reading: Reading) -> Recognised:
    found = _survey(root)
    if found.with_sounds or found.saved or found.metadata:
        return _hugging_face(root, reading)
    if found.tars and not found.sounds:
        return _shards(root)
    if not found.sounds:
        others = f" Its tables can be given in place of the folder: {found.tables[0]}." if found.tables else ""
        raise DataError(
            f"{root}: holds no sounds. Expected sound files in any folders (.wav, .flac, .mp3, .ogg, …), parquet or "
            f"Arrow files of a Hugging Face data set, or WebDataset tars.{others}"
        )
    tables = [] if 2 * found.noted >= found.sounds else _tables_of(root, found, reading)
    unread = tuple(path for path in (*found.tables, *found.tars) if path not in {table.path for table in tables})
    if tables:
        return _table(root, root, tables, unread)
    names = found.sounds - found.noted
    beside = f"captions from NAME.txt or NAME.json beside {found.noted}" if found.noted else ""
    from_names = f"from the names of {names}" if found.noted else "captions from their names"
    said = ", ".join(filter(None, (beside, from_names if names else "")))
    text = f"Read {root} as a folder of {found.sounds} sound{'s' * (found.sounds > 1)}: {said}."
    return Recognised(root, "folder", lambda: SOURCES["folder"].read(root), text, unread)


@dataclass(slots=True)
class _Survey:
    """What lies in a folder; `noted` counts sounds with a file of notes beside them."""

    sounds: int = 0
    noted: int = 0
    tables: list[Path] = field(default_factory=list)
    tars: list[Path] = field(default_factory=list)
    metadata: list[Path] = field(default_factory=list)
    saved: list[Path] = field(default_factory=list)
    """What `save_to_disk` wrote."""
    with_sounds: list[Path] = field(default_factory=list)


def _survey(root: Path) -> _Survey:
    """What a folder holds, hidden files and folders left out; sounds are found as the sources find them."""
    found, stems = _Survey(), set()
    for path in sounds(root):
        found.sounds += 1
        stems.add(path.with_suffix(""))
        found.noted += any(path.with_suffix(suffix).is_file() for suffix in (".txt", ".json"))
    for path in files_under(root):
        suffix = path.suffix.lower()
        if suffix == ".json" and path.with_suffix("") in stems:
            continue
        if suffix == ".arrow" or path.name in hugging_face.SAVED:
            found.saved += [path] if suffix == ".arrow" else []
        elif suffix == ".tar":
            found.tars.append(path)
        elif suffix == ".parquet" and hugging_face.has_sounds(path):
            found.with_sounds.append(path)
        elif path.name in hugging_face.METADATA and hugging_face.names_files(path):
            found.metadata.append(path)
        elif suffix in TABLES:
            found.tables.append(path)
    return found


def _hugging_face(path: Path, reading: Reading) -> Recognised:
    captions, columns = reading.columns.captions, tuple[str, ...]()
    tables, metadata = hugging_face.tables_of(path), hugging_face.metadata_of(path)
    if tables and not (metadata and not any(map(hugging_face.has_sounds, tables))):
        of_columns, columns = _said_of_columns(tables, captions)
        said = f"{len(tables)} {tables[0].suffix[1:]} file{'s' * (len(tables) > 1)}{of_columns}"
    elif metadata:
        fields = Fields.of(hugging_face.columns_in(metadata[0]), captions)
        texts = tuple(fields.names[name] for name in fields.captions)
        columns = () if texts else tuple(name for name in fields.names.values() if name != "file_name")
        files = ", ".join(dict.fromkeys(each.name for each in metadata))
        said = (
            f"{files}: sound from 'file_name', {f'caption from {named(texts)}' if texts else 'no column of captions'}"
        )
    else:
        said = "a folder for each label"
    text = f"Read {path} as a Hugging Face data set ({said})."
    return Recognised(path, "hugging_face", lambda: hugging_face.read(path, captions=captions), text, (), columns)


def _said_of_columns(tables: Sequence[Path], captions: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Where sounds and captions are, and, without any captions, the columns that may hold some."""
    for table in tables:
        try:
            columns = hugging_face.columns_of(table)
        except DamagedTableError:
            continue
        sound = next((name for name, kind in columns.items() if hugging_face.holds_sounds(kind)), None)
        if sound is not None:
            fields = Fields.of([name for name in columns if name != sound], captions)
            said = tuple(fields.names[name] for name in fields.captions)
            text = f": sound from '{sound}', {f'caption from {named(said)}' if said else 'no column of captions'}"
            return text, () if said else tuple(fields.names.values())
    return "", ()


def _shards(path: Path) -> Recognised:
    tars = shards.tars_of(path)
    if not tars:
        raise DataError(f"{path}: holds no tar that is a file. Expected WebDataset tars, with N.flac and N.json.")
    first = next((sample for tar in tars for sample in shards.samples_of(tar)), None)
    said = ""
    if first is not None:
        texts = " and ".join(name for name, there in ((".json", first.json), (".txt", first.text)) if there)
        said = f": sound from {Path(first.sound[0]).suffix}, caption from {texts}"
    text = f"Read {path} as WebDataset shards ({len(tars)} tar{'s' * (len(tars) > 1)}{said})."
    return Recognised(path, "shards", lambda: SOURCES["shards"].read(path), text)


def _table(path: Path, root: Path, tables: Sequence[Table], unread: tuple[Path, ...] = ()) -> Recognised:
    said = "; ".join(f"{each.said}{'' if each.path == root else f' ({each.path.name})'}" for each in tables)
    records = [record for table in tables for record in table.records]
    bare = [table for table in tables if not table.captions]
    columns = tuple(name for table in bare for name in table.columns if name not in table.audio)
    return Recognised(path, "table", lambda: iter(records), f"Read {path} as {said}.", unread, columns)


def _tables_of(root: Path, found: _Survey, reading: Reading) -> list[Table]:
    """The tables among sounds that hold captions of these sounds. Raises DataError where two speak of the same."""
    fitting = [
        table
        for path in found.tables
        if (table := fitting_table(path, root, found.sounds, reading.columns)) and table.captions
    ]
    spoken: dict[Path, Path] = {}
    for table in fitting:
        for audio in {record.audio for record in table.records if isinstance(record.audio, Path)}:
            if (other := spoken.setdefault(audio, table.path)) != table.path:
                raise DataError(
                    f"{root}: {other.name} and {table.path.name} both say what {audio.name} is. Give one of them in "
                    f"place of the folder: {other}, or {table.path}."
                )
    return fitting


def fitting_table(path: Path, root: Path, sounds_there: int, columns: Columns | None = None) -> Table | None:
    """A table that speaks of the sounds under `root`; None for any other file."""
    try:
        if path.stat().st_size > LARGEST_TABLE:
            return None
        table = open_table(path, columns=columns or Columns(), root=root)
    except (DataError, OSError):
        return None
    inside, files = Path(os.path.normpath(root.absolute())), {record.audio for record in table.records}
    there = [
        file
        for file in files
        if isinstance(file, Path) and Path(os.path.normpath(file.absolute())).is_relative_to(inside) and file.is_file()
    ]
    return table if len(there) >= FITS * min(len(files), sounds_there) and there else None


def advice(found: Recognised) -> str:
    """Who else may read what was given: published sets, tables that hold captions of these sounds, folders as labels.

    To be said where captions say nothing; "" where nothing is found.
    """
    if found.columns:
        return f"Its other columns are {named(found.columns)}: name the one with captions, --caption-column NAME."
    if not found.path.is_dir():
        return ""
    said = [
        f"It has the layout of {SOURCES[name].title}: give --source {name}."
        for name in SOURCES
        if name not in _NEEDS_ONLY_SOUNDS and found.source != name and _reads(name, found.path)
    ]
    said += _tables_nearby(found)
    if not said and found.source == "folder" and _folders_are_labels(found.path):
        said.append("If its folders are labels, give --source hugging_face.")
    return " ".join(said[:2])


def _reads(name: str, root: Path) -> bool:
    was, log.disabled = log.disabled, True  # tables of another layout are no fault here
    try:
        return next(SOURCES[name].read(root), None) is not None
    except (DataError, OSError, ValueError):
        return False
    finally:
        log.disabled = was


def _tables_nearby(found: Recognised) -> list[str]:
    """What to do with tables among the sounds, or beside their folder, that speak of these sounds."""
    root = found.path.absolute()
    beside = [path for path in sorted(root.parent.iterdir()) if path.suffix.lower() in TABLES and path.is_file()]
    count = sum(1 for _ in sounds(root))
    said = []
    for path in (*found.unread, *beside)[:MOST_TABLES]:
        if path.suffix.lower() in TABLES and (table := fitting_table(path, root, count)):
            others = tuple(name for name in table.columns if name not in table.audio)
            columns = f"captions in {named(table.captions)}" if table.captions else f"columns: {named(others)}"
            column = "" if table.captions else ", with --caption-column and the name of the column of captions"
            said.append(f"{path} speaks of these sounds ({columns}): give it in place of the folder{column}.")
    return said


def _folders_are_labels(root: Path) -> bool:
    return len({record.label for record in hugging_face.read(root) if record.label}) > 1
