"""ESC-50: 2,000 clips of five seconds in 50 classes and five folds.

The published archive: `meta/esc50.csv` (`filename, fold, target, category, esc10, src_file, take`) and `audio/`. Names
are `FOLD-FREESOUND ID-TAKE-CLASS.wav`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from openclap.sources.files import as_int, csv_rows, unslug
from openclap.sources.grouping import freesound_page
from openclap.sources.record import Record
from openclap.sources.source import PublishedSize, Root, Source


def read(root: Root) -> Iterator[Record]:
    """Yield records in table order. The group is the fold ("esc50:1"), which recordings do not cross."""
    table = SOURCE.find(root, "meta/esc50.csv", "ESC-50-master/meta/esc50.csv")
    return _records(table, table.parent.parent / "audio")


def _records(table: Path, audio: Path) -> Iterator[Record]:
    for name, fold, category, esc10, source_file in csv_rows(
        table, ["filename", "fold", "category"], ["esc10", "src_file"]
    ):
        # The column names the upload; copies of the table without it still have the id in the file name.
        identity = as_int(source_file) or as_int(name.split("-")[1] if "-" in name else None)
        yield Record(
            id=name,
            audio=audio / name,
            captions=(),
            source=SOURCE.name,
            label=unslug(category),
            group=f"esc50:{fold}",
            # The ten classes of ESC-10 are under the freer licence.
            licence="CC-BY-3.0" if esc10.strip().lower() == "true" else "CC-BY-NC-3.0",
            link=freesound_page(identity) if identity else None,
            length_s=5.0,
            rate=44_100,
            freesound_id=identity,
        )


SOURCE = Source(
    name="esc50",
    title="ESC-50",
    read=read,
    page="https://github.com/karolpiczak/ESC-50",
    needs="meta/esc50.csv and audio/, as in the archive.",
    licence="CC-BY-NC-3.0; of the subset ESC-10 CC-BY-3.0",
    get="Download and unpack the archive from the page.",
    use="Research, not commerce (CC-BY-NC-3.0).",
    faults="All clips are from Freesound, and short ones are padded with zeros to five seconds. Scores near 95 % no "
    "longer tell models apart.",
    published=PublishedSize(2_000, 2.8),
)
