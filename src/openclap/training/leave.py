"""The models that a run leaves: the best so far, and the finished one."""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors import SafetensorError

from openclap.embedder import Embedder
from openclap.errors import CheckpointError
from openclap.training.lora import merged

BEST, MODEL = "best", "model"


def keep_best(embedder: Embedder, out: Path) -> None:
    """Write the model to `out/best`, in place of the one before. Raises CheckpointError, which leaves that one."""
    try:
        merged(embedder).save(out / BEST)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"{out / BEST}: the best model so far could not be saved ({error}). The one before is whole, "
            "and so are saved states; free some space and run the same command to go on."
        ) from None


def leave(embedder: Embedder, out: Path, *, chosen: bool) -> None:
    """Write `out/model`; where a validation has `chosen`, it is the best. Raises CheckpointError where that is gone."""
    model, best = out / MODEL, out / BEST
    if not chosen:
        merged(embedder).save(model)
    elif best.exists():
        shutil.rmtree(model, ignore_errors=True)
        best.rename(model)
    else:
        raise CheckpointError(f"{model}: was deleted, and the best model with it. Start a new run elsewhere.")
