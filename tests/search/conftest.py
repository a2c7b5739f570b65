from __future__ import annotations

from pathlib import Path

import pytest

from openclap.search.index import Index
from support.search_helpers import IDENTITY, SpectrumEmbedder, write_tone


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index.create(tmp_path / "index", IDENTITY)


@pytest.fixture
def embed() -> SpectrumEmbedder:
    return SpectrumEmbedder()


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """Four tones, one of them in a folder below."""
    folder = tmp_path / "sounds"
    for name, hertz in (("low", 200), ("middle", 900), ("high", 2500), ("deep/whistle", 3600)):
        write_tone(folder / f"{name}.wav", hertz)
    return folder
