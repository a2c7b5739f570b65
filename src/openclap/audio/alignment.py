"""Align two recordings and measure their agreement: the same recording in another form, or only a similar one?

Both are compared at a low rate, in mono, and whatever their levels are. First the cross-correlation of the differences
of neighbouring samples, in which high frequencies weigh more, finds the lags at which they may match. Then the spectra
of the aligned waveforms are compared in short frames and narrow bands. A codec, a filter or noise changes some of these
a little, while two takes of one sound differ in most of them: the strength layers of a drum have nearly equal waveforms
by their loudest low frequencies, and other overtones, attacks and decays.

S samples at RATE, T frames, B bands, L lags, F frequencies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclap.arrays import Wave

RATE = 8000
"""Hz: recordings of speech often have no more, and a copy may have been resampled to it."""
LONGEST_S = 60.0
"""Seconds that are compared; of longer recordings, an excerpt around windows that resemble each other."""
_OVERSAMPLING = 2
"""Lags per sample of the cross-correlation. That of noise changes its sign within a sample, so that a peak between two
samples would be missed."""
_STEPS = 4
"""Fractions of such a lag at which the peaks are refined: a cut falls anywhere between two samples at RATE."""
_PEAKS = 5
"""Lags to compare. A periodic sound correlates at several, and only one of them may be right."""
_POOR = 0.3
"""A correlation from which the agreement is not computed: copies in MP3, Ogg and AAC have more than 0.6."""
_LEAST_OVERLAP = 0.5
"""Share of the shorter recording that must lie over the longer one: two pieces of one recording that share their ends
are no duplicates."""
_QUIET = 1e-3
"""Share of a recording's mean energy below which a stretch is not amplified to the level of the other recording."""
_TAPER = 40
"""Samples that are faded at both ends, 5 ms: a cut within a sound rings when it is resampled, as loud as an attack."""
_FRAME, _HOP = 256, 128
"""Samples of a frame and between frames: 32 and 16 ms."""
_EDGES_HZ = (0, 100, 200, 300, 400, 510, 630, 770, 920, 1080, 1270, 1480, 1720, 2000, 2320, 2700, 3150, 3700)
"""Edges of the bands, Zwicker's critical bands (https://doi.org/10.1121/1.1908630): a codec spreads its noise evenly
over them. Above 3.7 kHz a copy at RATE has nothing."""
_FAINT = 1e-6
"""Energy of a frame and band, as a share of the largest one, below which it holds noise rather than sound: -60 dB."""
_SOFT = 1e-3
"""Energy of a whole frame, as a share of the largest one, from which on it counts as loud: -30 dB."""
_WORST_BANDS, _WORST_FRAMES = 0.3, 0.1
"""Shares of the frames and bands, and of the loud frames, that may agree less: codecs leave out what is masked."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """The best alignment of two recordings.

    Attributes:
        similarity: the agreement of the part that both have, from 0 to 1; 0 as well where the recordings do not
            correlate.
        offset_s: where the second recording begins, in seconds of the first; negative if it begins earlier.
    """

    similarity: float
    offset_s: float


def excerpt(blocks: Iterable[Wave], start_s: float = 0.0) -> Wave:
    """The (S,) samples of LONGEST_S seconds from `start_s`; `blocks` are mono, at RATE."""
    first, count = round(start_s * RATE), round(LONGEST_S * RATE)
    taken = list(_between(blocks, first, first + count))
    return np.concatenate(taken) if taken else np.zeros(0, np.float32)


def _between(blocks: Iterable[Wave], first: int, end: int) -> Iterator[Wave]:
    position = 0
    for block in blocks:
        if (part := block[max(0, first - position) : max(0, end - position)]).size:
            yield part
        position += len(block)
        if position >= end:
            return


def align(one_S: Wave, other_S: Wave) -> Alignment:
    """Find the lag at which two excerpts agree most. The similarity is 0 where one of them is silent."""
    is_swapped = len(one_S) < len(other_S)
    long_S, short_S = (other_S, one_S) if is_swapped else (one_S, other_S)
    found = [(agreement(long_S, short_S, lag), lag) for lag in _likely_lags(long_S, short_S)]
    similarity, lag = max(found, default=(0.0, 0.0))
    return Alignment(max(0.0, similarity), (-lag if is_swapped else lag) / RATE)


def _likely_lags(long_S: Wave, short_S: Wave) -> list[float]:
    """Lags, in samples, of the highest peaks of the normalised cross-correlation, whatever its sign."""
    long_S, short_S = np.diff(_tapered(long_S)), np.diff(_tapered(short_S))
    short_energy, long_energy = float(short_S @ short_S), float(long_S @ long_S)
    if not short_energy or not long_energy:
        return []
    size = _fast_length(len(long_S) + len(short_S))
    cross_F = np.fft.rfft(long_S, size) * np.fft.rfft(short_S, size).conj()
    lag_L = np.arange(_OVERSAMPLING * (1 - len(short_S)), _OVERSAMPLING * len(long_S))
    total = np.concatenate([[0.0], np.cumsum(long_S.astype(np.float64) ** 2)])
    first_L = lag_L // _OVERSAMPLING
    shared_L = np.minimum(first_L + len(short_S), len(long_S)) - np.maximum(first_L, 0)
    under_L = total[np.clip(first_L + len(short_S), 0, len(long_S))] - total[np.clip(first_L, 0, len(long_S))]
    scale_L = np.sqrt(short_energy * np.maximum(under_L, _QUIET * long_energy * len(short_S) / len(long_S)))
    score_L = np.abs(_OVERSAMPLING * np.fft.irfft(cross_F, _OVERSAMPLING * size)[lag_L]) / scale_L
    is_peak_L = shared_L >= _LEAST_OVERLAP * len(short_S)
    is_peak_L[1:] &= score_L[1:] > score_L[:-1]
    is_peak_L[:-1] &= score_L[:-1] >= score_L[1:]
    peaks = np.flatnonzero(is_peak_L & (score_L > _POOR))
    best = peaks[np.argsort(-score_L[peaks], kind="stable")[:_PEAKS]]
    return [_refined(cross_F, size, float(lag_L[row]) / _OVERSAMPLING) for row in best]


def _refined(cross_F: np.ndarray, size: int, lag: float) -> float:
    """The place of the largest correlation between the neighbours of a lag."""
    fractions = lag + np.linspace(-1, 1, 2 * _STEPS + 1) / _OVERSAMPLING
    turn_F = 2j * np.pi / size * np.arange(len(cross_F))
    # The terms of the inverse transform occur twice, except the first; the last is negligible at RATE.
    values = [abs(2 * (cross_F @ np.exp(turn_F * place)).real - cross_F[0].real) for place in fractions]
    return float(fractions[int(np.argmax(values))])


def agreement(long_S: Wave, short_S: Wave, lag: float) -> float:
    """The agreement, up to 1, of two recordings of which the second begins `lag` samples after the first.

    That of two spectra a and b is 2 Re⟨a, b⟩ / (|a|² + |b|²), after both recordings were brought to one level and sign:
    1 without a difference, and 0 for a difference with the energy of both. The mean of two quantiles over it counts.
    Over bands of frames, however soft: takes with equal low frequencies differ in the others. Over loud frames: takes
    in which the same strings ring on differ in their attacks.
    """
    a_S, b_S = _overlapping(long_S, short_S, lag)
    a_TB, b_TB, cross_TB = _products(_spectra(a_S), _spectra(b_S))
    if not a_TB.any() or not b_TB.any():
        return 0.0
    gain = np.sqrt(a_TB.sum() / b_TB.sum()) * np.sign(cross_TB.sum())
    cross_TB, energy_TB = 2 * gain * cross_TB, a_TB + gain**2 * b_TB
    cross_T, energy_T = cross_TB.sum(axis=1), energy_TB.sum(axis=1)
    is_sound_TB, is_loud_T = energy_TB > _FAINT * energy_TB.max(), energy_T > _SOFT * energy_T.max()
    of_bands = np.quantile(cross_TB[is_sound_TB] / energy_TB[is_sound_TB], _WORST_BANDS)
    of_frames = np.quantile(cross_T[is_loud_T] / energy_T[is_loud_T], _WORST_FRAMES)
    return float((of_bands + of_frames) / 2)


def _overlapping(long_S: Wave, short_S: Wave, lag: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """The parts of both recordings that lie over each other, after a shift of the second by the fraction of the lag."""
    whole = int(np.floor(lag))
    size = _fast_length(len(short_S) + _TAPER)
    turn_F = np.exp(-2j * np.pi * np.arange(size // 2 + 1) * (lag - whole) / size)
    moved_S = np.fft.irfft(np.fft.rfft(short_S, size) * turn_F, size)[: len(short_S)]
    first, other_first = max(0, whole), max(0, -whole)
    count = min(len(long_S) - first, len(short_S) - other_first)
    return long_S[first : first + count], moved_S[other_first : other_first + count]


def _spectra(wave_S: NDArray[Any]) -> NDArray[np.complex128]:
    """(T, F) spectra of overlapping frames; the last frame is filled up with zeros."""
    frames = 1 + max(0, -(-(len(wave_S) - _FRAME) // _HOP))
    padded_S = np.pad(wave_S, (0, (frames - 1) * _HOP + _FRAME - len(wave_S)))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_FRAME) / _FRAME)
    return np.fft.rfft(np.lib.stride_tricks.sliding_window_view(padded_S, _FRAME)[::_HOP] * window, axis=1)


def _products(a_TF: NDArray[np.complex128], b_TF: NDArray[np.complex128]) -> tuple[Wave, Wave, Wave]:
    """The energies of two spectra, and the real part of their inner product, in bands: (T, B) each."""
    edges = np.searchsorted(np.fft.rfftfreq(_FRAME, 1 / RATE), _EDGES_HZ)
    a_TF, b_TF = a_TF[:, : edges[-1]], b_TF[:, : edges[-1]]
    of_a, of_b, of_both = (
        np.add.reduceat((one * other.conj()).real, edges[:-1], axis=1)
        for one, other in ((a_TF, a_TF), (b_TF, b_TF), (a_TF, b_TF))
    )
    return of_a, of_b, of_both


def _tapered(wave_S: Wave) -> Wave:
    """The recording with faded ends."""
    count = min(_TAPER, len(wave_S) // 2)
    fade = (0.5 - 0.5 * np.cos(np.pi * (np.arange(count) + 0.5) / max(1, count))).astype(np.float32)
    faded_S = wave_S.astype(np.float32)
    faded_S[:count] *= fade
    faded_S[len(faded_S) - count :] *= fade[::-1]
    return faded_S


def _fast_length(least: int) -> int:
    """A length of at least `least` that is fast to transform: 2^n or 3 · 2^n."""
    power = 1 << max(1, (least - 1).bit_length())
    return power * 3 // 4 if power * 3 // 4 >= least else power
