"""Where openclap keeps what it can make again: converted weights, the demo, the default index."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """`$OPENCLAP_HOME`, or `openclap` in the user's cache folder (`$XDG_CACHE_HOME`, `~/.cache`)."""
    if chosen := os.environ.get("OPENCLAP_HOME"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "openclap"
