"""BBC Sound Effects: recordings with a line of description, from CDs of the BBC's archive.

`BBCSoundEffects.csv` as the archive published it: `location, description, secs, category, CDNumber, CDName, tracknum`.
The number in `location` ("07076051.wav") is the sound's id, and stays so although the site has changed since. Sounds
lie in `sounds/`, under any names that end with the id ("Coal Mining/Wet shovelling.07075060.wav" in the archive's own
download); what is not there is given by its address.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from openclap.sources.layout import csv_rows, number, sounds, split_text
from openclap.sources.record import Record
from openclap.sources.source import Published, Root, Source

LICENCE = "LicenseRef-BBC-RemArc"
MEDIA = "https://sound-effects-media.bbcrewind.co.uk/wav"


def read(root: Root) -> Iterator[Record]:
    """Records in the order of the table. The group is the CD."""
    return _records(SOURCE.find(root, "BBCSoundEffects.csv"), _local(Path(root, "sounds")))


def _records(table: Path, local: dict[str, Path]) -> Iterator[Record]:
    for location, description, seconds, category, disc in csv_rows(
        table, ["location", "description"], ["secs", "category", "CDNumber"]
    ):
        name = PurePosixPath(location.strip()).stem
        yield Record(
            id=name,
            audio=local.get(name) or f"{MEDIA}/{location.strip()}",
            captions=(),
            source=SOURCE.name,
            tags=split_text(category, ":"),
            label=category.strip() or None,
            group=f"bbc:{disc.strip()}" if disc.strip() else None,
            title=description.strip() or None,
            licence=LICENCE,
            author="BBC",
            link=f"https://sound-effects.bbcrewind.co.uk/search?q={name}",
            length_s=number(seconds),
        )


def _local(folder: Path) -> dict[str, Path]:
    """The sounds that are there, by the id at the end of their names."""
    return {re.split(r"[ .-]", path.stem)[-1]: path for path in sounds(folder)}


SOURCE = Source(
    name="bbc_sound_effects",
    title="BBC Sound Effects",
    read=read,
    page="https://sound-effects.bbcrewind.co.uk",
    needs="BBCSoundEffects.csv; and, once fetched, the sounds in sounds/.",
    licence=LICENCE,
    published=Published(15_973, 463.48),
)
