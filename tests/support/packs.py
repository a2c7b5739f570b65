"""Helpers shared by tests of data sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from openclap.locks import LOCK
from openclap.sources import Record

MakeRecords = Callable[[int], list[Record]]


def contents(out: Path) -> dict[str, bytes]:
    """Content of every file of a data set, except the empty lock."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != LOCK
    }
