"""The type of an encoded stream, and functions for reading bytes that the parsers of all containers share.

`find_streams` splits a file into streams, with `chunk_formats` for formats with chunks and `mpeg` for bare frames.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import BinaryIO

WINDOW, LONGEST = 1 << 20, 32
"""Bytes of one step of a search, and of the longest signature."""

SLACK = 64
"""Tolerance in bytes: some writers count their header as samples, and some leave a few stray bytes at the end."""


@dataclass(frozen=True, slots=True)
class EncodedStream:
    """One encoded stream of a file.

    Attributes:
        begin, end: its bytes.
        by_libsndfile: whether libsndfile is tried first; otherwise FFmpeg decodes it.
        format: FFmpeg's name of the container, where the first bytes may not show it.
        patches: corrections of header fields, as (place after `begin`, bytes).
        stated: length stated by the header, in multiples of the actual length; 1 for a complete stream.
        samples: number stated by the header; None if none is stated, or if the decoder checks it.
        ends_early: whether the end is missing although no length is stated: an Ogg that ends within a page, or an
            MP3 with fewer bytes than its Info frame counts. Decoding it is no error.
        may_be_junk: whether to skip the stream silently when it cannot be decoded.
        damage: description of known damage for a message, or None.
    """

    begin: int
    end: int
    by_libsndfile: bool = False
    format: str | None = None
    patches: tuple[tuple[int, bytes], ...] = ()
    stated: float = 1.0
    samples: int | None = None
    ends_early: bool = False
    may_be_junk: bool = False
    damage: str | None = None


Streams = Generator[EncodedStream, None, int]
"""Yields the streams of one file, and returns the place where that file ends (joined files may follow)."""

Splitter = Callable[[BinaryIO, int, int], Streams]
"""Splits the bytes from `begin` to `end` of a file into streams."""

W64_TAIL = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
"""End of the GUIDs by which W64 names its chunks."""
W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
VOC_HEADER = b"Creative Voice File\x1a"

UNCHUNKED_SIGNATURES = (
    b".snd",
    b"fLaC",
    b"OggS",
    b"\x1a\x45\xdf\xa3",
    ASF_HEADER,
    b"TTA1",
    b"wvpk",
    VOC_HEADER,
    b"FLV\x01",
    b"#!AMR",
    b".RMF\0\0\0",
)
"""First bytes of files in the formats that have no chunks."""


def read_at(file: BinaryIO, place: int, count: int) -> bytes:
    """Read up to `count` bytes at a place."""
    file.seek(min(place, 1 << 62))  # damaged sizes may add up to more than 64 bits
    return file.read(count)


def find_all(file: BinaryIO, pattern: bytes, begin: int, end: int) -> Iterator[int]:
    """Yield all places of a pattern of at most LONGEST bytes."""
    place, search = begin, re.compile(pattern, re.DOTALL).finditer
    while place < end:
        # Windows overlap by LONGEST - 1 bytes, so that a match on the border is found once.
        for match in search(read_at(file, place, min(WINDOW + LONGEST - 1, end - place))):
            if match.start() < WINDOW:
                yield place + match.start()
        place += WINDOW


def skip_zeros(file: BinaryIO, begin: int, end: int) -> int:
    """The place of the first byte that is not 0; `end` if all are."""
    while begin < end:
        window = read_at(file, begin, min(WINDOW, end - begin))
        if rest := window.lstrip(b"\0"):
            return begin + len(window) - len(rest)
        begin += len(window)
    return end


def one_stream(file: BinaryIO, begin: int, end: int) -> Streams:
    """All bytes as one stream, for formats that cannot be joined."""
    yield EncodedStream(begin, end, by_libsndfile=True)
    return end


def skip_tags(file: BinaryIO, begin: int, end: int) -> int:
    """The place behind ID3v2 tags (https://id3.org/id3v2.4.0-structure)."""
    while (size := id3_size(read_at(file, begin, 10))) and begin + size <= end:
        begin += size
    return begin


def id3_size(head: bytes) -> int:
    """Size in bytes of the ID3v2 tag with this head, header and footer included; 0 when it is not a tag."""
    if len(head) < 10 or head[:3] != b"ID3" or not 2 <= head[3] <= 4 or max(head[6:10]) > 0x7F:
        return 0
    # The size has 7 bits a byte, so that it never looks like the start of an MPEG frame. Version 2.4 may repeat the
    # head as a footer.
    return 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]) + 10 * bool(head[3] == 4 and head[5] & 0x10)


def is_start(file: BinaryIO, place: int) -> bool:
    """Whether a sound file, or a tag in front of one, begins here."""
    head = read_at(file, place, 12)
    if id3_size(head):
        return True
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM"):
        return head[8:12] in (b"WAVE", b"AIFF", b"AIFC", b"AVI ")
    return read_at(file, place, LONGEST).startswith((*UNCHUNKED_SIGNATURES, b"caff\0\1\0\0", W64_RIFF))


def is_end_tag(head: bytes) -> bool:
    """Whether this is an ID3v1 or APE tag, which stand behind a sound."""
    return head[:3] == b"TAG" or head == b"APETAGEX"


def is_chunk_name(name: bytes) -> bool:
    """Whether four bytes, or the 16 of W64, are the name of a chunk: printable ASCII."""
    return name[:4].isascii() and name[:4].decode("ascii").isprintable() and (len(name) == 4 or name[4:] == W64_TAIL)


def stated_ratio(size: int, there: int) -> float:
    """The stated size in multiples of the size that is there; 1 unless bytes are missing."""
    # Sizes near 2^63 are placeholders for an unknown length.
    return size / there if there < size - SLACK and size < 1 << 62 and there else 1.0


def is_frame(head: bytes) -> bool:
    """Whether these are the first bytes of a frame of MPEG audio, AAC (ADTS), AC-3 or DTS."""
    # Eleven bits of sync; a bit rate of 15 is not valid. ADTS begins with twelve bits of the same.
    mpeg = len(head) == 4 and head[0] == 0xFF and head[1] >= 0xE0 and head[2] < 0xF0
    return mpeg or head[:2] == b"\x0b\x77" or head == b"\x7f\xfe\x80\x01"
