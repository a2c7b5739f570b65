"""Two `openclap serve` over one index in object storage, as on two machines, while a third process adds sounds."""

from __future__ import annotations

import json
import signal
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openclap.library import Library
from support.search_helpers import write_tone
from support.serving import ServerProcess


def search(url: str, **query: Any) -> list[str]:
    body = json.dumps({"text": "a tone", "k": 100, **query}).encode()
    request = urllib.request.Request(f"{url}/v1/search", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return sorted(Path(hit["path"]).name for hit in json.load(answer)["hits"])


@pytest.fixture
def library(store: str, tiny_model: Path, sounds: Path) -> Library:
    library = Library.open(store, tiny_model)
    library.add([sounds])
    return library


@pytest.fixture
def replicas(store: str, library: Library, tmp_path: Path) -> Iterator[list[ServerProcess]]:
    """Each has a home of its own, as on a machine of its own."""
    servers = [ServerProcess(store, environment={"OPENCLAP_HOME": str(tmp_path / f"home-{n}")}) for n in (1, 2)]
    yield servers
    for server in servers:
        assert server.stop(signal.SIGTERM) == 0, server.log


@pytest.mark.long
def test_replicas_follow_one_writer(library: Library, sounds: Path, replicas: list[ServerProcess]) -> None:
    names = ["high.wav", "low.wav", "middle.wav", "whistle.wav"]
    assert [search(server.url) for server in replicas] == [names, names]
    failures: list[BaseException] = []
    asked, done = 0, threading.Event()

    def keep_searching(url: str) -> None:
        nonlocal asked
        while not done.is_set():
            try:
                assert {"high.wav", "low.wav"} <= set(search(url))
            except BaseException as error:
                failures.append(error)
                return
            asked += 1

    threads = [threading.Thread(target=keep_searching, args=(server.url,)) for server in replicas for _ in range(2)]
    for thread in threads:
        thread.start()
    for step in range(4):
        write_tone(sounds / f"new-{step}.wav", 500 + 200 * step)
        library.add([sounds])
        assert all(f"new-{step}.wav" in search(server.url) for server in replicas)  # by the first request after it
    library.index.optimize()
    (sounds / "middle.wav").unlink()
    library.add([sounds])
    assert not any("middle.wav" in search(server.url) for server in replicas)
    done.set()
    for thread in threads:
        thread.join()
    assert failures == [] and asked > 20
    assert search(replicas[0].url, keywords="only", text="whistle") == ["whistle.wav"]
