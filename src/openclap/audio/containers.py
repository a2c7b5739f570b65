"""Where each stream of a sound file begins and ends, how much its header states, and who reads it.

Decoders stop at the first stream, at a stated length (even a wrong one) or at an estimate of it. So the bytes are cut
into parts here, one for each stream, by the structure that delimits audio: chunks with others behind them, boxes, the
first pages of a chained Ogg, the Info frames of joined MP3s, tags. `docs/decoding.md` has the table.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import BinaryIO, Literal, NamedTuple

WINDOW, LONGEST = 1 << 20, 32
"""Bytes that are searched at once, and that a signature has at most."""

SLACK = 64
"""Bytes that a header may count too many: its own, by mistake; and that may lie behind a stream, meaning nothing."""

FLAC_TAILS = (1 << 15, 1 << 18)
"""Bytes in which the last frame of a FLAC is looked for: a usual frame; the largest, and tags behind it."""


JUNK = 1 << 16
"""Bytes between tags that are left out if they are no sound; more would be a loss."""


@dataclass(frozen=True, slots=True)
class Part:
    """One stream.

    Attributes:
        begin, end: its bytes.
        by_libsndfile: whether libsndfile reads it, if it can; else FFmpeg does.
        format: FFmpeg's name of the container, where its first bytes may not show it.
        patches: fields of a header (place after `begin`, bytes) that are put right for the decoder.
        stated: how many times as long as it is here the header says that it is; 1 for a whole one.
        samples: stated by the header; None where no number is, or where the reader checks it.
        may_be_junk: whether it is left out if it is no sound.
        damage: what is lost of it, for a message; None where nothing is known to be lost.
    """

    begin: int
    end: int
    by_libsndfile: bool = False
    format: str | None = None
    patches: tuple[tuple[int, bytes], ...] = ()
    stated: float = 1.0
    samples: int | None = None
    may_be_junk: bool = False
    damage: str | None = None


def parts_of(file: BinaryIO) -> Iterator[Part]:
    """The parts of a file in order; there is always one."""
    end = file.seek(0, os.SEEK_END)
    begin = behind_tags(file, 0, end)
    splitter: Splitter | None = _splitter(file, begin, end) or (_frames if begin > 0 else _unknown)
    while splitter is not None and begin < end:
        begin = behind_tags(file, (yield from splitter(file, begin, end)), end)
        splitter = _splitter(file, begin, end) if end - begin > SLACK else None


def behind_tags(file: BinaryIO, begin: int, end: int) -> int:
    """Where the bytes go on behind ID3v2 tags (https://id3.org/id3v2.4.0-structure)."""
    while (size := _id3_size(_at(file, begin, 10))) and begin + size <= end:
        begin += size
    return begin


def _id3_size(head: bytes) -> int:
    """Bytes of the ID3v2 tag that begins so, its header and footer with them; 0 for what is no tag."""
    if len(head) < 10 or head[:3] != b"ID3" or not 2 <= head[3] <= 4 or max(head[6:10]) > 0x7F:
        return 0
    return 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]) + 10 * bool(head[3] == 4 and head[5] & 0x10)


Parts = Generator[Part, None, int]
"""The parts of one file; it returns where that file ends."""

Splitter = Callable[[BinaryIO, int, int], Parts]


def _splitter(file: BinaryIO, begin: int, end: int) -> Splitter | None:
    """By how a stream begins."""
    head = _at(file, begin, 24)
    for signature, splitter in _BEGINNINGS.items():
        if head.startswith(signature):
            return splitter
    if head[4:8] in _BOXES:
        return _boxes
    return _frames if _is_frame(_at(file, _behind_zeros(file, begin, end), 4)) else None


def _at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(min(place, 1 << 62))  # damaged sizes add up to more than a place can be
    return file.read(count)


