"""Files, bytes and file objects to waveforms.

N samples, C channels. `containers` finds the streams of a file, `decoders` reads each.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from openclap.audio.containers import Part, parts_of
from openclap.audio.decoders import BLOCK, ESTIMATED, Piece, Wave, pieces_of, stretch_of, truncated
from openclap.audio.opened import Source, name_of, opened
from openclap.errors import AudioError

__all__ = ["BLOCK", "Source", "Wave", "name_of"]

LOWEST_RATE, HIGHEST_RATE = 1000, 10_000_000
"""Hz that a sound may have. What says less is damaged, or says kHz: it would be stretched a thousandfold."""

LOUDEST = 100.0
"""Samples beyond this are integers that lost their type."""


def decode(source: Source) -> tuple[Wave, int]:
    """Decode a whole sound to ((N, C) float32 in about -1..1, rate in Hz).

    Raises AudioError when nothing can be decoded, when the file ends before its header says, or when it
    holds NaN or infinite samples.
    """
    pieces = list(decoded(source))
    return np.concatenate([wave_NC for wave_NC, _ in pieces]), pieces[0][1]


def decoded(source: Source) -> Iterator[tuple[Wave, int]]:
    """A sound piece by piece, as (N, C) and its rate; no more than about BLOCK samples are held. Raises as `decode`.

    All pieces have the rate and the number of channels of the first.
    """
    with opened(source) as file:
        yield from _pieces(file, name_of(source))


@contextmanager
def _as_audio_error(name: str) -> Iterator[None]:
    """Raise AudioError for damage that a decoder did not foresee."""
    try:
        yield
    except (MemoryError, OSError, ValueError) as error:
        raise AudioError(f"{name}: cannot be decoded ({error}).") from None


def _pieces(file: BinaryIO, name: str) -> Iterator[Piece]:
    samples = 0
    with _as_audio_error(name):
        if not file.read(1):
            raise AudioError(f"{name}: the file is empty (0 bytes), expected a sound.")
        pieces = (piece for part in parts_of(file) for piece in pieces_of(file, part, name))
        for wave_NC, rate in _at_one_rate(_checked(pieces, name)):
            samples += len(wave_NC)
            if len(wave_NC):
                yield wave_NC, rate
    if samples == 0:
        raise AudioError(f"{name}: no samples in it, expected a sound.")


def _checked(pieces: Iterator[Piece], name: str) -> Iterator[Piece]:
    for wave_NC, rate in pieces:
        check_rate(rate, name)
        check_samples(wave_NC, name)
        yield wave_NC, rate


def _at_one_rate(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Resample pieces to the rate of the first, and give them its number of channels: joined recordings differ."""
    first: tuple[int, int] | None = None
    stream, stream_rate = None, 0
    for wave_NC, rate in pieces:
        first = first or (rate, wave_NC.shape[1])
        if stream is not None and rate != stream_rate:
            yield _resampled_NC(stream, wave_NC[:0], first, last=True)
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
        yield _resampled_NC(stream, np.zeros((0, first[1]), np.float32), first, last=True)


def _resampled_NC(stream: Any, wave_NC: Wave, to: tuple[int, int], last: bool = False) -> Piece:
    """A piece through a soxr stream of (rate, channels)."""
    given = wave_NC if to[1] > 1 else wave_NC[:, 0]
    return stream.resample_chunk(np.ascontiguousarray(given), last=last).reshape(-1, to[1]), to[0]


def _with_channels(wave_NC: Wave, channels: int) -> Wave:
    """A piece of another number of channels: their mean, on each."""
    if wave_NC.shape[1] == channels:
        return wave_NC
    return np.repeat(wave_NC.mean(axis=1, keepdims=True, dtype=np.float32), channels, axis=1)


def check_rate(rate: Any, name: str) -> None:
    """Raises AudioError for what is no number of Hz that a sound can have."""
    is_number = isinstance(rate, (int, float, np.integer, np.floating)) and not isinstance(rate, bool)
    if is_number and LOWEST_RATE <= rate <= HIGHEST_RATE and rate == int(rate):
        return
    given = f"{rate:g} Hz" if is_number else f"a rate of type {type(rate).__name__}"
    meant = f" Did you mean {1000 * rate:.0f}?" if is_number and 1 < rate < LOWEST_RATE else ""
    raise AudioError(
        f"{name}: is at {given}, expected a whole number of Hz from {LOWEST_RATE} to {HIGHEST_RATE}.{meant}"
    )


