"""Auto-ACD: captions that models wrote for 1.5 million clips of AudioSet and VGGSound, from sound and picture.

`train.csv` and `test.csv` (or one of them): `youtube_id, caption`; the ids may have times after them. There is no sound
in the set. Clips are found anywhere under the root by the names in `youtube`; a missing one keeps its record.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from openclap.sources.files import audio_files_by_stem
from openclap.sources.record import Record
from openclap.sources.source import PublishedSize, Root, Source
from openclap.sources.youtube_captions import CaptionTable

SPLITS = ("train", "test")


def read(root: Root) -> Iterator[Record]:
    """Yield records of the training set, then of the test set. All clips of a video are one group."""
    tables = [
        CaptionTable(table, SOURCE.name, "youtube_id", split)
        for split in SPLITS
        if (table := Path(root, f"{split}.csv")).exists()
    ]
    if not tables:
        raise SOURCE.missing(root, *(f"{split}.csv" for split in SPLITS))
    files = audio_files_by_stem(Path(root))
    return chain.from_iterable(table.records(Path(root), files) for table in tables)


SOURCE = Source(
    name="auto_acd",
    title="Auto-ACD",
    read=read,
    page="https://auto-acd.github.io",
    needs="train.csv and test.csv (or one of them), and the clips by YouTube id.",
    licence="not stated; sounds belong to who uploaded them to YouTube",
    get="Download train.csv and test.csv from the Hugging Face hub; the clips are to be fetched from YouTube.",
    use="No licence is stated for the captions. The sounds are not licensed: research only at most laboratories.",
    faults="Captions were written from the picture too, and name what cannot be heard. Sound and test clips are those "
    "of AudioSet and VGGSound: decontaminate.",
    published=PublishedSize(1_500_000),
)
