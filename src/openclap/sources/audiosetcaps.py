"""AudioSetCaps: captions that models wrote for six million clips of AudioSet, VGGSound and YouTube-8M.

`AudioSetCaps_caption.csv`, `VGGSound_AudioSetCaps_caption.csv` and `YouTube-8M_AudioSetCaps_caption.csv` (or as many of
them as there are), in the root or in `Dataset/`: `id, caption`. The ids are `Y` and a video's id (AudioSet), id and
second (VGGSound), id, beginning and duration (YouTube-8M). There is no sound in the set. Clips are found anywhere under
the root by these names and those in `youtube`; a missing one keeps its record.

AudioSet's evaluation clips and VGGSound's test clips are among the rows, and nothing marks them: decontaminate.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from openclap.sources.files import audio_files_by_stem
from openclap.sources.record import Record
from openclap.sources.source import PublishedSize, Root, Source
from openclap.sources.youtube_captions import CaptionTable

TABLES = {
    "audiosetcaps_audioset": "AudioSetCaps_caption.csv",
    "audiosetcaps_vggsound": "VGGSound_AudioSetCaps_caption.csv",
    "audiosetcaps_youtube8m": "YouTube-8M_AudioSetCaps_caption.csv",
}
"""The tables by the name of their part in records."""


def read(root: Root) -> Iterator[Record]:
    """Yield records table by table. All clips of a video are one group."""
    places = {name: _place(Path(root), file) for name, file in TABLES.items()}
    tables = [CaptionTable(place, name, "id") for name, place in places.items() if place]
    if not tables:
        raise SOURCE.missing(root, *TABLES.values())
    files = audio_files_by_stem(Path(root))
    return chain.from_iterable(table.records(Path(root), files) for table in tables)


def _place(root: Path, file: str) -> Path | None:
    return next((path for path in (root / "Dataset" / file, root / file) if path.exists()), None)


SOURCE = Source(
    name="audiosetcaps",
    title="AudioSetCaps",
    read=read,
    page="https://huggingface.co/datasets/baijs/AudioSetCaps",
    needs="AudioSetCaps_caption.csv, VGGSound_AudioSetCaps_caption.csv or YouTube-8M_AudioSetCaps_caption.csv (also in "
    "Dataset/), and the clips by YouTube id.",
    licence="captions CC-BY-4.0; sounds belong to who uploaded them to YouTube",
    get="Download the tables of captions (Dataset/*_caption.csv) from the Hugging Face hub; the clips are to be "
    "fetched from YouTube.",
    use="Captions under CC-BY-4.0. The sounds are not licensed: research only at most laboratories.",
    faults="AudioSet's evaluation clips and VGGSound's test clips are in it and nothing marks them: decontaminate "
    "with audioset:test, vggsound:test and audiocaps. The captions were written by models and not checked by people.",
    published=PublishedSize(1_910_920 + 182_189 + 4_023_990),
)