def check_samples(wave: NDArray[Any], name: str) -> None:
    """Raises AudioError for floating-point samples that are not finite, or far beyond -1..1."""
    low, high = (float(wave.min()), float(wave.max())) if wave.size else (0.0, 0.0)  # NaN where any sample is
    if not np.isfinite([low, high]).all():
        raise AudioError(f"{name}: holds NaN or infinite samples. Export the sound again or leave it out.")
    if (peak := max(-low, high)) > LOUDEST:
        raise AudioError(
            f"{name}: has samples up to {peak:.4g}, expected about -1..1. Divide by 32768 if these are 16-bit samples."
        )


def read_blocks(source: Source, rate: int) -> Iterator[Wave]:
    """`read_mono` piece by piece: for recordings that are longer than memory. Raises as `decode`."""
    return resampled(((to_mono(wave_NC), from_rate) for wave_NC, from_rate in decoded(source)), rate)


def resampled(pieces: Iterator[tuple[Wave, int]], rate: int) -> Iterator[Wave]:
    """Mono pieces (N,) of one sound, each with the rate they have, at `rate` Hz, by soxr's high quality."""
    stream: Any = None
    for mono_N, from_rate in pieces:
        if from_rate == rate:
            yield mono_N
            continue
        if stream is None:
            import soxr

            stream = soxr.ResampleStream(from_rate, rate, 1, dtype="float32", quality="HQ")
        step = max(1, BLOCK * from_rate // max(from_rate, rate))
        for start in range(0, len(mono_N), step):
            yield stream.resample_chunk(mono_N[start : start + step])
    if stream is not None:
        yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def resample(wave_N: Wave, from_rate: int, to_rate: int) -> Wave:
    """Resample (N,) from `from_rate` to `to_rate` Hz with soxr's high quality; equal rates return it as it is."""
    if from_rate == to_rate:
        return wave_N
    import soxr

    resampled: Wave = soxr.resample(wave_N, from_rate, to_rate, quality="HQ").astype(np.float32, copy=False)
    return resampled if resampled.size else np.zeros(1, np.float32)


def to_mono(wave: Wave) -> Wave:
    """(N,) or (N, C) to (N,): the mean over channels."""
    if wave.ndim == 1:
        return wave
    return wave[:, 0] if wave.shape[1] == 1 else wave.mean(axis=1, dtype=np.float32)


def read_mono(source: Source, rate: int) -> Wave:
    """Decode, average the channels and resample: (N,) float32 at `rate` Hz, N ≥ 1. Raises as `decode`."""
    wave_N: Wave = np.concatenate(list(read_blocks(source, rate)))
    return wave_N if len(wave_N) else np.zeros(1, np.float32)


def describe(source: Source) -> tuple[float, int, int]:
    """(duration in seconds, rate in Hz, channels) of what is decoded, from the header where it can be believed.

    Raises as `decode`, where no decoding is needed to find out.
    """
    name = name_of(source)
    with opened(source) as file, _as_audio_error(name):
        parts = list(parts_of(file))
        facts = _stated(file, parts[0], name) if len(parts) == 1 else None
        if facts is None:
            file.seek(0)
            samples, kind = 0, (0, 0)
            for wave_NC, rate in _pieces(file, name):
                samples, kind = samples + len(wave_NC), (rate, wave_NC.shape[1])
            facts = samples / kind[0], *kind
    return facts


def _stated(file: BinaryIO, part: Part, name: str) -> tuple[float, int, int] | None:
    """What the header states of a file with one part, if libsndfile reads it and it states a number of samples."""
    import soundfile

    if not part.by_libsndfile:
        return None
    try:
        with soundfile.SoundFile(stretch_of(file, part)) as sound:
            seconds, rate, channels = sound.frames / sound.samplerate, int(sound.samplerate), int(sound.channels)
            is_exact = sound.format not in ESTIMATED and sound.frames > 0
    except soundfile.LibsndfileError:
        return None
    if is_exact and part.stated > 1:
        raise truncated(name, seconds, seconds * part.stated)
    return (seconds, rate, channels) if is_exact else None
