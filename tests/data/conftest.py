"""Fixtures for tests of data sets: short sounds as records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from openclap.sources import Record
from support.isolation import no_proxies, quick_disk
from support.packs import MakeRecords

__all__ = ["make_records", "no_proxies", "quick_disk"]


@pytest.fixture
def make_records(tmp_path: Path) -> MakeRecords:
    """Make n records of short 16-bit tones, each in a group of its own, with two captions and all metadata."""

    def make(n: int) -> list[Record]:
        folder = tmp_path / "sounds"
        folder.mkdir(exist_ok=True)
        return [_record(folder / f"{number}.wav", number) for number in range(n)]

    return make


def _record(path: Path, number: int) -> Record:
    seconds = np.arange(480 + 10 * number) / 48_000
    wave_N = (8000 * np.sin(2 * np.pi * (200 + 30 * number) * seconds)).astype(np.int16)
    soundfile.write(path, wave_N, 48_000)
    return Record(
        id=f"id{number}",
        audio=path,
        captions=(f"Tone {number}.", "A tone."),
        source="test",
        tags=("tone", "sine"),
        label="tone",
        group=f"group{number}",
        title=f"Tone {number}",
        licence="CC0",
        author="Ada",
        link="https://x.org",
    )
