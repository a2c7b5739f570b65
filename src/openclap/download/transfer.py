"""One request for one file, written into its partial file and checked."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar

import httpcore2
import httpx2

from openclap.download.connections import Connections, PrivateAddressError
from openclap.download.content import HEAD, non_audio_kind
from openclap.download.partial import Partial, RemoteFile, digest_of
from openclap.download.types import FailureKind, FetchedFile, FetchLimits, FileRequest
from openclap.http import http_date, retry_after

P = ParamSpec("P")
T = TypeVar("T")

_REDIRECTS = (301, 302, 303, 307, 308)
_PERMANENT: dict[int, FailureKind] = {404: "not found", 410: "not found"}
_TEMPORARY: dict[int, FailureKind] = {408: "too slow", 425: "rate limited", 429: "rate limited"}
_CONTENT_RANGE = re.compile(r"bytes\s+(\d{1,18})-\d{1,18}/(\d{1,18}|\*)\s*$", re.IGNORECASE)
_SMALL = 1 << 16  # bytes of an unwanted body that are read so that the connection can be reused


class TransferError(Exception):
    """A request that brought no complete file.

    Attributes:
        retry: whether another attempt may succeed.
        permanent: whether a later run with the same limits is useless as well.
        host_wide: whether other requests to this host will fail too; `pause_s`, if the host said for how long.
    """

    def __init__(
        self,
        kind: FailureKind,
        detail: str,
        *,
        retry: bool = False,
        permanent: bool | None = None,
        host_wide: bool = False,
        pause_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind, self.detail = kind, detail
        self.retry, self.permanent = retry, not retry if permanent is None else permanent
        self.host_wide, self.pause_s = host_wide, pause_s


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where to send the next request, and whether a private address is allowed there."""

    url: httpx2.URL
    allow_private: bool


