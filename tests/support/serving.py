"""Serve a library: in process, by uvicorn in a thread, or by `openclap serve` as a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import soundfile
from fastapi import FastAPI
from starlette.testclient import TestClient

from openclap.cli.serve import listen
from openclap.library import Library
from openclap.server.app import create_app
from openclap.server.batching import ModelThread
from openclap.server.connections import server_of
from openclap.server.metrics import Metrics
from openclap.server.security import Access
from openclap.server.service import Limits, ServedIndex, ServedModel, Service

RATE = 16000


def write_sounds(folder: Path, count: int = 6, first: int = 0) -> Path:
    """Sounds of different length, kind and number of channels: `0.wav`, `1.wav`, …"""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        rng = np.random.default_rng(number)
        time_N = np.arange(int(RATE * (0.3 + 0.25 * (number % 6)))) / RATE
        wave_N = np.sin(2 * np.pi * 150 * (1 + number) * time_N) + 0.2 * rng.standard_normal(len(time_N))
        wave = 0.4 * wave_N / np.abs(wave_N).max()
        soundfile.write(folder / f"{number}.wav", np.stack([wave, -0.5 * wave], axis=1) if number % 2 else wave, RATE)
    return folder


@dataclass
class Served:
    """A service in process, its application, and a client of it."""

    service: Service
    app: FastAPI
    client: TestClient


def make_service(library: Library, limits: Limits | None = None, **options: Any) -> Service:
    """A service of one model, "tiny", and one index, "sounds", which is kept up to date with the folder beside it."""
    metrics = Metrics()
    sizes = options.pop("sizes", ())
    model = ServedModel(
        "tiny", library.embedder, ModelThread(library.embedder.runtime, observe=metrics.observe_batch), sizes
    )
    folders = options.pop("folders", (library.index.folder.parent / "sounds",))
    return Service([model], [ServedIndex("sounds", library, model, folders)], limits=limits, metrics=metrics, **options)


@contextmanager
def serving(library: Library) -> Iterator[Callable[..., Served]]:
    """Yield a function that serves a library in process; see `make_service` for its options."""
    clients: list[TestClient] = []

    def start(*, access: Access | None = None, **options: Any) -> Served:
        service = make_service(library, **options)
        app = create_app(service, access or Access())
        client = TestClient(app, base_url="http://127.0.0.1:7007", raise_server_exceptions=False)
        client.__enter__()
        clients.append(client)
        return Served(service, app, client)

    try:
        yield start
    finally:
        for client in clients:
            client.__exit__(None, None, None)


class LiveServer:
    """uvicorn in a thread, on a free port of loopback."""

    def __init__(self, library: Library, *, access: Access | None = None, **options: Any) -> None:
        self.service = make_service(library, **options)
        self.socket = listen("127.0.0.1", 0)
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        app = create_app(self.service, access or Access())
        self._server = server_of(app)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self.socket]}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=30)
        self.socket.close()
        assert not self._thread.is_alive()


class ServerProcess:
    """`openclap serve` as a process: `url` is where it listens, `log` what it printed so far."""

    def __init__(self, *arguments: str | Path, port: int = 0, environment: Mapping[str, str] | None = None) -> None:
        words = [sys.executable, "-m", "openclap", "serve", "--port", str(port), *map(str, arguments)]
        self.process = subprocess.Popen(
            words,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.log, self.url = "", ""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log += line
            if match := re.search(r"at (http://\S+)", line):
                self.url = match[1]
                break
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log += line

    def stop(self, number: int) -> int:
        """Send a signal and return the exit code; `log` is complete then."""
        self.process.send_signal(number)
        code = self.process.wait(timeout=30)
        self._reader.join(timeout=30)
        return code