def _find(file: BinaryIO, pattern: bytes, begin: int, end: int) -> Iterator[int]:
    """All places of a pattern of at most LONGEST bytes."""
    place, search = begin, re.compile(pattern, re.DOTALL).finditer
    while place < end:
        for found in search(_at(file, place, min(WINDOW + LONGEST - 1, end - place))):
            if found.start() < WINDOW:
                yield place + found.start()
        place += WINDOW


def _behind_zeros(file: BinaryIO, begin: int, end: int) -> int:
    """Where the first byte is that is not 0; `end` if none is."""
    while begin < end:
        window = _at(file, begin, min(WINDOW, end - begin))
        if rest := window.lstrip(b"\0"):
            return begin + len(window) - len(rest)
        begin += len(window)
    return end


def _unknown(file: BinaryIO, begin: int, end: int) -> Parts:
    yield Part(begin, end, by_libsndfile=True)
    return end


# Chunks: WAV, AIFF, W64, CAF


class Chunks(NamedTuple):
    """How a format writes its chunks: a name, a size, the content."""

    header: str
    start: int
    """Bytes in front of the first chunk."""
    counts_header: bool
    align: int
    sound: bytes
    """The name of the chunk that holds the samples."""


_W64_TAIL = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"

_CHUNKS = {
    b"RIFF": Chunks("<4sI", 12, False, 2, b"data"),
    b"RF64": Chunks("<4sI", 12, False, 2, b"data"),
    b"BW64": Chunks("<4sI", 12, False, 2, b"data"),
    b"RIFX": Chunks(">4sI", 12, False, 2, b"data"),
    b"FORM": Chunks(">4sI", 12, False, 2, b"SSND"),
    b"riff": Chunks("<16sQ", 40, True, 8, b"data" + _W64_TAIL),
    b"caff": Chunks(">4sQ", 8, False, 1, b"data"),
}

_FORMAT_CHUNKS = (b"fmt ", b"fmt " + _W64_TAIL)
"""Of WAV, and of W64, where libsndfile takes float samples for integers if WAVEFORMATEXTENSIBLE describes them."""

_MPEG_IN_WAV = (0x50, 0x55)
"""WAVE_FORMAT_MPEG and WAVE_FORMAT_MPEGLAYER3."""


def _chunked(file: BinaryIO, begin: int, end: int) -> Parts:
    head = _at(file, begin, 12)
    if head[8:12] == b"AVI ":
        return (yield from _avi(file, begin, end))
    if head[:4] == b"FORM" and head[8:12] not in (b"AIFF", b"AIFC"):
        return (yield from _unknown(file, begin, end))
    chunks = _CHUNKS[head[:4]]
    place, size64, codec, by_libsndfile = begin + chunks.start, None, 0, True
    while chunk := _chunk(file, place, chunks):
        name, size, body = chunk
        if name == b"ds64":
            size64 = Field(body + 8, 8, int.from_bytes(_at(file, body + 8, 8), "little"))
        if name in _FORMAT_CHUNKS:
            codec = _wav_codec(_at(file, body, 26), chunks.header[0])
            by_libsndfile = name == b"fmt " or _at(file, body, 2) != b"\xfe\xff"
        if name == b"desc":
            by_libsndfile = _at(file, body + 8, 4) != b"alac"  # of damaged ones it writes to the terminal
        if name == chunks.sound:
            width = struct.calcsize(chunks.header) - len(name)
            field = size64 if size64 and size == 0xFFFFFFFF else Field(body - width, width, size)
            part, sound_end = _of_sound_chunk(file, (begin, end), chunks, body, field)
            if codec in _MPEG_IN_WAV:
                yield from _mpeg_in(file, body, sound_end, part.stated)
            else:
                yield replace(part, by_libsndfile=by_libsndfile and part.by_libsndfile)
            return part.end
        place = body + size + -size % chunks.align
    return (yield from _unknown(file, begin, end))


class Field(NamedTuple):
    """A number in a header."""

    place: int
    width: int
    value: int


