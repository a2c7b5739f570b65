"""AudioCaps: captions of AudioSet clips, one per training clip and five per validation or test clip.

`train.csv`, `val.csv` and `test.csv` (or as many of them as there are), in the root or in `dataset/`, with the columns
`audiocap_id, youtube_id, start_time, caption`. The rows of a clip become one record. Clips are found anywhere under the
root by the names in `grouping.youtube_clip`; a missing one keeps its record.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from openclap.sources.files import as_float, audio_files_by_stem, csv_rows
from openclap.sources.grouping import youtube_clip, youtube_page, youtube_video
from openclap.sources.record import Record
from openclap.sources.source import PublishedSize, Root, Source

SPLITS = {"train": "train", "val": "valid", "test": "test"}
CLIP_S = 10.0


def read(root: Root) -> Iterator[Record]:
    """Yield records in the order in which clips are first named. All clips of a video are one group."""
    folder = SOURCE.find(root, "dataset", ".")
    tables = {split: table for name, split in SPLITS.items() if (table := folder / f"{name}.csv").exists()}
    if not tables:
        raise SOURCE.missing(root, "train.csv", "val.csv", "test.csv")
    return _records(Path(root), tables)


def _records(root: Path, tables: dict[str, Path]) -> Iterator[Record]:
    files = audio_files_by_stem(root)
    for split, table in tables.items():
        # Five rows of a test clip become one record with five captions.
        captions: dict[tuple[str, str], list[str]] = {}
        for youtube_id, start, caption in csv_rows(table, ["youtube_id", "start_time", "caption"]):
            captions.setdefault((youtube_id, start), []).append(caption.strip())
        for (youtube_id, start), texts in captions.items():
            start_s = as_float(start) or 0.0
            clip = youtube_clip(files, youtube_id, start_s, start_s + CLIP_S)
            yield Record(
                id=f"{youtube_id}_{start_s:g}",
                audio=clip or root / "audio" / f"{youtube_id}_{start_s:g}.wav",
                captions=tuple([text for text in texts if text]),
                source=SOURCE.name,
                group=youtube_video(youtube_id),
                link=youtube_page(youtube_id, start_s),
                split=split,
                youtube_id=youtube_id,
            )


SOURCE = Source(
    name="audiocaps",
    title="AudioCaps",
    read=read,
    page="https://github.com/cdjkim/audiocaps",
    needs="train.csv, val.csv and test.csv (or one of them), and the clips by YouTube id.",
    licence="captions MIT; sounds belong to who uploaded them to YouTube",
    published=PublishedSize(51_308),
)
