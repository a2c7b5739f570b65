"""ID3 and APE tags, which stand in front of and behind sounds of several formats; FFmpeg decodes their texts.

FFmpeg is given a tag with a few frames of AAC around it instead of the sound: so a damaged sound does not hide its tag.
Of ID3v2 it is given the frames with text that are not compressed: so pictures cost nothing, and no frame decompresses
to any size. Specifications: https://id3.org, https://wiki.hydrogenaudio.org/index.php?title=APEv2_specification
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import BinaryIO

from openclap.audio.streams import id3_size, read_at

_SILENCE = 4 * bytes.fromhex("fff15040017ffc00000007")
"""ADTS frames of silence. FFmpeg reads an APE tag only behind 32 bytes or more."""

_MOST_FRAMES = 1000
_LARGEST_FRAME = 1 << 20
_LARGEST_TAG = 16 << 20
_ID3_TEXT = re.compile(rb"T[A-Z0-9]{2,3}|COMM?|WCO?P")
"""Names of the frames that are read, in ID3v2.2 to 2.4."""
_ENCODINGS = {b"\0": "latin-1", b"\1": "utf-16", b"\2": "utf-16-be", b"\3": "utf-8"}
_COMMENTS, _LICENCES = (b"COM", b"COMM"), (b"WCP", b"WCOP")

Tags = Iterator[tuple[str, str]]
"""Names as FFmpeg gives them, or as the file has them, and texts."""


def id3_tags(tag: bytes) -> Tags:
    """The texts of an ID3v2 tag; nothing for other bytes."""
    if not id3_size(tag):
        return
    version, flags = tag[3], tag[5]
    body = tag[10:_LARGEST_TAG]
    if version < 4 and flags & 0x80:  # unsynchronised as a whole; later, frame by frame, which FFmpeg reverses
        body, flags = body.replace(b"\xff\0", b"\xff"), 0
    frames = list(_text_frames(body[_extended_header(body, version, flags) :], version))
    head = b"ID3" + bytes([version, 0, flags & 0x80])
    texts = [frame for name, frame in frames if name.startswith(b"T")]
    yield from ffmpeg_tags(_with_size(head, texts) + _SILENCE)
    for name, frame in frames:
        if name in _COMMENTS:
            yield from _comment(_with_size(head, [frame]) + _SILENCE)
        elif name in _LICENCES:  # FFmpeg reads no addresses, which are Latin-1
            yield "copyright", frame[6 if version == 2 else 10 :].decode("latin-1")


def _comment(sound: bytes) -> Tags:
    """The only comment of a sound. FFmpeg names it by its description; with those of iTunes it is a list of numbers."""
    yield from (("comment", text) for name, text in ffmpeg_tags(sound) if not name.startswith("iTun"))


def end_tags(file: BinaryIO, with_id3: bool) -> Tags:
    """The texts of the APEv2 tag, or else of the ID3v1 tag if these are wanted, at the end of a file."""
    end = file.seek(0, io.SEEK_END)
    id3 = read_at(file, max(0, end - 128), 128)
    end -= 128 * id3.startswith(b"TAG")
    foot = read_at(file, max(0, end - 32), 32)
    size = int.from_bytes(foot[12:16], "little")
    if foot.startswith(b"APETAGEX") and size <= min(end, _LARGEST_TAG):
        yield from ffmpeg_tags(_SILENCE + read_at(file, end - size, size))
    elif with_id3 and id3.startswith(b"TAG"):
        yield from ffmpeg_tags(_SILENCE + id3)


def ffmpeg_tags(file: BinaryIO | bytes, format: str = "aac") -> Tags:
    """The texts that FFmpeg finds in a file of this format and in its streams of sound."""
    import av

    # No decoder is opened, no other file is read, and little of the sound.
    options = {"codec_whitelist": "none", "protocol_whitelist": "pipe", "probesize": "4096", "analyzeduration": "1"}
    opened = io.BytesIO(file) if isinstance(file, bytes) else file
    with av.open(opened, "r", format=format, options=options, metadata_errors="replace") as container:
        tags = dict(container.metadata)
        for stream in container.streams.audio:
            tags = {**stream.metadata, **tags}
    yield from tags.items()


def _text_frames(body: bytes, version: int) -> Iterator[tuple[bytes, bytes]]:
    """(name, whole frame with its right size) of frames with text, neither compressed nor large, up to the padding."""
    place, head = 0, 6 if version == 2 else 10
    for _ in range(_MOST_FRAMES):
        name = body[place : place + (3 if version == 2 else 4)]
        size = _frame_size(body, place, version)
        end = place + head + size
        if not name.isalnum() or end > len(body):
            return
        is_compressed = version > 2 and body[place + 9] & (0x80 if version == 3 else 0x08)
        if _ID3_TEXT.fullmatch(name) and not is_compressed and end - place <= _LARGEST_FRAME:
            yield name, _rewritten(body[place:end]) if version == 4 else body[place:end]
        place = end


def _rewritten(frame: bytes) -> bytes:
    """A frame of version 2.4 with its right size and one text."""
    name, flags, data = frame[:4], frame[8:10], frame[10:]
    if name.startswith(b"T") and not any(flags) and data[:1] in _ENCODINGS:
        text = data[1:].decode(_ENCODINGS[data[:1]], "replace").replace("\ufeff", "")
        data = b"\3" + _joined(text, is_described=name == b"TXXX").encode()
    return name + _in_7_bits(len(data)) + flags + data


def _joined(text: str, is_described: bool) -> str:
    """Texts joined by semicolons, as FFmpeg joins Vorbis comments. Of several in ID3 it would give the first."""
    texts = text.split("\0")
    described = texts.pop(0) + "\0" if is_described else ""
    return described + ";".join(filter(None, texts))


def _frame_size(body: bytes, place: int, version: int) -> int:
    """Bytes behind the head of a frame."""
    if version == 2:
        return int.from_bytes(body[place + 3 : place + 6])
    size = body[place + 4 : place + 8]
    if version == 3:
        return int.from_bytes(size)
    # Old versions of iTunes wrote all 8 bits of each byte, so the frame that follows decides.
    following = place + 10 + _of_7_bits(size)
    is_right = following == len(body) or re.match(rb"[A-Z0-9]{4}|\0", body[following : following + 4])
    return _of_7_bits(size) if is_right else int.from_bytes(size)


def _extended_header(body: bytes, version: int, flags: int) -> int:
    """Bytes of the extended header. Version 2.4 counts the four bytes of its size."""
    if version == 2 or not flags & 0x40:
        return 0
    return 4 + int.from_bytes(body[:4]) if version == 3 else _of_7_bits(body[:4])


def _with_size(head: bytes, frames: list[bytes]) -> bytes:
    body = b"".join(frames)
    return head + _in_7_bits(len(body)) + body


def _in_7_bits(number: int) -> bytes:
    """Four bytes that hold a number with 7 bits each."""
    return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))


def _of_7_bits(data: bytes) -> int:
    """The number that bytes hold with 7 bits each."""
    number = 0
    for byte in data:
        number = number << 7 | byte & 0x7F
    return number
