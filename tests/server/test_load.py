"""Many clients at once, and many requests, to `openclap serve` as a process of its own. Figures are printed (`-s`)."""

from __future__ import annotations

import asyncio
import base64
import signal
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from openclap.library import Library
from support.serving import ServerProcess

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


def requests(library: Library) -> list[tuple[str, str, dict[str, Any]]]:
    """One request of each kind: method, path, options."""
    file = library.index.folder.parent / "sounds" / "1.wav"
    uri = f"data:audio/wav;base64,{base64.b64encode(file.read_bytes()).decode()}"
    return [
        ("POST", "/v1/embeddings", {"json": {"input": "a low tone in noise"}}),
        ("POST", "/v1/embeddings", {"json": {"input": [uri], "encoding_format": "base64"}}),
        ("POST", "/v1/search", {"json": {"text": "noise", "k": 5}}),
        ("POST", "/v1/search", {"json": {"path": str(file), "k": 5}}),
        ("GET", "/v1/sounds/file", {"params": {"path": str(file)}, "headers": {"Range": "bytes=0-999"}}),
        ("GET", "/v1/sounds/peaks", {"params": {"path": str(file)}}),
        ("POST", "/v1/embeddings", {"json": {"input": "data:audio/wav;base64,AAAA"}}),
    ]


def run(
    server: ServerProcess, kinds: list[tuple[str, str, dict[str, Any]]], clients: int, seconds: float
) -> list[float]:
    """Send requests one after the other from each client, and return the seconds that each took.

    Every answer must be the one that a single client gets, or 429 with Retry-After.
    """
    times: list[float] = []
    numbers, end = count(), time.monotonic() + seconds

    async def ask(client: httpx.AsyncClient) -> None:
        while time.monotonic() < end:
            number = next(numbers) % len(kinds)
            method, path, options = kinds[number]
            began = time.monotonic()
            answer = await client.request(method, path, **options)
            times.append(time.monotonic() - began)
            if answer.status_code == 429:
                await asyncio.sleep(float(answer.headers["retry-after"]))
            else:
                expected = 400 if number == len(kinds) - 1 else (200, 206)[path.endswith("file")]
                assert answer.status_code == expected, answer.text

    async def main() -> None:
        limits = httpx.Limits(max_connections=clients)
        async with httpx.AsyncClient(base_url=server.url, timeout=120, limits=limits) as client:
            await asyncio.gather(*(ask(client) for _ in range(clients)))

    asyncio.run(main())
    return times


def test_64_clients_get_no_error_but_429(server: ServerProcess, library: Library) -> None:
    kinds = requests(library)
    run(server, kinds, 1, 5.0)
    for clients, seconds in ((1, SECONDS / 4), (CLIENTS, SECONDS)):
        times = run(server, kinds, clients, seconds)
        p50, p99 = np.percentile(times, [50, 99]) * 1000
        print(f"\n{clients:3} clients: {len(times) / seconds:7.1f} requests/s, p50 {p50:6.1f} ms, p99 {p99:6.1f} ms")
        assert len(times) > 100


def test_memory_is_flat_over_10000_requests(server: ServerProcess, library: Library) -> None:
    kinds = requests(library)
    sizes = []
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for number in range(REQUESTS + REQUESTS // 5):
            method, path, options = kinds[number % len(kinds)]
            client.request(method, path, **options)
            if number >= REQUESTS // 5 and number % (REQUESTS // 5) == 0:
                sizes.append(resident_mb(server.process.pid))
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


def resident_mb(process: int) -> float:
    [line] = [line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024
