"""Files, bytes and file objects to waveforms.

N samples, C channels. libsndfile reads first (WAV, FLAC, Ogg, MP3, AIFF); what it cannot read goes to
FFmpeg through PyAV (M4A, AAC, WMA, video containers).
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from openclap.errors import AudioError

Wave = NDArray[np.float32]
Source = str | os.PathLike[str] | bytes | BinaryIO

BLOCK = 1 << 20
"""Samples of each channel that are decoded at once."""

_EXACT_LENGTH = frozenset({"WAV", "WAVEX", "FLAC", "AIFF", "AU", "W64", "RF64", "CAF"})
"""Formats whose header states the number of samples; MP3 and Ogg headers only estimate it."""


def decode(source: Source) -> tuple[Wave, int]:
    """Decode a whole sound to ((N, C) float32 in about -1..1, rate in Hz).

    Raises AudioError when nothing can be decoded, when the file ends before its header says, or when it
    holds NaN or infinite samples.
    """
    pieces = list(decoded(source))
    return np.concatenate([wave_NC for wave_NC, _ in pieces]), pieces[0][1]


def decoded(source: Source) -> Iterator[tuple[Wave, int]]:
    """A sound piece by piece, as (N, C) and its rate; no more than BLOCK samples of it are held. Raises as `decode`."""
    name = name_of(source)
    samples = 0
    with _opened(source) as data:
        if not data.read(1):
            raise AudioError(f"{name}: the file is empty (0 bytes), expected a sound.")
        data.seek(0)
        try:
            for wave_NC, rate in _by_either(data, name):
                if not np.isfinite(wave_NC).all():
                    raise AudioError(f"{name}: holds NaN or infinite samples. Export the sound again or leave it out.")
                samples += len(wave_NC)
                yield wave_NC, rate
        except (MemoryError, ValueError) as error:  # damage that a decoder did not foresee
            raise AudioError(f"{name}: cannot be decoded ({error}).") from None
    if samples == 0:
        raise AudioError(f"{name}: no samples in it, expected a sound.")


def read_blocks(source: Source, rate: int) -> Iterator[Wave]:
    """`read_mono` piece by piece: for recordings that are longer than memory. Raises as `decode`."""
    stream: Any = None
    for wave_NC, from_rate in decoded(source):
        mono_N = to_mono(wave_NC)
        if from_rate == rate:
            yield mono_N
            continue
        if stream is None:
            import soxr

            stream = soxr.ResampleStream(from_rate, rate, 1, dtype="float32", quality="HQ")
        yield stream.resample_chunk(mono_N)
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
    return wave if wave.ndim == 1 else wave.mean(axis=1, dtype=np.float32)


def read_mono(source: Source, rate: int) -> Wave:
    """Decode, average the channels and resample: (N,) float32 at `rate` Hz, N ≥ 1. Raises as `decode`."""
    wave_N: Wave = np.concatenate(list(read_blocks(source, rate)))
    return wave_N if len(wave_N) else np.zeros(1, np.float32)


def describe(source: Source) -> tuple[float, int, int]:
    """(duration in seconds, rate in Hz, channels), from the header where there is one. Raises AudioError."""
    import soundfile

    try:
        with soundfile.SoundFile(_openable(source)) as file:
            if file.format in _EXACT_LENGTH:
                return file.frames / file.samplerate, file.samplerate, file.channels
    except soundfile.LibsndfileError:
        pass
    wave_NC, rate = decode(source)
    return wave_NC.shape[0] / rate, rate, wave_NC.shape[1]


def name_of(source: Source) -> str:
    """What to call a source in a message."""
    if isinstance(source, (str, os.PathLike)):
        return Path(source).name
    return Path(str(getattr(source, "name", "sound in memory"))).name


def _openable(source: Source) -> Any:
    return io.BytesIO(source) if isinstance(source, bytes) else source


@contextmanager
def _opened(source: Source) -> Iterator[BinaryIO]:
    """The bytes of a source, as a file that can be sought in."""
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    if not isinstance(source, (str, os.PathLike)):
        yield io.BytesIO(_read_all(source))
        return
    path = Path(source)
    if "://" in str(source):
        raise AudioError(f"{source}: is a URL, expected a file. Download it first.")
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise AudioError(f"{path}: no such file.") from None
    except IsADirectoryError:
        raise AudioError(f"{path}: is a folder, expected one sound file.") from None
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise AudioError(f"{path}: is no name that a file can have ({error}).") from None
    with file:
        yield file


def _read_all(file: BinaryIO) -> bytes:
    """The rest of a file object, which is left where it stood, so that it can be read again."""
    start = file.tell() if file.seekable() else None
    data = file.read()
    if start is not None:
        file.seek(start)
    return data


def _by_either(data: BinaryIO, name: str) -> Iterator[tuple[Wave, int]]:
    """libsndfile's pieces; FFmpeg's where libsndfile cannot read the first."""
    import soundfile

    started = False
    try:
        for piece in _by_soundfile(data, name):
            started = True
            yield piece
    except soundfile.LibsndfileError as error:
        data.seek(0)
        if started or data.read(4) == b"fLaC":
            raise AudioError(f"{name}: damaged ({error.error_string.rstrip('.')}).") from None
        data.seek(0)
        yield from _by_av(data, name)


def _by_soundfile(data: BinaryIO, name: str) -> Iterator[tuple[Wave, int]]:
    import soundfile

    with soundfile.SoundFile(data) as file:
        expected, exact, rate = file.frames, file.format in _EXACT_LENGTH, int(file.samplerate)
        done = 0
        while len(block_NC := file.read(BLOCK, dtype="float32", always_2d=True)):
            done += len(block_NC)
            yield block_NC, rate
    if exact and done < expected:
        raise AudioError(f"{name}: truncated, {done / rate:.2f} s of {expected / rate:.2f} s could be decoded.")


def _by_av(data: BinaryIO, name: str) -> Iterator[tuple[Wave, int]]:
    import av

    try:
        with av.open(data, mode="r") as container:
            if not container.streams.audio:
                raise AudioError(f"{name}: has no audio stream, expected a sound.")
            resampler = av.AudioResampler(format="fltp")
            held: list[Wave] = []
            rate, samples = 0, 0
            for frame in container.decode(container.streams.audio[0]):
                for piece in resampler.resample(frame):
                    rate = int(piece.sample_rate)
                    held.append(np.asarray(piece.to_ndarray().T, np.float32))
                    samples += piece.samples
                if samples >= BLOCK:
                    yield np.ascontiguousarray(np.concatenate(held), dtype=np.float32), rate
                    held, samples = [], 0
            held += [np.asarray(piece.to_ndarray().T, np.float32) for piece in resampler.resample(None)]
            if held:
                yield np.ascontiguousarray(np.concatenate(held), dtype=np.float32), rate
            if rate == 0:
                raise AudioError(f"{name}: no samples could be decoded.")
    except av.FFmpegError:
        raise AudioError(f"{name}: is not audio that libsndfile or FFmpeg can decode.") from None
