"""What the tests of packing share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from openclap.locks import LOCK
from openclap.sources import Record

MakeRecords = Callable[[int], list[Record]]


def contents(out: Path) -> dict[str, bytes]:
    """All that packing left, but for the lock, which holds nothing."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != LOCK
    }