def _chunk(file: BinaryIO, place: int, chunks: Chunks) -> tuple[bytes, int, int] | None:
    """(name, bytes of content, where the content begins)."""
    length = struct.calcsize(chunks.header)
    head = _at(file, place, length)
    if len(head) < length:
        return None
    name, size = struct.unpack(chunks.header, head)
    return name, max(0, size - length * chunks.counts_header), place + length


def _wav_codec(fmt: bytes, order: str) -> int:
    fmt = fmt.ljust(26, b"\0")
    codec, extended = struct.unpack_from(f"{order}H22xH", fmt)
    return int(extended if codec == 0xFFFE else codec)


def _of_sound_chunk(file: BinaryIO, span: tuple[int, int], chunks: Chunks, body: int, field: Field) -> tuple[Part, int]:
    """The part with this chunk of samples, and where they end; the size is put right where it is missing or too
    small."""
    begin, end = span
    size, there, by_libsndfile = field.value, end - body, True
    is_open = _is_stream(size, field.width) or (size == 0 and _stop(file, body, 0, end, chunks) is None)
    stop = None if is_open or size > there else _stop(file, body, size, end, chunks)
    patches = [(0, b"RF64")] if _at(file, begin, 4) == b"BW64" else []
    if is_open or (stop is None and size <= there):
        size, stop = there, end
        order: Literal["little", "big"] = "little" if chunks.header[0] == "<" else "big"
        written = size + struct.calcsize(chunks.header) * chunks.counts_header
        by_libsndfile = written < (1 << 8 * field.width) - (1 << 17)
        written = written if by_libsndfile else 0  # FFmpeg reads 0 as: to the end, beyond 4 GiB too
        patches.append((field.place - begin, written.to_bytes(field.width, order)))
    stated = size / there if size > there + SLACK and there else 1.0
    return Part(begin, stop or end, by_libsndfile, None, tuple(patches), stated), min(body + size, end)


def _is_stream(size: int, width: int) -> bool:
    """Whether a size is what writers to a pipe put down: just below 2 GiB or 4 GiB, -1, or the largest
    number with a sign."""
    if width == 8:
        return size >= (1 << 63) - (1 << 16)
    return size > 0 and (size % (1 << 31) == 0 or size % (1 << 31) >= (1 << 31) - (1 << 16))


def _stop(file: BinaryIO, body: int, size: int, end: int, chunks: Chunks) -> int | None:
    """Where a file with this chunk of samples ends; None where neither its end nor more chunks nor another file stand
    behind them, so that the samples go on. Not all writers fill up to an even size, and some do who need not."""
    for padding in (-size % chunks.align, 0, size % 2):
        if (stop := _end_of_chunks(file, body + size + padding, end, chunks)) is not None:
            return stop
    return None


def _end_of_chunks(file: BinaryIO, place: int, end: int, chunks: Chunks) -> int | None:
    while True:
        if end - place <= SLACK or _is_start(file, place) or _is_end_tag(_at(file, place, 8)):
            return min(place, end)
        chunk = _chunk(file, place, chunks)
        if chunk is None or not _is_name(chunk[0]) or chunk[2] + chunk[1] > end + 1:
            return end if _behind_zeros(file, place, end) == end else None
        place = chunk[2] + chunk[1] + -chunk[1] % chunks.align


def _is_name(name: bytes) -> bool:
    return name[:4].isascii() and name[:4].decode("ascii").isprintable() and (len(name) == 4 or name[4:] == _W64_TAIL)


def _is_start(file: BinaryIO, place: int) -> bool:
    """Whether another sound file begins here, tags in front of it or not."""
    head = _at(file, place, 12)
    if _id3_size(head):
        return True
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM"):
        return head[8:12] in (b"WAVE", b"AIFF", b"AIFC", b"AVI ")
    return _at(file, place, LONGEST).startswith((*_UNCHUNKED, b"caff\0\1\0\0", _W64_RIFF))


def _is_end_tag(head: bytes) -> bool:
    """ID3v1 and APE tags, which are written behind a sound."""
    return head[:3] == b"TAG" or head == b"APETAGEX"


