"""The model and the index of commands without --model and --index."""

from __future__ import annotations

from pathlib import Path

from openclap import paths
from openclap.errors import CheckpointError


def default_model() -> str:
    """The folder of the demo's latest model. Raises CheckpointError when the demo has not run."""
    models = paths.home() / "models"
    try:
        return str(models / (models / "default.txt").read_text(encoding="utf-8"))
    except OSError:
        raise CheckpointError(
            "No model was given, and the demo, whose model is the default, has not run. Choose a model with --model "
            "(`openclap models` lists them), or run 'openclap demo'."
        ) from None


def default_index() -> Path:
    """The user's own index if there is one, otherwise the demo's; it need not exist."""
    own, demo = paths.home() / "index", paths.home() / "demo" / "index"
    return demo if demo.is_dir() and not own.is_dir() else own
