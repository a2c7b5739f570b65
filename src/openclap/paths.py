"""Where openclap keeps what it can make again (converted weights, the demo, the default index), and what is no path."""

from __future__ import annotations

import os
import re
from pathlib import Path


def home() -> Path:
    """`$OPENCLAP_HOME`, or `openclap` in the user's cache folder (`$XDG_CACHE_HOME`, `~/.cache`)."""
    if chosen := os.environ.get("OPENCLAP_HOME"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "openclap"


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether this is meant as an address; `Path` leaves one slash of "https://"."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)) is not None
