"""Formats of chunks: WAV, RF64, AIFF, W64, CAF and AVI; and Sun's AU.

The size of the chunk with the samples decides where a sound ends, and writers often state it wrongly: those that write
to a pipe do not know it, and others forget to update it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO, Literal, NamedTuple

from openclap.audio.mpeg import split_frames
from openclap.audio.streams import (
    SLACK,
    W64_TAIL,
    EncodedStream,
    Streams,
    id3_size,
    is_chunk_name,
    is_end_tag,
    is_start,
    one_stream,
    read_at,
    skip_zeros,
    stated_ratio,
)


class ChunkLayout(NamedTuple):
    """Layout of a format's chunks: a name, a size, the content."""

    header: str
    start: int
    """Bytes in front of the first chunk."""
    counts_header: bool
    align: int
    sound: bytes
    """The name of the chunk that holds the samples."""


CHUNK_LAYOUTS = {
    # W64 alone counts a chunk's head in its size, and pads to 8; RIFX is RIFF in big-endian order.
    b"RIFF": ChunkLayout("<4sI", 12, False, 2, b"data"),
    b"RF64": ChunkLayout("<4sI", 12, False, 2, b"data"),
    b"BW64": ChunkLayout("<4sI", 12, False, 2, b"data"),
    b"RIFX": ChunkLayout(">4sI", 12, False, 2, b"data"),
    b"FORM": ChunkLayout(">4sI", 12, False, 2, b"SSND"),
    b"riff": ChunkLayout("<16sQ", 40, True, 8, b"data" + W64_TAIL),
    b"caff": ChunkLayout(">4sQ", 8, False, 1, b"data"),
}

_FORMAT_CHUNKS = (b"fmt ", b"fmt " + W64_TAIL)
"""Of WAV and of W64. In W64 libsndfile mistakes float samples in WAVEFORMATEXTENSIBLE for integers."""

_MPEG_IN_WAV = (0x50, 0x55)
"""WAVE_FORMAT_MPEG and WAVE_FORMAT_MPEGLAYER3."""
_OGG_IN_WAV = (0x674F, 0x6750, 0x6751, 0x676F, 0x6770, 0x6771)
"""WAVE_FORMAT_OGG_VORBIS_MODE_1 to _3, and _1_PLUS to _3_PLUS: Ogg Vorbis, whole where its headers are in the data."""


def split_chunks(file: BinaryIO, begin: int, end: int) -> Streams:
    """The stream of a file of chunks; of a WAV with MPEG frames or an Ogg in it, the streams of those."""
    head = read_at(file, begin, 12)
    if head[8:12] == b"AVI ":
        return (yield from _split_avi(file, begin, end))
    # IFF holds other sounds, too, such as 8SVX.
    if head[:4] == b"FORM" and head[8:12] not in (b"AIFF", b"AIFC"):
        return (yield from one_stream(file, begin, end))
    chunks = CHUNK_LAYOUTS[head[:4]]
    place, size64, codec, by_libsndfile = begin + chunks.start, None, 0, True
    while chunk := read_chunk(file, place, chunks):
        name, size, body = chunk
        # RF64 and BW64 (EBU Tech 3306, ITU-R BS.2088): 64-bit sizes for a data chunk whose own field is all ones.
        if name == b"ds64":
            size64 = Field(body + 8, 8, int.from_bytes(read_at(file, body + 8, 8), "little"))
        if name in _FORMAT_CHUNKS:
            codec = _wav_codec(read_at(file, body, 26), chunks.header[0])
            by_libsndfile = name == b"fmt " or read_at(file, body, 2) != b"\xfe\xff"
        if name == b"desc":
            by_libsndfile = read_at(file, body + 8, 4) != b"alac"  # libsndfile prints about damaged ones
        if name == chunks.sound:
            width = struct.calcsize(chunks.header) - len(name)
            field = size64 if size64 and size == 0xFFFFFFFF else Field(body - width, width, size)
            part, sound_end = _of_sound_chunk(file, (begin, end), chunks, body, field)
            if codec in _MPEG_IN_WAV:
                yield from _mpeg_in(file, body, sound_end, part.stated)
            elif codec in _OGG_IN_WAV and read_at(file, body, 4) == b"OggS":
                yield EncodedStream(body, sound_end, by_libsndfile=True, format="ogg", stated=part.stated)
            else:
                yield replace(part, by_libsndfile=by_libsndfile and part.by_libsndfile)
            return part.end
        place = body + size + -size % chunks.align
    return (yield from one_stream(file, begin, end))


class Field(NamedTuple):
    """A number in a header."""

    place: int
    width: int
    value: int


def read_chunk(file: BinaryIO, place: int, chunks: ChunkLayout) -> tuple[bytes, int, int] | None:
    """(name, bytes of content, where the content begins) of the chunk at `place`; None at the end of the file."""
    length = struct.calcsize(chunks.header)
    head = read_at(file, place, length)
    if len(head) < length:
        return None
    name, size = struct.unpack(chunks.header, head)
    return name, max(0, size - length * chunks.counts_header), place + length


def _wav_codec(fmt: bytes, order: str) -> int:
    fmt = fmt.ljust(26, b"\0")
    # WAVE_FORMAT_EXTENSIBLE (0xFFFE) keeps the codec in the first two bytes of its sub-format.
    codec, extended = struct.unpack_from(f"{order}H22xH", fmt)
    return int(extended if codec == 0xFFFE else codec)


