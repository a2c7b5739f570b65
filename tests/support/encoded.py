"""Known sounds in every container and codec that can be made without an outside program.

N samples, C channels.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

Wave = NDArray[np.float32]

SECONDS = 2.0
ID3_BYTES = (501, 3_000, 60_000, 200_000)


@cache
def sound(seed: int, rate: int = 48_000, channels: int = 2, seconds: float = SECONDS) -> Wave:
    """A sweep under slow noise for each channel: no stretch of it is like another. The first third is quiet, so that a
    coder of variable rate spends few bits there."""
    rng = np.random.default_rng(seed)
    time_N = np.arange(round(seconds * rate)) / rate
    columns = []
    for channel in range(channels):
        low, high = rng.uniform(150, 400), min(rng.uniform(1500, 3000), rate / 5)
        sweep_N = np.sin(2 * np.pi * (low + (high - low) * time_N / (2 * seconds)) * time_N + channel)
        noise_N = np.convolve(rng.standard_normal(len(time_N)), np.hanning(64), mode="same")
        columns.append(0.3 * sweep_N + 0.02 * noise_N)
    wave_NC = np.stack(columns, axis=1)
    wave_NC[: len(wave_NC) // 3] *= 0.1
    return wave_NC.astype(np.float32)


@dataclass(frozen=True)
class Field:
    """A number in a header, `offset` bytes from where a name first stands.

    Attributes:
        unknown: what is written by those who do not know it.
        bits: the width, where it does not fill its bytes.
        small, large: what comes of half and of twice the number: "whole" or "refused".
    """

    name: bytes
    offset: int
    width: int = 4
    order: Any = "little"
    unknown: tuple[int, ...] = (0,)
    bits: int | None = None
    small: str = "whole"
    large: str = "refused"

    def written(self, content: bytes, number: Callable[[int], int]) -> bytes:
        """The file with `number` of what its field says."""
        place = content.index(self.name) + self.offset
        whole = int.from_bytes(content[place : place + self.width], self.order)
        mask = (1 << (self.bits or 8 * self.width)) - 1
        changed = (whole & ~mask) | (number(whole & mask) & mask)
        return content[:place] + changed.to_bytes(self.width, self.order) + content[place + self.width :]


@dataclass(frozen=True)
class Format:
    """A container and codec.

    Attributes:
        reader: "libsndfile" or "FFmpeg", by which it is to be read.
        correlation: with the source, at least. 0.99999 for lossless coding, of 8 bits or more.
        late: samples by which a codec may shift the sound where no header states its delay.
        framed: junk between its frames is passed over.
        exact: states its length in bytes or samples, so that a cut file is refused.
        length: the field of its header that states how long it is.
    """

    name: str
    make: Callable[[Wave, int], bytes]
    reader: str = "libsndfile"
    correlation: float = 0.99999
    late: int = 0
    rate: int = 48_000
    channels: int = 2
    framed: bool = False
    exact: bool = True
    length: Field | None = None

    def encode(self, seed: int) -> bytes:
        return _encoded(self, seed)

    def source(self, seed: int) -> Wave:
        return sound(seed, self.rate, self.channels)


@cache
def _encoded(made: Format, seed: int) -> bytes:
    return made.make(made.source(seed), made.rate)


def by_soundfile(format: str, subtype: str | None = None, **options: Any) -> Callable[[Wave, int], bytes]:
    def make(wave_NC: Wave, rate: int) -> bytes:
        file = io.BytesIO()
        soundfile.write(file, wave_NC, rate, format=format, subtype=subtype, **options)
        return file.getvalue()

    return make


def w64_extensible(wave_NC: Wave, rate: int) -> bytes:
    """W64 with WAVEFORMATEXTENSIBLE and float samples, as FFmpeg 5 writes it."""
    tail = bytes.fromhex("f3acd3118cd100c04f8edb8a")
    channels = wave_NC.shape[1]
    fmt = struct.pack("<HHIIHHHHI", 0xFFFE, channels, rate, 4 * channels * rate, 4 * channels, 32, 22, 32, 3)
    fmt += struct.pack("<H", 3) + bytes.fromhex("000000001000800000aa00389b71")
    samples = wave_NC.astype("<f4").tobytes()
    chunks = b"fmt " + tail + struct.pack("<Q", 24 + len(fmt)) + fmt
    chunks += b"data" + tail + struct.pack("<Q", 24 + len(samples)) + samples
    riff = bytes.fromhex("726966662e91cf11a5d628db04c10000")
    return riff + struct.pack("<Q", 40 + len(chunks)) + b"wave" + tail + chunks


@dataclass(frozen=True)
class Coder:
    """What FFmpeg encodes with."""

    format: str
    codec: str
    samples: str = "s16"
    bit_rate: int | None = None
    muxer: tuple[tuple[str, str], ...] = ()
    options: tuple[tuple[str, str], ...] = ()

    def __call__(self, wave_NC: Wave, rate: int) -> bytes:
        return self.tracks([(wave_NC, rate)])

    def tracks(self, tracks: list[tuple[Wave, int]], default: int | None = None) -> bytes:
        """A file with a stream for each waveform; `default` numbers the one that is marked so."""
        file = io.BytesIO()
        with av.open(file, "w", format=self.format, options=dict(self.muxer)) as container:
            streams = [self._stream(container, wave_NC, rate) for wave_NC, rate in tracks]
            for number, stream in enumerate(streams if default is not None else []):
                stream.disposition = av.stream.Disposition.default if number == default else 0
            for stream, (wave_NC, rate) in zip(streams, tracks, strict=True):
                for start in range(0, len(wave_NC), 4096):  # so that there are several blocks where each packet is one
                    frame = _frame(wave_NC[start : start + 4096], rate, self.samples, start)
                    container.mux(stream.encode(frame))
                container.mux(stream.encode(None))
        return file.getvalue()

    def _stream(self, container: Any, wave_NC: Wave, rate: int) -> Any:
        stream = container.add_stream(
            self.codec, rate=rate, layout=LAYOUTS[wave_NC.shape[1]], options=dict(self.options)
        )
        stream.format = self.samples
        if self.bit_rate:
            stream.bit_rate = self.bit_rate
        return stream


LAYOUTS = {1: "mono", 2: "stereo"}


def _frame(wave_NC: Wave, rate: int, sample_format: str, start: int) -> av.AudioFrame:
    scale, dtype = {"s16": (2**15, "i2"), "s32": (2**31, "i4"), "flt": (1, "f4"), "u8": (2**7, "u1")}[
        sample_format.rstrip("p")
    ]
    values_NC = np.clip(np.rint(wave_NC.astype(np.float64) * scale), -scale, scale - 1) if scale > 1 else wave_NC
    values_NC = (values_NC + 128 * (dtype == "u1")).astype(dtype)
    planar = sample_format.endswith("p")
    values = np.ascontiguousarray(values_NC.T) if planar else values_NC.reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(values, sample_format, LAYOUTS[wave_NC.shape[1]])
    frame.sample_rate = rate
    frame.pts, frame.time_base = start, Fraction(1, rate)
    return frame


IN_WAV = Field(b"data", 4, unknown=(0, 0xFFFFFFFF, 0x7FFFF000))
IN_AIFF = Field(b"SSND", 4, 4, "big")
IN_RF64 = Field(b"ds64", 16, 8, unknown=(0, (1 << 64) - 1, (1 << 63) - 1))
IN_W64 = Field(b"data\xf3\xac", 16, 8, unknown=(0, (1 << 64) - 1, (1 << 63) - 1))
IN_CAF = Field(b"data", 4, 8, "big", unknown=((1 << 64) - 1,))
IN_AU = Field(b".snd", 8, 4, "big", unknown=(0xFFFFFFFF,))
IN_FLAC = Field(b"fLaC", 21, 5, "big", bits=36)
IN_MP3 = Field(b"Info", 8, 4, "big", large="whole")
IN_VBR = Field(b"Xing", 8, 4, "big", large="whole")
IN_MP4 = Field(b"mdat", -4, 4, "big", unknown=(), small="refused")
IN_MATROSKA = Field(b"\x18\x53\x80\x67", 4, 8, "big", unknown=((1 << 56) - 1,), bits=56)
IN_WAVPACK = Field(b"wvpk", 12, 4, unknown=(0xFFFFFFFF,))
IN_ASF = Field(bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c"), 16, 8, unknown=())
IN_AVI = Field(b"RIFF", 4)

VBR = (("flags", "+qscale"), ("global_quality", str(118 * 4)))
NO_XING = (("write_xing", "0"), ("id3v2_version", "0"))
FRAGMENTS = (("movflags", "frag_keyframe+empty_moov+default_base_moof"), ("frag_duration", "500000"))

FORMATS = (
    Format("WAV, 16 bit", by_soundfile("WAV", "PCM_16"), length=IN_WAV),
    Format("WAV, 24 bit", by_soundfile("WAV", "PCM_24"), length=IN_WAV),
    Format("WAV, float", by_soundfile("WAV", "FLOAT"), length=IN_WAV),
    Format("WAV, µ-law", by_soundfile("WAV", "ULAW"), correlation=0.999, length=IN_WAV),
    Format("WAV, IMA ADPCM", by_soundfile("WAV", "IMA_ADPCM"), correlation=0.995, length=IN_WAV),
    Format("WAV, MS ADPCM", by_soundfile("WAV", "MS_ADPCM"), correlation=0.995, length=IN_WAV),
    Format("WAV, MP3", Coder("wav", "libmp3lame", "fltp", 128_000), "FFmpeg", 0.99, 2500, framed=True, length=IN_WAV),
    Format("RF64", by_soundfile("RF64", "PCM_16"), length=IN_RF64),
    Format("W64", by_soundfile("W64", "PCM_16"), length=IN_W64),
    Format("W64, extensible float", w64_extensible, "FFmpeg", length=IN_W64),
    Format("AIFF, 16 bit", by_soundfile("AIFF", "PCM_16"), length=IN_AIFF),
    Format("AIFC, float", by_soundfile("AIFF", "FLOAT"), length=IN_AIFF),
    Format("AIFC, little endian", by_soundfile("AIFF", "PCM_16", endian="LITTLE"), length=IN_AIFF),
    Format("CAF, 16 bit", by_soundfile("CAF", "PCM_16"), length=IN_CAF),
    Format("CAF, ALAC", by_soundfile("CAF", "ALAC_16"), "FFmpeg"),
    Format("AU", by_soundfile("AU", "PCM_16"), length=IN_AU),
    Format("VOC", Coder("voc", "pcm_s16le"), "FFmpeg", rate=44_100, exact=False),
    Format("VOC, 8 bit", Coder("voc", "pcm_u8", "u8"), "FFmpeg", 0.999, rate=20_000, channels=1, exact=False),
    Format("FLAC, 16 bit", by_soundfile("FLAC", "PCM_16"), length=IN_FLAC),
    Format("FLAC, 24 bit", by_soundfile("FLAC", "PCM_24"), length=IN_FLAC),
    Format("Ogg, Vorbis", by_soundfile("OGG", "VORBIS"), correlation=0.99, exact=False),
    Format("Ogg, Opus", by_soundfile("OGG", "OPUS"), correlation=0.99, exact=False),
    Format("Ogg, FLAC", Coder("ogg", "flac"), "FFmpeg", exact=False),
    Format(
        "MP3, constant rate",
        Coder("mp3", "libmp3lame", "fltp", 128_000),
        "FFmpeg",
        0.99,
        framed=True,
        exact=False,
        length=IN_MP3,
    ),
    Format(
        "MP3, constant rate, no Info",
        Coder("mp3", "libmp3lame", "fltp", 128_000, NO_XING),
        "FFmpeg",
        0.99,
        2500,
        framed=True,
        exact=False,
    ),
    Format(
        "MP3, variable rate",
        Coder("mp3", "libmp3lame", "fltp", None, (), VBR),
        "FFmpeg",
        0.99,
        framed=True,
        exact=False,
        length=IN_VBR,
    ),
    Format(
        "MP3, variable rate, no Xing",
        Coder("mp3", "libmp3lame", "fltp", None, NO_XING, VBR),
        "FFmpeg",
        0.99,
        2500,
        framed=True,
        exact=False,
    ),
    Format("MP2", Coder("mp2", "mp2", "s16", 192_000), "FFmpeg", 0.99, 2500, framed=True, exact=False),
    Format("AAC (ADTS)", Coder("adts", "aac", "fltp", 128_000), "FFmpeg", 0.99, 2500, framed=True, exact=False),
    Format("AC-3", Coder("ac3", "ac3", "fltp", 192_000), "FFmpeg", 0.99, 2500, framed=True, exact=False),
    Format("E-AC-3", Coder("eac3", "eac3", "fltp", 192_000), "FFmpeg", 0.99, 2500, framed=True, exact=False),
    Format("M4A, AAC", Coder("ipod", "aac", "fltp", 128_000), "FFmpeg", 0.99, length=IN_MP4),
    Format(
        "M4A, AAC, fragmented",
        Coder("mp4", "aac", "fltp", 128_000, FRAGMENTS),
        "FFmpeg",
        0.99,
        2500,
    ),
    Format("M4A, ALAC", Coder("ipod", "alac", "s16p"), "FFmpeg", length=IN_MP4),
    Format("MOV, 16 bit", Coder("mov", "pcm_s16le"), "FFmpeg", length=IN_MP4),
    Format("Matroska, FLAC", Coder("matroska", "flac"), "FFmpeg", length=IN_MATROSKA),
    Format("Matroska, AAC", Coder("matroska", "aac", "fltp", 128_000), "FFmpeg", 0.99, 2500, length=IN_MATROSKA),
    Format("Matroska, live", Coder("matroska", "flac", muxer=(("live", "1"),)), "FFmpeg", exact=False),
    Format("WebM, Opus", Coder("webm", "libopus", "flt", 128_000), "FFmpeg", 0.99, length=IN_MATROSKA),
    Format("WMA", Coder("asf", "wmav2", "fltp", 128_000), "FFmpeg", 0.98, 2500, length=IN_ASF),
    Format("TTA", Coder("tta", "tta"), "FFmpeg"),
    Format("WavPack", Coder("wv", "wavpack", "s16p"), "FFmpeg", length=IN_WAVPACK),
    Format("AVI, 16 bit", Coder("avi", "pcm_s16le"), "FFmpeg", length=IN_AVI),
    Format("AVI, MP3", Coder("avi", "libmp3lame", "fltp", 128_000), "FFmpeg", 0.99, 2500, length=IN_AVI),
    Format(
        "FLV, AAC",
        Coder("flv", "aac", "fltp", 128_000),
        "FFmpeg",
        0.99,
        2500,
        exact=False,
    ),
    Format("MPEG-TS, AAC", Coder("mpegts", "aac", "fltp", 128_000), "FFmpeg", 0.99, 2500, exact=False),
)


def id3(size: int, seed: int = 0) -> bytes:
    """A tag of version 2.3, of `size` bytes in all: a picture of random bytes."""
    inside = size - 10
    content = b"APIC" + (inside - 10).to_bytes(4, "big") + b"\0\0" + np.random.default_rng(seed).bytes(inside - 10)
    return b"ID3\x03\0\0" + bytes((inside >> shift) & 0x7F for shift in (21, 14, 7, 0)) + content


def junk(size: int = 400, seed: int = 1) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def in_the_middle(content: bytes, inserted: bytes) -> bytes:
    return content[: len(content) // 2] + inserted + content[len(content) // 2 :]


def likeness(found_NC: Wave, source_NC: Wave, at: int = 0, slack: int = 0) -> tuple[float, int]:
    """(correlation, lag) of a source within `slack` samples of `at` in what was decoded, where they agree best."""
    if found_NC.shape[1:] != source_NC.shape[1:]:
        return 0.0, 0
    best = (-1.0, 0)
    for lag in [0] if slack == 0 else _lags(found_NC[:, 0], source_NC[:, 0], at, slack):
        from_sample = at + lag
        own_NC = source_NC[max(0, -from_sample) :]
        piece_NC = found_NC[max(0, from_sample) :][: len(own_NC)]
        own_NC = own_NC[: len(piece_NC)]
        if len(piece_NC) and piece_NC.std() > 0:
            best = max(best, (float(np.corrcoef(piece_NC.ravel(), own_NC.ravel())[0, 1]), lag))
    return best


def _lags(found_N: Wave, source_N: Wave, at: int, slack: int) -> list[int]:
    """The lag at which a source correlates best, and none."""
    padded_N = np.pad(found_N, (slack, slack))[at : at + len(source_N) + 2 * slack]  # at - slack of what was decoded
    size = 1 << (len(padded_N) + len(source_N)).bit_length()
    product = np.fft.irfft(np.fft.rfft(padded_N, size) * np.conj(np.fft.rfft(source_N, size)), size)
    return [0, int(product[: 2 * slack + 1].argmax()) - slack]


REFUSING_JUNK = ("Ogg", "VOC", "Matroska", "WebM", "FLAC", "M4A", "MOV", "CAF, ALAC", "TTA", "WavPack")
"""Names of formats whose structure shows that bytes were put between."""


def table() -> str:
    """The rows of `docs/decoding.md`: what the tests assert of each format."""
    heads = (
        "container, codec",
        "read by",
        "correlation",
        "no length",
        "too small",
        "too large",
        "joined",
        "ID3 in front",
        "junk inside",
        "cut",
    )
    rows = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for made in FORMATS:
        field = made.length
        cells = (
            made.name,
            made.reader,
            "1" if made.correlation >= 0.99999 else f"≥ {made.correlation}",
            "whole" if field and field.unknown else "–",
            field.small if field else "–",
            field.large if field else "–",
            "whole",
            "whole",
            "the rest" if made.framed else "refused" if made.name.startswith(REFUSING_JUNK) else "–",
            "refused" if made.exact else "the rest",
        )
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
