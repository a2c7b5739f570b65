"""Text in the chunks of WAV, RF64, BW64, W64, AVI, AIFF and CAF files.

INFO lists (RIFF), `bext` (EBU Tech 3285), `iXML` (ixml.info, with the fields of ASWG and Soundminer), the text chunks
of AIFF, `info` of CAF. Sizes in a file are never trusted: chunks are found by seeking, bounded in number, and read up
to a limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO
from xml.parsers import expat

from openclap.audio.chunk_formats import CHUNK_LAYOUTS, ChunkLayout, read_chunk
from openclap.audio.streams import read_at

CHUNKED = tuple(CHUNK_LAYOUTS)
"""First bytes of the formats that are made of chunks."""

_MOST_CHUNKS = 1000
_LARGEST_TEXT = 1 << 20
"""Bytes of a chunk with text that are read."""
_DEEPEST_XML = 32

_INFO = {
    b"INAM": "title",
    b"IART": "artist",
    b"IPRD": "album",
    b"ICMT": "comment",
    b"ISBJ": "comment",
    b"ICRD": "date",
    b"IGNR": "keywords",
    b"IKEY": "keywords",
    b"ICOP": "copyright",
}
_AIFF = {b"NAME": "title", b"AUTH": "artist", b"ANNO": "comment", b"(c) ": "copyright"}
_CAF = {
    "comment": "comment",
    "title": "title",
    "artist": "artist",
    "album": "album",
    "comments": "comment",
    "recorded date": "date",
    "year": "date",
    "genre": "keywords",
    "copyright": "copyright",
}
_IXML = {
    "note": "comment",
    "description": "comment",
    "fxname": "title",
    "title": "title",
    "library": "album",
    "category": "category",
    "subcategory": "subcategory",
    "keywords": "keywords",
}
"""Elements of iXML, ASWG and Soundminer's USER, in lower case."""


def chunk_metadata(file: BinaryIO, tags: list[tuple[int, int]]) -> Iterator[tuple[str, str]]:
    """Yield fields of `FileMetadata` with texts; the places and sizes of ID3 tags are appended to `tags`."""
    head = read_at(file, 0, 16)
    layout = CHUNK_LAYOUTS[head[:4]]
    is_aiff, is_caf = head[:4] == b"FORM", head[:4] == b"caff"
    for name, size, body in _chunks(file, layout):
        short = name[:4]
        kind = short.lower().rstrip()
        if kind == b"id3":
            tags.append((body, size))
        elif kind == b"list" and read_at(file, body, 4) == b"INFO":
            yield from _info(file, body + 4, body + size)
        elif kind == b"bext":
            yield from _bext(read_at(file, body, 602))
        elif kind == b"ixml":
            yield from _ixml(read_at(file, body, min(size, _LARGEST_TEXT)))
        elif is_aiff and short in _AIFF:
            yield _AIFF[short], _text(read_at(file, body, min(size, _LARGEST_TEXT)))
        elif is_caf and kind == b"info":
            yield from _caf(read_at(file, body, min(size, _LARGEST_TEXT)))


def _chunks(file: BinaryIO, layout: ChunkLayout) -> Iterator[tuple[bytes, int, int]]:
    """(name, size, place of the content) of each chunk; sizes of 64 bits are read from ds64."""
    place, size64 = layout.start, None
    for _ in range(_MOST_CHUNKS):
        chunk = read_chunk(file, place, layout)
        if chunk is None:
            return
        name, size, body = chunk
        if name == b"ds64":
            size64 = int.from_bytes(read_at(file, body + 8, 8), "little")
        elif name == layout.sound and size == 0xFFFFFFFF and size64:
            size = size64
        yield name, size, body
        place = body + size + -size % layout.align


def _info(file: BinaryIO, place: int, end: int) -> Iterator[tuple[str, str]]:
    for _ in range(_MOST_CHUNKS):
        chunk = read_chunk(file, place, CHUNK_LAYOUTS[b"RIFF"])
        if chunk is None or place >= end:
            return
        name, size, body = chunk
        if name in _INFO:
            yield _INFO[name], _text(read_at(file, body, min(size, end - body, _LARGEST_TEXT)))
        place = body + size + size % 2


def _bext(body: bytes) -> Iterator[tuple[str, str]]:
    """Description in 256 bytes, originator and its reference in 32 each, then the date as yyyy-mm-dd."""
    yield "comment", _text(body[:256])
    yield "date", _text(body[320:330])


def _caf(body: bytes) -> Iterator[tuple[str, str]]:
    """A count, then keys and values that end in NUL."""
    texts = [_text(part) for part in body[4:].split(b"\0")]
    for key, value in zip(texts[::2], texts[1::2], strict=False):
        if field := _CAF.get(key.lower()):
            yield field, value


def _text(data: bytes) -> str:
    """Text up to the first NUL: UTF-8, or the encoding of Windows, which these formats held before."""
    data = data.split(b"\0", 1)[0]
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _ixml(data: bytes) -> list[tuple[str, str]]:
    """The texts of known elements. Declared entities and deep nesting, as in attacks, end the parsing."""
    found: list[tuple[str, str]] = []
    path: list[str] = []
    texts: list[str] = []

    def start(name: str, _: Any) -> None:
        path.append(name.lower())
        texts.clear()
        if len(path) > _DEEPEST_XML:
            raise ValueError("the XML is nested too deeply")

    def end(name: str) -> None:
        is_known = path[-2:-1] != ["speed"]  # its NOTE is about the camera
        if (field := _IXML.get(path.pop())) and texts and is_known:
            found.append((field, "".join(texts)))
        texts.clear()

    def refuse(*_: Any) -> None:
        raise ValueError("the XML declares entities")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = texts.append
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(data.rstrip(b"\0 \r\n"), True)
    except (expat.ExpatError, ValueError):
        return found
    return found
