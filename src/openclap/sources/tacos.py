"""TACOS: about 12,000 sounds from Freesound with captions of the sounds in them, each with its beginning and end.

As published, in the root:

    annotations_strong.csv    filename, text, onset, offset              what sounds when: the phrases
    annotations_weak.csv      filename, text (older: caption)            sentences about the whole clip: the captions
    development_split.csv, test_split.csv    filename                    the splits "train" and "test"
    metadata.csv              filename, keywords, freesound_id, sound_link, manufacturer, license, title, description,
                              start_time_s, end_time_s, …

`metadata.csv` and one of the annotations are needed. Audio files lie anywhere under the root. A file that is in both
splits is left out and logged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from openclap.sources.files import (
    LeftOut,
    as_float,
    as_int,
    audio_files_by_stem,
    csv_header,
    csv_rows,
    log,
    split_text,
)
from openclap.sources.grouping import freesound_id, freesound_page, freesound_user
from openclap.sources.licence import normalise_licence
from openclap.sources.phrases import as_seconds
from openclap.sources.record import Record
from openclap.sources.source import PublishedSize, Root, Source
from openclap.types import Phrase

STRONG, WEAK, METADATA = "annotations_strong.csv", "annotations_weak.csv", "metadata.csv"
SPLITS = {"development_split.csv": "train", "test_split.csv": "test"}
_FACTS = (
    *("keywords", "freesound_id", "sound_link", "manufacturer", "license", "title", "description"),
    *("start_time_s", "end_time_s"),
)
_NO_FACTS = ("",) * len(_FACTS)


def read(root: Root) -> Iterator[Record]:
    """Yield records in the order in which files are first named. The group is the Freesound user."""
    folder, metadata = Path(root), SOURCE.find(root, METADATA)
    if not any((folder / name).exists() for name in (STRONG, WEAK)):
        raise SOURCE.missing(root, WEAK, STRONG)
    return _records(folder, metadata)


def _records(root: Path, metadata: Path) -> Iterator[Record]:
    captions, phrases, splits = _captions(root / WEAK), _phrases(root / STRONG), _splits(root)
    files = audio_files_by_stem(root)
    facts = {row[0].strip(): row[1:] for row in csv_rows(metadata, ["filename"], _FACTS)}
    in_both = LeftOut(root, "files are in both splits and were left out")
    without_facts = LeftOut(metadata, "annotated files are not in it, so that their licence is unknown")
    for name in dict.fromkeys((*captions, *phrases)):
        if len(splits.get(name, ())) > 1:
            in_both.add(name)
            continue
        if name not in facts:
            without_facts.add(name)
        yield Record(
            **_facts_of(facts.get(name, _NO_FACTS)),
            id=name,
            audio=files.get(PurePosixPath(name).stem) or root / "audio" / name,
            captions=tuple(captions.get(name, ())),
            source=SOURCE.name,
            split=next(iter(splits.get(name, ())), None),
            phrases=tuple(Phrase(text, tuple(segments)) for text, segments in phrases.get(name, {}).items()),
        )
    in_both.log()
    without_facts.log()


def _facts_of(row: tuple[str, ...]) -> dict[str, Any]:
    keywords, identity, link, user, licence, title, description, start, end = (cell.strip() for cell in row)
    upload = as_int(as_float(identity)) or freesound_id(link)
    start_s, end_s = as_float(start), as_float(end)
    return {
        "tags": split_text(keywords, ";" if ";" in keywords else ","),
        "group": freesound_user(user),
        "title": title or None,
        "licence": normalise_licence(licence),
        "author": user or None,
        "link": link or (freesound_page(upload) if upload else None),
        "description": description or None,
        "length_s": end_s - start_s if start_s is not None and end_s is not None and end_s > start_s else None,
        "freesound_id": upload,
    }


def _captions(table: Path) -> dict[str, list[str]]:
    captions: dict[str, list[str]] = {}
    if table.exists():
        column = "text" if "text" in csv_header(table) else "caption"
        for name, text in csv_rows(table, ["filename", column]):
            if text.strip():
                captions.setdefault(name.strip(), []).append(text.strip())
    return captions


def _phrases(table: Path) -> Mapping[str, dict[str, list[tuple[float, float]]]]:
    """Read the segments of each phrase of each file; times that are no numbers are NaN."""
    phrases: dict[str, dict[str, list[tuple[float, float]]]] = {}
    if table.exists():
        for name, text, onset, offset in csv_rows(table, ["filename", "text", "onset", "offset"]):
            if phrase := " ".join(text.split()):
                segment = as_seconds(onset), as_seconds(offset)
                phrases.setdefault(name.strip(), {}).setdefault(phrase, []).append(segment)
    return phrases


def _splits(root: Path) -> dict[str, set[str]]:
    splits: dict[str, set[str]] = {}
    for table, split in SPLITS.items():
        if (root / table).exists():
            for (name,) in csv_rows(root / table, ["filename"]):
                splits.setdefault(name.strip(), set()).add(split)
        else:
            log.warning("%s: is missing, so that no clip is marked as one of the split %s.", root / table, split)
    return splits


SOURCE = Source(
    name="tacos",
    title="TACOS",
    read=read,
    page="https://arxiv.org/abs/2505.07609 (data on Zenodo)",
    needs="metadata.csv, annotations_weak.csv or annotations_strong.csv, development_split.csv and test_split.csv, and "
    "the sounds in any folder.",
    licence="each sound's own: CC0-1.0, CC-BY, CC-BY-NC or Sampling+; captions CC-BY-4.0",
    get="Download the tables and audio.zip from Zenodo, and unpack the sounds.",
    use="Captions under CC-BY-4.0; each sound under its own licence: CC0, CC-BY, CC-BY-NC or Sampling+.",
    faults="The column of the weak captions was named caption before it was text. Sounds of Freesound: Clotho and "
    "FSD50K may have the same uploads.",
    published=PublishedSize(12_000),
)
