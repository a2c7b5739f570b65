"""Read text files in the encodings that people use, detected from the bytes."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

UTF_8 = "UTF-8"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8", UTF_8),
    (codecs.BOM_UTF32_LE, "utf-32-le", "UTF-32"),  # before UTF-16: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32-be", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16"),
)
_SEQUENCE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_HIGH = re.compile(rb"[\x80-\xff]")
_CP1252_ONLY = re.compile(rb"[\x80-\x9f]")
_HIGH_WORD = re.compile(rb"[A-Za-z\x80-\xff]*[\x80-\xff][A-Za-z\x80-\xff]*")
_FOREIGN = re.compile(rb"[\x80-\xff]{3}")
"""Three letters in a row outside ASCII mean another script; words of Western European languages have at most two."""


def read_text(path: Path) -> tuple[str, str]:
    """Return a file's text and the name of its encoding. Raises OSError, and ValueError as `decode_text`."""
    return decode_text(path.read_bytes())


def decode_text(content: bytes) -> tuple[str, str]:
    """Return the text and the name of its encoding: by byte order mark, else UTF-8, else cp1252 or latin-1.

    Bytes from 0x80 to 0x9f are printable in cp1252 (curly quotes, the euro sign) and control characters in latin-1,
    which no text has; without such bytes the two are equal, and the name is latin-1. Where most bytes outside ASCII are
    valid UTF-8, the text is UTF-8 with lines pasted from elsewhere.

    Raises ValueError where the text does not match its byte order mark, and for encodings that cannot be detected, such
    as cp1251 or GBK, in which most words would decode to accented letters only.
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
    # Invalid as a whole, but mostly UTF-8: each valid sequence has two bytes or more outside ASCII.
    high, valid = len(_HIGH.findall(content)), sum(map(len, _SEQUENCE.findall(content)))
    if valid > high / 2:
        return content.decode("utf-8", CP1252_ERRORS), f"{UTF_8} and, in places, cp1252"
    words = _HIGH_WORD.findall(content)
    if sum(_FOREIGN.search(word) is not None for word in words) > len(words) / 2:
        raise ValueError("its encoding is none of UTF-8, UTF-16, cp1252 and latin-1")
    name = "cp1252" if _CP1252_ONLY.search(content) else "latin-1"
    return "".join(map(_decode_piece, _split_undefined(content))), name


def guess_separator(text: str) -> str:
    """Return the separator of a table's first line: the most frequent of comma, semicolon and tab.

    Spreadsheets write semicolons in languages that use a decimal comma.
    """
    first = text[:65536].lstrip("\r\n").split("\n", 1)[0]
    return max(",;\t", key=first.count)


def _split_undefined(content: bytes) -> list[bytes]:
    """Split the content so that each of the five bytes that cp1252 leaves undefined is a piece of its own."""
    return re.split(rb"([\x81\x8d\x8f\x90\x9d])", content)


def _decode_piece(piece: bytes) -> str:
    try:
        return piece.decode("cp1252")
    except UnicodeDecodeError:
        return piece.decode("latin-1")


def _as_cp1252(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    piece = error.object[error.start : error.end]
    return "".join(_decode_piece(bytes([byte])) for byte in piece), error.end


CP1252_ERRORS = "openclap-cp1252"
"""The argument `errors` of `open` that reads invalid UTF-8 as cp1252."""
codecs.register_error(CP1252_ERRORS, _as_cp1252)
