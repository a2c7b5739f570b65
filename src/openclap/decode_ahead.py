"""Decode the next sounds in threads while the model embeds the current ones."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from types import TracebackType
from typing import Any

import numpy as np

from openclap.arrays import Wave
from openclap.errors import AudioError


class PooledWindow:
    """A window of a sound, and the sum of the embeddings of its pieces.

    The window's embedding is the normalised mean of its pieces' unit vectors. Silent pieces count only if all pieces
    are silent.

    Attributes:
        start, end: of the window, in samples.
        total_D: the sum so far.
    """

    def __init__(self, start: int = 0, end: int = 0) -> None:
        self.start, self.end = start, end
        self.total_D: Wave | float = 0.0
        self._is_audible = False

    def add(self, vector_D: Wave, *, silent: bool) -> None:
        """Add the embedding of a piece."""
        if silent and self._is_audible:
            return
        if not silent and not self._is_audible:
            self.total_D, self._is_audible = 0.0, True  # drop the sum of the silent pieces before it
        self.total_D = self.total_D + vector_D

    def vector(self) -> Wave:
        """(D,), unit norm."""
        # The bound avoids 0 / 0 where unit vectors cancel exactly.
        unit: Wave = self.total_D / np.maximum(np.linalg.norm(self.total_D), np.float32(1e-12))
        return unit


Piece = tuple[PooledWindow, Wave]
"""One input of the network and the window that it belongs to."""


class PendingSound:
    """A sound that is being decoded or embedded.

    Attributes:
        blocks: the rest of the waveform.
        windows: the windows so far, each with the sum of its embeddings.
        unembedded: number of pieces that wait for the network.
        is_decoded: whether the last piece was yielded.
        error: why the sound has no embedding.
    """

    def __init__(self, name: str, blocks: Iterator[Wave]) -> None:
        self.name, self.blocks = name, blocks
        self.windows: list[PooledWindow] = []
        self.unembedded = 0
        self.is_decoded = False
        self.error: AudioError | None = None

    @property
    def is_done(self) -> bool:
        return self.is_decoded and self.unembedded == 0


class DecodeAhead:
    """Iterates over sounds: yields a PendingSound for each, in order, and (PendingSound, Piece) for each of its pieces.

    Threads decode about `samples_ahead` samples of each of the next `sounds_ahead` sounds. The rest of a longer
    recording is decoded when its pieces are requested, so memory does not grow with its length.

    Args:
        sounds: the name and the mono blocks (S,) of each sound.
        cut: cuts the blocks of a sound into pieces.
    """

    def __init__(
        self,
        sounds: Iterable[tuple[str, Iterator[Wave]]],
        cut: Callable[[Iterator[Wave]], Iterator[Piece]],
        sounds_ahead: int,
        samples_ahead: int,
    ) -> None:
        self._sounds, self._cut = iter(sounds), cut
        self._ahead, self._samples = max(2, sounds_ahead), samples_ahead
        # libsndfile and FFmpeg release the GIL; more threads than 4 only compete with the network for cores.
        self._pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="decode")

    def __enter__(self) -> DecodeAhead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[Any]:
        started: deque[tuple[PendingSound, Future[list[Wave]]]] = deque()
        while True:
            for name, blocks in islice(self._sounds, self._ahead - len(started)):
                started.append((PendingSound(name, blocks), self._pool.submit(self._decode_first, blocks)))
            if not started:
                return
            sound, first = started.popleft()
            yield sound
            try:
                for piece in self._cut(chain(_released(first.result()), sound.blocks)):
                    yield sound, piece
            except AudioError as error:
                sound.error = error
            sound.is_decoded = True

    def _decode_first(self, blocks: Iterator[Wave]) -> list[Wave]:
        """Decode the first blocks of a sound, about `samples_ahead` samples. The future's result raises its errors."""
        decoded: list[Wave] = []
        missing = self._samples
        while missing > 0 and (block := next(blocks, None)) is not None:
            decoded.append(block)
            missing -= len(block)
        return decoded


def _released(blocks: list[Wave]) -> Iterator[Wave]:
    """Yield each block and drop the reference to it, so that a consumer's `del` frees its memory."""
    blocks.reverse()
    while blocks:
        yield blocks.pop()