def _mpeg_in(file: BinaryIO, begin: int, end: int, stated: float) -> Iterator[Part]:
    """The frames that a WAV holds, as if they were a file: the WAV's header tells too little of them."""
    for part in _frames(file, begin, end):
        yield replace(part, format="mp3", stated=stated)


def _avi(file: BinaryIO, begin: int, end: int) -> Parts:
    """An AVI: a list `AVI `, and `AVIX` where it is beyond 1 GB."""
    place = begin
    while True:
        (size,) = struct.unpack("<4xI", _at(file, place, 8))
        after = place + 8 + size + size % 2
        is_open = size == 0 or _is_stream(size, 4)
        if is_open or _at(file, after, 12)[8:] != b"AVIX":
            stop = after if not is_open and after < end and _is_start(file, after) else end
            yield Part(begin, stop, stated=1.0 if is_open else _stated(after - begin, end - begin))
            return stop
        place = after


def _au(file: BinaryIO, begin: int, end: int) -> Parts:
    """Sun's .snd: one header, then samples."""
    head = _at(file, begin, 24).ljust(24, b"\0")
    start, size = struct.unpack_from(">II", head, 4)
    stop: int = begin + start + size
    stated = 1.0
    patches: tuple[tuple[int, bytes], ...] = ()
    is_joined = _at(file, stop, 4) == b".snd" or bool(_id3_size(_at(file, stop, 10)))
    if size == 0xFFFFFFFF or not is_joined:
        there = max(0, end - begin - start)
        if size != 0xFFFFFFFF and size > there + SLACK and there:
            stated = size / there
        elif size != 0xFFFFFFFF and there - size > SLACK:
            patches = ((8, b"\xff" * 4),)
        stop = end
    yield Part(begin, stop, True, None, patches, stated)
    return stop


# Streams that are found by how the next one begins


def _streams(
    file: BinaryIO, begin: int, end: int, pattern: bytes, is_start: Callable[[int], bool] = lambda _: True
) -> Iterator[tuple[int, int]]:
    """Where each stream begins and ends, without the tags in front of the next one."""
    places = [begin, *(place for place in _find(file, pattern, begin + 1, end) if is_start(place)), end]
    for first, last in pairwise(places):
        tags = _find(file, b"ID3", first, last) if last < end else ()
        yield first, next((tag for tag in tags if behind_tags(file, tag, last) == last), last)


def _flac(file: BinaryIO, begin: int, end: int) -> Parts:
    """libsndfile reads a FLAC whose last frame ends where STREAMINFO says; FFmpeg the others, to their end."""
    for first, last in _streams(file, begin, end, rb"fLaC[\0\x80]\0\0\x22"):
        info = _at(file, first + 8, 34).ljust(34, b"\0")
        samples = int.from_bytes(info[13:18], "big") & 0xFFFFFFFFF
        tails = (_at(file, max(first, last - size), min(size, last - first)) for size in FLAC_TAILS)
        agrees = samples > 0 and any(_ends_at(samples, tail, info) for tail in tails)
        yield Part(first, last, agrees, None if agrees else "flac", samples=None if agrees else samples or None)
    return end


_FLAC_BLOCKS = {1: 192, **{code: 576 << code - 2 for code in range(2, 6)}, **{c: 256 << c - 8 for c in range(8, 16)}}


def _ends_at(samples: int, tail: bytes, info: bytes) -> bool:
    """Whether a frame that ends this number of samples stands in the tail (RFC 9639, 9.1)."""
    fixed = int.from_bytes(info[:2], "big")
    for sync, unit in ((b"\xff\xf8", fixed), (b"\xff\xf9", 1)):
        place = tail.rfind(sync)
        while place >= 0:
            number, after = _coded_number(tail, place + 4)
            code = tail[place + 2] >> 4 if after else 0
            block = _FLAC_BLOCKS.get(code, 0)
            if code in (6, 7):
                block = 1 + int.from_bytes(tail[after : after + code - 5], "big")
            if block and samples == number * unit + block:
                return True
            place = tail.rfind(sync, 0, place)
    return False


