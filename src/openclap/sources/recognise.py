"""Recognise the form of a collection (a table, a folder, a Hugging Face data set, shards) and choose its source.

All commands that read collections share `recognise`, and print its summary before they begin. Where captions turn out
to be useless, `advice` names what else could read them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from openclap.errors import ConfigError, DataError
from openclap.sources import SOURCES, Record, hugging_face, shards
from openclap.sources.columns import ColumnMap
from openclap.sources.files import AUDIO_AND_VIDEO_SUFFIXES, DamagedTableError, audio_files, files_under, log
from openclap.sources.table import TABLE_SUFFIXES, ColumnChoice, SoundTable, open_table, quote_columns

MOST_TABLES, LARGEST_TABLE = 20, 2**30
"""Limits on the tables beside audio files that are opened to see whether they describe them: how many, and bytes."""
LEAST_OVERLAP = 0.5
"""A table describes a folder's sounds if this share of its rows, or of the sounds, is in both."""
_GENERAL = ("folder", "table", "hugging_face", "shards")
_ANY_FOLDER_FITS = (
    *_GENERAL,
    *("free_to_use_sounds", "sonniss_game_effects", "paramount_motion", "we_sound_effects", "gtzan"),
)
"""Sources that read any folder of audio, so that reading one proves nothing about its layout."""
_UNMISTAKABLE = {
    "wavcaps": ("json_files/*/*_final.json",),
    "audiosetcaps": ("Dataset/*AudioSetCaps_caption.csv", "*AudioSetCaps_caption.csv"),
    "tacos": ("annotations_strong.csv", "annotations_weak.csv"),
}
"""Files by whose names a folder is a published set. As mere tables, these would lose the ids by which clips of
evaluation sets are found."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """A user's choices of how a collection is read.

    Attributes:
        source: a name in SOURCES; None to recognise it.
        columns: the columns of a table that hold files and captions.
    """

    source: str | None = None
    columns: ColumnChoice = field(default_factory=ColumnChoice)


@dataclass(frozen=True, slots=True)
class RecognisedCollection:
    """A collection, and the source that reads it.

    Attributes:
        source: the name in SOURCES.
        read: returns an iterator over all records, anew at each call.
        summary: the recognised form in one sentence.
        unread: tables and tars among the audio files that the source does not read.
        caption_candidates: where a table has no captions, the columns that may hold some.
    """

    path: Path
    source: str
    read: Callable[[], Iterator[Record]]
    summary: str
    unread: tuple[Path, ...] = ()
    caption_candidates: tuple[str, ...] = ()


def recognise(path: Path, options: ReadOptions = ReadOptions()) -> RecognisedCollection:
    """Choose the source that reads the collection at `path`.

    Raises DataError where nothing can be read, and for several tables that describe the same sounds; ConfigError for an
    unknown source, and for named columns where there is no table.
    """
    if options.source is not None and options.source not in SOURCES:
        raise ConfigError(f"--source is {options.source!r}, expected one of: {', '.join(SOURCES)}.")
    if not path.exists():
        raise DataError(
            f"{path}: no such file or folder. Expected a folder of sounds, a table ({', '.join(TABLE_SUFFIXES)}), a "
            "Hugging Face data set, or shards."
        )
    if options.source:
        collection = _by_name(path, options, options.source)
    else:
        collection = _recognise_file(path, options) if path.is_file() else _recognise_folder(path, options)
    if options.columns != ColumnChoice() and collection.source not in ("table", "hugging_face"):
        title = SOURCES[collection.source].title.lower()
        raise ConfigError(f"{path}: was read as {title}, which has no columns to name.")
    return collection


def _by_name(path: Path, options: ReadOptions, name: str) -> RecognisedCollection:
    if name == "table":
        return _as_tables(path, path, [open_table(path, columns=options.columns)])
    if name == "hugging_face":
        return _as_hugging_face(path, options)
    source = SOURCES[name]
    return RecognisedCollection(path, source.name, lambda: source.read(path), f"Read {path} as {source.title}.")


def _recognise_file(path: Path, options: ReadOptions) -> RecognisedCollection:
    if path.suffix.lower() == ".tar":
        return _as_shards(path)
    if path.suffix.lower() in AUDIO_AND_VIDEO_SUFFIXES:
        raise DataError(f"{path}: is one sound, expected a folder of sounds, a table, or shards.")
    if path.suffix in (".parquet", ".arrow") and hugging_face.has_audio(path):
        return _as_hugging_face(path, options)
    return _as_tables(path, path, [open_table(path, columns=options.columns)])


def _recognise_folder(root: Path, options: ReadOptions) -> RecognisedCollection:
    """Recognise by what no other form has, from the most specific to the most general."""
    if options.columns == ColumnChoice() and (name := _published_set(root)):
        return _by_name(root, options, name)
    contents = _survey(root)
    if contents.audio_tables or contents.arrow_files or contents.metadata:
        return _as_hugging_face(root, options)
    if contents.tars and not contents.sounds:
        return _as_shards(root)
    if not contents.sounds:
        hint = f" Its tables can be given in place of the folder: {contents.tables[0]}." if contents.tables else ""
        raise DataError(
            f"{root}: holds no sounds. Expected sound files in any folders (.wav, .flac, .mp3, .ogg, …), parquet or "
            f"Arrow files of a Hugging Face data set, or WebDataset tars.{hint}"
        )
    # A folder in which most sounds have a file of notes needs no table; opening tables would only cost time.
    mostly_notes = 2 * contents.sounds_with_notes >= contents.sounds
    tables = [] if mostly_notes else _caption_tables(root, contents, options)
    opened = {table.path for table in tables}
    unread = tuple(path for path in (*contents.tables, *contents.tars) if path not in opened)
    if tables:
        return _as_tables(root, root, tables, unread)
    summary = f"Read {root} as {_describe_audio_folder(contents)}."
    return RecognisedCollection(root, "folder", lambda: SOURCES["folder"].read(root), summary, unread)


def _published_set(root: Path) -> str | None:
    """Return the source whose unmistakable files a folder has."""
    found = (name for name, patterns in _UNMISTAKABLE.items() if any(any(root.glob(each)) for each in patterns))
    return next(found, None)


@dataclass(slots=True)
class _FolderContents:
    """The kinds of files in a folder."""

    sounds: int = 0
    sounds_with_notes: int = 0
    tables: list[Path] = field(default_factory=list)
    tars: list[Path] = field(default_factory=list)
    metadata: list[Path] = field(default_factory=list)
    arrow_files: list[Path] = field(default_factory=list)
    audio_tables: list[Path] = field(default_factory=list)
    """Parquet files with audio inside."""


def _survey(root: Path) -> _FolderContents:
    """Sort a folder's files by kind. Audio files are found as the sources find them, hidden ones left out."""
    contents, stems = _FolderContents(), set()
    for path in audio_files(root):
        contents.sounds += 1
        stems.add(path.with_suffix(""))
        contents.sounds_with_notes += any(path.with_suffix(suffix).is_file() for suffix in (".txt", ".json"))
    for path in files_under(root):
        suffix = path.suffix.lower()
        if suffix == ".json" and path.with_suffix("") in stems:
            continue  # notes on one sound, no table
        if suffix == ".arrow" or path.name in hugging_face.SAVE_TO_DISK_FILES:
            contents.arrow_files += [path] if suffix == ".arrow" else []
        elif suffix == ".tar":
            contents.tars.append(path)
        elif suffix == ".parquet" and hugging_face.has_audio(path):
            contents.audio_tables.append(path)
        elif path.name in hugging_face.METADATA and hugging_face.describes_files(path):
            contents.metadata.append(path)
        elif suffix in TABLE_SUFFIXES:
            contents.tables.append(path)
    return contents


