"""Read the metadata that a sound file carries: titles, comments, keywords and dates, never samples.

mutagen reads ID3, Vorbis comments, MP4, APEv2 and ASF; `metadata_chunks` reads the chunks of WAV, RF64, W64, AIFF and
CAF; FFmpeg reads Matroska. Each gives pairs of a field and a text, which `_assemble` cleans and bounds.
"""

from __future__ import annotations

import io
import re
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, BinaryIO, cast

from openclap.audio.metadata_chunks import CHUNKED, chunk_metadata
from openclap.audio.opened import AudioSource, opened
from openclap.audio.streams import ASF_HEADER, id3_size, read_at
from openclap.errors import OpenClapError, require
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
"""Fields by the names that Vorbis comments, APEv2, ASF, Matroska and free-form frames give them, in lower case."""
_ID3_FRAMES = {
    "TIT2": "title",
    "TPE1": "artist",
    "TALB": "album",
    "COMM": "comment",
    "TDRC": "date",
    "TYER": "date",
    "TCON": "keywords",
    "TCOP": "copyright",
    "WCOP": "copyright",
}
_MP4_ATOMS = {
    "\xa9nam": "title",
    "\xa9ART": "artist",
    "\xa9alb": "album",
    "\xa9cmt": "comment",
    "desc": "comment",
    "\xa9day": "date",
    "\xa9gen": "keywords",
    "keyw": "keywords",
    "cprt": "copyright",
}
_FREE_FORM_ATOM = "----:com.apple.iTunes:"
_DATE = re.compile(r"\d{4}(-\d\d(-\d\d)?)?")
_SEPARATORS = re.compile(r"[,;|\n\0]+")


def read_metadata(source: AudioSource) -> FileMetadata:
    """Read the metadata of a sound file; what is missing, damaged, or too large is left out.

    At most 64 MB are read, for at most 5 s. Raises MissingExtraError without mutagen, and nothing else: a sound with
    damaged metadata is still a sound.
    """
    require("mutagen", "search")
    pairs: list[tuple[str, str]] = []
    try:
        with opened(source) as file:
            bounded = cast(BinaryIO, _BoundedFile(file))
            for read in _readers(bounded):
                pairs += _pairs_of(read, bounded)
    except (OpenClapError, OSError, MemoryError):
        pass
    return _assemble(pairs)


def _pairs_of(read: Callable[[BinaryIO], Pairs], file: BinaryIO) -> list[tuple[str, str]]:
    """The pairs up to the first damage. Parsers of damaged files raise anything, among it RecursionError."""
    pairs: list[tuple[str, str]] = []
    try:
        file.seek(0)
        for pair in read(file):
            pairs.append(pair)
    except Exception:
        return pairs
    return pairs


def _readers(file: BinaryIO) -> list[Callable[[BinaryIO], Pairs]]:
    """The parsers for a file with these first bytes, the most informative first."""
    head = read_at(file, 0, 36)
    if id3_size(head):  # FLAC with ID3 in front occurs, too
        return [_id3, _vorbis("flac", "FLAC"), _ape]
    if head.startswith(CHUNKED):
        return [_chunks]
    for at, magic, reader in (
        (0, b"fLaC", _vorbis("flac", "FLAC")),
        (0, b"OggS", _ogg),
        (4, b"ftyp", _mp4),
        (0, ASF_HEADER, _asf),
        (0, b"\x1a\x45\xdf\xa3", _matroska),
    ):
        if head.startswith(magic, at):
            return [reader]
    return [_ape, _id3]  # both may stand at the end of MP3, WavPack, Monkey's Audio, Musepack and TTA


def _chunks(file: BinaryIO) -> Pairs:
    """The chunks of WAV and its kin, and the ID3 tag in one of them."""
    tags: list[tuple[int, int]] = []
    yield from chunk_metadata(file, tags)
    for begin, size in tags:
        yield from _id3(io.BytesIO(read_at(file, begin, min(size, _MOST_BYTES))))


