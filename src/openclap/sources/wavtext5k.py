"""WavText5K: sound effects from BigSoundBank and SoundBible with a title and, for most, a description.

`WavText5K.csv`: `view_link, download_link, title, description, fname, tags`. The description is the caption. Audio
files lie anywhere under the root as `fname`; missing ones are recorded by their URL.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from openclap.sources.files import audio_files_by_stem, csv_rows, split_text
from openclap.sources.grouping import strip_take_number
from openclap.sources.record import Record
from openclap.sources.source import PublishedSize, Root, Source


def read(root: Root) -> Iterator[Record]:
    """Yield records in table order. The group is the title without the number of the take, within a site."""
    return _records(Path(root), SOURCE.find(root, "WavText5K.csv"))


def _records(root: Path, table: Path) -> Iterator[Record]:
    files = audio_files_by_stem(root)
    needed = ["fname", "download_link", "title", "description"]
    for name, address, title, description, link, tags in csv_rows(table, needed, ["view_link", "tags"]):
        site = urlsplit(link or address).hostname
        yield Record(
            id=name,
            audio=files.get(PurePosixPath(name).stem) or address,
            captions=(description.strip(),) if description.strip() else (),
            source=SOURCE.name,
            tags=split_text(tags),
            group=f"{site}:{strip_take_number(title.strip())}" if title.strip() else None,
            title=title.strip() or None,
            link=link or None,
        )


SOURCE = Source(
    name="wavtext5k",
    title="WavText5K",
    read=read,
    page="https://github.com/microsoft/WavText5K",
    needs="WavText5K.csv; and, once fetched, the sounds in any folder.",
    licence="not stated; each site's own terms",
    get="Take the table from the page; sounds are fetched while a data set is built.",
    use="As each site says: SoundBible's sounds have licences of their own.",
    faults="The table states no licences. Some addresses are gone.",
    published=PublishedSize(4_525),
)