def _describe_audio_folder(contents: _FolderContents) -> str:
    unnoted = contents.sounds - contents.sounds_with_notes
    parts = []
    if contents.sounds_with_notes:
        parts.append(f"captions from NAME.txt or NAME.json beside {contents.sounds_with_notes}")
    if unnoted:
        parts.append(f"from the names of {unnoted}" if contents.sounds_with_notes else "captions from their names")
    return f"a folder of {contents.sounds} sound{'s' * (contents.sounds > 1)}: {', '.join(parts)}"


def _as_hugging_face(path: Path, options: ReadOptions) -> RecognisedCollection:
    captions, candidates = options.columns.captions, tuple[str, ...]()
    tables, metadata = hugging_face.tables_of(path), hugging_face.metadata_of(path)
    if hugging_face.reads_tables(tables, metadata):
        columns, candidates = _describe_audio_columns(tables, captions)
        form = f"{len(tables)} {tables[0].suffix[1:]} file{'s' * (len(tables) > 1)}{columns}"
    elif metadata:
        column_map = ColumnMap.of(hugging_face.metadata_columns(metadata[0]), captions)
        caption_columns = tuple(column_map.names[name] for name in column_map.captions)
        others = tuple(name for name in column_map.names.values() if name != "file_name")
        candidates = () if caption_columns else others
        files = ", ".join(dict.fromkeys(file.name for file in metadata))
        form = f"{files}: sound from 'file_name', {_describe_captions(caption_columns)}"
    else:
        form = "a folder for each label"
    return RecognisedCollection(
        path,
        "hugging_face",
        lambda: hugging_face.read(path, captions=captions),
        f"Read {path} as a Hugging Face data set ({form}).",
        caption_candidates=candidates,
    )


