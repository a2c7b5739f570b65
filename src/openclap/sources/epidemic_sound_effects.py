"""Epidemic Sound's effects: short sounds with a title and some tags, sorted into classes.

A folder of parquet files, one per class, which is the file's name. Columns `title, id, added, length, bpm, isSfx,
hasVocals, energyLevel, genres, url, metadataTags`. Audio files are `audio/ID.mp3`; missing ones are recorded
by their URL.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from openclap.sources.files import DamagedTableError, as_float, as_int, audio_files_by_stem, log, parquet_rows
from openclap.sources.grouping import strip_take_number
from openclap.sources.record import Record
from openclap.sources.source import PublishedSize, Root, Source

LICENCE = "LicenseRef-Epidemic-Sound"
_COLUMNS = ("url", "id", "title", "metadataTags")


def read(root: Root) -> Iterator[Record]:
    """Yield records class by class. A class whose file is damaged is logged and left out."""
    tables = sorted(Path(root).rglob("*.parquet"))
    if not tables:
        raise SOURCE.missing(root, "*.parquet")
    return _records(tables, audio_files_by_stem(Path(root, "audio")))


def _records(tables: Sequence[Path], local: dict[str, Path]) -> Iterator[Record]:
    for table in tables:
        try:
            for url, identity, title, tags, length in parquet_rows(table, _COLUMNS, ["length"]):
                name = str(as_int(identity) or identity or url)
                yield Record(
                    id=name,
                    audio=local.get(name) or url,
                    captions=(),
                    source=SOURCE.name,
                    tags=tuple(tags or ()),
                    label=table.stem,
                    # Takes share a title but for the number, within a class.
                    group=f"epidemic:{table.stem}/{strip_take_number(title)}" if title else None,
                    title=title,
                    licence=LICENCE,
                    author="Epidemic Sound",
                    link=SOURCE.page,
                    length_s=as_float(length),
                )
        except DamagedTableError as error:
            log.warning("%s", error)


SOURCE = Source(
    name="epidemic_sound_effects",
    title="Epidemic Sound effects",
    read=read,
    page="https://www.epidemicsound.com/sound-effects/",
    needs="a parquet file for each class (CLASS.parquet); and, once fetched, the sounds in audio/.",
    licence=LICENCE,
    get="LAION published the metadata; the sounds need a subscription.",
    use="As the vendor's terms say; ask before you train a model.",
    faults="Titles and tags, no sentences.",
    published=PublishedSize(75_645, 220.41),
)
