"""Cut recordings into windows, block by block and without torch."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray


def window_starts(length: int, window: int, hop: int) -> list[int]:
    """List the starts of the windows that cover a recording: one every `hop`, the last one anchored at the end.

    A recording no longer than one window gives [0]. All lengths are in samples.

    Raises ValueError when `window` or `hop` is not positive.
    """
    if window < 1 or hop < 1:
        raise ValueError(f"window and hop must be positive numbers of samples, got {window} and {hop}")
    if length <= window:
        return [0]
    starts = list(range(0, length - window + 1, hop))
    return starts if starts[-1] + window >= length else [*starts, length - window]


WaveWindow = tuple[int, int, NDArray[np.float32]]
"""A window of a recording: its start and end in samples, and its waveform."""


def cut_windows(blocks: Iterable[NDArray[np.float32]], length: int, hop: int) -> Iterator[WaveWindow]:
    """Cut a recording, given as mono blocks (N,), into windows of `length` samples at the places of `window_starts`.

    No more than a window and a block is in memory, whatever the length of the recording. An empty recording gives one
    window of one silent sample.
    """
    pending, first, start, end = deque[NDArray[np.float32]](), 0, 0, 0  # `pending` begins at sample `first`
    for block in blocks:
        pending.append(block)
        end += len(block)
        if start + length <= end:
            whole = np.concatenate(pending)
            while start + length <= end:
                # Copies: a view would keep all of `whole` in memory for as long as its window waits in a batch.
                yield start, start + length, whole[start - first : start - first + length].copy()
                start += hop
            needed = max(min(start, end - length), first)  # the last window is anchored at the end
            pending, first = deque([whole[needed - first :].copy()]), needed
        # Without a complete window (hop > length), drop the blocks that no window needs any more.
        while pending and first + len(pending[0]) <= min(start, end - length):
            first += len(pending.popleft())
    rest = np.concatenate([*pending, np.zeros(0, np.float32)])
    if end <= length and start == 0:
        yield 0, max(end, 1), rest if end else np.zeros(1, np.float32)
    # The last window on the grid does not reach the end, so one more is anchored there; it overlaps the one before.
    elif start - hop + length < end:
        yield end - length, end, rest[end - length - first :].copy()


def complete_step(blocks: Iterable[NDArray[np.float32]], length: int, step: float) -> Iterator[NDArray[np.float32]]:
    """Append less than `step` samples of silence to a recording longer than `length`, so that it is longer by whole
    steps, and the window of `cut_windows` that is anchored at its end begins on a step."""
    end = 0
    for block in blocks:
        end += len(block)
        yield block
    if end > length:
        missing = length + round(math.ceil((end - length) / step) * step) - end
        yield np.zeros(max(missing, 0), np.float32)


def third_starts(length: int, window: int, rng: np.random.Generator | None = None) -> list[int]:
    """A start in each third of the possible starts of a window: the middle one, or a random one if `rng` is given.

    LAION: a third without a start (a clip one or two frames too long) takes the beginning.
    """
    thirds = np.array_split(np.arange(length - window + 1), 3)
    return [0 if len(part) == 0 else int(part[len(part) // 2] if rng is None else rng.choice(part)) for part in thirds]


class WeightedMean:
    """The mean of overlapping stretches of a table (T, C) of unknown length, by the weights of their rows."""

    def __init__(self) -> None:
        self._parts: list[NDArray[np.float32]] = []  # finished rows
        self._first = 0  # the number of the first row of the sums
        self._sum: NDArray[np.float64] | None = None
        self._weight: NDArray[np.float64] = np.zeros(0)

    def add(self, start: int, rows_MC: NDArray[np.float32], weight_M: NDArray[np.float64]) -> None:
        """Add rows from row `start` on. Later stretches do not start earlier."""
        if self._sum is None:
            self._sum = np.zeros((0, rows_MC.shape[1]))
        done = min(max(start - self._first, 0), len(self._sum))
        self._finish(done)
        missing = start - self._first + len(rows_MC) - len(self._sum)
        if missing > 0:
            self._sum = np.concatenate([self._sum, np.zeros((missing, rows_MC.shape[1]))])
            self._weight = np.concatenate([self._weight, np.zeros(missing)])
        place = slice(start - self._first, start - self._first + len(rows_MC))
        self._sum[place] += rows_MC * weight_M[:, None]
        self._weight[place] += weight_M

    def mean(self) -> NDArray[np.float32]:
        """(T, C) float32."""
        self._finish(len(self._weight))
        return np.concatenate(self._parts) if self._parts else np.zeros((0, 0), np.float32)

    def _finish(self, rows: int) -> None:
        if rows and self._sum is not None:
            self._parts.append((self._sum[:rows] / self._weight[:rows, None]).astype(np.float32))
            self._sum, self._weight = self._sum[rows:], self._weight[rows:]
            self._first += rows