def _describe_captions(columns: tuple[str, ...]) -> str:
    return f"caption from {quote_columns(columns)}" if columns else "no column of captions"


def _describe_audio_columns(tables: Sequence[Path], captions: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Describe the columns of the first readable table, and list the caption candidates where it has no captions."""
    for table in tables:
        try:
            types = hugging_face.column_types(table)
        except DamagedTableError:
            continue
        audio = next((name for name, kind in types.items() if hugging_face.is_audio_type(kind)), None)
        if audio is not None:
            column_map = ColumnMap.of([name for name in types if name != audio], captions)
            caption_columns = tuple(column_map.names[name] for name in column_map.captions)
            text = f": sound from '{audio}', {_describe_captions(caption_columns)}"
            return text, () if caption_columns else tuple(column_map.names.values())
    return "", ()


def _as_shards(path: Path) -> RecognisedCollection:
    tars = shards.tars_of(path)
    if not tars:
        raise DataError(f"{path}: holds no tar that is a file. Expected WebDataset tars, with N.flac and N.json.")
    first = next((sample for tar in tars for sample in shards.samples_of(tar)), None)
    form = ""
    if first is not None:
        texts = " and ".join(suffix for suffix, member in ((".json", first.json), (".txt", first.text)) if member)
        form = f": sound from {Path(first.audio[0]).suffix}, caption from {texts}"
    summary = f"Read {path} as WebDataset shards ({len(tars)} tar{'s' * (len(tars) > 1)}{form})."
    return RecognisedCollection(path, "shards", lambda: SOURCES["shards"].read(path), summary)


def _as_tables(
    path: Path, root: Path, tables: Sequence[SoundTable], unread: tuple[Path, ...] = ()
) -> RecognisedCollection:
    forms = "; ".join(f"{table.summary}{'' if table.path == root else f' ({table.path.name})'}" for table in tables)
    records = [record for table in tables for record in table.records]
    candidates = tuple(
        name for table in tables if not table.captions for name in table.columns if name not in table.audio
    )
    return RecognisedCollection(path, "table", lambda: iter(records), f"Read {path} as {forms}.", unread, candidates)


def _caption_tables(root: Path, contents: _FolderContents, options: ReadOptions) -> list[SoundTable]:
    """Return the tables in a folder that hold captions of its sounds.

    Raises DataError where two describe the same sound: merging them would mix captions of unknown origin.
    """
    fitting = [
        table
        for path in contents.tables
        if (table := fitting_table(path, root, contents.sounds, options.columns)) and table.captions
    ]
    described: dict[Path, Path] = {}
    for table in fitting:
        for audio in {record.audio for record in table.records if isinstance(record.audio, Path)}:
            if (other := described.setdefault(audio, table.path)) != table.path:
                raise DataError(
                    f"{root}: {other.name} and {table.path.name} both describe {audio.name}. Give one of them in "
                    f"place of the folder: {other}, or {table.path}."
                )
    return fitting


def fitting_table(path: Path, root: Path, sounds: int, columns: ColumnChoice | None = None) -> SoundTable | None:
    """Open a table that describes the `sounds` audio files under `root`; None for any other file."""
    try:
        if path.stat().st_size > LARGEST_TABLE:
            return None
        table = open_table(path, columns=columns or ColumnChoice(), root=root)
    except (DataError, OSError):
        return None
    inside, files = Path(os.path.normpath(root.absolute())), {record.audio for record in table.records}
    present = [
        file
        for file in files
        if isinstance(file, Path) and Path(os.path.normpath(file.absolute())).is_relative_to(inside) and file.is_file()
    ]
    return table if present and len(present) >= LEAST_OVERLAP * min(len(files), sounds) else None


def advice(collection: RecognisedCollection) -> str:
    """Suggest what else could read the collection: published sets, tables with captions of these sounds, folder labels.

    For messages about useless captions; "" where there is nothing to suggest.
    """
    if collection.caption_candidates:
        columns = quote_columns(collection.caption_candidates)
        return f"Its other columns are {columns}: name the one with captions, --caption-column NAME."
    if not collection.path.is_dir():
        return ""
    suggestions = [
        f"It has the layout of {SOURCES[name].title}: give --source {name}."
        for name in SOURCES
        if name not in _ANY_FOLDER_FITS and collection.source != name and _can_read(name, collection.path)
    ]
    suggestions += _suggest_tables(collection)
    if not suggestions and collection.source == "folder" and _folders_are_labels(collection.path):
        suggestions.append("If its folders are labels, give --source hugging_face.")
    return " ".join(suggestions[:2])  # more would hide the problem itself


def _can_read(name: str, root: Path) -> bool:
    was_disabled, log.disabled = log.disabled, True  # a source that does not fit would log warnings
    try:
        return next(SOURCES[name].read(root), None) is not None
    except (DataError, OSError, ValueError):
        return False
    finally:
        log.disabled = was_disabled


def _suggest_tables(collection: RecognisedCollection) -> list[str]:
    """Suggest tables among the sounds, or beside their folder, that describe these sounds."""
    root = collection.path.absolute()
    beside = [
        path for path in sorted(root.parent.iterdir()) if path.suffix.lower() in TABLE_SUFFIXES and path.is_file()
    ]
    sounds = sum(1 for _ in audio_files(root))
    suggestions = []
    for path in (*collection.unread, *beside)[:MOST_TABLES]:
        if path.suffix.lower() in TABLE_SUFFIXES and (table := fitting_table(path, root, sounds)):
            others = tuple(name for name in table.columns if name not in table.audio)
            columns = (
                f"captions in {quote_columns(table.captions)}"
                if table.captions
                else f"columns: {quote_columns(others)}"
            )
            option = "" if table.captions else ", with --caption-column and the name of the column of captions"
            suggestions.append(f"{path} describes these sounds ({columns}): give it in place of the folder{option}.")
    return suggestions


def _folders_are_labels(root: Path) -> bool:
    return len({record.label for record in hugging_face.read(root) if record.label}) > 1
