"""Phrase files as FineLAP's: JSON lines with a caption, and phrases with their segments.

Every `*.jsonl` under the root, or a single file: `{"audio_id", "audio_path", "caption", "phrases": [{"phrase",
"segments": [[onset, offset], …]}]}`, one object a line (`openclap.sources.phrases`). Audio is found by `audio_path`
from the file's folder or the root, then, since published paths are those of another machine, by name anywhere under the
root. Lines that are no such object are left out and logged, so a file that was cut off is read up to the cut.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from openclap.sources.columns import cell_texts
from openclap.sources.files import LeftOut, as_int, audio_files_by_stem, files_under
from openclap.sources.phrases import phrases_of_json
from openclap.sources.record import Record
from openclap.sources.repeated import join_repeated
from openclap.sources.source import Root, Source
from openclap.sources.split_names import split_of
from openclap.sources.youtube import clip_id, youtube_video


def read(root: Root) -> Iterator[Record]:
    """Yield records file by file; the split is read from the names of file and folders."""
    place = Path(root)
    folder = place.parent if place.is_file() else place
    tables = [place] if place.is_file() else [path for path in files_under(folder) if path.suffix.lower() == ".jsonl"]
    if not tables:
        raise SOURCE.missing(root, "*.jsonl")
    files = audio_files_by_stem(folder)
    return chain.from_iterable(_records(folder, table, files) for table in tables)


def _records(root: Path, table: Path, files: Mapping[str, Path]) -> Iterator[Record]:
    ids = (_id(row) for row in _rows(table))
    split = split_of(table.relative_to(root).as_posix())
    left_out = LeftOut(table, "lines are no object with audio_path or audio_id and were left out")
    records = (_record(root, table, files, row, split) for row in _rows(table, left_out))
    yield from join_repeated(ids, records, table)
    left_out.log()


def _rows(table: Path, left_out: LeftOut | None = None) -> Iterator[dict[str, Any]]:
    with table.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line) if line.strip() else None
            except (ValueError, RecursionError):
                row = {}
            if isinstance(row, dict) and _id(row):
                yield row
            elif row is not None and left_out:
                left_out.add(f"line {number}")


def _id(row: Mapping[str, Any]) -> str:
    """Return the audio's id, or the name of its file."""
    return _text(row, "audio_id") or PurePosixPath(_text(row, "audio_path")).name


def _text(row: Mapping[str, Any], key: str) -> str:
    return "".join(cell_texts(row.get(key))[:1])


def _record(root: Path, table: Path, files: Mapping[str, Path], row: Mapping[str, Any], split: str | None) -> Record:
    identity, path = _id(row), _text(row, "audio_path")
    name = PurePosixPath(path).stem or PurePosixPath(identity).stem
    beside = [folder / path for folder in (table.parent, root) if path]
    audio = next((place for place in beside if place.is_file()), None) or files.get(name)
    clip = clip_id(identity) or clip_id(path)
    # Only paths that say so: a number alone may be an id of any collection.
    upload = as_int(name) if "freesound" in path.lower() else None
    return Record(
        id=identity,
        audio=audio or root / (path.lstrip("/") or identity),
        captions=tuple(cell_texts(row.get("caption"))),
        source=root.resolve().name,
        group=youtube_video(clip.video) if clip else None,
        split=split,
        freesound_id=upload,
        youtube_id=clip.video if clip else None,
        phrases=phrases_of_json(row.get("phrases")),
    )


SOURCE = Source(
    name="finelap",
    title="Phrase files (FineLAP)",
    read=read,
    page="https://arxiv.org/abs/2604.01155",
    needs="*.jsonl with audio_path, caption and phrases with segments, and the sounds in any folder.",
    licence="that of the collections whose sounds they name",
    get="Download the files of phrases from the authors' page, and the collections whose sounds they name.",
    use="As those collections.",
    faults="audio_path is a path of the authors' machine; sounds are found by name. A file names sounds of several "
    "collections, among them evaluation clips.",
)
