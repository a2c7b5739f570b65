"""AudioSet: ten seconds each of two million YouTube videos, with labels from an ontology of 527 classes.

The published segments (`balanced_train_segments.csv`, `unbalanced_train_segments.csv`, `eval_segments.csv`: three lines
of comment, then `YTID, start_seconds, end_seconds, positive_labels`, the labels' ids in quotes) and the names of the
labels (`class_labels_indices.csv`, or the ontology's `ontology.json`). The labels are the tags.

Clips are found anywhere under the root by the names in `youtube`; they hold the ten seconds, not the
video. A missing clip keeps its record, so that packing can list it: many videos have been taken down.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from openclap.errors import DataError
from openclap.sources.files import as_float, audio_files_by_stem, csv_rows, log
from openclap.sources.record import Record
from openclap.sources.source import PublishedSize, Root, Source
from openclap.sources.text_encoding import CP1252_ERRORS
from openclap.sources.youtube import youtube_clip, youtube_page, youtube_video

PARTS = {
    "balanced_train": "train",
    "unbalanced_train": "train",
    "eval": "test",
}
"""The published parts and their splits."""


def read(root: Root, *, parts: tuple[str, ...] = tuple(PARTS)) -> Iterator[Record]:
    """Yield records of those `parts` whose segment files exist. All clips of a video are one group."""
    tables = {part: table for part in parts if (table := Path(root, f"{part}_segments.csv")).exists()}
    if not tables:
        raise SOURCE.missing(root, *(f"{part}_segments.csv" for part in parts))
    names = label_names(SOURCE.find(root, "class_labels_indices.csv", "ontology.json"))
    return _records(Path(root), tables, names)


def label_names(path: Path) -> dict[str, str]:
    """Read the names of labels by their ids ("/m/09x0r") from either published file.

    Raises DataError for a damaged one.
    """
    if path.suffix == ".csv":
        return {row[0]: row[1] for row in csv_rows(path, ["mid", "display_name"])}
    try:
        return {label["id"]: label["name"] for label in json.loads(path.read_bytes())}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is damaged ({error}), expected AudioSet's ontology. Fetch it again.") from error


def _records(root: Path, tables: dict[str, Path], names: dict[str, str]) -> Iterator[Record]:
    files = audio_files_by_stem(root)
    for part, table in tables.items():
        for youtube_id, start_s, end_s, labels in _segments(table):
            yield Record(
                id=f"{youtube_id}_{start_s:g}",
                audio=youtube_clip(files, youtube_id, start_s, end_s) or root / "audio" / f"{youtube_id}.wav",
                captions=(),
                source=SOURCE.name,
                tags=tuple([names[label] for label in labels if label in names]),
                group=youtube_video(youtube_id),
                link=youtube_page(youtube_id, start_s),
                split=PARTS[part],
                length_s=end_s - start_s,
                youtube_id=youtube_id,
            )


def _segments(table: Path) -> Iterator[tuple[str, float, float, list[str]]]:
    """Yield (video, start, end, ids of labels) of each segment. Other lines are logged and left out."""
    dropped = 0
    with table.open(encoding="utf-8", errors=CP1252_ERRORS) as file:
        for line in islice(file, 3, None):  # the file begins with three lines of comment
            cells = line.strip().split(", ", 3)
            start_s, end_s = (as_float(cells[1]), as_float(cells[2])) if len(cells) == 4 else (None, None)
            if start_s is None or end_s is None:
                dropped += bool(line.strip())
            else:
                yield cells[0], start_s, end_s, cells[3].strip('"').split(",")
    if dropped:
        log.warning("%s: %d lines are no segments and were left out.", table, dropped)


SOURCE = Source(
    name="audioset",
    title="AudioSet",
    read=read,
    page="https://research.google.com/audioset/download.html",
    needs="the segments (*_segments.csv), class_labels_indices.csv or ontology.json, and the clips by YouTube id.",
    licence="labels CC-BY-4.0; sounds belong to who uploaded them to YouTube",
    get="Take the segments and labels from the page; the clips are to be fetched from YouTube, or asked for at other "
    "laboratories.",
    use="Labels under CC-BY-4.0. The sounds are not licensed: most laboratories train on them for research only.",
    faults="A tenth and more of the videos are gone. Labels are incomplete, and of some classes less than half is "
    "right, as the published estimates of their quality say. AudioCaps, VGGSound and WavCaps have the same videos.",
    published=PublishedSize(2_084_320, 5_790.0),
)
