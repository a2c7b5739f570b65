"""Pages, pictures and archives that are sent in place of a sound, with status 200."""

from __future__ import annotations

import re

HEAD = 512
"""Bytes that are enough to tell."""

_BEGINNINGS = {
    b"\x89PNG": "a PNG picture",
    b"GIF8": "a GIF picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "a zip archive",
    b"%PDF": "a PDF",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a rar archive",
}
_MARKUP = re.compile(rb"\s*<(?:!--|(?:!doctype|\?xml|html|head|body|script|svg|error)\b)", re.IGNORECASE)
_JSON = re.compile(rb"\s*(?:\{\s*[\"}]|\[\s*[\"{\]])")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_CONTROLS = frozenset(range(32)) - frozenset(b"\t\n\r\f")


def not_audio(head: bytes, content_type: str = "") -> str | None:
    """What a body is instead of a sound, from its first `HEAD` bytes; None where it may be one.

    The stated type is believed only of text that looks like text: servers call sounds all kinds of things.
    """
    for beginning, kind in _BEGINNINGS.items():
        if head.startswith(beginning):
            return kind
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "a WebP picture"
    text = head.removeprefix(_BYTE_ORDER_MARK)
    if _MARKUP.match(text):
        return "a page (HTML or XML)"
    if _JSON.match(text):
        return "JSON"
    if content_type.lower().startswith("text/") and _CONTROLS.isdisjoint(text):
        return "text"
    return None
