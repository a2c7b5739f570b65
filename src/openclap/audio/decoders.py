"""Decode one stream of a sound file, with libsndfile or with FFmpeg (through PyAV).

N samples, C channels.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from openclap.arrays import Wave
from openclap.audio.opened import FileSection
from openclap.audio.streams import EncodedStream
from openclap.errors import AudioError, TruncatedAudioError

AudioBlock = tuple[Wave, int]
"""(N, C) samples, or (N,) of one channel, and their rate in Hz."""

BLOCK = 1 << 18
"""Number of samples, over all channels, that are decoded or resampled at once (1 MB of float32)."""

_WIDTHS = (
    "s8",
    "u8",
    *(f"{kind}{order}" for kind in ("s16", "u16", "s24", "u24", "s32", "u32", "f32", "f64") for order in ("le", "be")),
)
HEADERLESS = frozenset({*_WIDTHS, "alaw", "mulaw", "vidc", "dfpwm", "g726", "g726le", "aptx", "aptx_hd", "codec2raw"})
"""FFmpeg's names of formats that it guesses from a file's name only, with an arbitrary rate."""

TRIES = 3
"""Consecutive attempts of FFmpeg to continue after bytes that it cannot read."""

BUFFER = 1 << 16
"""Bytes of one read."""

MISSING_S = 0.1
"""Seconds that may be missing when a header states bytes, because these include other streams and indexes."""

FEW, SHARE = 2, 0.1
"""Tolerated damaged packets: a number, plus a share of the good packets. With more, the file counts as damaged."""


def decode_stream(file: BinaryIO, stream: EncodedStream, name: str) -> Iterator[AudioBlock]:
    """Decode a stream in blocks. Raises AudioError when it cannot be decoded, and TruncatedAudioError, after its last
    block, when it ends before its header says."""
    if stream.damage:
        raise AudioError(f"{name}: damaged, {stream.damage}.")
    samples, rate = 0, 0
    # `rate` keeps the last value after the loop, and 0 marks a stream without a block.
    for wave_NC, rate in _by_libsndfile(file, stream, name) if stream.by_libsndfile else _by_ffmpeg(file, stream, name):
        samples += len(wave_NC)
        yield wave_NC, rate
    # Stated bytes become stated samples by the ratio of what was decoded: codecs with a varying rate have no other.
    by_bytes = samples * stream.stated
    if rate and (
        samples < (stream.samples or 0) or by_bytes > samples + (0 if stream.by_libsndfile else MISSING_S * rate)
    ):
        raise truncated(name, samples / rate, max(by_bytes, stream.samples or 0) / rate)


def truncated(name: str, seconds: float, stated_s: float) -> TruncatedAudioError:
    """The error for a stream that ends before the length that its header states."""
    return TruncatedAudioError(f"{name}: truncated, {seconds:.2f} s of {stated_s:.2f} s could be decoded.")


def open_stream(file: BinaryIO, stream: EncodedStream) -> BinaryIO:
    """A file of the bytes of a stream: the file itself if the stream is all of it, unchanged."""
    end = file.seek(0, io.SEEK_END)
    file.seek(0)
    # The usual case; libsndfile then reads without a detour through Python's FileSection.
    if (stream.begin, stream.end, stream.patches) == (0, end, ()):
        return file
    return io.BufferedReader(FileSection(file, stream.begin, stream.end, stream.patches), BUFFER)


def _by_libsndfile(file: BinaryIO, stream: EncodedStream, name: str) -> Iterator[AudioBlock]:
    """Decode with libsndfile, or with FFmpeg if libsndfile does not know the format.

    A FLAC that libsndfile refuses is damaged, so FFmpeg is not tried.
    """
    import soundfile

    started = False
    try:
        with soundfile.SoundFile(open_stream(file, stream)) as sound:
            rate, stated, done = int(sound.samplerate), sound.frames, 0
            while len(block_NC := sound.read(max(1, BLOCK // sound.channels), dtype="float32", always_2d=True)):
                started, done = True, done + len(block_NC)
                yield block_NC, rate
            if done < stated and sound.format not in ESTIMATED:
                raise truncated(name, done / rate, stated * stream.stated / rate)
    except soundfile.LibsndfileError as error:
        # After the first block, FFmpeg would repeat what has been yielded.
        if started or _is_flac(file, stream):
            raise AudioError(f"{name}: damaged ({error.error_string.rstrip('.')}).") from None
        yield from _by_ffmpeg(file, stream, name)


ESTIMATED = frozenset({"OGG", "MP3"})
"""libsndfile's names of formats without a number of samples in their headers."""


def _is_flac(file: BinaryIO, stream: EncodedStream) -> bool:
    file.seek(stream.begin)
    return file.read(4) == b"fLaC"


