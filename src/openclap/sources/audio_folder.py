"""Read any folder of audio files, with their names as titles and with sidecar files of notes.

Beside `rain.wav`: `rain.txt`, one caption per line; or `rain.json`, either in LAION's layout (`text`, `tag`,
`original_data`) or with keys such as `caption`, `tags`, `title`, `label`, `licence`, `author` (`columns`). Captions can
be made from the title later. Numbered takes in one folder are one group unless their notes differ (`group_takes`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from openclap.sources.columns import ColumnMap, is_placeholder
from openclap.sources.files import audio_files, log, relative_name
from openclap.sources.grouping import group_takes, strip_take_number
from openclap.sources.record import Record
from openclap.sources.source import Root, Source
from openclap.sources.text_encoding import read_text


def read(root: Root) -> Iterator[Record]:
    """Yield records in order of names. A damaged sidecar file is logged, and its audio file is read without it."""
    folder = Path(root)
    if next(audio_files(folder), None) is None:
        raise SOURCE.missing(root, "sounds")
    return _records(folder)


def _records(root: Path) -> Iterator[Record]:
    """Yield records folder by folder: whether files are takes depends on all files of that name."""
    base = root.resolve().name
    for folder, paths in groupby(audio_files(root), key=lambda path: path.parent):
        records = [_record(root, base, path) for path in paths]
        place = f"{base}:{folder.relative_to(root).as_posix()}/"
        names = [Path(record.audio).stem for record in records]
        groups = group_takes(
            (strip_take_number(name), name, _notes(record)) for name, record in zip(names, records, strict=True)
        )
        for record, group in zip(records, groups, strict=True):
            yield record if record.group else replace(record, group=f"{place}{group}")


def _record(root: Path, base: str, path: Path) -> Record:
    return Record(
        **{"id": relative_name(root, path), "source": base, "title": path.name, **_read_sidecars(path), "audio": path}
    )


def _notes(record: Record) -> tuple[Any, ...]:
    """Return all that sidecar files say about the audio; () where they say nothing."""
    return (record.captions, record.tags, record.label) if record.captions or record.tags or record.label else ()


def _read_sidecars(path: Path) -> dict[str, Any]:
    """Return the arguments of a record that sidecar files fill."""
    values: dict[str, Any] = {"captions": ()}
    for notes in (path.with_suffix(".json"), path.with_suffix(".txt")):
        try:
            if not notes.is_file():
                continue
            text, _ = read_text(notes)
            if notes.suffix == ".json":
                values = parse_json_notes(json.loads(text))
            else:
                values["captions"] = (*values["captions"], *caption_lines(text))
        except (OSError, ValueError, RecursionError) as error:
            log.warning("%s: cannot be used (%s); its audio file is read without it.", notes, error)
    return values


def caption_lines(text: str) -> tuple[str, ...]:
    """Return the captions of a text, one per line, without blanks and placeholders."""
    return tuple([line.strip() for line in text.splitlines() if not is_placeholder(line)])


def parse_json_notes(content: Any) -> dict[str, Any]:
    """Return the arguments of a record that an object in LAION's layout, or any other, fills.

    Raises ValueError when `content` is not an object.
    """
    if not isinstance(content, dict):
        raise ValueError('expected an object such as {"caption": …}')
    original = content.get("original_data")
    # LAION keeps what the source said in original_data; captions and tags at the top are the cleaned ones and win.
    notes = {**original, **content} if isinstance(original, dict) else content
    return ColumnMap.of(notes).values(notes)


SOURCE = Source(
    name="folder",
    title="A folder of sounds",
    read=read,
    page="docs/howto/add-a-source.md",
    needs="sound files in any folders, with captions or notes in NAME.txt or NAME.json where there are any.",
    licence="as the notes beside the sounds say",
)
