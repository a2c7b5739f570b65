"""What a run needs to go on exactly: model, optimizer, random states (accelerate keeps these) and the step.

The position in the data is a function of the step, so it needs no state of its own.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from openclap.data.files import sync_tree
from openclap.errors import CheckpointError

if TYPE_CHECKING:
    from accelerate import Accelerator

PREFIX = "step-"


def save(accelerator: Accelerator, folder: Path, step: int, keep: int) -> Path:
    """Write the state of `step` whole, then remove all but the newest `keep`.

    It is written beside its place and renamed, so a kill or a full disk leaves the older ones as they were.
    Raises CheckpointError when it cannot be written.
    """
    place = folder / f"{PREFIX}{step:08d}"
    draft = folder / f".draft-{step:08d}"
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        accelerator.save_state(str(draft))
        (draft / "progress.json").write_text(json.dumps({"step": step}), encoding="utf-8")
        shutil.rmtree(place, ignore_errors=True)
        sync_tree(draft)
        draft.rename(place)
        for old in _saved(folder)[:-keep]:
            shutil.rmtree(old)
    except (OSError, RuntimeError, SafetensorError) as error:  # a full disk: each library has its own way to say so
        shutil.rmtree(draft, ignore_errors=True)
        raise CheckpointError(
            f"{place}: the state of step {step} could not be saved ({error}). Earlier states are whole; "
            "free some space and run the same command to go on."
        ) from None
    return place


def restore(accelerator: Accelerator, folder: Path) -> int:
    """Load the newest saved state and return its step; 0 when there is none. Raises CheckpointError if damaged."""
    for draft in folder.glob(".draft-*"):
        shutil.rmtree(draft, ignore_errors=True)
    saved = _saved(folder)
    if not saved:
        return 0
    try:
        accelerator.load_state(str(saved[-1]))
        step: int = json.loads((saved[-1] / "progress.json").read_text(encoding="utf-8"))["step"]
    except Exception as error:  # a damaged file fails in as many ways as there are bytes
        raise CheckpointError(
            f"{saved[-1]}: cannot be read ({type(error).__name__}: {error}). Delete it to go on from the one before."
        ) from None
    return step


def _saved(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"{PREFIX}*") if path.is_dir())
