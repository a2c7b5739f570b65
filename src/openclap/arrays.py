"""Array types that several rooms share, and batches of items by their length. The dimensions are in the names of the
variables (see `openclap.types`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Wave = NDArray[np.float32]
"""Samples of a sound in about -1..1: (N,) of one channel, or (N, channels)."""
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def batches_by_length(lengths: Sequence[int], budget: int) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of each batch, sorted by length: at most `budget` elements with padding, and at least one row."""
    order = np.argsort(np.asarray(lengths), kind="stable")
    start = 0
    for stop in range(1, len(order) + 1):
        # The longest of a batch is its last row, which all others are padded to.
        if stop == len(order) or lengths[order[stop]] * (stop + 1 - start) > budget:
            yield order[start:stop]
            start = stop
