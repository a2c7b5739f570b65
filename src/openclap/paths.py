"""openclap's own folder, for files that it can make again; and the recognition of URLs."""

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
    """Whether this is a URL; `Path` turns "https://" into "https:/"."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)) is not None
