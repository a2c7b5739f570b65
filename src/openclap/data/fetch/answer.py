"""What the headers of an answer say."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpcore2
import httpx2

SMALL = 1 << 16
"""A body of no interest is read to its end up to this size, so that the connection can be used again."""
_CONTENT_RANGE = re.compile(r"bytes\s+(\d{1,18})-\d{1,18}/(\d{1,18}|\*)\s*$", re.IGNORECASE)


def same_site(one: httpx2.URL, other: httpx2.URL) -> bool:
    """Do both belong to one site? From http to https on their usual ports it stays the same."""
    if one.host != other.host:
        return False
    upgrade = (one.scheme, one.port, other.scheme, other.port) == ("http", None, "https", None)
    return upgrade or (one.scheme, one.port) == (other.scheme, other.port)


def total(response: httpx2.Response) -> int | None:
    """The length of the whole file, where the answer states it."""
    if encoded(response):
        return None
    stated = response.headers.get("content-length", "")
    if response.status_code == 206:
        found = _CONTENT_RANGE.match(response.headers.get("content-range", ""))
        stated = found[2] if found else ""
    return int(stated) if stated.isascii() and stated.isdigit() else None


def part_start(response: httpx2.Response) -> int | None:
    """Where in the whole file the body of a 206 begins."""
    found = _CONTENT_RANGE.match(response.headers.get("content-range", ""))
    return int(found[1]) if found else None


def encoded(response: httpx2.Response) -> bool:
    """Is the body compressed on its way, so that its bytes are not those of the file?"""
    return response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity")


def validator(response: httpx2.Response) -> str | None:
    """By what the server tells whether the file changed: a strong ETag or a date that is strong (RFC 9110, 8.8)."""
    etag = response.headers.get("etag")
    if etag or encoded(response):
        return etag if etag and etag.startswith('"') and not encoded(response) else None
    modified, now = _date(response.headers.get("last-modified")), _date(response.headers.get("date"))
    strong = modified and now and now - modified >= timedelta(seconds=1)
    return response.headers["last-modified"] if strong else None


def retry_after(response: httpx2.Response) -> float | None:
    """Seconds that the host asks to be left alone for."""
    text = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    until = _date(text)
    return None if until is None else max(0.0, (until - datetime.now(UTC)).total_seconds())


def _date(text: str | None) -> datetime | None:
    try:
        date = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def read_to_its_end(response: httpx2.Response) -> None:
    """Read a small body that is of no interest."""
    length = response.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length) <= SMALL:
        with suppress(
            httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError, httpx2.DecodingError
        ):
            response.read()
