"""Split files of bare frames (MP3, MP2, AAC, AC-3 and DTS) that were joined end to end."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import BinaryIO

from openclap.audio.streams import (
    SLACK,
    EncodedStream,
    Streams,
    find_all,
    is_frame,
    read_at,
    skip_tags,
    skip_zeros,
)

JUNK = 1 << 16
"""Largest part between two tags, in bytes, that is skipped silently if it cannot be decoded; a larger one is sound."""

_INFO = (b"Xing", b"Info", b"VBRI")
_INFO_AT = (13, 15, 21, 23, 36, 38)
"""Offsets of these names in a frame, by MPEG version and channels; 2 more with a checksum."""


def split_frames(file: BinaryIO, begin: int, end: int) -> Streams:
    """Yield the files of a joined MP3 as streams.

    Frames themselves do not show where a file begins. Its ID3 tag does, or its Info frame, which states the number of
    frames and the encoder's delay: decoding on would treat it as sound.
    """
    stop = _before_end_tags(file, begin, end)
    starts: dict[int, int] = {begin: begin}
    # The tag of a file that was joined: a frame, or the end, must follow it, because these bytes also occur within
    # frames.
    for place in find_all(file, b"ID3[\2-\4]", begin + 1, stop):
        behind = skip_zeros(file, skip_tags(file, place, stop), stop)
        if behind > place and (behind == stop or is_frame(read_at(file, behind, 4))):
            starts.setdefault(behind, place)
    for name in _INFO:
        for place in find_all(file, name, begin + 1, stop):
            if (frame := _info_frame(file, place)) and frame > begin:
                # Without a tag, the stream before ends where the Info frame begins.
                starts.setdefault(frame, frame)
    places = sorted({*starts, stop})
    for first, after in pairwise(places):
        last = starts.get(after, stop)
        ends_early = _stated_bytes(file, skip_tags(file, first, last)) > last - skip_tags(file, first, last) + SLACK
        # A short part between two tags may be padding or a broken tag; a lone file must decode.
        is_junk = len(places) > 2 and last - first < JUNK
        yield EncodedStream(first, last, ends_early=ends_early, may_be_junk=is_junk)
    return end


def _before_end_tags(file: BinaryIO, begin: int, end: int) -> int:
    """The end of the frames, before ID3v1 tags (128 bytes) and APE tags (whose last 32 bytes state their size)."""
    while True:
        foot = read_at(file, max(begin, end - 32), 32)
        size = 128 * (read_at(file, max(begin, end - 128), 3) == b"TAG")
        if len(foot) == 32 and foot.startswith(b"APETAGEX"):
            # The size counts items and footer; bit 31 tells of a header of another 32 bytes.
            ape, _, flags = struct.unpack_from("<3I", foot, 12)
            size = ape + 32 * (flags >> 31)
        if not 0 < size < end - begin:
            return end
        end -= size


def _stated_bytes(file: BinaryIO, place: int) -> int:
    """The length in bytes, from this frame on, that an Info frame states (http://gabriel.mp3-tech.org/mp3infotag.html);
    0 for another frame or none."""
    head = read_at(file, place, max(_INFO_AT) + 16)
    for offset in _INFO_AT:
        name, flags = head[offset : offset + 4], head[offset + 4 : offset + 8]
        # The number of frames comes first, if bit 0 is set, and then that of bytes, if bit 1 is.
        if name in (b"Xing", b"Info") and is_frame(head[:4]) and flags[-1:] and flags[-1] & 2:
            at = offset + 8 + 4 * (flags[-1] & 1)
            return int.from_bytes(head[at : at + 4], "big")
    return 0


def _info_frame(file: BinaryIO, place: int) -> int | None:
    """The place of the layer III frame that contains an Info name; None if there is no such frame."""
    # Flags follow Xing and Info, of which only the lowest byte is used.
    if read_at(file, place + 4, 3) != b"\0\0\0" and read_at(file, place, 4) != b"VBRI":
        return None
    for offset in _INFO_AT:
        head = read_at(file, place - offset, 4) if place >= offset else b""
        # 01 in these bits is layer III, the only one with Info frames.
        if is_frame(head) and head[0] == 0xFF and head[1] & 0x06 == 0x02:
            return place - offset
    return None
