"""Find the streams of a sound file: where each begins and ends, how much its header states, and which decoder fits.

Decoders stop at the first stream, at a stated length (even a wrong one) or at an estimate of it. So the bytes are cut
into streams here, by the structure that delimits audio: chunks with others behind them, boxes, the first pages of a
chained Ogg, the Info frames of joined MP3s, tags. `docs/decoding.md` has the table.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import BinaryIO

from openclap.audio.chunk_formats import split_au, split_chunks
from openclap.audio.mpeg import split_frames
from openclap.audio.streams import (
    ASF_HEADER,
    SLACK,
    VOC_HEADER,
    W64_RIFF,
    EncodedStream,
    Splitter,
    Streams,
    find_all,
    is_chunk_name,
    is_end_tag,
    is_frame,
    is_start,
    one_stream,
    read_at,
    skip_tags,
    skip_zeros,
    stated_ratio,
)

FLAC_TAILS = (1 << 15, 1 << 18)
"""Bytes at the end in which the last frame of a FLAC is searched: a usual frame; the largest, with tags behind."""


def find_streams(file: BinaryIO) -> Iterator[EncodedStream]:
    """The streams of a file in order; there is always one."""
    end = file.seek(0, os.SEEK_END)
    begin = skip_tags(file, 0, end)
    # Behind an ID3 tag stand frames, even if damage hides the first one; without a tag, the decoders try what they
    # know.
    splitter: Splitter | None = _splitter_of(file, begin, end) or (split_frames if begin > 0 else one_stream)
    while splitter is not None and begin < end:
        begin = skip_tags(file, (yield from splitter(file, begin, end)), end)
        # What follows must be recognised: unknown bytes behind a sound are no sound.
        splitter = _splitter_of(file, begin, end) if end - begin > SLACK else None


def _splitter_of(file: BinaryIO, begin: int, end: int) -> Splitter | None:
    """The splitter for a stream, by its first bytes."""
    head = read_at(file, begin, 24)
    for signature, splitter in _BEGINNINGS.items():
        if head.startswith(signature):
            return splitter
    if head[4:8] in _BOXES:
        return _split_boxes
    return split_frames if is_frame(read_at(file, skip_zeros(file, begin, end), 4)) else None


# Formats whose streams end where the next one begins


def _starts(
    file: BinaryIO, begin: int, end: int, pattern: bytes, is_start: Callable[[int], bool] = lambda _: True
) -> Iterator[tuple[int, int]]:
    """Begin and end of each stream, without the tags in front of the next one."""
    places = [begin, *(place for place in find_all(file, pattern, begin + 1, end) if is_start(place)), end]
    for first, last in pairwise(places):
        # Only tags that end exactly where the next stream begins: the same three bytes may occur among samples.
        tags = find_all(file, b"ID3", first, last) if last < end else ()
        yield first, next((tag for tag in tags if skip_tags(file, tag, last) == last), last)


def _split_flac(file: BinaryIO, begin: int, end: int) -> Streams:
    """libsndfile decodes a FLAC only up to the length in STREAMINFO; where the last frame disagrees, FFmpeg does."""
    for first, last in _starts(file, begin, end, rb"fLaC[\0\x80]\0\0\x22"):
        # STREAMINFO (RFC 9639, 8.2), behind the signature and 4 bytes of block header: 36 bits from byte 13 on are the
        # number of samples, 0 for unknown.
        info = read_at(file, first + 8, 34).ljust(34, b"\0")
        samples = int.from_bytes(info[13:18], "big") & 0xFFFFFFFFF
        tails = (read_at(file, max(first, last - size), min(size, last - first)) for size in FLAC_TAILS)
        agrees = samples > 0 and any(_ends_at(samples, tail, info) for tail in tails)
        yield EncodedStream(
            first, last, agrees, None if agrees else "flac", samples=None if agrees else samples or None
        )
    return end


# Block sizes by their code (RFC 9639, 9.1.1); codes 6 and 7 mean that the size follows in 1 or 2 bytes.
_FLAC_BLOCKS = {1: 192, **{code: 576 << code - 2 for code in range(2, 6)}, **{c: 256 << c - 8 for c in range(8, 16)}}


def _ends_at(samples: int, tail: bytes, info: bytes) -> bool:
    """Whether the tail has a frame that ends at this number of samples (RFC 9639, 9.1)."""
    # Streams of blocks of one size (sync code FFF8) number their frames by blocks; others (FFF9) number them by
    # samples.
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
            # From the end towards the front: the code also occurs by chance within frames.
            place = tail.rfind(sync, 0, place)
    return False


def _coded_number(data: bytes, place: int) -> tuple[int, int]:
    """A number of up to 36 bits in UTF-8's coding, and the place behind it; place 0 where there is none."""
    first = data[place] if place < len(data) else 0xFF
    ones = 8 - (~first & 0xFF).bit_length()
    rest = data[place + 1 : place + max(ones, 1)]
    if ones == 1 or ones > 7 or len(rest) < ones - 1 or any(byte & 0xC0 != 0x80 for byte in rest):
        return 0, 0
    number = first & (0x7F >> ones)
    for byte in rest:
        number = number << 6 | byte & 0x3F
    return number, place + max(ones, 1)


