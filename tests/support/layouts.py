"""Helpers for miniature collections: write real audio under any name, and read records."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from openclap.audio.io import describe
from openclap.sources import SOURCES, Record

BUNDLED = sorted((Path(__file__).parents[2] / "src" / "openclap" / "demo" / "sounds").glob("*.ogg"))


@cache
def _bundled(number: int) -> tuple[Any, int]:
    wave, rate = soundfile.read(BUNDLED[number % len(BUNDLED)], dtype="float32")
    return wave[: rate // 2], rate


def put(path: Path, number: int = 0) -> Path:
    """Half a second of a bundled sound at `path`, encoded as its suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".ogg":
        shutil.copy(BUNDLED[number % len(BUNDLED)], path)
    else:
        wave, rate = _bundled(number)
        soundfile.write(path, np.asarray(wave), rate)
    return path


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    """A text file, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def records(name: str, root: Path, **choices: Any) -> list[Record]:
    """Read the records of a source, and check the fields that every record must have."""
    found = list(SOURCES[name].read(root, **choices))
    for record in found:
        assert record.id and record.source and isinstance(record.captions, tuple) and isinstance(record.tags, tuple)
        assert isinstance(record.audio, Path) or "://" in record.audio
        assert all(text.strip() for text in (*record.captions, *record.tags))
    return found


def decodable(found: Iterable[Record]) -> bool:
    """Return whether all records name a sound that can be decoded."""
    return all(describe(record.audio)[0] > 0 for record in found)
