"""Decode files, bytes and file objects to waveforms.

`find_streams` finds the streams of a file, and `decoders` decodes each. N samples, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from openclap.arrays import Wave
from openclap.audio.decoders import BLOCK, ESTIMATED, AudioBlock, decode_stream, open_stream, truncated
from openclap.audio.find_streams import find_streams
from openclap.audio.opened import AudioSource, name_of, opened
from openclap.audio.resample import at_one_rate, resampled
from openclap.audio.streams import EncodedStream
from openclap.errors import AudioError, ConfigError, TruncatedAudioError

__all__ = ["BLOCK", "AudioBlock", "AudioSource", "name_of"]

LOWEST_RATE, HIGHEST_RATE = 1000, 10_000_000
"""Valid sample rates in Hz. A lower rate is damage, or was given in kHz."""

LOUDEST = 100.0
"""Largest valid sample. Larger ones are integers that were converted to floating point without scaling."""

_LONGEST_S = 1e9
"""Seconds of a recording that no file reaches: 31 years."""

DECODING_VERSION = 1
"""Part of `decoder_version`. It is increased when a change of this package alters decoded samples."""


def decoder_version() -> str:
    """The versions of all that turns files into samples: embeddings are cached under them."""
    import av
    import soundfile
    import soxr

    ffmpeg = ".".join(map(str, av.library_versions["libavcodec"]))
    libraries = f"libsndfile {soundfile.__libsndfile_version__}, libavcodec {ffmpeg}, soxr {soxr.__version__}"
    return f"{DECODING_VERSION}, {libraries}"


def decode(source: AudioSource) -> tuple[Wave, int]:
    """Decode a whole sound to ((N, C) float32 in about -1..1, rate in Hz).

    Raises AudioError when nothing can be decoded, when the file ends before its header says, or when it
    holds NaN or infinite samples.
    """
    blocks = list(decoded(source))
    return np.concatenate([wave_NC for wave_NC, _ in blocks]), blocks[0][1]


def decoded(source: AudioSource, *, check_end: bool = False) -> Iterator[tuple[Wave, int]]:
    """Decode a sound in blocks of about BLOCK samples, as (N, C) and the rate. Raises as `decode`.

    All blocks have the rate and the number of channels of the first.

    Args:
        check_end: raise TruncatedAudioError, after the last block, also for a file that states no length and lacks its
            end; see `EncodedStream.ends_early`.
    """
    with opened(source) as file:
        yield from _blocks(file, name_of(source), check_end=check_end)


def decode_part(
    source: AudioSource, from_s: float = 0.0, to_s: float | None = None, most_samples: float = math.inf
) -> tuple[Wave, int]:
    """Decode the part of a sound from `from_s` to `to_s` in seconds (to its end for None), as `decode` does.

    What comes before is decoded and dropped, so memory depends on the length of the part. Raises ConfigError unless
    0 <= from_s < to_s, and AudioError when the sound ends before the part begins, the part has more than `most_samples`
    over all channels, or as `decode`.
    """
    end = "the end" if to_s is None else f"{to_s} s"
    to_s = math.inf if to_s is None else to_s
    if not 0 <= from_s < to_s:
        raise ConfigError(f"The part goes from {from_s} s to {end}, expected 0 <= start < end.")
    kept: list[Wave] = []
    place, rate, samples = 0, 1, 0
    for wave_NC, rate in decoded(source):
        # The larger of two absurd numbers is beyond any recording, and a product of it may be infinite.
        first, last = (round(min(time_s, _LONGEST_S) * rate) - place for time_s in (from_s, to_s))
        if first == last:
            raise ConfigError(f"The part from {from_s} s to {end} is shorter than a sample.")
        if last <= 0:
            break
        kept.append(wave_NC[max(0, first) : last])
        samples += kept[-1].size
        if samples > most_samples:
            raise AudioError(f"{name_of(source)}: the part has too many samples for the memory. Choose a shorter one.")
        place += len(wave_NC)
    part_NC = np.concatenate(kept)
    if not len(part_NC):
        raise AudioError(f"{name_of(source)}: ends at {place / rate:.2f} s, and the part begins at {from_s} s.")
    return part_NC, rate


@contextmanager
def _as_audio_error(name: str) -> Iterator[None]:
    """Convert errors of a decoder on damaged files to AudioError."""
    try:
        yield
    except (MemoryError, OSError, ValueError) as error:
        raise AudioError(f"{name}: cannot be decoded ({error}).") from None


def _blocks(file: BinaryIO, name: str, *, check_end: bool = False) -> Iterator[AudioBlock]:
    samples, ends_early = 0, False

    def of_streams() -> Iterator[AudioBlock]:
        nonlocal ends_early
        for stream in find_streams(file):
            ends_early = ends_early or stream.ends_early
            yield from decode_stream(file, stream, name)

    with _as_audio_error(name):
        if not file.read(1):
            raise AudioError(f"{name}: the file is empty (0 bytes), expected a sound.")
        for wave_NC, rate in at_one_rate(_checked(of_streams(), name)):
            samples += len(wave_NC)
            if len(wave_NC):
                yield wave_NC, rate
    if samples == 0:
        raise AudioError(f"{name}: contains no samples, expected a sound.")
    if check_end and ends_early:
        raise TruncatedAudioError(f"{name}: truncated, its end is missing.")


def _checked(blocks: Iterator[AudioBlock], name: str) -> Iterator[AudioBlock]:
    for wave_NC, rate in blocks:
        check_rate(rate, name)
        check_samples(wave_NC, name)
        yield wave_NC, rate


def check_rate(rate: Any, name: str) -> None:
    """Raise AudioError for an invalid sample rate."""
    is_number = isinstance(rate, (int, float, np.integer, np.floating)) and not isinstance(rate, bool)
    if is_number and LOWEST_RATE <= rate <= HIGHEST_RATE and rate == int(rate):
        return
    given = f"{rate:g} Hz" if is_number else f"a rate of type {type(rate).__name__}"
    meant = f" Did you mean {1000 * rate:.0f}?" if is_number and 1 < rate < LOWEST_RATE else ""
    raise AudioError(
        f"{name}: is at {given}, expected a whole number of Hz from {LOWEST_RATE} to {HIGHEST_RATE}.{meant}"
    )


def check_samples(wave: NDArray[Any], name: str) -> None:
    """Raise AudioError for floating-point samples that are not finite, or far beyond -1..1."""
    # The extremes are NaN or infinite if any sample is, and cost a tenth of np.isfinite over all samples.
    low, high = (float(wave.min()), float(wave.max())) if wave.size else (0.0, 0.0)
    if not np.isfinite([low, high]).all():
        raise AudioError(f"{name}: contains NaN or infinite samples. Export the sound again or leave it out.")
    if (peak := max(-low, high)) > LOUDEST:
        raise AudioError(
            f"{name}: has samples up to {peak:.4g}, expected about -1..1. Divide by 32768 if these are 16-bit samples."
        )


def read_blocks(source: AudioSource, rate: int) -> Iterator[Wave]:
    """`read_mono` in blocks, for recordings that do not fit in memory. Raises as `decode`."""
    return resampled(((to_mono(wave_NC), from_rate) for wave_NC, from_rate in decoded(source)), rate)


def to_mono(wave: Wave) -> Wave:
    """(N,) or (N, C) to (N,): the mean over channels."""
    if wave.ndim == 1:
        return wave
    return wave[:, 0] if wave.shape[1] == 1 else wave.mean(axis=1, dtype=np.float32)


def read_mono(source: AudioSource, rate: int) -> Wave:
    """Decode, average the channels and resample: (N,) float32 at `rate` Hz, N ≥ 1. Raises as `decode`."""
    wave_N: Wave = np.concatenate(list(read_blocks(source, rate)))
    return wave_N if len(wave_N) else np.zeros(1, np.float32)


def describe(source: AudioSource) -> tuple[float, int, int]:
    """Return (duration in seconds, rate in Hz, channels) of a sound.

    The facts come from the header if it is exact, otherwise from decoding the sound in blocks. `MonoBlocks` measures
    them as well, for sounds that are decoded anyway. Raises as `decode`, if decoding is needed.
    """
    name = name_of(source)
    with opened(source) as file, _as_audio_error(name):
        streams = list(find_streams(file))
        facts = _stated(file, streams[0], name) if len(streams) == 1 else None
        if facts is None:
            file.seek(0)
            samples, kind = 0, (0, 0)
            for wave_NC, rate in _blocks(file, name):
                samples, kind = samples + len(wave_NC), (rate, wave_NC.shape[1])
            facts = samples / kind[0], *kind
    return facts


def header_seconds(file: BinaryIO) -> float | None:
    """Return the duration that the header of a sound states, and read little else; None where it states none exactly.

    It is that of a whole file with one stream, where `describe` looks for others.
    """
    import soundfile

    try:
        with soundfile.SoundFile(file) as sound:
            is_exact = sound.format not in ESTIMATED and sound.frames > 0
            return float(sound.frames / sound.samplerate) if is_exact else None
    except soundfile.LibsndfileError:
        return None


def _stated(file: BinaryIO, stream: EncodedStream, name: str) -> tuple[float, int, int] | None:
    """The facts in the header of a single stream, if libsndfile can read it and it states the number of samples."""
    import soundfile

    if not stream.by_libsndfile:
        return None
    try:
        with soundfile.SoundFile(open_stream(file, stream)) as sound:
            seconds, rate, channels = sound.frames / sound.samplerate, int(sound.samplerate), int(sound.channels)
            is_exact = sound.format not in ESTIMATED and sound.frames > 0
    except soundfile.LibsndfileError:
        return None
    if is_exact and stream.stated > 1:
        raise truncated(name, seconds, seconds * stream.stated)
    return (seconds, rate, channels) if is_exact else None