def _split_ogg(file: BinaryIO, begin: int, end: int) -> Streams:
    """The links of a chain (RFC 3533): each begins with the first pages of all its streams in a row."""
    # Version 0, and the flag for the first page of a stream.
    firsts = [place for place in find_all(file, rb"OggS\0\x02", begin, end) if _is_first_page(read_at(file, place, 28))]
    links: list[list[int]] = []
    behind = -1
    for place in firsts:
        if place != behind:
            links.append([])
        links[-1].append(place)
        head = read_at(file, place, 27 + 255)
        # A page is 27 bytes, a table of head[26] segment sizes, and those segments.
        behind = place + 27 + head[26] + sum(head[27 : 27 + head[26]])
    for link, following in pairwise([*(links or [[begin]]), [end]]):
        head = read_at(file, link[0], 27 + 255 + 8)
        # The first packet names the codec. Of these, libsndfile decodes Vorbis and Opus to the end of a link with one
        # stream.
        packet = head[27 + head[26] :][:8] if len(head) > 27 else b""
        known = packet.startswith((b"\x01vorbis", b"OpusHead"))
        is_lost, is_ordered, has_end = _check_pages(file, link[0], following[0])
        damage = "pages of its Ogg stream are missing or broken" if is_lost else None
        by_libsndfile = known and is_ordered and len(link) == 1
        yield EncodedStream(link[0], following[0], by_libsndfile, "ogg", ends_early=not has_end, damage=damage)
    return end


def _check_pages(file: BinaryIO, begin: int, end: int) -> tuple[bool, bool, bool]:
    """Whether a page is missing, by the page numbers, whether the sample counts only increase, and whether the end is
    there.

    The end is missing where the bytes end within a page, or a packet goes on in a page that is not there, unless the
    last page of each stream says that it is the last. Without this mark alone, a file may be complete: some programs
    leave it out.

    Decoders skip broken pages, of up to a second, without an error; libsndfile ends where the last page says. A stream
    that was cut from a broadcast has headers, and then pages that start at any number.
    """
    last: dict[bytes, tuple[int, int]] = {}
    open_streams: set[bytes] = set()  # by their serial numbers
    is_broken, is_ordered, goes_on = False, True, False
    while begin < end:
        head = read_at(file, begin, 27 + 255)
        size = 27 + head[26] + sum(head[27 : 27 + head[26]]) if head[:4] == b"OggS" and len(head) >= 27 else 0
        page = read_at(file, begin, size)
        is_whole = 0 < size == len(page)
        if not is_whole or _ogg_checksum(page) != page[22:26]:
            # A whole page with a wrong checksum is damage in its middle; bytes that are no page at all may be junk
            # between two.
            if is_whole and not is_broken:
                return True, is_ordered, True
            begin, is_broken = next(find_all(file, b"OggS\0", begin + 1, end), end), True
            goes_on = head.startswith(b"OggS")
            continue
        serial, number, samples = page[14:18], int.from_bytes(page[18:22], "little"), page[6:14]
        before, had = last.get(serial, (number, 0))
        # `had` is 0 as long as only headers have passed: behind these, a stream cut from a broadcast may start at any
        # number.
        if number > before + 1 and (had or is_broken):
            return True, is_ordered, True
        has = had if samples == b"\xff" * 8 else int.from_bytes(samples, "little")  # all ones: no packet ends here
        # libsndfile computes the length from the last page, so sample counts that fall back would cut the sound there.
        is_ordered = is_ordered and has >= had
        last[serial] = number, has
        (open_streams.discard if page[5] & _LAST_PAGE else open_streams.add)(serial)
        goes_on = page[26] > 0 and page[26 + page[26]] == 255  # a packet ends with a segment of fewer bytes
        begin, is_broken = begin + size, False
    return False, is_ordered, not (open_streams and goes_on)


