"""Any folder of sounds: what is known of each stands in its name, or in a file beside it.

Beside `rain.wav`: `rain.txt`, a caption a line; or `rain.json`, either in LAION's layout (`text`, `tag`,
`original_data`) or with keys such as `caption`, `tags`, `title`, `label`, `licence`, `author` (`fields`). The name is
the title, from which captions can be made later. Numbered takes in one folder are one group, as long as the files
beside them say nothing different (`groups_of_takes`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from openclap.sources.fields import Fields, says_nothing
from openclap.sources.identity import groups_of_takes, without_take
from openclap.sources.layout import inside, log, sounds
from openclap.sources.record import Record
from openclap.sources.source import Root, Source
from openclap.sources.text import read_text


def read(root: Root) -> Iterator[Record]:
    """Records in the order of the names. A damaged file beside a sound is logged; the sound stays."""
    folder = Path(root)
    if next(sounds(folder), None) is None:
        raise SOURCE.missing(root, "sounds")
    return _records(folder)


def _records(root: Path) -> Iterator[Record]:
    """Folder by folder, since it takes all recordings of one name to know whether they are takes."""
    base = root.resolve().name
    for folder, paths in groupby(sounds(root), key=lambda path: path.parent):
        found = [_record(root, base, path) for path in paths]
        place = f"{base}:{folder.relative_to(root).as_posix()}/"
        names = [Path(record.audio).stem for record in found]
        groups = groups_of_takes(
            (without_take(name), name, _written(record)) for name, record in zip(names, found, strict=True)
        )
        for record, group in zip(found, groups, strict=True):
            yield record if record.group else replace(record, group=f"{place}{group}")


def _record(root: Path, base: str, path: Path) -> Record:
    return Record(**{"id": inside(root, path), "source": base, "title": path.name, **_beside(path), "audio": path})


def _written(record: Record) -> tuple[Any, ...]:
    """All that the files beside a sound say of what is heard; () where they say nothing."""
    return (record.captions, record.tags, record.label) if record.captions or record.tags or record.label else ()


def _beside(path: Path) -> dict[str, Any]:
    """What the files beside a sound say of it."""
    said: dict[str, Any] = {"captions": ()}
    for notes in (path.with_suffix(".json"), path.with_suffix(".txt")):
        try:
            if not notes.is_file():
                continue
            text, _ = read_text(notes)
            if notes.suffix == ".json":
                said = from_json(json.loads(text))
            else:
                said["captions"] = (*said["captions"], *captions_in(text))
        except (OSError, ValueError, RecursionError) as error:
            log.warning("%s: cannot be used (%s); the sound stays, without it.", notes, error)
    return said


def captions_in(text: str) -> tuple[str, ...]:
    """The captions of a text, one a line."""
    return tuple([line.strip() for line in text.splitlines() if not says_nothing(line)])


def from_json(content: Any) -> dict[str, Any]:
    """What a record takes from an object in LAION's layout or any other. Raises ValueError when it is no object."""
    if not isinstance(content, dict):
        raise ValueError('expected an object such as {"caption": …}')
    original = content.get("original_data")
    said = {**original, **content} if isinstance(original, dict) else content
    return Fields.of(said).values(said)


SOURCE = Source(
    name="folder",
    title="A folder of sounds",
    read=read,
    page="docs/howto/add-a-source.md",
    needs="sound files in any folders, each with what is said of it in NAME.txt or NAME.json, if anything is.",
    licence="as the files beside the sounds say",
)
