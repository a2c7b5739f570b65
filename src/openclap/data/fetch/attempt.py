"""One request for one file: what it brought, or what is to be done next."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpcore2
import httpx2

from openclap.data.fetch.answer import encoded, part_start, read_to_its_end, retry_after, same_site, total, validator
from openclap.data.fetch.nouns import Failed, Fetched, Limits, Reason, Wanted
from openclap.data.fetch.partial import Known, Partial, digest_of, standing
from openclap.data.fetch.sniff import HEAD, not_audio
from openclap.data.fetch.wire import PrivateAddressError, TimeIsOverError, Wire, peer_is_private
from openclap.errors import DataError

Progress = Callable[[int], None]

_REDIRECTS = (301, 302, 303, 307, 308)
_PERMANENT: dict[int, Reason] = {404: "not found", 410: "not found"}
_PASSING: dict[int, Reason] = {408: "too slow", 425: "rate limited", 429: "rate limited"}
_FULL = {errno.ENOSPC: "is full", errno.EDQUOT: "is full for you", errno.EROFS: "cannot be written"}


@dataclass(slots=True)
class Job:
    """A file on its way.

    Attributes:
        url: what is asked next: the wanted address, or where it redirected to.
        private: may `url` be of a private network?
        hops: redirects since the wanted address.
        attempts: requests that failed.
        spent_s: on all its requests.
    """

    wanted: Wanted
    url: httpx2.URL
    private: bool
    hops: int = 0
    attempts: int = 0
    spent_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Missing:
    """The file does not stand yet."""


@dataclass(frozen=True, slots=True)
class Busy:
    """Another thread or process is fetching the same file."""


@dataclass(frozen=True, slots=True)
class Moved:
    """It is elsewhere."""

    url: httpx2.URL
    private: bool


@dataclass(frozen=True, slots=True)
class Again:
    """It did not come this time. `host_wide`: nor will anything else of this host, for `pause_s` if it says so."""

    reason: Reason
    detail: str
    host_wide: bool = False
    pause_s: float | None = None


Outcome = Fetched | Failed | Missing | Busy | Moved | Again


def look(job: Job) -> Outcome:
    """Is the file there already?"""
    try:
        return _standing(job.wanted) or Missing()
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        return _unwritable(job, error)


def ask(job: Job, wire: Wire, limits: Limits, headers: Mapping[str, str], progress: Progress) -> Outcome:
    """Go on with the file from where it stands. `headers` are for the host of the wanted address alone.

    Raises DataError when the disk is full, StoppedError when the run has ended.
    """
    wanted = job.wanted
    begun = time.monotonic()
    try:
        partial = Partial.open(wanted.to, digest_of(wanted.url), hash_known=wanted.sha256 is not None)
        if partial is None:
            return Busy()
        with partial:
            return _standing(wanted) or _Attempt(job, partial, limits, progress).go(wire, headers)
    except OSError as error:
        return _unwritable(job, error)
    finally:
        job.spent_s += time.monotonic() - begun


class _Attempt:
    """A request with its partial file."""

    def __init__(self, job: Job, partial: Partial, limits: Limits, progress: Progress) -> None:
        self._job, self._partial, self._limits, self._progress = job, partial, limits, progress
        self._resumed = partial.size > 0
        self._answered = False

    def go(self, wire: Wire, headers: Mapping[str, str]) -> Outcome:
        if self._partial.whole:
            return self._complete("")
        try:
            return self._ask(wire, headers)
        except PrivateAddressError as error:
            return self._failed("private address", f"{error}")
        except (httpx2.InvalidURL, httpcore2.LocalProtocolError, httpcore2.UnsupportedProtocol) as error:
            return self._failed("bad address", f"{error}")
        except (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProxyError) as error:
            return self._broken(error)
        except (httpcore2.RemoteProtocolError, httpx2.DecodingError) as error:
            return Again("cut off", f"after {self._partial.size:,} bytes ({_words(error)})")

    def _ask(self, wire: Wire, headers: Mapping[str, str]) -> Outcome:
        job, limits = self._job, self._limits
        own = headers if same_site(httpx2.URL(job.wanted.url), job.url) else {}
        with wire.ask(
            job.url,
            {**own, **self._range()},
            private=job.private,
            idle_s=limits.idle_s,
            seconds=limits.seconds - job.spent_s,
        ) as response:
            self._answered = True
            return self._answer(response)

    def _broken(self, error: Exception) -> Outcome:
        """No connection, or one that ended or fell silent."""
        limits, size = self._limits, self._partial.size
        if isinstance(error, TimeIsOverError):
            detail = f"not whole after {limits.seconds:g} s ({size:,} bytes)"
            return Failed(self._job.wanted, "too slow", detail, self._job.attempts + 1, False)
        if isinstance(error, httpcore2.ConnectError | httpcore2.ConnectTimeout | httpcore2.ProxyError):
            return Again("no connection", _words(error) or "no answer in time", host_wide=True)
        if isinstance(error, httpcore2.TimeoutException):
            return Again("too slow", f"no byte for {limits.idle_s:g} s", host_wide=not self._answered)
        return Again("cut off", f"after {size:,} bytes ({_words(error)})")

    def _range(self) -> dict[str, str]:
        """Headers that ask for the rest, if the file is still the same."""
        if not self._partial.size or self._partial.known is None:
            return {}
        validator = self._partial.known.validator
        return {"Range": f"bytes={self._partial.size}-"} | ({"If-Range": validator} if validator else {})

    def _answer(self, response: httpx2.Response) -> Outcome:
        status = response.status_code
        if status in (200, 206):
            return self._body(response)
        private = peer_is_private(response)
        read_to_its_end(response)
        if status == 416 and self._partial.size:
            return self._nothing_left(response)
        if status in _REDIRECTS and (place := response.headers.get("location")):
            return self._moved(place, private)
        detail = f"HTTP {status} {response.reason_phrase}".rstrip()
        if status in _PASSING or status >= 500:
            reason = _PASSING.get(status, "server error")
            pause_s = retry_after(response)
            return Again(reason, detail, host_wide=status == 429 or pause_s is not None, pause_s=pause_s)
        return self._failed(_PERMANENT.get(status, "refused"), detail)

    def _moved(self, place: str, private: bool) -> Outcome:
        url = self._job.url.join(place)
        if url.scheme not in ("http", "https") or not url.host:
            return self._failed(
                "bad address", f"redirected to {url.scheme or 'nowhere'}: only http and https are fetched"
            )
        return Moved(url, self._job.private and private)

    def _nothing_left(self, response: httpx2.Response) -> Outcome:
        """416: there is nothing after the bytes that we have. Are they all?"""
        if response.headers.get("content-range", "").replace(" ", "") == f"bytes*/{self._partial.size}":
            return self._complete("")
        self._partial.start_over()
        return Again("cut off", "the server has no bytes where the partial file ends")

    def _body(self, response: httpx2.Response) -> Outcome:
        """Take the body in, piece by piece."""
        partial, whole = self._partial, total(response)
        if response.status_code == 206 and not self._goes_on(response):
            partial.start_over()
            return Again("cut off", "the server sent another part than was asked for")
        if response.status_code == 200 or partial.size == 0:
            partial.start_over(Known(digest_of(self._job.wanted.url), validator(response), whole))
            self._resumed = False
        if whole is not None and (problem := self._size_problem(whole, final=True)):
            return problem
        content_type = response.headers.get("content-type", "")
        sniffed = False
        for piece in response.iter_bytes():
            partial.write(piece)
            self._progress(len(piece))
            if problem := self._size_problem(partial.size, final=False):
                return problem
            if not sniffed and partial.size >= HEAD:
                sniffed = True
                if problem := self._sniff(content_type):
                    return problem
        if whole is not None and partial.size < whole:
            return Again("cut off", f"{partial.size:,} of {whole:,} bytes")
        return self._complete(content_type)

    def _goes_on(self, response: httpx2.Response) -> bool:
        """Does this part begin where ours ends, and is it of the same file?"""
        known = self._partial.known
        same = known is None or known.validator is None or known.validator == validator(response)
        return part_start(response) == self._partial.size and same and not encoded(response)

    def _size_problem(self, size: int, *, final: bool) -> Outcome | None:
        wanted, most = self._job.wanted, self._limits.bytes
        if size > most:
            self._partial.start_over()
            return self._failed("too large", f"over {most:,} bytes")
        if wanted.size is not None and (size > wanted.size or (final and size != wanted.size)):
            return self._misfit("wrong length", f"{'' if final else 'over '}{size:,} bytes, expected {wanted.size:,}")
        return None

    def _sniff(self, content_type: str) -> Outcome | None:
        if self._job.wanted.audio and (kind := not_audio(self._partial.head, content_type)):
            self._partial.start_over()
            return self._failed("not audio", f"it is {kind}")
        return None

    def _complete(self, content_type: str) -> Outcome:
        """All bytes are there: are they the right ones?"""
        wanted, partial = self._job.wanted, self._partial
        if partial.size == 0:
            return Again("empty", "0 bytes")
        if problem := self._sniff(content_type) or self._size_problem(partial.size, final=True):
            return problem
        size, sha256 = partial.size, partial.sha256
        if wanted.sha256 is not None and wanted.sha256.lower() != sha256:
            return self._misfit("wrong hash", f"SHA-256 {sha256}, expected {wanted.sha256}")
        partial.finish()
        return Fetched(wanted, size, sha256, was_there=False)

    def _misfit(self, reason: Reason, detail: str) -> Outcome:
        """Not what was wanted: our own beginning may be to blame, a file that came in one piece stays as it is."""
        resumed = self._resumed
        self._partial.start_over()
        return Again(reason, detail) if resumed else self._failed(reason, detail)

    def _failed(self, reason: Reason, detail: str) -> Failed:
        return Failed(self._job.wanted, reason, detail, self._job.attempts + 1, True)


def _standing(wanted: Wanted) -> Fetched | None:
    there = standing(wanted.to, wanted.size, wanted.sha256)
    return Fetched(wanted, *there, was_there=True) if there else None


def _unwritable(job: Job, error: OSError | ValueError) -> Failed:
    number = getattr(error, "errno", None)
    folder = job.wanted.to.parent
    if number in _FULL:
        raise DataError(
            f"{folder}: the disk {_FULL[number]}. Make room or choose another folder, and run the same again: "
            "finished files are kept."
        ) from error
    why = getattr(error, "strerror", None) or str(error)
    return Failed(job.wanted, "cannot be written", f"{job.wanted.to}: {why}", job.attempts, True)


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())