def _coded_number(data: bytes, place: int) -> tuple[int, int]:
    """A number of up to 36 bits as UTF-8 codes it, and the place behind it, which is 0 where no number stands."""
    first = data[place] if place < len(data) else 0xFF
    ones = 8 - (~first & 0xFF).bit_length()
    rest = data[place + 1 : place + max(ones, 1)]
    if ones == 1 or ones > 7 or len(rest) < ones - 1 or any(byte & 0xC0 != 0x80 for byte in rest):
        return 0, 0
    number = first & (0x7F >> ones)
    for byte in rest:
        number = number << 6 | byte & 0x3F
    return number, place + max(ones, 1)


def _ogg(file: BinaryIO, begin: int, end: int) -> Parts:
    """The links of a chain (RFC 3533): each begins with the first pages of its streams, one behind the other."""
    firsts = [place for place in _find(file, rb"OggS\0\x02", begin, end) if _is_first_page(_at(file, place, 28))]
    links: list[list[int]] = []
    behind = -1
    for place in firsts:
        if place != behind:
            links.append([])
        links[-1].append(place)
        head = _at(file, place, 27 + 255)
        behind = place + 27 + head[26] + sum(head[27 : 27 + head[26]])
    for link, following in pairwise([*(links or [[begin]]), [end]]):
        head = _at(file, link[0], 27 + 255 + 8)
        packet = head[27 + head[26] :][:8] if len(head) > 27 else b""
        known = packet.startswith((b"\x01vorbis", b"OpusHead"))
        is_lost, is_ordered = _pages(file, link[0], following[0])
        damage = "pages of its Ogg stream are missing or broken" if is_lost else None
        yield Part(link[0], following[0], known and is_ordered and len(link) == 1, "ogg", damage=damage)
    return end


def _pages(file: BinaryIO, begin: int, end: int) -> tuple[bool, bool]:
    """Whether a page is missing in front of another, by their numbers, and whether their samples only count up.

    Decoders leave out broken pages, of up to a second, without a word; libsndfile ends where the last page says. What
    was cut from a broadcast has the headers, and then pages of any number.
    """
    last: dict[bytes, tuple[int, int]] = {}
    is_broken, is_ordered = False, True
    while begin < end:
        head = _at(file, begin, 27 + 255)
        size = 27 + head[26] + sum(head[27 : 27 + head[26]]) if head[:4] == b"OggS" and len(head) >= 27 else 0
        page = _at(file, begin, size)
        is_whole = 0 < size == len(page)
        if not is_whole or _ogg_checksum(page) != page[22:26]:
            if is_whole and not is_broken:
                return True, is_ordered
            begin, is_broken = next(_find(file, b"OggS\0", begin + 1, end), end), True
            continue
        serial, number, samples = page[14:18], int.from_bytes(page[18:22], "little"), page[6:14]
        before, had = last.get(serial, (number, 0))
        if number > before + 1 and (had or is_broken):
            return True, is_ordered
        has = had if samples == b"\xff" * 8 else int.from_bytes(samples, "little")  # all ones: no packet ends here
        is_ordered = is_ordered and has >= had
        last[serial] = number, has
        begin, is_broken = begin + size, False
    return False, is_ordered


_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg_checksum(page: bytes) -> bytes:
    """RFC 3533's CRC: that of zlib with all bits the other way round, from 0, and with its own field 0."""
    mirrored = (page[:22] + bytes(4) + page[26:]).translate(_MIRRORED)
    return (zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF).to_bytes(4, "little").translate(_MIRRORED)[::-1]


def _is_first_page(head: bytes) -> bool:
    """Of sample 0 and of number 0, with something in it."""
    return len(head) == 28 and head[6:14] == bytes(8) and head[18:22] == bytes(4) and head[26] > 0


