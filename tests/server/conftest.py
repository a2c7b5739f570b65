"""Six small sounds in an index with a tiny model, served in process and by a real server."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from openclap.library import Library
from support.serving import LiveServer, Served, serving, write_sounds


@pytest.fixture(scope="session")
def library(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Library:
    """An index of six sounds; tests do not change it."""
    folder = tmp_path_factory.mktemp("served")
    library = Library.open(folder / "index", tiny_model)
    library.add([write_sounds(folder / "sounds")])
    return library


@pytest.fixture
def serve(library: Library) -> Iterator[Callable[..., Served]]:
    """A function that serves the library in process: `serve(limits=…, access=…)`. Each is closed at the end."""
    with serving(library) as start:
        yield start


@pytest.fixture
def own(library: Library, tmp_path: Path) -> Library:
    """A copy of the index and its sounds, for tests that change them."""
    folder = library.index.folder.parent
    shutil.copytree(folder / "sounds", tmp_path / "sounds")
    copy = Library.open(tmp_path / "index", library.index.identity.model)
    copy.add([tmp_path / "sounds"])
    return copy


@pytest.fixture
def serve_own(own: Library) -> Iterator[Callable[..., Served]]:
    """A function that serves the copy in process."""
    with serving(own) as start:
        yield start


@pytest.fixture(scope="session")
def client(library: Library) -> Iterator[TestClient]:
    """A client of a server in process, shared by tests that leave it as it was. The model has the sizes 4, 8 and 16."""
    with serving(library) as start:
        served = start(sizes=(4, 8))
        # Waveforms computed in the background would be stored in the home of whichever test runs by then.
        served.service.in_background = lambda work: True  # type: ignore[method-assign]
        yield served.client


@pytest.fixture(scope="session")
def live(library: Library) -> Iterator[LiveServer]:
    """A real uvicorn on loopback, in a thread, shared by tests that leave it as it was."""
    with LiveServer(library) as server:
        yield server


@pytest.fixture
def http(live: LiveServer) -> Iterator[httpx.Client]:
    """A client of the real server."""
    with httpx.Client(base_url=live.url, timeout=30) as client:
        yield client
