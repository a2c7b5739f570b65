"""Read the metadata that a sound file carries: titles, comments, keywords and dates, never samples.

FFmpeg reads Vorbis comments, MP4, ASF and Matroska, and with the help of `metadata_tags` ID3 and APEv2;
`metadata_chunks` reads the chunks of WAV, RF64, W64, AIFF and CAF. Each gives pairs of a field and a text, which
`_assemble` cleans and bounds.
"""

from __future__ import annotations

import io
import re
import time
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, cast

from openclap.audio.metadata_chunks import CHUNKED, chunk_metadata
from openclap.audio.metadata_tags import end_tags, ffmpeg_tags, id3_tags
from openclap.audio.opened import AudioSource, FileSection, opened
from openclap.audio.streams import ASF_HEADER, id3_size, read_at, skip_tags
from openclap.errors import OpenClapError
from openclap.types import FileMetadata

Pairs = Iterable[tuple[str, str]]
"""Fields of `FileMetadata` and texts; the first text of a field is the most trusted."""

LONGEST_TEXT = 2000
"""Characters of the longest text that is kept; embedded lyrics and logs are cut."""
MOST_KEYWORDS = 64
_MOST_BYTES = 64 << 20
"""Bytes that are read of one file at most, so that a hostile tag cannot fill the memory."""
_LONGEST_S = 5.0
"""Seconds after which the metadata of one file is given up."""

_BY_NAME = {
    "title": "title",
    "artist": "artist",
    "author": "artist",
    "album": "album",
    "wm/albumtitle": "album",
    "comment": "comment",
    "comments": "comment",
    "description": "comment",
    "date": "date",
    "year": "date",
    "wm/year": "date",
    "genre": "keywords",
    "wm/genre": "keywords",
    "keywords": "keywords",
    "keyword": "keywords",
    "license": "copyright",
    "copyright": "copyright",
    "category": "category",
    "subcategory": "subcategory",
}
"""Fields by the names that FFmpeg and the writers of files give them, in lower case."""
_DATE = re.compile(r"\d{4}(-\d\d(-\d\d)?)?")
_SEPARATORS = re.compile(r"[,;|\n\0]+")


def read_metadata(source: AudioSource) -> FileMetadata:
    """Read the metadata of a sound file; what is missing, damaged, or too large is left out.

    At most 64 MB are read, for at most 5 s. Raises nothing: a sound with damaged metadata is still a sound.
    """
    pairs: list[tuple[str, str]] = []
    try:
        with opened(source) as file:
            for found in _parts(cast(BinaryIO, _BoundedFile(file))):
                pairs += _until_damage(found)
    except (OpenClapError, OSError, MemoryError):
        pass
    return _assemble(pairs)


def _until_damage(found: Pairs) -> list[tuple[str, str]]:
    """The pairs up to the first damage."""
    pairs: list[tuple[str, str]] = []
    try:
        for pair in found:
            pairs.append(pair)
    except Exception:  # parsers of damaged files raise many kinds, RecursionError among them; a sound needs no metadata
        pass
    return pairs


_SIGNATURES = (
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (4, b"ftyp", "mov"),
    (0, ASF_HEADER, "asf"),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
)
"""Place of a signature, the signature, and FFmpeg's name of the format."""


def _parts(file: BinaryIO) -> Iterator[Pairs]:
    """The metadata of each part of a file, the most trusted first: the tag in front of a sound, and the sound."""
    end = file.seek(0, io.SEEK_END)
    begin = skip_tags(file, 0, end)
    sound = cast(BinaryIO, FileSection(file, begin, end)) if begin else file
    head = read_at(sound, 0, 36)
    yield _id3(file)
    if head.startswith(CHUNKED):
        yield _chunks(sound)
    elif format := next((name for at, magic, name in _SIGNATURES if head.startswith(magic, at)), None):
        sound.seek(0)
        yield _named(ffmpeg_tags(sound, format))
    else:  # MPEG, WavPack, Monkey's Audio, Musepack and TTA have a tag at the end
        yield _named(end_tags(sound, with_id3=not begin))


def _id3(file: BinaryIO) -> Pairs:
    """The tag in front of a sound."""
    size = id3_size(read_at(file, 0, 10))
    yield from _named(id3_tags(read_at(file, 0, min(size, _MOST_BYTES))))


def _chunks(file: BinaryIO) -> Pairs:
    """The chunks of WAV and its kin, and the ID3 tag in one of them."""
    tags: list[tuple[int, int]] = []
    yield from chunk_metadata(file, tags)
    for begin, size in tags:
        yield from _named(id3_tags(read_at(file, begin, min(size, _MOST_BYTES))))


def _named(tags: Pairs) -> Iterator[tuple[str, str]]:
    for name, text in tags:
        if field := _BY_NAME.get(name.lower()):
            yield field, text


def _assemble(pairs: Pairs) -> FileMetadata:
    """Clean the texts: the first of a field counts; distinct comments are joined, and keywords are split."""
    texts: dict[str, list[str]] = {}
    for field, text in pairs:
        if cleaned := _clean(text):
            texts.setdefault(field, []).append(cleaned)
    single = {name: _first(texts, name) for name in ("title", "artist", "album", "copyright")}
    category, subcategory = _first(texts, "category"), _first(texts, "subcategory")
    return FileMetadata(
        **single,
        comment="\n".join(dict.fromkeys(texts.get("comment", ())))[:LONGEST_TEXT] or None,
        date=_date(texts.get("date", ())),
        category=category,
        subcategory=subcategory,
        keywords=_keywords(texts.get("keywords", ())),
    )


def _first(texts: Mapping[str, list[str]], name: str) -> str | None:
    return " ".join(texts[name][0].split()) if name in texts else None


def _clean(text: str) -> str:
    """Text without control characters, lone surrogates and padding, in Unicode's composed form."""
    text = unicodedata.normalize("NFC", text[: 2 * LONGEST_TEXT].encode("utf-8", "ignore").decode("utf-8"))
    kept = "".join(char if char in "\n\t" or unicodedata.category(char) != "Cc" else "\n" for char in text)
    return re.sub(r"\n\s*", "\n", kept).strip()[:LONGEST_TEXT]


def _date(texts: Iterable[str]) -> str | None:
    """The first year, month or day in ISO 8601; writers use /, : and . as separators, too."""
    for text in texts:
        if (match := _DATE.match(re.sub(r"[/:._](?=\d)", "-", text))) and match[0][:4] != "0000":
            return match[0].removesuffix("-00").removesuffix("-00")
    return None


def _keywords(texts: Iterable[str]) -> tuple[str, ...]:
    """Keywords in their order, each once whatever its case."""
    found: dict[str, str] = {}
    for text in texts:
        for word in _SEPARATORS.split(text):
            if word := " ".join(word.split()):
                found.setdefault(word.casefold(), word)
    return tuple(found.values())[:MOST_KEYWORDS]


class _BoundedFile(io.RawIOBase):
    """A file of which only so much is read, for so long; then reading raises OSError."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left, self._until_s = file, _MOST_BYTES, time.monotonic() + _LONGEST_S

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int | None = -1) -> bytes:
        if time.monotonic() > self._until_s:
            raise OSError("the metadata takes too long to read")
        data = self._file.read(self._left + 1 if size is None or size < 0 else min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise OSError("the metadata is too large")
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
