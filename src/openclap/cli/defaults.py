"""The model and the index of commands without --model and --index."""

from __future__ import annotations

from pathlib import Path

from openclap import paths
from openclap.checkpoints.bundled import MINI


def default_model() -> str:
    """The bundled model."""
    return MINI


def default_index() -> Path:
    """The user's own index if there is one, otherwise the demo's; it need not exist."""
    own, demo = paths.home() / "index", paths.home() / "demo" / "index"
    return demo if demo.is_dir() and not own.is_dir() else own
