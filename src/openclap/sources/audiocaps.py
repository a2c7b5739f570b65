"""AudioCaps: captions of AudioSet clips, one per training clip and five per validation or test clip.

`train.csv`, `val.csv` and `test.csv` (or as many of them as there are), with the columns `audiocap_id, youtube_id,
start_time, caption`: version 1 in the root or in `dataset/`, version 2 in `dataset2.0/` or the root. WavCaps' tables
of the same names (`file_name` with `caption`, or `caption_1` … `caption_5`) are read as well. The rows of a clip become
one record. Ids may have any of the forms in `youtube`; clips are found anywhere under the root by those, and by
`audiocap_id`. A missing clip keeps its record.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from openclap.sources.files import LeftOut, as_float, audio_files_by_stem, csv_header, csv_rows
from openclap.sources.record import Record
from openclap.sources.source import PublishedSize, Root, Source
from openclap.sources.youtube import clip_id, youtube_clip, youtube_page, youtube_video

SPLITS = {"train": "train", "val": "valid", "test": "test"}
CLIP_S = 10.0
_CAPTIONS = ("caption", *(f"caption_{number}" for number in range(1, 6)))


@dataclass(slots=True)
class _Clip:
    """The rows of a clip: their captions, and the names under which its file may be found."""

    captions: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


def read(root: Root) -> Iterator[Record]:
    """Yield records in the order in which clips are first named. All clips of a video are one group."""
    return _read(SOURCE, root, "dataset", ".")


def read_version_2(root: Root) -> Iterator[Record]:
    """Yield records in the order in which clips are first named. All clips of a video are one group."""
    return _read(VERSION_2, root, "dataset2.0", ".")


def _read(source: Source, root: Root, *folders: str) -> Iterator[Record]:
    folder = source.find(root, *folders)
    tables = {split: table for name, split in SPLITS.items() if (table := folder / f"{name}.csv").exists()}
    if not tables:
        raise source.missing(root, "train.csv", "val.csv", "test.csv")
    return _records(source.name, Path(root), tables)


def _records(source: str, root: Path, tables: dict[str, Path]) -> Iterator[Record]:
    files = audio_files_by_stem(root)
    for split, table in tables.items():
        for (video, start_s), clip in _clips(table).items():
            first_s = start_s or 0.0
            name = video if start_s is None else f"{video}_{start_s:g}"
            audio = youtube_clip(files, video, first_s, first_s + CLIP_S, *clip.names)
            yield Record(
                id=name,
                audio=audio or root / "audio" / f"{name}.wav",
                captions=tuple(text for text in clip.captions if text),
                source=source,
                group=youtube_video(video),
                link=youtube_page(video, first_s),
                split=split,
                youtube_id=video,
            )


def _clips(table: Path) -> dict[tuple[str, float | None], _Clip]:
    """Read the rows of a table by video and beginning: five rows of a test clip become one record."""
    clips: dict[tuple[str, float | None], _Clip] = {}
    left_out = LeftOut(table, "rows have an id that is none of a YouTube clip and were left out")
    for text, start, numeric, captions in _rows(table):
        identity = clip_id(text)
        if identity is None:
            left_out.add(text)
            continue
        start_s = as_float(start)
        if start_s is None and identity.times:
            start_s = identity.times[0]
        clip = clips.setdefault((identity.video, start_s), _Clip())
        clip.captions += [caption.strip() for caption in captions]
        clip.names += [PurePosixPath(text).stem, text, *([numeric] if numeric else [])]
    left_out.log()
    return clips


def _rows(table: Path) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """Yield (id, beginning, numeric id, captions) of each row of either form."""
    if "file_name" in csv_header(table):
        for name, *captions in csv_rows(table, ["file_name"], _CAPTIONS):
            yield name, "", "", tuple(captions)
        return
    needed = ["youtube_id", "start_time", "caption"]
    for youtube_id, start, caption, numeric in csv_rows(table, needed, ["audiocap_id"]):
        yield youtube_id, start, numeric.strip(), (caption,)


SOURCE = Source(
    name="audiocaps",
    title="AudioCaps",
    read=read,
    page="https://github.com/cdjkim/audiocaps",
    needs="train.csv, val.csv and test.csv (or one of them), and the clips by YouTube id.",
    licence="captions MIT; sounds belong to who uploaded them to YouTube",
    get="Take the tables from the page; the clips are to be fetched from YouTube, or asked for with the form on the "
    "page.",
    use="Captions under the MIT licence. The sounds are not licensed: research only at most laboratories.",
    faults="A tenth and more of the videos are gone, so that the test sets of laboratories differ. All clips are in "
    "AudioSet.",
    published=PublishedSize(51_308),
)
VERSION_2 = Source(
    name="audiocaps2",
    title="AudioCaps 2.0",
    read=read_version_2,
    page="https://github.com/cdjkim/audiocaps",
    needs="dataset2.0/train.csv, val.csv and test.csv (or one of them), and the clips by YouTube id.",
    licence="captions MIT; sounds belong to who uploaded them to YouTube",
    get="Take dataset2.0 from the page; the clips are to be fetched from YouTube, or asked for with the form on the "
    "page.",
    use="Captions under the MIT licence. The sounds are not licensed: research only at most laboratories.",
    faults="Published scores are those of version 1 unless they say otherwise.",
    published=PublishedSize(91_256 + 495 + 975),
)
