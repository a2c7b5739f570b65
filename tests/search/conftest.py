from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from openclap.search.index import Index
from support.search_helpers import IDENTITY, SpectrumEmbedder, write_tone
from support.store import Store, running_store


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


@pytest.fixture(scope="session")
def object_store() -> Iterator[Store]:
    with running_store() as store:
        yield store


@pytest.fixture
def store(object_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty place in a store that speaks S3, which this process and its children can reach."""
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OPENCLAP_HOME", str(tmp_path / "home"))
    return f"s3://{object_store.bucket}/{tmp_path.name}"
