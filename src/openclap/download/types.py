"""Files to fetch, limits, and outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from openclap.errors import ConfigError

FailureKind = Literal[
    "bad address",
    "cannot be written",
    "cut off",
    "empty",
    "no connection",
    "not audio",
    "not found",
    "private address",
    "rate limited",
    "redirect loop",
    "refused",
    "server error",
    "too large",
    "too slow",
    "wrong hash",
    "wrong length",
]
"""Every kind of failure."""


@dataclass(frozen=True, slots=True)
class FileRequest:
    """A file to fetch.

    Attributes:
        url: http or https.
        to: the path where the file appears, complete or not at all; folders are created.
        size, sha256: in bytes and hex digits, where they are known. A file that does not match is not stored.
        audio: whether a page, a picture or an archive sent in its place is a failure.
    """

    url: str
    to: Path
    size: int | None = None
    sha256: str | None = None
    audio: bool = True


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """A complete file at its path; `was_there` if nothing had to be fetched."""

    request: FileRequest
    size: int
    sha256: str
    was_there: bool


@dataclass(frozen=True, slots=True)
class FailedFetch:
    """A file that could not be fetched.

    Attributes:
        kind: the kind of failure, for counting.
        detail: one line for a person, without the query of the URL, which may contain a token.
        attempts: number of failed attempts; 0 where none was made.
        permanent: whether another try with the same limits is useless.
    """

    request: FileRequest
    kind: FailureKind
    detail: str
    attempts: int
    permanent: bool


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """How hard to try, and how much to demand of servers.

    Attributes:
        concurrency: most files that are fetched at the same time.
        per_host: most of these from one host name.
        requests_per_second: most requests to one host name in a second; None for no limit.
        max_bytes: size of the largest file.
        timeout_s: for one file, over all its attempts, without the waits between them.
        idle_s: longest time without a byte, and for establishing a connection.
        attempts: most requests for one file, redirects not counted.
        backoff_s: about the wait before the second attempt; it doubles each time, up to a minute.
        patience_s: give up a host that has refused all requests or been unreachable for this long.
        allow_private: allow addresses of private networks and of this machine, for a mirror of one's own.
    """

    concurrency: int = 16
    per_host: int = 4
    requests_per_second: float | None = None
    max_bytes: int = 1 << 30
    timeout_s: float = 3600.0
    idle_s: float = 30.0
    attempts: int = 5
    backoff_s: float = 1.0
    patience_s: float = 600.0
    allow_private: bool = False

    def __post_init__(self) -> None:
        """Raise ConfigError for a limit that lets nothing through."""
        for name in ("concurrency", "per_host", "requests_per_second", "max_bytes", "timeout_s", "idle_s", "attempts"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name} is {value}, expected a number above 0.")