_LAST_PAGE = 0x04
"""Flag in the header of the last page of a stream (RFC 3533, 6)."""
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg_checksum(page: bytes) -> bytes:
    """RFC 3533's CRC: zlib's with mirrored bits, a start value of 0, and 0 in its own field."""
    mirrored = (page[:22] + bytes(4) + page[26:]).translate(_MIRRORED)
    # Ogg shifts bits to the left and zlib to the right. zlib inverts its start value and its result; the two 0xFFFFFFFF
    # undo that.
    return (zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF).to_bytes(4, "little").translate(_MIRRORED)[::-1]


def _is_first_page(head: bytes) -> bool:
    """Whether a page has sample 0 and number 0, and content."""
    return len(head) == 28 and head[6:14] == bytes(8) and head[18:22] == bytes(4) and head[26] > 0


def _split_matroska(file: BinaryIO, begin: int, end: int) -> Streams:
    def is_start(place: int) -> bool:
        head = read_at(file, place, 64)
        # The four bytes alone occur by chance; an EBML head also states its document type.
        return b"matroska" in head or b"webm" in head

    for first, last in _starts(file, begin, end, rb"\x1a\x45\xdf\xa3", is_start):
        head = read_at(file, first, 128)
        # The element that holds everything but the EBML head.
        segment = head.find(b"\x18\x53\x80\x67")
        size, body = _ebml_size(head, segment + 4) if segment > 0 else (None, 0)
        stated = 1.0 if size is None else stated_ratio(body + size, last - first)
        stop = first + body + (size or 0)
        damage = None if segment < 0 or _is_ebml_whole(file, first + body, stop, last) else "its clusters are broken"
        yield EncodedStream(first, last, stated=stated, damage=damage)
    return end


def _ebml_size(data: bytes, place: int) -> tuple[int | None, int]:
    """(a size, the place behind it) in the coding of RFC 8794; None for an unknown size."""
    # As many leading zero bits in the first byte as bytes follow; all bits of the value set mean an unknown size.
    width = 9 - data[place].bit_length() if place < len(data) and data[place] else 8
    size = int.from_bytes(data[place : place + width], "big") & ((1 << 7 * width) - 1)
    return None if size == (1 << 7 * width) - 1 else size, place + width


# Names of four bytes (RFC 9559): clusters; then seek head, info, tracks and cues; attachments, chapters and tags.
_CLUSTER = b"\x1f\x43\xb6\x75"
_IN_SEGMENT = (
    *(_CLUSTER, b"\x11\x4d\x9b\x74", b"\x15\x49\xa9\x66", b"\x16\x54\xae\x6b", b"\x1c\x53\xbb\x6b"),
    *(b"\x19\x41\xa4\x69", b"\x10\x43\xa7\x70", b"\x12\x54\xc3\x67"),
)
_SILENT_TRACKS = b"\x58\x54"
_ANYWHERE = b"\xec\xbf"
_IN_CLUSTER = b"\xe7\xa3\xa0\xab\xa7\xa5\xaf" + _ANYWHERE
"""Names of one byte: time, blocks; padding and checksums, which a segment may hold too (RFC 9559)."""