def _of_sound_chunk(
    file: BinaryIO, span: tuple[int, int], chunks: ChunkLayout, body: int, field: Field
) -> tuple[EncodedStream, int]:
    """The stream with this chunk of samples, and the end of the samples; a missing or too small size is corrected."""
    begin, end = span
    size, there, by_libsndfile = field.value, end - body, True
    # A size of 0 is a placeholder, too, unless chunks follow at once: then the sound is empty.
    is_open = _is_unknown_size(size, field.width) or (size == 0 and _stop(file, body, 0, end, chunks) is None)
    stop = None if is_open or size > there else _stop(file, body, size, end, chunks)
    # BW64 is RF64 under a newer name; libsndfile is shown the older one.
    patches = [(0, b"RF64")] if read_at(file, begin, 4) == b"BW64" else []
    if is_open or (stop is None and size <= there):
        size, stop = there, end
        order: Literal["little", "big"] = "little" if chunks.header[0] == "<" else "big"
        written = size + struct.calcsize(chunks.header) * chunks.counts_header
        # Beyond 4 GiB the field cannot hold the size; the largest values would be taken for placeholders.
        by_libsndfile = written < (1 << 8 * field.width) - (1 << 17)
        written = written if by_libsndfile else 0  # FFmpeg takes 0 for "to the end", beyond 4 GiB too
        patches.append((field.place - begin, written.to_bytes(field.width, order)))
    # Fewer bytes than stated: left uncorrected, so that the truncation is reported.
    stated = size / there if size > there + SLACK and there else 1.0
    return EncodedStream(begin, stop or end, by_libsndfile, None, tuple(patches), stated), min(body + size, end)


def _is_unknown_size(size: int, width: int) -> bool:
    """Whether a size is a placeholder of writers to a pipe: just below 2 GiB or 4 GiB, -1, or the largest
    number with a sign."""
    if width == 8:
        return size >= (1 << 63) - (1 << 16)
    # Near these values and not only at them: writers subtract the size of their header.
    return size > 0 and (size % (1 << 31) == 0 or size % (1 << 31) >= (1 << 31) - (1 << 16))


def _stop(file: BinaryIO, body: int, size: int, end: int, chunks: ChunkLayout) -> int | None:
    """The end of a file with this chunk of samples; None where its end, more chunks or another file do not follow, so
    the samples go on. Three paddings are tried: not all writers pad to an even size, and some do needlessly."""
    for padding in (-size % chunks.align, 0, size % 2):
        if (stop := _end_of_chunks(file, body + size + padding, end, chunks)) is not None:
            return stop
    return None


def _end_of_chunks(file: BinaryIO, place: int, end: int, chunks: ChunkLayout) -> int | None:
    while True:
        if end - place <= SLACK or is_start(file, place) or is_end_tag(read_at(file, place, 8)):
            return min(place, end)
        chunk = read_chunk(file, place, chunks)
        # One byte of tolerance: the padding of the last chunk is often missing.
        if chunk is None or not is_chunk_name(chunk[0]) or chunk[2] + chunk[1] > end + 1:
            return end if skip_zeros(file, place, end) == end else None
        place = chunk[2] + chunk[1] + -chunk[1] % chunks.align


def _mpeg_in(file: BinaryIO, begin: int, end: int, stated: float) -> Iterator[EncodedStream]:
    """The MPEG frames in a WAV as files of their own: the WAV's header does not describe them well enough."""
    for part in split_frames(file, begin, end):
        yield replace(part, format="mp3", stated=stated)


def _split_avi(file: BinaryIO, begin: int, end: int) -> Streams:
    """An AVI: a list `AVI `, and `AVIX` where it is beyond 1 GB."""
    place = begin
    while True:
        (size,) = struct.unpack("<4xI", read_at(file, place, 8))
        after = place + 8 + size + size % 2
        is_open = size == 0 or _is_unknown_size(size, 4)
        if is_open or read_at(file, after, 12)[8:] != b"AVIX":
            stop = after if not is_open and after < end and is_start(file, after) else end
            yield EncodedStream(begin, stop, stated=1.0 if is_open else stated_ratio(after - begin, end - begin))
            return stop
        place = after


def split_au(file: BinaryIO, begin: int, end: int) -> Streams:
    """Sun's .snd: one header, then samples."""
    head = read_at(file, begin, 24).ljust(24, b"\0")
    start, size = struct.unpack_from(">II", head, 4)
    stop: int = begin + start + size
    stated = 1.0
    patches: tuple[tuple[int, bytes], ...] = ()
    # AU has no chunks: only another file behind its samples shows that the stated size is right.
    is_joined = read_at(file, stop, 4) == b".snd" or bool(id3_size(read_at(file, stop, 10)))
    if size == 0xFFFFFFFF or not is_joined:
        there = max(0, end - begin - start)
        if size != 0xFFFFFFFF and size > there + SLACK and there:
            stated = size / there
        elif size != 0xFFFFFFFF and there - size > SLACK:
            # All ones: unknown, so libsndfile reads to the end of the bytes.
            patches = ((8, b"\xff" * 4),)
        stop = end
    yield EncodedStream(begin, stop, True, None, patches, stated)
    return stop
