"""Resample waveforms with soxr's high quality: block by block, or whole.

N samples, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from openclap.arrays import Wave
from openclap.audio.decoders import BLOCK, AudioBlock


def resampled(blocks: Iterator[tuple[Wave, int]], rate: int) -> Iterator[Wave]:
    """Resample mono blocks (N,) of one sound to `rate` Hz with soxr's high quality."""
    stream: Any = None
    for mono_N, from_rate in blocks:
        if from_rate == rate:
            yield mono_N
            continue
        if stream is None:
            import soxr

            stream = soxr.ResampleStream(from_rate, rate, 1, dtype="float32", quality="HQ")
        step = max(1, BLOCK * from_rate // max(from_rate, rate))  # bounds the resampled block as well
        for start in range(0, len(mono_N), step):
            yield stream.resample_chunk(mono_N[start : start + step])
    if stream is not None:
        yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def resample(wave_N: Wave, from_rate: int, to_rate: int) -> Wave:
    """Resample (N,) from `from_rate` to `to_rate` Hz with soxr's high quality; at least one sample.

    If the rates are equal, the waveform itself is returned.
    """
    if from_rate == to_rate:
        return wave_N
    import soxr

    resampled: Wave = soxr.resample(wave_N, from_rate, to_rate, quality="HQ").astype(np.float32, copy=False)
    return resampled if resampled.size else np.zeros(1, np.float32)


def at_one_rate(blocks: Iterator[AudioBlock]) -> Iterator[AudioBlock]:
    """Convert blocks to the rate and number of channels of the first: files of joined recordings may change both."""
    first: tuple[int, int] | None = None
    stream, stream_rate = None, 0
    for wave_NC, rate in blocks:
        first = first or (rate, wave_NC.shape[1])
        if stream is not None and rate != stream_rate:
            yield _resampled_NC(stream, _no_samples(first[1]), first, last=True)
            stream = None
        own_NC = _with_channels(wave_NC, first[1])
        if rate == first[0]:
            yield own_NC, rate
            continue
        if stream is None:
            import soxr

            stream, stream_rate = soxr.ResampleStream(rate, first[0], first[1], dtype="float32", quality="HQ"), rate
        yield _resampled_NC(stream, own_NC, first)
    if stream is not None and first:
        yield _resampled_NC(stream, _no_samples(first[1]), first, last=True)


def _resampled_NC(stream: Any, wave_NC: Wave, to: tuple[int, int], last: bool = False) -> AudioBlock:
    """Send a block through a soxr stream; `to` is (rate, channels) of the result."""
    wave = wave_NC if to[1] > 1 else wave_NC[:, 0]  # soxr requires one dimension for mono
    return stream.resample_chunk(np.ascontiguousarray(wave), last=last).reshape(-1, to[1]), to[0]


def _no_samples(channels: int) -> Wave:
    return np.zeros((0, channels), np.float32)


def _with_channels(wave_NC: Wave, channels: int) -> Wave:
    """Convert a block to another number of channels, each of them the mean."""
    if wave_NC.shape[1] == channels:
        return wave_NC
    return np.repeat(wave_NC.mean(axis=1, keepdims=True, dtype=np.float32), channels, axis=1)
