"""The folder of openclap's caches, and the recognition of URLs and of this machine's own address."""

from __future__ import annotations

import os
import re
from pathlib import Path


def home() -> Path:
    """The folder of openclap's caches, indexes and models.

    It is `$OPENCLAP_HOME`, or `openclap` in the user's cache folder (`$XDG_CACHE_HOME`, by default `~/.cache`).
    """
    if chosen := os.environ.get("OPENCLAP_HOME"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "openclap"


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether this is a URL. One slash is enough, because `Path` turns "https://" into "https:/"; and a scheme has two
    letters or more, because "C:/" is a drive."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)) is not None


def is_loopback(host: str) -> bool:
    """Whether an address, or the host of a URL, is reached from this machine only."""
    import ipaddress  # milliseconds, which most commands do without

    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
