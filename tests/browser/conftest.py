"""Chromium, driven by Playwright, and real servers: of the demo's index, and of a small folder that tests change.

Without Chromium the tests are skipped; where CI is set, they fail.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openclap.library import Library
from support.browsing import ARGUMENTS, CHROMIUM, Reader, need
from support.serving import LiveServer, ServerProcess

BUNDLED = Path(__file__).parents[2] / "src" / "openclap" / "demo" / "sounds"


@pytest.fixture(scope="module")
def playwright() -> Iterator[Any]:
    """Playwright. It stops after each file, since its event loop would be in the way of other tests."""
    need(CHROMIUM, "Chromium is not installed: apt-get install chromium.")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def chromium(playwright: Any) -> Iterator[Any]:
    """A browser; each test has a profile of its own."""
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
    yield browser
    browser.close()


@pytest.fixture
def servers() -> Iterator[list[LiveServer]]:
    """Servers that are stopped after all pages are closed, since open pages keep a connection."""
    started: list[LiveServer] = []
    yield started
    for server in started:
        server.__exit__(None, None, None)


@pytest.fixture
def open_page(chromium: Any, servers: list[LiveServer]) -> Iterator[Callable[..., Reader]]:
    """A function that opens the page: `open_page(url, width=…)`. Errors in the console fail the test."""
    contexts: list[Any] = []
    readers: list[Reader] = []

    def open_page(url: str, *, width: int = 1280, height: int = 800, quiet: bool = False, **options: Any) -> Reader:
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        reader = Reader(context.new_page(), url)
        if not quiet:
            readers.append(reader)
        return reader

    yield open_page
    for context in contexts:
        context.close()
    assert [error for reader in readers for error in reader.errors] == []


def demo_end(demo_home: Path) -> str:
    """What the demo printed at its end."""
    return (demo_home / "demo.err").read_text(encoding="utf-8").rstrip()[-1000:]


@pytest.fixture(scope="module")
def demo_url(demo_home: Path) -> Iterator[str]:
    """The address of `openclap serve` on the demo's index of 379 real sounds, by the line with which the demo ends."""
    [index] = re.findall(r"openclap serve --open (\S+)\n +then http://127.0.0.1:7007$", demo_end(demo_home))
    server = ServerProcess(index, environment={"OPENCLAP_HOME": str(demo_home)})
    assert server.url, server.log
    yield server.url
    server.process.kill()
    server.process.wait()


@pytest.fixture
def served(tiny_model: Path, tmp_path: Path, servers: list[LiveServer]) -> Callable[..., LiveServer]:
    """A function that serves some of the bundled sounds by the tiny model: `served({"name.ogg": "dog1"})` copies
    scratch-dog1.ogg under that name. Further options are those of `LiveServer`."""

    def serve(names: dict[str, str], **options: Any) -> LiveServer:
        folder = tmp_path / "sounds"
        for name, source in names.items():
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(BUNDLED / f"scratch-{source}.ogg", place)
        library = Library.open(tmp_path / "index", tiny_model)
        if names and options.pop("indexed", True):
            library.add([folder])
        server = LiveServer(library, **options)
        server.__enter__()
        servers.append(server)
        return server

    return serve
