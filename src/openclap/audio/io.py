"""Files, bytes and file objects to waveforms.

N samples, C channels. libsndfile reads first (WAV, FLAC, Ogg, MP3, AIFF); what it cannot read goes to
FFmpeg through PyAV (M4A, AAC, WMA, video containers).
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
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
    name = name_of(source)
    data = _in_memory(source)
    if data.getbuffer().nbytes == 0:
        raise AudioError(f"{name}: the file is empty (0 bytes), expected a sound.")
    try:
        wave_NC, rate = _by_soundfile(data, name) or _by_av(data, name)
    except (MemoryError, ValueError) as error:  # damage that a decoder did not foresee
        raise AudioError(f"{name}: cannot be decoded ({error}).") from None
    if wave_NC.shape[0] == 0:
        raise AudioError(f"{name}: no samples in it, expected a sound.")
    if not np.isfinite(wave_NC).all():
        raise AudioError(f"{name}: holds NaN or infinite samples. Export the sound again or leave it out.")
    return wave_NC, rate


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
    """Decode, average the channels and resample: (N,) float32 at `rate` Hz. Raises as `decode`."""
    wave_NC, from_rate = decode(source)
    return resample(to_mono(wave_NC), from_rate, rate)


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


def _in_memory(source: Source) -> io.BytesIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if not isinstance(source, (str, os.PathLike)):
        return io.BytesIO(_read_all(source))
    path = Path(source)
    if "://" in str(source):
        raise AudioError(f"{source}: is a URL, expected a file. Download it first.")
    try:
        return io.BytesIO(path.read_bytes())
    except FileNotFoundError:
        raise AudioError(f"{path}: no such file.") from None
    except IsADirectoryError:
        raise AudioError(f"{path}: is a folder, expected one sound file.") from None
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise AudioError(f"{path}: is no name that a file can have ({error}).") from None


def _read_all(file: BinaryIO) -> bytes:
    """The rest of a file object, which is left where it stood, so that it can be read again."""
    start = file.tell() if file.seekable() else None
    data = file.read()
    if start is not None:
        file.seek(start)
    return data


def _by_soundfile(data: io.BytesIO, name: str) -> tuple[Wave, int] | None:
    import soundfile

    try:
        with soundfile.SoundFile(data) as file:
            expected, exact = file.frames, file.format in _EXACT_LENGTH
            wave_NC: Wave = np.concatenate([*_blocks(file), np.zeros((0, file.channels), np.float32)])
            rate = int(file.samplerate)
    except soundfile.LibsndfileError as error:
        if _starts_like_flac(data):
            raise AudioError(f"{name}: damaged FLAC ({error.error_string.rstrip('.')}).") from None
        return None
    if exact and wave_NC.shape[0] < expected:
        raise AudioError(
            f"{name}: truncated, {wave_NC.shape[0] / rate:.2f} s of {expected / rate:.2f} s could be decoded."
        )
    return wave_NC, rate


def _blocks(file: Any) -> Iterator[Wave]:
    """The sound piece by piece, so that a damaged header that promises hours takes no memory."""
    while len(block_NC := file.read(BLOCK, dtype="float32", always_2d=True)):
        yield block_NC


def _starts_like_flac(data: io.BytesIO) -> bool:
    return bytes(data.getbuffer()[:4]) == b"fLaC"


def _by_av(data: io.BytesIO, name: str) -> tuple[Wave, int]:
    import av

    data.seek(0)
    try:
        with av.open(data, mode="r") as container:
            if not container.streams.audio:
                raise AudioError(f"{name}: has no audio stream, expected a sound.")
            resampler = av.AudioResampler(format="fltp")
            frames = [
                piece for frame in container.decode(container.streams.audio[0]) for piece in resampler.resample(frame)
            ]
            frames += resampler.resample(None)
        if not frames:
            raise AudioError(f"{name}: no samples could be decoded.")
        wave_CN = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)
    except av.FFmpegError:
        raise AudioError(f"{name}: is not audio that libsndfile or FFmpeg can decode.") from None
    return np.ascontiguousarray(wave_CN.T, dtype=np.float32), int(frames[0].sample_rate)