def _by_ffmpeg(file: BinaryIO, stream: EncodedStream, name: str) -> Iterator[AudioBlock]:
    import av

    options = {"protocol_whitelist": "pipe"}  # security: a playlist must not make FFmpeg open other files or hosts
    try:
        section = open_stream(file, stream)
        with av.open(section, mode="r", format=stream.format, options=options) as container:
            if not container.streams.audio:
                raise AudioError(f"{name}: has no audio stream, expected a sound.")
            # FFmpeg reads any bytes as such samples, so text and pictures would become noise.
            if container.format.name in HEADERLESS:
                raise AudioError(f"{name}: holds samples without a header that states their rate. Convert it to WAV.")
            yield from _gathered(_steady(_frames(container, section, name)))
    except av.FFmpegError:
        # The container's own length explains the failure better than FFmpeg's message.
        if stream.stated > 1:
            raise TruncatedAudioError(f"{name}: truncated, {100 / stream.stated:.0f} % of the file is there.") from None
        if not stream.may_be_junk:
            raise AudioError(f"{name}: is not audio that libsndfile or FFmpeg can decode.") from None


def _frames(container: Any, file: BinaryIO, name: str) -> Iterator[Any]:
    """Decode the first audio stream that is marked default, or else the first; pass over damaged packets."""
    from av.stream import Disposition

    audio = container.streams.audio
    stream = next((candidate for candidate in audio if candidate.disposition & Disposition.default), audio[0])
    if stream.codec_context is None:
        raise AudioError(f"{name}: the codec is unknown to libsndfile and FFmpeg.")
    good, bad = 0, 0
    for packet in _packets(container, stream, file, name):
        frames = _decoded(stream, packet)
        # A packet may give no frame without being damaged: encoder delay, or a codec that buffers.
        good, bad = good + bool(frames), bad + (frames is None)
        yield from frames or ()
    if bad > FEW + SHARE * good:
        raise AudioError(f"{name}: damaged, {bad} of {bad + good} packets cannot be decoded.")


def _packets(container: Any, stream: Any, file: BinaryIO, name: str) -> Iterator[Any]:
    """Yield packets to the end of the file, past places that FFmpeg cannot read. The last packet is None, which makes
    the codec return its buffered frames."""
    import av

    # Consecutive failures count: a broadcast may be damaged in many places.
    failed = 0
    while failed < TRIES:
        try:
            for packet in container.demux(stream):
                failed = 0
                yield packet
            return
        except (av.FFmpegError, IndexError):  # IndexError: PyAV, of a stream that was not there at first
            failed += 1
    # After the last attempt the reader stands where FFmpeg gave up; the end of the file is no damage.
    if (place := file.tell()) < (end := file.seek(0, io.SEEK_END)):
        raise AudioError(f"{name}: damaged, FFmpeg stops at byte {place} of {end}.")
    yield None


def _decoded(stream: Any, packet: Any) -> list[Any] | None:
    """The frames of a packet, or None for a damaged packet."""
    import av

    try:
        frames: list[Any] = stream.codec_context.decode(packet)
        return frames
    except av.FFmpegError:
        return None


STEADY_S = 0.25
"""Shortest time that a change of rate or channels must last. A shorter change is damage that looks like a header."""


def _kind(frame: Any) -> tuple[int, int, str]:
    """Rate, channels and sample format."""
    return frame.sample_rate, frame.layout.nb_channels, frame.format.name


def _steady(frames: Iterator[Any]) -> Iterator[Any]:
    """Skip the few frames that differ in rate or channels from those around them."""
    kind: tuple[int, int, str] | None = None
    changed: list[Any] = []  # frames of another kind that have not lasted for STEADY_S yet
    for frame in frames:
        frame_kind = _kind(frame)
        if kind in (None, frame_kind):
            kind, changed = frame_kind, []
            yield frame
            continue
        changed = [*changed, frame] if changed and frame_kind == _kind(changed[0]) else [frame]
        if sum(late.samples for late in changed) >= STEADY_S * frame.sample_rate:
            # The change has lasted, so these frames are sound of the new kind and not damage.
            yield from changed
            kind, changed = frame_kind, []


def _gathered(frames: Iterator[Any]) -> Iterator[AudioBlock]:
    """Join frames to blocks of about BLOCK samples, each with a single rate and number of channels."""
    from av import AudioFifo

    fifo, kind = AudioFifo(), None
    for frame in frames:
        frame_kind = _kind(frame)
        if fifo.samples and (frame_kind != kind or fifo.samples * frame_kind[1] >= BLOCK):
            yield _samples(fifo.read(0))
        if frame_kind != kind:
            fifo, kind = AudioFifo(), frame_kind
        frame.pts = None  # AudioFifo rejects gaps between time stamps, which damaged files have
        fifo.write(frame)
    if fifo.samples:
        yield _samples(fifo.read(0))


_SCALE = {"u8": 1 / (1 << 7), "s16": 1 / (1 << 15), "s32": 1 / (1 << 31)}
"""Factors that convert integer samples to -1..1."""


def _samples(frame: Any) -> AudioBlock:
    """Convert a frame in any of FFmpeg's sample formats to float32."""
    values, kind = frame.to_ndarray(), frame.format.name.removesuffix("p")
    values_NC = values.T if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels)
    if kind == "u8":
        values_NC = values_NC.astype(np.float32) - 128
    if kind not in ("flt", "dbl"):
        # 32-bit integers are multiplied in float64, because float32 has 24 bits of precision.
        values_NC = values_NC * np.float32(_SCALE[kind]) if kind != "s32" else values_NC * _SCALE[kind]
    return np.ascontiguousarray(values_NC, np.float32), int(frame.sample_rate)
