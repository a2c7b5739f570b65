"""BBC Sound Effects: recordings with a line of description, from CDs of the BBC's archive.

`BBCSoundEffects.csv` as the archive published it: `location, description, secs, category, CDNumber, CDName, tracknum`.
The number in `location` ("07076051.wav") is the sound's id, which the site has kept although its addresses changed.
Audio files lie in `sounds/`, under any names that end with the id ("Coal Mining/Wet shovelling.07075060.wav" in the
archive's own download); missing ones are recorded by their URL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from openclap.sources.files import as_float, audio_files, csv_rows, split_text
from openclap.sources.record import Record
from openclap.sources.source import PublishedSize, Root, Source

LICENCE = "LicenseRef-BBC-RemArc"
MEDIA = "https://sound-effects-media.bbcrewind.co.uk/wav"


def read(root: Root) -> Iterator[Record]:
    """Yield records in table order. The group is the CD."""
    return _records(SOURCE.find(root, "BBCSoundEffects.csv"), _files_by_id(Path(root, "sounds")))


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
            length_s=as_float(seconds),
        )


def _files_by_id(folder: Path) -> dict[str, Path]:
    """Map the audio files by the id at the end of their names."""
    return {re.split(r"[ .-]", path.stem)[-1]: path for path in audio_files(folder)}


SOURCE = Source(
    name="bbc_sound_effects",
    title="BBC Sound Effects",
    read=read,
    page="https://sound-effects.bbcrewind.co.uk",
    needs="BBCSoundEffects.csv; and, once fetched, the sounds in sounds/.",
    licence=LICENCE,
    get="Take the archive's list as BBCSoundEffects.csv; sounds are fetched while a data set is built.",
    use="Private, educational and research use (RemArc licence); not commercial use.",
    faults="The list of 2018 is shorter than the archive of today. WavCaps has the same sounds.",
    published=PublishedSize(15_973, 463.48),
)
