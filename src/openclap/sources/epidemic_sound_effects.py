"""Epidemic Sound's effects: short sounds with a title and some tags, sorted into classes.

A folder of parquet files, one a class: the file's name is the class. Columns `title, id, added, length, bpm, isSfx,
hasVocals, energyLevel, genres, url, metadataTags`. Sounds lie in `audio/` as `ID.mp3`; what is not there is given by
its address.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from openclap.sources.identity import without_take
from openclap.sources.layout import DamagedTableError, log, number, parquet_rows, sounds_by_stem, whole
from openclap.sources.record import Record
from openclap.sources.source import Published, Root, Source

LICENCE = "LicenseRef-Epidemic-Sound"
_COLUMNS = ("url", "id", "title", "metadataTags")


def read(root: Root) -> Iterator[Record]:
    """Records, class by class. A class whose file is damaged is logged and left out."""
    tables = sorted(Path(root).rglob("*.parquet"))
    if not tables:
        raise SOURCE.missing(root, "*.parquet")
    return _records(tables, sounds_by_stem(Path(root, "audio")))


def _records(tables: Sequence[Path], local: dict[str, Path]) -> Iterator[Record]:
    for table in tables:
        try:
            for url, identity, title, tags, length in parquet_rows(table, _COLUMNS, ["length"]):
                name = str(whole(identity) or identity or url)
                yield Record(
                    id=name,
                    audio=local.get(name) or url,
                    captions=(),
                    source=SOURCE.name,
                    tags=tuple(tags or ()),
                    label=table.stem,
                    group=f"epidemic:{table.stem}/{without_take(title)}" if title else None,
                    title=title,
                    licence=LICENCE,
                    author="Epidemic Sound",
                    link=SOURCE.page,
                    length_s=number(length),
                )
        except DamagedTableError as error:
            log.warning("%s", error)


SOURCE = Source(
    name="epidemic_sound_effects",
    title="Epidemic Sound effects",
    read=read,
    page="https://www.epidemicsound.com/sound-effects/",
    needs="a parquet file a class (CLASS.parquet); and, once fetched, the sounds in audio/.",
    licence=LICENCE,
    published=Published(75_645, 220.41),
)