def _id3(file: BinaryIO) -> Iterator[tuple[str, str]]:
    from mutagen.id3 import ID3

    for key, frame in ID3(file, known_frames=_id3_frames()).items():
        name, _, described = key.partition(":")
        if name == "TXXX":
            field = _BY_NAME.get(described.lower())
        else:
            field = None if described.startswith("iTun") else _ID3_FRAMES.get(name)
        if field:
            texts = frame.genres if name == "TCON" else [frame.url] if name == "WCOP" else frame.text
            yield from ((field, str(text)) for text in texts)


@cache
def _id3_frames() -> dict[str, type]:
    """The frames that are parsed: text, and none that is compressed; so pictures are skipped, and bombs do nothing."""
    from mutagen.id3 import Frames, Frames_2_2

    wanted = {*_ID3_FRAMES, "TXXX"}
    return {
        name: type(frame.__name__, (_Uncompressed, frame), {})
        for name, frame in {**Frames_2_2, **Frames}.items()
        if {name, frame.__base__.__name__} & wanted  # the frames of ID3v2.2 derive from those of v2.4
    }


class _Uncompressed:
    """Mixin for mutagen's frames that refuses compressed ones, which could decompress to any size."""

    @classmethod
    def _fromData(cls, header: Any, flags: int, data: bytes) -> Any:
        if header.version >= (2, 3, 0) and flags & (0x0008 if header.version >= (2, 4, 0) else 0x0080):
            raise NotImplementedError("compressed frame")
        return super()._fromData(header, flags, data)  # type: ignore[misc]


def _vorbis(module: str, name: str) -> Callable[[BinaryIO], Pairs]:
    def read(file: BinaryIO) -> Iterator[tuple[str, str]]:
        kind = getattr(require(f"mutagen.{module}", "search"), name)
        tags = kind(file).tags
        yield from _named((key, [value]) for key, value in tags or ())

    return read


def _ogg(file: BinaryIO) -> Pairs:
    """The Vorbis comments of the codec that the first page names."""
    head = read_at(file, 0, 64)
    kinds = {
        b"OpusHead": ("oggopus", "OggOpus"),
        b"Speex   ": ("oggspeex", "OggSpeex"),
        b"\x7fFLAC": ("oggflac", "OggFLAC"),
    }
    module, name = next((kind for magic, kind in kinds.items() if magic in head), ("oggvorbis", "OggVorbis"))
    file.seek(0)
    return _vorbis(module, name)(file)


def _ape(file: BinaryIO) -> Pairs:
    from mutagen.apev2 import APEv2

    return _named((key, list(value)) for key, value in APEv2(file).items() if value.kind == 0)  # 0: text


def _asf(file: BinaryIO) -> Pairs:
    from mutagen.asf import ASF

    return _named((key, map(str, values)) for key, values in ASF(file).tags.as_dict().items())


def _mp4(file: BinaryIO) -> Iterator[tuple[str, str]]:
    from mutagen.mp4 import MP4

    for key, values in (MP4(file).tags or {}).items():
        is_free = key.startswith(_FREE_FORM_ATOM)
        name = key.removeprefix(_FREE_FORM_ATOM).lower()
        field = _BY_NAME.get(name) if is_free else _MP4_ATOMS.get(key)
        if field:
            texts = (bytes(value).decode("utf-8", "replace") if is_free else str(value) for value in values)
            yield from ((field, text) for text in texts)


def _matroska(file: BinaryIO) -> Pairs:
    import av

    with av.open(file, "r", format="matroska") as container:
        tags = dict(container.metadata)
        for stream in container.streams.audio:
            tags = {**stream.metadata, **tags}
    return _named((key, [value]) for key, value in tags.items())


def _named(tags: Iterable[tuple[str, Iterable[str]]]) -> Iterator[tuple[str, str]]:
    for name, texts in tags:
        if field := _BY_NAME.get(name.lower()):
            yield from ((field, text) for text in texts)


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
