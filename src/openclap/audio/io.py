"""Files, bytes and file objects to waveforms.

N samples, C channels. libsndfile reads first (WAV, FLAC, Ogg, MP3, AIFF); what it cannot read goes to
FFmpeg through PyAV (M4A, AAC, WMA, video containers).
"""

from __future__ import annotations

import io
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from openclap.errors import AudioError
from openclap.paths import is_url

Wave = NDArray[np.float32]
Source = str | os.PathLike[str] | bytes | BinaryIO

BLOCK = 1 << 18
"""Samples, those of all channels counted, that are decoded or resampled at once."""

LOWEST_RATE, HIGHEST_RATE = 1000, 10_000_000
"""Hz that a sound may have. What says less is damaged, or says kHz: it would be stretched a thousandfold."""

LOUDEST = 100.0
"""Samples beyond this are integers that lost their type."""

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
    """A sound piece by piece, as (N, C) and its rate; no more than about BLOCK samples are held. Raises as `decode`."""
    name = name_of(source)
    samples = 0
    with _opened(source) as data:
        try:
            if not data.read(1):
                raise AudioError(f"{name}: the file is empty (0 bytes), expected a sound.")
            data.seek(0)
            for wave_NC, rate in _by_either(data, name):
                check_rate(rate, name)
                check_samples(wave_NC, name)
                samples += len(wave_NC)
                yield wave_NC, rate
        except (MemoryError, OSError, ValueError) as error:  # damage that a decoder did not foresee
            raise AudioError(f"{name}: cannot be decoded ({error}).") from None
    if samples == 0:
        raise AudioError(f"{name}: no samples in it, expected a sound.")


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
        yield _view(source)
        return
    if not os.fspath(source):
        raise AudioError("An empty file name was given, expected the path of a sound.")
    path = Path(source)
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise AudioError(f"{path}: is no regular file, expected one sound file.")
        file = path.open("rb")
    except FileNotFoundError:
        if is_url(source):
            raise AudioError(f"{source}: is a URL, expected a file. Download it first.") from None
        raise AudioError(f"{path}: no such file.") from None
    except IsADirectoryError:
        raise AudioError(f"{path}: is a folder, expected one sound file.") from None
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise AudioError(f"{path}: is no name that a file can have ({error}).") from None
    with file:
        yield file


_TURN = threading.Lock()
"""Held while an open file of a caller is read: threads may be reading the same one."""


class _View(io.RawIOBase):
    """The rest of a caller's open file with a place of its own: the file is always left where it stood."""

    def __init__(self, file: BinaryIO) -> None:
        with _TURN:
            self._file, self._place, self._begin = file, 0, file.tell()
            self._end = max(file.seek(0, os.SEEK_END), self._begin) - self._begin
            file.seek(self._begin)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = max(0, offset + (0, self._place, self._end)[whence])
        return self._place

    def readinto(self, buffer: Any) -> int:
        with _TURN:
            stood = self._file.tell()
            self._file.seek(self._begin + self._place)
            data = self._file.read(len(buffer))
            self._file.seek(stood)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def _view(file: BinaryIO) -> BinaryIO:
    """An open file of a caller, to be read by several threads, or again; read whole only if it cannot be sought in."""
    name = name_of(file)
    try:
        if isinstance(file.read(0), str):
            raise AudioError(f"{name}: is open as text, expected binary: open it with mode 'rb'.")
        if file.seekable():
            return io.BufferedReader(_View(file), 1 << 16)
        with _TURN:
            return io.BytesIO(file.read())
    except (ValueError, OSError) as error:
        raise AudioError(f"{name}: cannot be read ({error}).") from None


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

    whole = _promised(data)
    with soundfile.SoundFile(data) as file:
        expected, exact, rate = file.frames * whole, file.format in _EXACT_LENGTH, int(file.samplerate)
        done, step = 0, max(1, BLOCK // file.channels)
        while len(block_NC := file.read(step, dtype="float32", always_2d=True)):
            done += len(block_NC)
            yield block_NC, rate
    if exact and done < expected:
        raise AudioError(f"{name}: truncated, {done / rate:.2f} s of {expected / rate:.2f} s could be decoded.")


_SAMPLES = {b"RIFF": ("<", b"data"), b"RIFX": (">", b"data"), b"FORM": (">", b"SSND")}
"""By how a file begins: the order of bytes, and the chunk that holds the samples."""


def _promised(data: BinaryIO) -> float:
    """How many times as long as what is there the header says that a WAV or AIFF is: 1.0 for a whole one.

    libsndfile takes the end of the file for the end of the sound. Sizes just below 2 GiB and 4 GiB, and 0, are what
    writers to a pipe put down; a few bytes too many are the header's own, counted by mistake.
    """
    end = data.seek(0, os.SEEK_END)
    data.seek(0)
    order, wanted = _SAMPLES.get(data.read(12)[:4], ("<", b""))
    promised = 1.0
    while wanted and len(head := data.read(8)) == 8:
        kind, size = struct.unpack(f"{order}4sI", head)
        there = end - data.tell()
        if kind == wanted:
            is_stream = size % (1 << 31) == 0 or size % (1 << 31) >= (1 << 31) - (1 << 16)
            promised = 1.0 if is_stream or size <= there + 64 or there < 1 else size / there
            break
        data.seek(size + size % 2, os.SEEK_CUR)
    data.seek(0)
    return promised


def _by_av(data: BinaryIO, name: str) -> Iterator[tuple[Wave, int]]:
    import av

    try:
        with av.open(data, mode="r", options={"protocol_whitelist": "pipe"}) as container:  # no other file or host
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
