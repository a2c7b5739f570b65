"""FSD50K: 51,197 clips from Freesound with labels from 200 classes of AudioSet's ontology.

As published: `FSD50K.ground_truth/dev.csv` (`fname, labels, mids, split`) and `eval.csv`, the uploaders' words in
`FSD50K.metadata/{dev,eval}_clips_info_FSD50K.json`, sounds in `FSD50K.dev_audio` and `FSD50K.eval_audio`. A clip has
several labels, general ones included; they are the tags. The tags of its uploader are those of `freesound`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openclap.errors import DataError
from openclap.sources.identity import freesound_page, freesound_user
from openclap.sources.layout import csv_rows, readable, split_text, whole
from openclap.sources.licence import normalise
from openclap.sources.record import Record
from openclap.sources.source import Published, Root, Source

SPLITS = {"train": "train", "val": "valid", "": "test"}
"""What the column split says; the table of the evaluation set has none."""


def read(root: Root) -> Iterator[Record]:
    """Records of the development and the evaluation set. The group is the Freesound user."""
    tables = {part: SOURCE.find(root, f"FSD50K.ground_truth/{part}.csv") for part in ("dev", "eval")}
    infos = {part: SOURCE.find(root, f"FSD50K.metadata/{part}_clips_info_FSD50K.json") for part in tables}
    folders = {part: SOURCE.find(root, f"FSD50K.{part}_audio") for part in tables}
    return (record for part in tables for record in _records(tables[part], infos[part], folders[part]))


def _records(table: Path, info: Path, audio: Path) -> Iterator[Record]:
    words = _uploaders_words(info)
    for name, labels, split in csv_rows(table, ["fname", "labels"], ["split"]):
        said = words.get(name, {})
        identity = whole(name)
        yield Record(
            id=name,
            audio=audio / f"{name}.wav",
            captions=(),
            source=SOURCE.name,
            tags=tuple([readable(label) for label in split_text(labels)]),
            group=freesound_user(said.get("uploader")),
            title=said.get("title"),
            licence=normalise(said.get("license")),
            author=said.get("uploader"),
            link=freesound_page(identity) if identity else None,
            description=said.get("description"),
            split=SPLITS.get(split),
            rate=44_100,
            freesound_id=identity,
        )


def _uploaders_words(info: Path) -> dict[str, dict[str, Any]]:
    """title, description, tags, license and uploader by file name. Raises DataError."""
    try:
        words = json.loads(info.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{info}: is damaged ({error}). Unpack FSD50K.metadata.zip again.") from error
    return words if isinstance(words, dict) else {}


SOURCE = Source(
    name="fsd50k",
    title="FSD50K",
    read=read,
    page="https://zenodo.org/records/4060432",
    needs="FSD50K.ground_truth, FSD50K.metadata, FSD50K.dev_audio and FSD50K.eval_audio, as unpacked.",
    licence="each sound's own: CC0-1.0, CC-BY, CC-BY-NC or Sampling+; the set CC-BY-4.0",
    published=Published(51_197, 108.3),
)