def _matroska(file: BinaryIO, begin: int, end: int) -> Parts:
    def is_start(place: int) -> bool:
        head = _at(file, place, 64)
        return b"matroska" in head or b"webm" in head

    for first, last in _streams(file, begin, end, rb"\x1a\x45\xdf\xa3", is_start):
        head = _at(file, first, 128)
        segment = head.find(b"\x18\x53\x80\x67")
        size, body = _ebml_size(head, segment + 4) if segment > 0 else (None, 0)
        stated = 1.0 if size is None else _stated(body + size, last - first)
        stop = first + body + (size or 0)
        damage = None if segment < 0 or _is_ebml_whole(file, first + body, stop, last) else "its clusters are broken"
        yield Part(first, last, stated=stated, damage=damage)
    return end


def _ebml_size(data: bytes, place: int) -> tuple[int | None, int]:
    """(a size, the place behind it) as RFC 8794 codes them; None where it is not known."""
    width = 9 - data[place].bit_length() if place < len(data) and data[place] else 8
    size = int.from_bytes(data[place : place + width], "big") & ((1 << 7 * width) - 1)
    return None if size == (1 << 7 * width) - 1 else size, place + width


_CLUSTER = b"\x1f\x43\xb6\x75"
_IN_SEGMENT = (
    *(_CLUSTER, b"\x11\x4d\x9b\x74", b"\x15\x49\xa9\x66", b"\x16\x54\xae\x6b", b"\x1c\x53\xbb\x6b"),
    *(b"\x19\x41\xa4\x69", b"\x10\x43\xa7\x70", b"\x12\x54\xc3\x67"),
)
_SILENT_TRACKS = b"\x58\x54"
_ANYWHERE = b"\xec\xbf"
_IN_CLUSTER = b"\xe7\xa3\xa0\xab\xa7\xa5\xaf" + _ANYWHERE
"""Names of one byte: time, blocks; padding and check sums, which may stand in a segment too (RFC 9559)."""


def _is_ebml_whole(file: BinaryIO, place: int, stop: int, end: int) -> bool:
    """Whether the elements of a segment stand one behind the other up to the end, or up to `stop`, where the segment
    ends by its size (or begins, where it has none); FFmpeg leaves out what is left of a cluster where they do not."""
    segment = element = place
    is_open = False  # in a cluster of unknown size: its elements stand one behind the other like those of the segment
    while end - place > SLACK:
        head = _at(file, place, 12)
        is_short = head[:1] in (_IN_CLUSTER if is_open else _ANYWHERE)
        if not is_short and head[:4] not in _IN_SEGMENT:
            return place == stop or _behind_zeros(file, place, end) == end
        size, body = _ebml_size(head, 1 if is_short else 4)
        if head[:4] == _CLUSTER:
            is_open = size is None
            if size is not None and not _is_cluster_whole(file, place + body, place + body + size, end):
                return False
        element, place = place, place + body + (size or 0)
    if stop > segment:
        return place <= end + SLACK or stop > end + SLACK  # the last element of a file that was cut is longer than it
    return place <= end or next(_find(file, _CLUSTER, element + 4, end), None) is None


def _is_cluster_whole(file: BinaryIO, place: int, stop: int, end: int) -> bool:
    """Whether the elements of a cluster end where it does, or behind the end of a file that was cut."""
    while place < min(stop, end):
        head = _at(file, place, 12)
        if head[:1] not in _IN_CLUSTER and head[:2] != _SILENT_TRACKS:
            return False
        size, body = _ebml_size(head, 1 if head[:1] in _IN_CLUSTER else 2)
        place += body + (size or 0)
    return place == stop or stop > end


def _asf(file: BinaryIO, begin: int, end: int) -> Parts:
    for first, last in _streams(file, begin, end, re.escape(_ASF)):
        data = first + _asf_object(file, first)[1]
        name, size = _asf_object(file, data)
        patches: tuple[tuple[int, bytes], ...] = ()
        if name == _ASF_DATA and size and not _ends_in_objects(file, data + size, last):
            patches = ((data + 16 - first, (last - data).to_bytes(8, "little")),)
        yield Part(first, last, patches=patches, stated=_stated(data + size - first, last - first))
    return end


