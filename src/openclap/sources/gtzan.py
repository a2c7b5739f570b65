"""GTZAN: 1,000 excerpts of thirty seconds, a hundred of each of ten genres of music.

`genres/GENRE/GENRE.NNNNN.wav` (or `genres_original/` in later copies; `.au` in the first release). Where the lists
of Sturm's fault-filtered split lie beside it (`train_filtered.txt`, `valid_filtered.txt`,
`test_filtered.txt`), they give the splits; excerpts in none of them (repetitions and distorted ones) have no split.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from openclap.sources.files import audio_files, relative_name
from openclap.sources.record import Record
from openclap.sources.source import PublishedSize, Root, Source


def read(root: Root) -> Iterator[Record]:
    """Yield records in order of names."""
    return _records(SOURCE.find(root, "genres", "genres_original", "Data/genres_original"), _splits(Path(root)))


def _records(genres: Path, splits: dict[str, str]) -> Iterator[Record]:
    for path in audio_files(genres):
        yield Record(
            id=path.name,
            audio=path,
            captions=(),
            source=SOURCE.name,
            label=path.parent.name,
            group=f"gtzan:{path.stem}",
            split=splits.get(Path(relative_name(genres, path)).stem),
            length_s=30.0,
            rate=22_050,
        )


def _splits(root: Path) -> dict[str, str]:
    """Read the splits by excerpt name from the lists that exist."""
    lists = {split: root / f"{split}_filtered.txt" for split in ("train", "valid", "test")}
    return {
        Path(line.strip()).stem: split
        for split, path in lists.items()
        if path.exists()
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip()
    }


SOURCE = Source(
    name="gtzan",
    title="GTZAN",
    read=read,
    page="http://marsyas.info/downloads/datasets.html",
    needs="genres/ (or genres_original/) with a folder for each genre.",
    licence="not stated; excerpts of published music",
    get="Download the archive, which is no longer at its first address; copies are on the Hugging Face hub.",
    use="Research; the music is not licensed.",
    faults="Repeated, mislabelled and distorted excerpts (Sturm 2013), and one file that cannot be decoded "
    "(jazz.00054).",
    published=PublishedSize(1_000, 8.3),
)
