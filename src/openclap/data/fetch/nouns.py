"""What is asked for, within which limits, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from openclap.errors import ConfigError

Reason = Literal[
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
class Wanted:
    """A file to be had.

    Attributes:
        url: http or https.
        to: where it appears, whole or not at all; folders are made.
        size, sha256: in bytes and hex digits, where they are known. What does not fit them is never kept.
        audio: a page, a picture or an archive that comes in its place is a failure.
    """

    url: str
    to: Path
    size: int | None = None
    sha256: str | None = None
    audio: bool = True


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that stands whole under its name; `was_there` if nothing had to be fetched for it."""

    wanted: Wanted
    size: int
    sha256: str
    was_there: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """A file that did not come.

    Attributes:
        reason: its kind, to be counted.
        detail: one line for a person, without the query of the URL, which may hold a token.
        attempts: that failed; 0 where none was made.
        permanent: asking again within the same limits is no use.
    """

    wanted: Wanted
    reason: Reason
    detail: str
    attempts: int
    permanent: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """How hard to try, and how much to ask of others.

    Attributes:
        at_once: files on their way.
        per_host: of them, from one host name.
        per_second: requests begun, to one host name; None for no such limit.
        bytes: of one file.
        seconds: of one file, over all its attempts, waiting in between not counted.
        idle_s: without a byte, and until a connection stands.
        attempts: for one file.
        wait_s: before the second attempt, about; it doubles with each, up to a minute.
        patience_s: a host that has only refused, or could not be reached, for so long is not asked any more.
        private: allow addresses of private networks and of this machine, for a mirror of one's own.
    """

    at_once: int = 16
    per_host: int = 4
    per_second: float | None = None
    bytes: int = 1 << 30
    seconds: float = 3600.0
    idle_s: float = 30.0
    attempts: int = 5
    wait_s: float = 1.0
    patience_s: float = 600.0
    private: bool = False

    def __post_init__(self) -> None:
        """Raise ConfigError for a limit that lets nothing through."""
        for name in ("at_once", "per_host", "per_second", "bytes", "seconds", "idle_s", "attempts"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name} is {value}, expected a number above 0.")
