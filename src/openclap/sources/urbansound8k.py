"""UrbanSound8K: 8,732 excerpts of at most four seconds in ten classes and ten folds.

The published archive: `metadata/UrbanSound8K.csv` (`slice_file_name, fsID, start, end, salience, fold, classID, class`)
and `audio/fold1` to `audio/fold10`. `start` and `end` are seconds of the recording on Freesound; the files
are cut already.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from openclap.sources.files import as_float, as_int, csv_rows, unslug
from openclap.sources.grouping import freesound_page
from openclap.sources.record import Record
from openclap.sources.source import PublishedSize, Root, Source

LICENCE = "CC-BY-NC-3.0"
_COLUMNS = ["slice_file_name", "fsID", "start", "end", "fold", "class"]


def read(root: Root) -> Iterator[Record]:
    """Yield records in table order. The group is the fold ("urbansound8k:1"), which recordings do not cross."""
    table = SOURCE.find(root, "metadata/UrbanSound8K.csv", "UrbanSound8K/metadata/UrbanSound8K.csv")
    return _records(table, table.parent.parent / "audio")


def _records(table: Path, audio: Path) -> Iterator[Record]:
    for name, freesound, start, end, fold, label in csv_rows(table, _COLUMNS):
        identity, first_s, last_s = as_int(freesound), as_float(start), as_float(end)
        yield Record(
            id=name,
            audio=audio / f"fold{fold}" / name,
            captions=(),
            source=SOURCE.name,
            label=unslug(label),
            group=f"urbansound8k:{fold}",
            licence=LICENCE,
            link=freesound_page(identity) if identity else None,
            length_s=last_s - first_s if first_s is not None and last_s is not None else None,
            freesound_id=identity,
        )


SOURCE = Source(
    name="urbansound8k",
    title="UrbanSound8K",
    read=read,
    page="https://urbansounddataset.weebly.com/urbansound8k.html",
    needs="metadata/UrbanSound8K.csv and audio/fold1 to audio/fold10, as in the archive.",
    licence=LICENCE,
    get="Ask for the archive with the form on the page.",
    use="Research, not commerce (CC-BY-NC-3.0).",
    faults="Slices of one recording share a fold: only the ten published folds give comparable scores.",
    published=PublishedSize(8_732, 8.75),
)
