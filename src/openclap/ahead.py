"""Sounds decoded by threads, ahead of whoever embeds them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from types import TracebackType
from typing import Any

from openclap.audio.clips import Cut
from openclap.errors import AudioError
from openclap.types import Window

FIRST = 4
"""Windows of a sound that are cut ahead."""


class Job:
    """One sound on its way: the windows that have their vectors, how many are still open, and what went wrong."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.windows: list[Window] = []
        self.open = 0
        self.read = False
        self.error: AudioError | None = None

    @property
    def done(self) -> bool:
        return self.read and self.open == 0

    def result(self) -> list[Window] | AudioError:
        return self.error or self.windows


class Ahead:
    """Iterates, in order, over a Job for each sound and then (Job, window) for each of its windows.

    The first windows of the next `sounds_ahead` sounds are cut in threads. The others of a longer recording are read
    when they are asked for, so that it is never held whole.
    """

    def __init__(self, sounds: Iterable[tuple[str, Iterator[Cut]]], sounds_ahead: int) -> None:
        self._sounds, self._ahead = iter(sounds), max(2, sounds_ahead)
        self._pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="decode")

    def __enter__(self) -> Ahead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[Any]:
        started: deque[tuple[Job, Iterator[Cut], Future[list[Cut]]]] = deque()
        while True:
            for name, windows in islice(self._sounds, self._ahead - len(started)):
                started.append((Job(name), windows, self._pool.submit(self._first, windows)))
            if not started:
                return
            job, windows, first = started.popleft()
            yield job
            try:
                for window in chain(first.result(), windows):
                    yield job, window
            except AudioError as error:
                job.error = error
            job.read = True

    def _first(self, windows: Iterator[Cut]) -> list[Cut]:
        return list(islice(windows, FIRST))