def _asf_object(file: BinaryIO, place: int) -> tuple[bytes, int]:
    """The name and the size of an object."""
    head = _at(file, place, 24).ljust(24, b"\0")
    return head[:16], int.from_bytes(head[16:], "little")


def _ends_in_objects(file: BinaryIO, place: int, end: int) -> bool:
    """Whether nothing but objects, indices for example, stands behind the samples."""
    while place < end - SLACK:
        size = _asf_object(file, place)[1]
        if size < 24:
            return False
        place += size
    return True


_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")


def _stated(size: int, there: int) -> float:
    """How many times what is there a header states."""
    return size / there if there < size - SLACK and size < 1 << 62 and there else 1.0


def _tta(file: BinaryIO, begin: int, end: int) -> Parts:
    def is_start(place: int) -> bool:
        head = _at(file, place, 22)
        return len(head) == 22 and zlib.crc32(head[:18]) == struct.unpack_from("<I", head, 18)[0]

    for first, last in _streams(file, begin, end, b"TTA1", is_start):
        (samples,) = struct.unpack("<I", _at(file, first + 14, 4).ljust(4, b"\0"))
        yield Part(first, last, samples=samples)
    return end


def _wavpack(file: BinaryIO, begin: int, end: int) -> Parts:
    """Blocks; one that begins a set of channels at sample 0 begins a file."""

    def is_start(place: int) -> bool:
        _, first_sample, samples, flags = struct.unpack("<4I", _at(file, place + 12, 16).ljust(16, b"\0"))
        return first_sample == 0 and samples > 0 and bool(flags & 0x800)

    for first, last in _streams(file, begin, end, b"wvpk", is_start):
        (samples,) = struct.unpack("<I", _at(file, first + 12, 4).ljust(4, b"\0"))
        yield Part(first, last, samples=None if samples == 0xFFFFFFFF else samples)
    return end


_VOC = b"Creative Voice File\x1a"
_VOC_TYPES = b"\1\2\3\4\5\6\7\x08\x09"


def _voc(file: BinaryIO, begin: int, end: int) -> Parts:
    for first, last in _streams(file, begin, end, _VOC):
        damage = None if _is_voc_whole(file, first, last) else "its blocks are broken"
        yield Part(first, last, format="voc", damage=damage)
    return end


def _is_voc_whole(file: BinaryIO, begin: int, end: int) -> bool:
    """Whether blocks stand one behind the other up to the one that ends them, of type 0; a file that was cut has
    none."""
    place = begin + int.from_bytes(_at(file, begin + 20, 2), "little")
    while place < end:
        head = _at(file, place, 4)
        if head[:1] not in _VOC_TYPES:
            is_last = head[:1] == b"\0" and end - place <= SLACK
            return is_last or _is_end_tag(_at(file, place + 1, 8)) or _behind_zeros(file, place, end) == end
        place += 4 + int.from_bytes(head[1:], "little")
    return True


def _by_signature(pattern: bytes, format: str | None = None) -> Splitter:
    def split(file: BinaryIO, begin: int, end: int) -> Parts:
        for first, last in _streams(file, begin, end, pattern):
            yield Part(first, last, format=format)
        return end

    return split


# Boxes: MP4, M4A, MOV

_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")


def _boxes(file: BinaryIO, begin: int, end: int) -> Parts:
    """`ftyp` behind samples begins another file; a box that ends behind the file was cut."""
    names: set[bytes] = set()
    place, damage = begin, None
    while len(head := _at(file, place, 16)) >= 8:
        size, name = struct.unpack_from(">I4s", head)
        if size == 1 and len(head) == 16:
            (size,) = struct.unpack_from(">Q", head, 8)
        if names & _OF_SAMPLES and (name == b"ftyp" or _is_start(file, place)):
            break
        if size < 8 or not _is_name(name):  # 0: to the end
            if b"moof" in names and size and _behind_zeros(file, place, end) < end:
                damage = "its boxes are broken"  # FFmpeg ends here; files without fragments have an index
            place = end
            break
        names.add(name)
        place += size
    yield Part(begin, min(place, end), stated=_stated(place - begin, end - begin), damage=damage)
    return min(place, end)


