"""Clotho: clips of 15 to 30 s from Freesound, each with five captions.

Version 2 or 2.1, as unpacked: `clotho_captions_{development,validation,evaluation}.csv` (`file_name, caption_1` to
`caption_5`), `clotho_metadata_*.csv` (`file_name, keywords, sound_id, sound_link, start_end_samples, manufacturer,
license`; a few names in Latin-1) and the folders `development`, `validation` and `evaluation`. Tables may lie in
`clotho_csv_files/`, folders in `clotho_audio_files/`. Missing splits are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from openclap.sources.files import as_int, csv_rows, split_text
from openclap.sources.grouping import freesound_id, freesound_user
from openclap.sources.licence import normalise_licence
from openclap.sources.record import Record
from openclap.sources.source import PublishedSize, Root, Source

SPLITS = {"development": "train", "validation": "valid", "evaluation": "test"}
RATE = 44_100
NOT_FOUND = "Not found"
_CAPTIONS = [f"caption_{number}" for number in range(1, 6)]
_FACTS = ["keywords", "sound_id", "sound_link", "start_end_samples", "manufacturer", "license"]
_SPAN = re.compile(r"(\d+)\s*,\s*(\d+)")


@dataclass(frozen=True, slots=True)
class _Part:
    """The tables and the folder of a split."""

    split: str
    captions: Path
    metadata: Path
    audio: Path


def read(root: Root) -> Iterator[Record]:
    """Yield records in table orders. The group is the Freesound user."""
    parts = []
    for name, split in SPLITS.items():
        tables = [f"clotho_captions_{name}.csv", f"clotho_csv_files/clotho_captions_{name}.csv"]
        if any(Path(root, table).exists() for table in tables):
            captions = SOURCE.find(root, *tables)
            audio = SOURCE.find(root, name, f"clotho_audio_files/{name}")
            metadata = captions.with_name(f"clotho_metadata_{name}.csv")
            if not metadata.exists():
                raise SOURCE.missing(root, metadata.name)
            parts.append(_Part(split, captions, metadata, audio))
    if not parts:
        raise SOURCE.missing(root, *(f"clotho_captions_{name}.csv" for name in SPLITS))
    return (record for part in parts for record in _records(part))


def _records(part: _Part) -> Iterator[Record]:
    facts = {row[0]: row[1:] for row in csv_rows(part.metadata, ["file_name"], _FACTS)}
    for name, *captions in csv_rows(part.captions, ["file_name", *_CAPTIONS]):
        # For uploads that were deleted, the metadata of version 2.1 has "Not found" in place of each fact.
        cells = (cell.strip() for cell in facts.get(name, ("",) * len(_FACTS)))
        keywords, sound_id, link, span, user, licence = ("" if cell == NOT_FOUND else cell for cell in cells)
        # Samples of the upload, "[begin, end]": the length of the cut.
        found = _SPAN.search(span)
        yield Record(
            id=name,
            audio=part.audio / name,
            captions=tuple([text for caption in captions if (text := caption.strip())]),
            source=SOURCE.name,
            tags=split_text(keywords, ";"),
            group=freesound_user(user),
            title=name,
            licence=normalise_licence(licence),
            author=user or None,
            link=link or None,
            split=part.split,
            length_s=(int(found[2]) - int(found[1])) / RATE if found else None,
            rate=RATE,
            freesound_id=as_int(sound_id) or freesound_id(link),
        )


SOURCE = Source(
    name="clotho",
    title="Clotho",
    read=read,
    page="https://zenodo.org/records/4783391",
    needs="clotho_captions_*.csv, clotho_metadata_*.csv and the folders development, validation and evaluation.",
    licence="each sound's own; captions under Tampere University's terms, not for commerce",
    get="Download and unpack the archives and tables of version 2.1 from Zenodo.",
    use="Each sound under its own licence. Captions under Tampere University's terms: research, not commerce.",
    faults="Some rows of the metadata have 'Not found' for id and link, so that overlap with Freesound is found only "
    "by samples. FSD50K, TACOS and WavCaps have the same uploads.",
    published=PublishedSize(5_929),
)
