"""What packing has finished, so that a second run goes on where the first one stopped.

`<out>/pack.json` says what is being packed (its identity); `<out>/<split>/pack.jsonl` gets one line for each
tar once the tar is complete under its name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openclap.data.clean import Skipped
from openclap.data.files import append_line, partial_of, write_bytes
from openclap.errors import DataError
from openclap.locks import LOCK
from openclap.sources.record import Record

FORMAT = 1
IDENTITY = "pack.json"
JOURNAL = "pack.jsonl"
SIZES = "sizes.json"


@dataclass(frozen=True, slots=True)
class Entry:
    """One step of packing a split.

    Attributes:
        tar: the file that was completed; None when only skipped records were left.
        count: samples in it.
        size: of the tar, in bytes.
        next: the place in the split of the first record that comes after.
        skipped: what was left out since the step before.
    """

    tar: str | None
    count: int
    size: int
    next: int
    skipped: tuple[Skipped, ...]


class Journal:
    """The finished steps of one split, in order."""

    def __init__(self, folder: Path) -> None:
        """Make the folder, or read how far an earlier run came.

        That is as far as the journal's lines and their tars are whole; leftovers of a kill are removed.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.entries = _whole_entries(folder)
        for leftover in folder.glob(".*.partial"):
            leftover.unlink()
        write_bytes(folder / JOURNAL, b"".join(_line(entry) + b"\n" for entry in self.entries))
        self._write_sizes()

    @property
    def position(self) -> int:
        """The place in the split of the next record to pack."""
        return self.entries[-1].next if self.entries else 0

    @property
    def samples(self) -> int:
        """Samples packed so far, which is the next sample's number."""
        return sum(entry.count for entry in self.entries)

    @property
    def sizes(self) -> dict[str, int]:
        """Samples in each tar."""
        return {entry.tar: entry.count for entry in self.entries if entry.tar is not None}

    @property
    def skipped(self) -> list[Skipped]:
        """All that was left out, in record order."""
        return [skipped for entry in self.entries for skipped in entry.skipped]

    def commit(self, entry: Entry) -> None:
        """Note a finished step; its tar must stand complete under its name."""
        append_line(self.folder / JOURNAL, _line(entry))
        self.entries.append(entry)
        self._write_sizes()

    def _write_sizes(self) -> None:
        write_bytes(self.folder / SIZES, json.dumps(self.sizes, indent=1).encode())


def identity_of(records: Iterable[Record], splits: Mapping[str, float], seed: int, shard_size: int) -> dict[str, Any]:
    """What decides the content of the shards: the choices, and a digest of every record."""
    digest = hashlib.sha256()
    count = 0
    for record in records:
        path = Path(record.audio)
        fields = asdict(record) | {"audio": path.name, "bytes": _size(path)}
        digest.update(json.dumps(fields, sort_keys=True).encode())
        count += 1
    return {
        "format": FORMAT,
        "records": count,
        "digest": digest.hexdigest(),
        "splits": [[name, share] for name, share in splits.items()],
        "seed": seed,
        "shard_size": shard_size,
    }


def _size(path: Path) -> int | None:
    """A sound is known by its name and size: folders may move between a stop and the next run."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):  # ValueError: a name with a null byte
        return None


def check_same_input(out: Path, identity: Mapping[str, Any]) -> None:
    """Raise DataError when `out` holds anything that is not an earlier run of the same packing."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file, expected a folder to pack into. Choose a new folder.")
    try:
        before = json.loads((out / IDENTITY).read_bytes())
    except FileNotFoundError:
        ours = {LOCK, partial_of(out / IDENTITY).name}
        if out.is_dir() and any(path.name not in ours for path in out.iterdir()):
            raise DataError(f"{out}: is not empty and holds no packing to go on with. Choose a new folder.") from None
        return
    except ValueError:
        before = None
    if before != identity:
        changed = _differences(before, identity) if isinstance(before, dict) else f"{IDENTITY} is damaged"
        raise DataError(f"{out}: was packed from another input ({changed}). Choose a new folder, or delete this one.")


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    names = {"digest": "rows", "records": "number of rows", "shard_size": "shard size"}
    return "changed: " + ", ".join(names.get(key, key) for key in now if before.get(key) != now[key])


def _line(entry: Entry) -> bytes:
    return json.dumps(asdict(entry)).encode()


def _whole_entries(folder: Path) -> list[Entry]:
    """The journal up to the first line that is torn or whose tar is missing or of another size."""
    path = folder / JOURNAL
    entries: list[Entry] = []
    for line in path.read_bytes().split(b"\n")[:-1] if path.is_file() else []:
        entry = _entry(line)
        if entry is None or not _stands(folder, entry):
            break
        entries.append(entry)
    return entries


def _entry(line: bytes) -> Entry | None:
    try:
        fields = json.loads(line)
        skipped: Sequence[Mapping[str, str]] = fields.pop("skipped")
        return Entry(**fields, skipped=tuple(Skipped(**each) for each in skipped))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _stands(folder: Path, entry: Entry) -> bool:
    tar = None if entry.tar is None else folder / entry.tar
    return tar is None or (tar.is_file() and tar.stat().st_size == entry.size)