_OF_SAMPLES = {b"moov", b"mdat", b"moof"}


# Frames: MP3, MP2, AAC, AC-3


def _is_frame(head: bytes) -> bool:
    """Whether MPEG audio, AAC (ADTS), AC-3 or DTS begins so."""
    mpeg = len(head) == 4 and head[0] == 0xFF and head[1] >= 0xE0 and head[2] < 0xF0
    return mpeg or head[:2] == b"\x0b\x77" or head == b"\x7f\xfe\x80\x01"


_INFO = (b"Xing", b"Info", b"VBRI")
_INFO_AT = (13, 15, 21, 23, 36, 38)
"""Where they stand in a frame: by version and channels; 2 later with a check sum."""


def _frames(file: BinaryIO, begin: int, end: int) -> Parts:
    """Joined files have no frame of their own between them: each begins with a tag, or with the frame that counts its
    frames and states its delay."""
    stop = _before_end_tags(file, begin, end)
    starts: dict[int, int] = {begin: begin}
    for place in _find(file, b"ID3[\2-\4]", begin + 1, stop):
        behind = _behind_zeros(file, behind_tags(file, place, stop), stop)
        if behind > place and (behind == stop or _is_frame(_at(file, behind, 4))):
            starts.setdefault(behind, place)
    for name in _INFO:
        for place in _find(file, name, begin + 1, stop):
            if (frame := _info_frame(file, place)) and frame > begin:
                starts.setdefault(frame, frame)
    places = sorted({*starts, stop})
    for first, after in pairwise(places):
        last = starts.get(after, stop)
        yield Part(first, last, may_be_junk=len(places) > 2 and last - first < JUNK)
    return end


def _before_end_tags(file: BinaryIO, begin: int, end: int) -> int:
    """Where the frames end, in front of ID3v1 (128 bytes) and APE tags (which end with their size)."""
    while True:
        foot = _at(file, max(begin, end - 32), 32)
        size = 128 * (_at(file, max(begin, end - 128), 3) == b"TAG")
        if len(foot) == 32 and foot.startswith(b"APETAGEX"):
            ape, _, flags = struct.unpack_from("<3I", foot, 12)
            size = ape + 32 * (flags >> 31)
        if not 0 < size < end - begin:
            return end
        end -= size


def _info_frame(file: BinaryIO, place: int) -> int | None:
    """Where the frame of layer III begins that holds such a name."""
    if _at(file, place + 4, 3) != b"\0\0\0" and _at(file, place, 4) != b"VBRI":
        return None
    for offset in _INFO_AT:
        head = _at(file, place - offset, 4) if place >= offset else b""
        if _is_frame(head) and head[0] == 0xFF and head[1] & 0x06 == 0x02:
            return place - offset
    return None


_UNCHUNKED: dict[bytes, Splitter] = {
    b".snd": _au,
    b"fLaC": _flac,
    b"OggS": _ogg,
    b"\x1a\x45\xdf\xa3": _matroska,
    _ASF: _asf,
    b"TTA1": _tta,
    b"wvpk": _wavpack,
    _VOC: _voc,
    b"FLV\x01": _by_signature(rb"FLV\x01[\x04\x05]\0\0\0\x09"),
    b"#!AMR": _by_signature(b"#!AMR"),
    b".RMF\0\0\0": _by_signature(rb"\.RMF\0\0\0"),
}
_BEGINNINGS: dict[bytes, Splitter] = {
    **dict.fromkeys((b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"caff", _W64_RIFF), _chunked),
    **_UNCHUNKED,
}
