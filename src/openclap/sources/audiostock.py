"""Audiostock: sound effects with a title and many tags.

`audiostock_meta.csv`: an index, then `title, impression, scene, purpose, tags, audio_url, audio_size`; tags are split
at ",". The number in the address ("https://audiostock.net/audio/1150592/play") is the id. Audio files are
`audio/ID.mp3`; missing ones are recorded by their URL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from openclap.sources.files import audio_files_by_stem, csv_rows, split_text
from openclap.sources.grouping import strip_take_number
from openclap.sources.record import Record
from openclap.sources.source import PublishedSize, Root, Source

LICENCE = "LicenseRef-Audiostock"
_ID = re.compile(r"/audio/(\d+)")
_NUMBER = re.compile(r"^\d+\s+")


def read(root: Root) -> Iterator[Record]:
    """Yield records in table order. The group is the title without its numbers: all takes of one sound."""
    return _records(SOURCE.find(root, "audiostock_meta.csv", "meta.csv"), audio_files_by_stem(Path(root, "audio")))


def _records(table: Path, local: dict[str, Path]) -> Iterator[Record]:
    for url, title, tags in csv_rows(table, ["audio_url", "title"], ["tags"]):
        found = _ID.search(url)
        name = found[1] if found else url.rsplit("/", 1)[-1]
        name_and_number = title.strip()
        yield Record(
            id=name,
            audio=local.get(name) or url.strip(),
            captions=(),
            source=SOURCE.name,
            tags=split_text(tags),
            group=f"audiostock:{strip_take_number(_NUMBER.sub('', name_and_number))}" if name_and_number else None,
            title=name_and_number or None,
            licence=LICENCE,
            author="Audiostock",
            link=f"https://audiostock.net/audio/{name}" if found else None,
        )


SOURCE = Source(
    name="audiostock",
    title="Audiostock",
    read=read,
    page="https://audiostock.net/se",
    needs="audiostock_meta.csv; and, once fetched, the sounds in audio/.",
    licence=LICENCE,
    get="LAION published the metadata; the sounds are sold one by one.",
    use="As bought; the shop's terms forbid redistribution.",
    faults="Titles are short and no sentences, and many end in a number.",
    published=PublishedSize(10_000, 46.30),
)