def _is_ebml_whole(file: BinaryIO, place: int, stop: int, end: int) -> bool:
    """Whether the elements of a segment follow each other without gaps up to the end, or up to `stop`, the end of the
    segment by its size (its begin, where it has none). FFmpeg silently skips the rest of a broken cluster."""
    segment = element = place
    is_open = False  # whether this is a cluster of unknown size, with elements that follow like those of the segment
    while end - place > SLACK:
        head = read_at(file, place, 12)
        is_short = head[:1] in (_IN_CLUSTER if is_open else _ANYWHERE)
        if not is_short and head[:4] not in _IN_SEGMENT:
            # Neither of a segment nor of an open cluster: allowed behind the stated end, and where only padding is
            # left.
            return place == stop or skip_zeros(file, place, end) == end
        size, body = _ebml_size(head, 1 if is_short else 4)
        if head[:4] == _CLUSTER:
            is_open = size is None
            if size is not None and not _is_cluster_whole(file, place + body, place + body + size, end):
                return False
        element, place = place, place + body + (size or 0)
    if stop > segment:
        return place <= end + SLACK or stop > end + SLACK  # the last element of a truncated file ends behind it
    return place <= end or next(find_all(file, _CLUSTER, element + 4, end), None) is None


def _is_cluster_whole(file: BinaryIO, place: int, stop: int, end: int) -> bool:
    """Whether the elements of a cluster end with it, or behind the end of a truncated file."""
    while place < min(stop, end):
        head = read_at(file, place, 12)
        if head[:1] not in _IN_CLUSTER and head[:2] != _SILENT_TRACKS:
            return False
        size, body = _ebml_size(head, 1 if head[:1] in _IN_CLUSTER else 2)
        place += body + (size or 0)
    return place == stop or stop > end


def _split_asf(file: BinaryIO, begin: int, end: int) -> Streams:
    for first, last in _starts(file, begin, end, re.escape(ASF_HEADER)):
        data = first + _asf_object(file, first)[1]
        name, size = _asf_object(file, data)
        patches: tuple[tuple[int, bytes], ...] = ()
        if name == _ASF_DATA and size and not _ends_in_objects(file, data + size, last):
            # A size of the data object that is too small would end the sound, so it is replaced by what is there.
            patches = ((data + 16 - first, (last - data).to_bytes(8, "little")),)
        yield EncodedStream(first, last, patches=patches, stated=stated_ratio(data + size - first, last - first))
    return end


def _asf_object(file: BinaryIO, place: int) -> tuple[bytes, int]:
    """The name and the size of an object."""
    head = read_at(file, place, 24).ljust(24, b"\0")
    return head[:16], int.from_bytes(head[16:], "little")


def _ends_in_objects(file: BinaryIO, place: int, end: int) -> bool:
    """Whether only objects, such as indices, follow the samples."""
    while place < end - SLACK:
        size = _asf_object(file, place)[1]
        if size < 24:
            return False
        place += size
    return True


_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")


def _split_tta(file: BinaryIO, begin: int, end: int) -> Streams:
    def is_start(place: int) -> bool:
        head = read_at(file, place, 22)
        # The head carries a checksum of itself, so that a chance match among samples is told apart.
        return len(head) == 22 and zlib.crc32(head[:18]) == struct.unpack_from("<I", head, 18)[0]

    for first, last in _starts(file, begin, end, b"TTA1", is_start):
        (samples,) = struct.unpack("<I", read_at(file, first + 14, 4).ljust(4, b"\0"))
        yield EncodedStream(first, last, samples=samples)
    return end


