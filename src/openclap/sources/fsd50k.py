"""FSD50K: 51,197 clips from Freesound with labels from 200 classes of AudioSet's ontology.

As published: `FSD50K.ground_truth/dev.csv` (`fname, labels, mids, split`) and `eval.csv`, the uploaders' words in
`FSD50K.metadata/{dev,eval}_clips_info_FSD50K.json`, sounds in `FSD50K.dev_audio` and `FSD50K.eval_audio`. A clip has
several labels, general ones included; they become the tags. The uploader's tags are those in `freesound`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openclap.errors import DataError
from openclap.sources.files import as_int, csv_rows, split_text, unslug
from openclap.sources.grouping import freesound_page, freesound_user
from openclap.sources.licence import normalise_licence
from openclap.sources.record import Record
from openclap.sources.source import PublishedSize, Root, Source

SPLITS = {"train": "train", "val": "valid", "": "test"}
"""Splits by the column `split`, which the table of the evaluation set lacks."""


def read(root: Root) -> Iterator[Record]:
    """Yield records of the development and the evaluation set. The group is the Freesound user."""
    tables = {part: SOURCE.find(root, f"FSD50K.ground_truth/{part}.csv") for part in ("dev", "eval")}
    infos = {part: SOURCE.find(root, f"FSD50K.metadata/{part}_clips_info_FSD50K.json") for part in tables}
    folders = {part: SOURCE.find(root, f"FSD50K.{part}_audio") for part in tables}
    return (record for part in tables for record in _records(tables[part], infos[part], folders[part]))


def _records(table: Path, info: Path, audio: Path) -> Iterator[Record]:
    # Title, author and licence lie in another file than the labels.
    metadata = _read_metadata(info)
    for name, labels, split in csv_rows(table, ["fname", "labels"], ["split"]):
        facts = metadata.get(name, {})
        identity = as_int(name)
        yield Record(
            id=name,
            audio=audio / f"{name}.wav",
            captions=(),
            source=SOURCE.name,
            tags=tuple([unslug(label) for label in split_text(labels)]),
            group=freesound_user(facts.get("uploader")),
            title=facts.get("title"),
            licence=normalise_licence(facts.get("license")),
            author=facts.get("uploader"),
            link=freesound_page(identity) if identity else None,
            description=facts.get("description"),
            split=SPLITS.get(split),
            rate=44_100,
            freesound_id=identity,
        )


def _read_metadata(info: Path) -> dict[str, dict[str, Any]]:
    """Read title, description, tags, license and uploader by file name. Raises DataError for a damaged file."""
    try:
        metadata = json.loads(info.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{info}: is damaged ({error}). Unpack FSD50K.metadata.zip again.") from error
    return metadata if isinstance(metadata, dict) else {}


SOURCE = Source(
    name="fsd50k",
    title="FSD50K",
    read=read,
    page="https://zenodo.org/records/4060432",
    needs="FSD50K.ground_truth, FSD50K.metadata, FSD50K.dev_audio and FSD50K.eval_audio, as unpacked.",
    licence="each sound's own: CC0-1.0, CC-BY, CC-BY-NC or Sampling+; the set CC-BY-4.0",
    get="Download and unpack the archives from Zenodo.",
    use="Each sound under its own licence, most CC0 or CC-BY; labels under CC-BY-4.0.",
    faults="Labels and no sentences: captions are made from them. Clotho, ESC-50 and UrbanSound8K have the same "
    "uploads.",
    published=PublishedSize(51_197, 108.3),
)
