"""Which model and which index a command means when none is named."""

from __future__ import annotations

from pathlib import Path

from openclap import paths
from openclap.errors import CheckpointError


def default_model() -> str:
    """The last model that the demo published. Raises CheckpointError when the demo has not run."""
    models = paths.home() / "models"
    try:
        return str(models / (models / "default.txt").read_text(encoding="utf-8"))
    except OSError:
        raise CheckpointError(
            "No model was named and the demo has not made one. Name one, or run: openclap demo"
        ) from None


def default_index() -> Path:
    """The user's own index, or the demo's while there is no other."""
    own, demo = paths.home() / "index", paths.home() / "demo" / "index"
    return demo if demo.is_dir() and not own.is_dir() else own