def _split_wavpack(file: BinaryIO, begin: int, end: int) -> Streams:
    """A file begins with the block that starts a set of channels at sample 0."""

    def is_start(place: int) -> bool:
        _, first_sample, samples, flags = struct.unpack("<4I", read_at(file, place + 12, 16).ljust(16, b"\0"))
        # 0x800 marks the first block of several that hold the channels of the same samples.
        return first_sample == 0 and samples > 0 and bool(flags & 0x800)

    for first, last in _starts(file, begin, end, b"wvpk", is_start):
        (samples,) = struct.unpack("<I", read_at(file, first + 12, 4).ljust(4, b"\0"))
        # All ones: written to a pipe, number unknown.
        yield EncodedStream(first, last, samples=None if samples == 0xFFFFFFFF else samples)
    return end


# Types of blocks: samples, silence, markers, text, loops, extended heads.
_VOC_TYPES = b"\1\2\3\4\5\6\7\x08\x09"


def _split_voc(file: BinaryIO, begin: int, end: int) -> Streams:
    for first, last in _starts(file, begin, end, VOC_HEADER):
        damage = None if _is_voc_whole(file, first, last) else "its blocks are broken"
        yield EncodedStream(first, last, format="voc", damage=damage)
    return end


def _is_voc_whole(file: BinaryIO, begin: int, end: int) -> bool:
    """Whether blocks follow each other without gaps up to the terminator, of type 0; a truncated file has none."""
    # The head states its own length; a block has a type and a size of 3 bytes.
    place = begin + int.from_bytes(read_at(file, begin + 20, 2), "little")
    while place < end:
        head = read_at(file, place, 4)
        if head[:1] not in _VOC_TYPES:
            is_last = head[:1] == b"\0" and end - place <= SLACK
            return is_last or is_end_tag(read_at(file, place + 1, 8)) or skip_zeros(file, place, end) == end
        place += 4 + int.from_bytes(head[1:], "little")
    return True


def _split_at(pattern: bytes, format: str | None = None) -> Splitter:
    def split(file: BinaryIO, begin: int, end: int) -> Streams:
        for first, last in _starts(file, begin, end, pattern):
            yield EncodedStream(first, last, format=format)
        return end

    return split


# Boxes: MP4, M4A, MOV

_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")


def _split_boxes(file: BinaryIO, begin: int, end: int) -> Streams:
    """`ftyp` behind samples begins another file; a box that ends behind the file is truncated."""
    names: set[bytes] = set()
    place, damage = begin, None
    while len(head := read_at(file, place, 16)) >= 8:
        size, name = struct.unpack_from(">I4s", head)
        # 1: the size follows in 64 bits.
        if size == 1 and len(head) == 16:
            (size,) = struct.unpack_from(">Q", head, 8)
        # `ftyp` begins a file, but some begin without one, or with several boxes before their samples.
        if names & _OF_SAMPLES and (name == b"ftyp" or is_start(file, place)):
            break
        if size < 8 or not is_chunk_name(name):  # 0: to the end
            if b"moof" in names and size and skip_zeros(file, place, end) < end:
                damage = "its boxes are broken"  # FFmpeg stops here; files without fragments have an index instead
            place = end
            break
        names.add(name)
        place += size
    yield EncodedStream(begin, min(place, end), stated=stated_ratio(place - begin, end - begin), damage=damage)
    return min(place, end)


_OF_SAMPLES = {b"moov", b"mdat", b"moof"}


_UNCHUNKED: dict[bytes, Splitter] = {
    b".snd": split_au,
    b"fLaC": _split_flac,
    b"OggS": _split_ogg,
    b"\x1a\x45\xdf\xa3": _split_matroska,
    ASF_HEADER: _split_asf,
    b"TTA1": _split_tta,
    b"wvpk": _split_wavpack,
    VOC_HEADER: _split_voc,
    b"FLV\x01": _split_at(rb"FLV\x01[\x04\x05]\0\0\0\x09"),
    b"#!AMR": _split_at(b"#!AMR"),
    b".RMF\0\0\0": _split_at(rb"\.RMF\0\0\0"),
}
_BEGINNINGS: dict[bytes, Splitter] = {
    **dict.fromkeys((b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"caff", W64_RIFF), split_chunks),
    **_UNCHUNKED,
}
