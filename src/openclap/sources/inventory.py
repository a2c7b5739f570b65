"""Compare a source's entries with the files that are there: how many have one, and what is missing or left over."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from openclap.sources.files import audio_files
from openclap.sources.source import Root, Source

EXAMPLES = 3
"""Missing and left-over files that are named."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """The entries of a collection and its files.

    Attributes:
        entries: number of records by collection (or part of one) and split; "" for records without a split.
        found: those among them that have a file, or an address to download it from.
        missing: the first of the files that records name and that are not there.
        left_over: number of audio files under the root that no record names.
        first_left_over: the first of them.
    """

    entries: dict[tuple[str, str], int]
    found: dict[tuple[str, str], int]
    missing: tuple[str, ...]
    left_over: int
    first_left_over: tuple[str, ...]


def take_inventory(source: Source, root: Root) -> Inventory:
    """Read all records of a source. Raises DataError as its `read`."""
    folder = Path(root)
    entries: Counter[tuple[str, str]] = Counter()
    found: Counter[tuple[str, str]] = Counter()
    named: set[Path] = set()
    missing: list[str] = []
    for record in source.read(root):
        part = record.source, record.split or ""
        entries[part] += 1
        if isinstance(record.audio, str) or record.audio.is_file():
            found[part] += 1
            if isinstance(record.audio, Path):
                named.add(record.audio)
        elif len(missing) < EXAMPLES:
            missing.append(record.audio.name)
    files = audio_files(folder) if folder.is_dir() else iter(())
    left_over = [path.relative_to(folder).as_posix() for path in files if path not in named]
    return Inventory(dict(entries), dict(found), tuple(missing), len(left_over), tuple(left_over[:EXAMPLES]))
