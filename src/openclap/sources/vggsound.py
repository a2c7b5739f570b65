"""VGGSound: ten seconds of each of 200,000 YouTube videos, with one of 309 labels.

`vggsound.csv`, without a header: YouTube id, first second, label, `train` or `test`. Clips are found anywhere
under the root by the names in `youtube` (as published: `ID_000030.mp4`); a missing one keeps its record.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from openclap.sources.files import as_float, audio_files_by_stem, csv_rows
from openclap.sources.record import Record
from openclap.sources.source import PublishedSize, Root, Source
from openclap.sources.youtube import youtube_clip, youtube_page, youtube_video

CLIP_S = 10.0
_COLUMNS = ["youtube_id", "start", "label", "split"]


def read(root: Root) -> Iterator[Record]:
    """Yield records in table order. All clips of a video are one group."""
    return _records(Path(root), SOURCE.find(root, "vggsound.csv"))


def _records(root: Path, table: Path) -> Iterator[Record]:
    files = audio_files_by_stem(root)
    for youtube_id, start, label, split in csv_rows(table, _COLUMNS, header=_COLUMNS):
        start_s = as_float(start) or 0.0
        clip = youtube_clip(files, youtube_id, start_s, start_s + CLIP_S)
        yield Record(
            id=f"{youtube_id}_{start_s:g}",
            audio=clip or root / "audio" / f"{youtube_id}_{int(start_s):06d}.wav",
            captions=(),
            source=SOURCE.name,
            label=label.strip(),
            group=youtube_video(youtube_id),
            link=youtube_page(youtube_id, start_s),
            split=split.strip() or None,
            length_s=CLIP_S,
            youtube_id=youtube_id,
        )


SOURCE = Source(
    name="vggsound",
    title="VGGSound",
    read=read,
    page="https://www.robots.ox.ac.uk/~vgg/data/vggsound/",
    needs="vggsound.csv, and the clips by YouTube id and second.",
    licence="labels CC-BY-4.0; sounds belong to who uploaded them to YouTube",
    get="Take vggsound.csv from the page; the clips are to be fetched from YouTube.",
    use="Labels under CC-BY-4.0. The sounds are not licensed: research only at most laboratories.",
    faults="Many videos are gone, and many clips hold more than their one label says. Most videos are in AudioSet as "
    "well.",
    published=PublishedSize(199_176, 550.0),
)
