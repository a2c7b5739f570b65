"""Align two recordings and measure their similarity sample by sample: the same recording, or only a similar one?

Both are compared at a low rate, in mono, and whatever their levels are: encodings, levels, cuts and resampling change
little of that, while two takes of one sound differ in every sample. Two takes of a drum have nearly equal low
frequencies, so differences of neighbouring samples are compared, in which high frequencies weigh more.

S samples at RATE.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from openclap.arrays import Wave

RATE = 8000
"""Hz: recordings of speech often have no more, and a copy may have been resampled to it."""
LONGEST_S = 60.0
"""Seconds that are compared; of longer recordings, an excerpt around windows that resemble each other."""
_STEPS = 8
"""Fractions of a sample at which the best lags are refined: a cut falls between two samples at RATE."""
_BEST = 6
"""Lags to refine. A periodic sound has several that are nearly as good."""
_POOR = 0.4
"""A similarity that is not refined: half a sample lowers that of equal sounds by a third on average."""
_QUIET = 1e-3
"""Share of a recording's mean energy below which a stretch is not amplified to the level of the other recording."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """The best alignment of two recordings.

    Attributes:
        similarity: the normalised cross-correlation over the whole shorter recording, from 0 to 1.
        offset_s: where the second recording begins, in seconds of the first; negative if it begins earlier.
    """

    similarity: float
    offset_s: float


def excerpt(blocks: Iterable[Wave], start_s: float = 0.0) -> Wave:
    """The differences of neighbouring samples of LONGEST_S seconds from `start_s`; `blocks` are mono, at RATE."""
    first, count = round(start_s * RATE), round(LONGEST_S * RATE)
    taken = list(_between(blocks, first, first + count))
    return np.diff(np.concatenate(taken)) if taken else np.zeros(0, np.float32)


def _between(blocks: Iterable[Wave], first: int, end: int) -> Iterator[Wave]:
    position = 0
    for block in blocks:
        if (part := block[max(0, first - position) : max(0, end - position)]).size:
            yield part
        position += len(block)
        if position >= end:
            return


def align(one_S: Wave, other_S: Wave) -> Alignment:
    """Find the lag at which two excerpts correlate most. The similarity is 0 where one of them is silent."""
    is_swapped = len(one_S) < len(other_S)
    long_S, short_S = (other_S, one_S) if is_swapped else (one_S, other_S)
    short_energy, long_energy = float(short_S @ short_S), float(long_S @ long_S)
    if not short_energy or not long_energy:
        return Alignment(0.0, 0.0)
    size = _fast_length(len(long_S) + len(short_S))
    cross_F = np.fft.rfft(long_S, size) * np.fft.rfft(short_S, size).conj()
    lag_L = np.arange(1 - len(short_S), len(long_S))
    total = np.concatenate([[0.0], np.cumsum(long_S.astype(np.float64) ** 2)])
    under_L = total[np.clip(lag_L + len(short_S), 0, len(long_S))] - total[np.clip(lag_L, 0, len(long_S))]
    scale_L = np.sqrt(short_energy * np.maximum(under_L, _QUIET * long_energy * len(short_S) / len(long_S)))
    score_L = np.abs(np.fft.irfft(cross_F, size)[lag_L]) / scale_L
    rows = [int(row) for row in np.argsort(score_L)[: -_BEST - 1 : -1]]
    similarity, lag = float(score_L[rows[0]]), float(lag_L[rows[0]])
    if similarity > _POOR:
        peaks = [row for place, row in enumerate(rows) if all(abs(row - better) > 1 for better in rows[:place])]
        similarity, lag = max(_refined(cross_F, size, int(lag_L[row]), float(scale_L[row])) for row in peaks)
    return Alignment(min(1.0, similarity), (-lag if is_swapped else lag) / RATE)


def _refined(cross_F: np.ndarray, size: int, lag: int, scale: float) -> tuple[float, float]:
    """The largest correlation within a sample of a lag, and its place."""
    fractions = lag + np.linspace(-1, 1, 2 * _STEPS + 1)
    turn_F = 2j * np.pi / size * np.arange(len(cross_F))
    # The terms of the inverse transform occur twice, except the first; the last is negligible at RATE.
    values = [abs(2 * (cross_F @ np.exp(turn_F * place)).real - cross_F[0].real) / size / scale for place in fractions]
    place = int(np.argmax(values))
    return float(values[place]), float(fractions[place])


def _fast_length(least: int) -> int:
    """A length of at least `least` that is fast to transform: 2^n or 3 · 2^n."""
    power = 1 << max(1, (least - 1).bit_length())
    return power * 3 // 4 if power * 3 // 4 >= least else power
