"""Text files of people, whatever they were written with: the encoding is told by the bytes."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

UTF_8 = "UTF-8"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8", UTF_8),
    (codecs.BOM_UTF32_LE, "utf-32-le", "UTF-32"),  # before UTF-16, with which its mark begins
    (codecs.BOM_UTF32_BE, "utf-32-be", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16"),
)
_SEQUENCE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_HIGH = re.compile(rb"[\x80-\xff]")
_CP1252_ONLY = re.compile(rb"[\x80-\x9f]")
_HIGH_WORD = re.compile(rb"[A-Za-z\x80-\xff]*[\x80-\xff][A-Za-z\x80-\xff]*")
_FOREIGN = re.compile(rb"[\x80-\xff]{3}")
"""Three letters in a row and none of ASCII: another script. Words of Western Europe have no more than two."""


def read_text(path: Path) -> tuple[str, str]:
    """A file's text, and the name of its encoding. Raises OSError, and ValueError as `decode_text`."""
    return decode_text(path.read_bytes())


def decode_text(content: bytes) -> tuple[str, str]:
    """Text, and the name of its encoding: by its byte order mark, else UTF-8, else cp1252 or latin-1.

    Bytes from 0x80 to 0x9f are signs in cp1252 (curly quotes, the euro) and control characters in latin-1, which are in
    no text; without them the two are the same, and it is called latin-1. Where most of what is not ASCII is
    valid UTF-8 the text is UTF-8, in which single lines were pasted from elsewhere.

    Raises ValueError where a byte order mark promises what does not follow, and for text in an encoding that its bytes
    do not tell, such as cp1251 or GBK: most of its foreign words would be of accented letters alone.
    """
    for mark, encoding, name in _MARKS:
        if content.startswith(mark):
            if encoding != "utf-8":
                return content[len(mark) :].decode(encoding), name
            content = content[len(mark) :]
            break
    try:
        return content.decode("utf-8"), UTF_8
    except UnicodeDecodeError:
        pass
    high, valid = len(_HIGH.findall(content)), sum(map(len, _SEQUENCE.findall(content)))
    if valid > high / 2:
        return content.decode("utf-8", AS_CP1252), f"{UTF_8} and, in places, cp1252"
    words = _HIGH_WORD.findall(content)
    if sum(_FOREIGN.search(word) is not None for word in words) > len(words) / 2:
        raise ValueError("its encoding is none of UTF-8, UTF-16, cp1252 and latin-1")
    name = "cp1252" if _CP1252_ONLY.search(content) else "latin-1"
    return "".join(map(_single, _runs(content))), name


def separator_of(text: str) -> str:
    """What parts the names of a table's first line: a comma, a semicolon (as spreadsheets write it where a comma stands
    in numbers) or a tab, whichever is there most often."""
    first = text[:65536].lstrip("\r\n").split("\n", 1)[0]
    return max(",;\t", key=first.count)


def _runs(content: bytes) -> list[bytes]:
    """The content in pieces, those of the five bytes that cp1252 has no sign for by themselves."""
    return re.split(rb"([\x81\x8d\x8f\x90\x9d])", content)


def _single(piece: bytes) -> str:
    try:
        return piece.decode("cp1252")
    except UnicodeDecodeError:
        return piece.decode("latin-1")


def _as_cp1252(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    piece = error.object[error.start : error.end]
    return "".join(_single(bytes([byte])) for byte in piece), error.end


AS_CP1252 = "openclap-cp1252"
"""What `open` takes as `errors`, for bytes that are no UTF-8."""
codecs.register_error(AS_CP1252, _as_cp1252)
