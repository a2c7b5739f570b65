"""Sounds decoded by threads, ahead of whoever embeds them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclap.errors import AudioError

Wave = NDArray[np.float32]


class Span:
    """A stretch of a sound, in samples, that gets one vector: the sum of those of its pieces, of unit length. Pieces
    that are silent count only where all of them are."""

    def __init__(self, start: int = 0, end: int = 0) -> None:
        self.start, self.end = start, end
        self.total_D: Wave | float = 0.0
        self._sounds = False

    def add(self, vector_D: Wave, *, silent: bool) -> None:
        """Take in the vector of a piece."""
        if silent and self._sounds:
            return
        if not silent and not self._sounds:
            self.total_D, self._sounds = 0.0, True  # the silent pieces before it drop out
        self.total_D = self.total_D + vector_D

    def vector(self) -> Wave:
        """(D,), unit norm."""
        unit: Wave = self.total_D / np.maximum(np.linalg.norm(self.total_D), np.float32(1e-12))
        return unit


Piece = tuple[Span, Wave]
"""What the network reads at once, and the stretch it is of."""


class Job:
    """One sound on its way: its stretches, how many pieces have no vector yet, and what went wrong."""

    def __init__(self, name: str, blocks: Iterator[Wave]) -> None:
        self.name, self.blocks = name, blocks
        self.spans: list[Span] = []
        self.open = 0
        self.read = False
        self.error: AudioError | None = None

    @property
    def done(self) -> bool:
        return self.read and self.open == 0


class Ahead:
    """Iterates, in order, over a Job for each sound and then (Job, Piece) for each of its pieces.

    Of the next `sounds_ahead` sounds about `samples_ahead` samples each are decoded in threads. The rest of a longer
    recording is read when it is asked for, so that memory does not grow with its length.
    """

    def __init__(
        self,
        sounds: Iterable[tuple[str, Iterator[Wave]]],
        pieces: Callable[[Iterator[Wave]], Iterator[Piece]],
        sounds_ahead: int,
        samples_ahead: int,
    ) -> None:
        self._sounds, self._pieces = iter(sounds), pieces
        self._ahead, self._samples = max(2, sounds_ahead), samples_ahead
        self._pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="decode")

    def __enter__(self) -> Ahead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[Any]:
        started: deque[tuple[Job, Future[list[Wave]]]] = deque()
        while True:
            for name, blocks in islice(self._sounds, self._ahead - len(started)):
                started.append((Job(name, blocks), self._pool.submit(self._first, blocks)))
            if not started:
                return
            job, first = started.popleft()
            yield job
            try:
                for piece in self._pieces(chain(_taken(first.result()), job.blocks)):
                    yield job, piece
            except AudioError as error:
                job.error = error
            job.read = True

    def _first(self, blocks: Iterator[Wave]) -> list[Wave]:
        """The first blocks of a sound, as many as hold `samples_ahead` samples. What fails later fails then."""
        held: list[Wave] = []
        left = self._samples
        while left > 0 and (block := next(blocks, None)) is not None:
            held.append(block)
            left -= len(block)
        return held


def _taken(blocks: list[Wave]) -> Iterator[Wave]:
    """Each block, held here no longer."""
    blocks.reverse()
    while blocks:
        yield blocks.pop()
