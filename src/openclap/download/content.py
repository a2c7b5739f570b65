"""Recognise pages, pictures and archives that a server sends in place of a sound, with status 200."""

from __future__ import annotations

import re

HEAD = 512
"""Number of first bytes that are enough to decide."""

_SIGNATURES = {
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


def non_audio_kind(head: bytes, content_type: str = "") -> str | None:
    """Name the kind of a body that is not audio, from its first `HEAD` bytes; None where it may be audio.

    The declared type counts only for bytes that look like text: servers declare all kinds of types for audio.
    """
    for signature, kind in _SIGNATURES.items():
        if head.startswith(signature):
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
