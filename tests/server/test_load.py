"""Many clients at once, and many requests, to `openclap serve` as a process of its own. Figures are printed (`-s`)."""

from __future__ import annotations

import importlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from openclap.library import Library
from support.serving import ServerProcess

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
benchmark = importlib.import_module("serve")
SECONDS = 120.0
CLIENTS = 64
REQUESTS = 10_000
pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


@pytest.fixture
def server(library: Library) -> Iterator[ServerProcess]:
    process = ServerProcess(library.index.folder)
    assert process.url, process.log
    yield process
    assert process.stop(signal.SIGTERM) == 0, process.log
    assert "Traceback" not in process.log


def requests(library: Library) -> list[Any]:
    """One request of each kind."""
    return list(benchmark.kinds_of(library.index.folder.parent / "sounds" / "1.wav").values())


def test_64_clients_get_no_error_but_429(server: ServerProcess, library: Library) -> None:
    kinds = requests(library)
    benchmark.send(server.url, kinds, 1, seconds=5.0)
    for clients, seconds in ((1, SECONDS / 4), (CLIENTS, SECONDS)):
        load = benchmark.send(server.url, kinds, clients, seconds=seconds)
        rate, (p50, p99) = len(load.seconds) / seconds, np.percentile(load.seconds, [50, 99])
        print(f"\n{clients:3} clients: {rate:.1f} requests/s, p50 {p50:.3f} s, p99 {p99:.3f} s")
        assert rate > 1 and set(load.others) <= {"429"}, load.others


def test_memory_is_flat_over_10000_requests(server: ServerProcess, library: Library) -> None:
    kinds, sizes = requests(library), []
    benchmark.send(server.url, kinds, 8, most=REQUESTS // 5)
    for _ in range(5):
        sizes.append(benchmark.resident_mb(server.process.pid))
        assert not benchmark.send(server.url, kinds, 8, most=REQUESTS // 5).others
    print(f"\nresident: {', '.join(f'{size:.0f} MB' for size in sizes)}")
    assert max(sizes) - sizes[0] < 25, sizes


def test_the_end_completes_requests_and_closes_streams(library: Library) -> None:
    server = ServerProcess(library.index.folder)
    answers: list[Any] = []

    def ask() -> None:
        texts = [f"a low tone {number}" for number in range(2048)]
        answers.append(httpx.post(f"{server.url}/v1/embeddings", json={"input": texts}, timeout=60))

    with httpx.stream("GET", f"{server.url}/v1/indexing/events", timeout=60) as stream:
        next(stream.iter_lines())
        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(0.3)
        began = time.monotonic()
        assert server.stop(signal.SIGTERM) == 0 and time.monotonic() - began < 15
    asking.join()
    assert answers[0].status_code == 200 and len(answers[0].json()["data"]) == 2048
    assert server.log.endswith("Stopped.\n") and "Traceback" not in server.log
