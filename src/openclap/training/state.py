"""What a run needs to go on exactly: model, optimizer, random states (accelerate keeps these) and how far it is.

The position in the data is a function of the step, so it needs no state of its own.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from openclap.errors import CheckpointError
from openclap.storage import sync_tree

if TYPE_CHECKING:
    from accelerate import Accelerator

STATES, PROGRESS = "states", "progress.json"
PREFIX, DRAFT = "step-", ".draft-"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        step: steps taken.
        start: the score on held-out pairs before the first.
        best: the highest score on held-out pairs so far.
        best_step: the step after which it was reached.
        waited: validations since then.
        first_loss: the loss of the first step.
        doubtful: steps in a row, up to this one, that looked as if the run were lost (see `train.health`).
    """

    step: int = 0
    start: float | None = None
    best: float | None = None
    best_step: int = 0
    waited: int = 0
    first_loss: float | None = None
    doubtful: int = 0

    def scored(self, score: float) -> Progress:
        """After one more validation; the first is of the start."""
        if self.best is None:
            return replace(self, start=score, best=score, best_step=self.step)
        if score > self.best:
            return replace(self, best=score, best_step=self.step, waited=0)
        return replace(self, waited=self.waited + 1)


def save(accelerator: Accelerator, folder: Path, progress: Progress) -> Path:
    """Write the state whole, and remove none (`prune` does). Every process calls this; the first one writes.

    It is written beside its place and renamed, so a kill or a full disk leaves the older ones as they were.
    Raises CheckpointError when it cannot be written.
    """
    place = folder / f"{PREFIX}{progress.step:08d}"
    draft = folder / f"{DRAFT}{place.name}"
    try:
        if accelerator.is_main_process:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(draft))  # each process adds its own random state
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            (draft / PROGRESS).write_text(json.dumps(asdict(progress)), encoding="utf-8")
            shutil.rmtree(place, ignore_errors=True)
            sync_tree(draft)
            draft.rename(place)
    except (OSError, RuntimeError, SafetensorError) as error:  # a full disk: each library has its own way to say so
        shutil.rmtree(draft, ignore_errors=True)
        raise CheckpointError(
            f"{place}: the state of step {progress.step} could not be saved ({error}). Earlier states are whole; "
            "free some space and run the same command to go on."
        ) from None
    return place


def prune(folder: Path, keep: int) -> None:
    """Remove all states but the newest `keep`."""
    for old in saved(folder)[:-keep]:
        shutil.rmtree(old)


def restore(accelerator: Accelerator, folder: Path) -> Progress:
    """Load the newest saved state and say how far it is. Raises CheckpointError if damaged."""
    if accelerator.is_main_process:
        for draft in folder.glob(f"{DRAFT}*"):
            shutil.rmtree(draft, ignore_errors=True)
    accelerator.wait_for_everyone()
    newest = next(iter(saved(folder)[-1:]), None)
    if newest is None:
        return Progress()
    try:
        accelerator.load_state(str(newest))
        return Progress(**json.loads((newest / PROGRESS).read_text(encoding="utf-8")))
    except Exception as error:  # a damaged file fails in as many ways as there are bytes
        raise CheckpointError(
            f"{newest}: cannot be read ({type(error).__name__}: {error}). Delete it to go on from the one before."
        ) from None


def saved(folder: Path) -> list[Path]:
    """The states in a folder, oldest first."""
    return sorted(path for path in folder.glob(f"{PREFIX}*") if path.is_dir())


def step_of(state: Path) -> int:
    """The step that a state was saved after."""
    return int(state.name.removeprefix(PREFIX))