class Transfer:
    """The requests for one file; all of them share `limits.timeout_s`."""

    def __init__(
        self,
        request: FileRequest,
        connections: Connections,
        limits: FetchLimits,
        headers: Mapping[str, str],
        progress: Callable[[int], None],
    ) -> None:
        self._request, self._connections, self._limits = request, connections, limits
        self._headers, self._progress = headers, progress
        self._spent_s = 0.0
        self._resumed = self._responded = False

    async def send(self, place: Redirect, partial: Partial) -> FetchedFile | Redirect:
        """Send one request and store its body. Raises TransferError, and OSError where the file cannot be written."""
        self._resumed, self._responded = partial.size > 0, False
        if partial.complete:  # a kill came between the last byte and the rename
            return await self._finish(partial, "")
        started = time.monotonic()
        try:
            # Over all attempts together: a server that sends a byte a second must not hold a slot for ever.
            async with asyncio.timeout(self._limits.timeout_s - self._spent_s):
                return await self._get(place, partial)
        except TimeoutError:
            detail = f"not complete after {self._limits.timeout_s:g} s ({partial.size:,} bytes)"
            raise TransferError("too slow", detail, permanent=False) from None
        except PrivateAddressError as error:
            raise TransferError("private address", str(error)) from None
        except (httpx2.InvalidURL, httpcore2.LocalProtocolError, httpcore2.UnsupportedProtocol) as error:
            raise TransferError("bad address", str(error)) from None
        except (httpcore2.ConnectError, httpcore2.ConnectTimeout, httpcore2.ProxyError) as error:
            detail = _one_line(error) or "no answer in time"
            raise TransferError("no connection", detail, retry=True, host_wide=True) from None
        except httpcore2.TimeoutException:
            detail = f"no byte for {self._limits.idle_s:g} s"
            raise TransferError("too slow", detail, retry=True, host_wide=not self._responded) from None
        except (httpcore2.NetworkError, httpcore2.RemoteProtocolError, httpx2.DecodingError) as error:
            raise self._cut_off(f"after {partial.size:,} bytes ({_one_line(error)})") from None
        finally:
            self._spent_s += time.monotonic() - started

    async def _get(self, place: Redirect, partial: Partial) -> FetchedFile | Redirect:
        # The caller's headers may contain a token: it is for the requested host alone.
        own = self._headers if _is_same_site(httpx2.URL(self._request.url), place.url) else {}
        headers = {**own, **_range_headers(partial)}
        async with self._connections.get(
            place.url, headers, allow_private=place.allow_private, idle_s=self._limits.idle_s
        ) as response:
            self._responded = True
            # 206 even without a Range of ours: some servers always send ranges.
            if response.status_code in (200, 206):
                return await self._store(response, partial)
            # Only a private server may lead to another private one; before its body is read, which may close it.
            private = place.allow_private and self._connections.is_private_peer(response)
            await _read_small_body(response)
            return await self._without_body(response, place, partial, private)

    async def _without_body(
        self, response: httpx2.Response, place: Redirect, partial: Partial, private: bool
    ) -> FetchedFile | Redirect:
        status = response.status_code
        if status == 416 and partial.size:  # no bytes after those of the partial file
            if response.headers.get("content-range", "").replace(" ", "") == f"bytes*/{partial.size}":
                return await self._finish(partial, "")
            partial.start_over()
            raise self._cut_off("the server has no bytes where the partial file ends")
        if status in _REDIRECTS and (location := response.headers.get("location")):
            url = place.url.join(location)
            if url.scheme not in ("http", "https") or not url.host:
                target = url.scheme or "nowhere"
                raise TransferError("bad address", f"redirected to {target}: only http and https are fetched")
            return Redirect(url, private)
        detail = f"HTTP {status} {response.reason_phrase}".rstrip()
        if status in _TEMPORARY or status >= 500:
            pause_s = retry_after(response.headers)
            raise TransferError(
                _TEMPORARY.get(status, "server error"),
                detail,
                retry=True,
                host_wide=status == 429 or pause_s is not None,
                pause_s=pause_s,
            )
        raise TransferError(_PERMANENT.get(status, "refused"), detail)

    async def _store(self, response: httpx2.Response, partial: Partial) -> FetchedFile:
        """Write the body piece by piece."""
        length = _total_length(response)
        if response.status_code == 206 and not _continues(response, partial):
            partial.start_over()
            raise self._cut_off("the server sent another range than the requested one")
        if response.status_code == 200 or partial.size == 0:
            # 200 means the whole file from its first byte, whatever range was asked for.
            partial.start_over(RemoteFile(digest_of(self._request.url), _validator(response), length))
            self._resumed = False
        # By the declared length, before a byte of a file that is too large or of the wrong length is read.
        if length is not None:
            self._check_size(partial, length, final=True)
        content_type, checked = response.headers.get("content-type", ""), False
        async for piece in response.aiter_bytes():
            partial.write(piece)
            self._progress(len(piece))
            self._check_size(partial, partial.size, final=False)
            if not checked and partial.size >= HEAD:  # early: a page instead of a sound may be long
                checked = True
                self._check_content(partial, content_type)
        if length is not None and partial.size < length:
            raise self._cut_off(f"{partial.size:,} of {length:,} bytes")
        return await self._finish(partial, content_type)

    async def _finish(self, partial: Partial, content_type: str) -> FetchedFile:
        """Check the complete file and give it its name."""
        request = self._request
        if partial.size == 0:
            raise TransferError("empty", "0 bytes", retry=True)
        self._check_content(partial, content_type)
        self._check_size(partial, partial.size, final=True)
        size, sha256 = partial.size, partial.sha256
        if request.sha256 is not None and request.sha256.lower() != sha256:
            raise self._mismatch(partial, "wrong hash", f"SHA-256 {sha256}, expected {request.sha256}")
        await in_thread(partial.finish)
        return FetchedFile(request, size, sha256, was_there=False)

    def _check_size(self, partial: Partial, size: int, *, final: bool) -> None:
        expected, most = self._request.size, self._limits.max_bytes
        if size > most:
            partial.start_over()
            raise TransferError("too large", f"over {most:,} bytes")
        if expected is not None and (size > expected or (final and size != expected)):
            detail = f"{'' if final else 'over '}{size:,} bytes, expected {expected:,}"
            raise self._mismatch(partial, "wrong length", detail)

    def _check_content(self, partial: Partial, content_type: str) -> None:
        if self._request.audio and (kind := non_audio_kind(partial.head, content_type)):
            partial.start_over()
            raise TransferError("not audio", f"it is {kind}")

    def _mismatch(self, partial: Partial, kind: FailureKind, detail: str) -> TransferError:
        """A file that does not match. Where it was resumed, our own first bytes may be wrong: try from the start."""
        partial.start_over()
        return TransferError(kind, detail, retry=self._resumed)

    def _cut_off(self, detail: str) -> TransferError:
        return TransferError("cut off", detail, retry=True)


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function that waits for the disk in a thread; when cancelled, wait for its end first.

    Otherwise a partial file could be closed while its rename is under way.
    """
    running = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        with suppress(Exception):
            await running
        raise


def _range_headers(partial: Partial) -> dict[str, str]:
    """Headers that ask for the rest, on condition that the file is still the same."""
    if not partial.size or partial.remote is None:
        return {}
    validator = partial.remote.validator
    # With If-Range the server sends the whole file if it has changed (RFC 9110, 13.1.5).
    return {"Range": f"bytes={partial.size}-"} | ({"If-Range": validator} if validator else {})


def _continues(response: httpx2.Response, partial: Partial) -> bool:
    """Whether a range begins where the partial file ends and belongs to the same file."""
    match, remote = _CONTENT_RANGE.match(response.headers.get("content-range", "")), partial.remote
    same = remote is None or remote.validator is None or remote.validator == _validator(response)
    return match is not None and int(match[1]) == partial.size and same and not _is_encoded(response)


def _is_same_site(requested: httpx2.URL, url: httpx2.URL) -> bool:
    """Whether both URLs are of one host and port; http to https on their usual ports counts as the same."""
    if requested.host != url.host:
        return False
    upgrade = (requested.scheme, requested.port, url.scheme, url.port) == ("http", None, "https", None)
    return upgrade or (requested.scheme, requested.port) == (url.scheme, url.port)


def _total_length(response: httpx2.Response) -> int | None:
    """Length of the whole file, where the response declares it."""
    if _is_encoded(response):
        return None
    text = response.headers.get("content-length", "")
    if response.status_code == 206:
        match = _CONTENT_RANGE.match(response.headers.get("content-range", ""))
        text = match[2] if match else ""
    return int(text) if text.isascii() and text.isdigit() else None


def _is_encoded(response: httpx2.Response) -> bool:
    """Whether the body is compressed in transit, so that its bytes are not those of the file."""
    return response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity")


def _validator(response: httpx2.Response) -> str | None:
    """A strong ETag, or a Last-Modified date that is strong (RFC 9110, 8.8.2.2)."""
    etag = response.headers.get("etag")
    if etag or _is_encoded(response):
        return etag if etag and etag.startswith('"') and not _is_encoded(response) else None
    modified, now = http_date(response.headers.get("last-modified")), http_date(response.headers.get("date"))
    # Within one second a file may change twice under the same date.
    strong = modified and now and now - modified >= timedelta(seconds=1)
    return response.headers["last-modified"] if strong else None


async def _read_small_body(response: httpx2.Response) -> None:
    length = response.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length) <= _SMALL:
        with suppress(
            httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError, httpx2.DecodingError
        ):
            await response.aread()


def _one_line(error: Any) -> str:
    return " ".join(str(error).split())
