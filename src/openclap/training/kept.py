"""Resumable checkpoints of classifier training: continue after the last whole epoch, and skip a finished training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from openclap.errors import CheckpointError
from openclap.locks import only_writer
from openclap.storage import new_file, write_bytes
from openclap.training import state
from openclap.training.state import PROGRESS, STATES, Progress

if TYPE_CHECKING:
    from accelerate import Accelerator

Weights = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Kept:
    """A folder with the last epoch's state and the best weights; when done, with the best weights and `progress.json`.

    Without a folder nothing is kept.
    """

    folder: Path | None = None

    def alone(self) -> AbstractContextManager[None]:
        """Hold the right to write there. Raises DataError when another process has it."""
        if self.folder is None:
            return nullcontext()
        self.folder.mkdir(parents=True, exist_ok=True)
        return only_writer(self.folder)

    def begin(self, accelerator: Accelerator) -> tuple[Progress, Weights]:
        """How far it is, the networks and the optimizer as they were then, and the best weights; of none, no progress.

        Raises CheckpointError for what is damaged.
        """
        if self.folder is None:
            return Progress(), {}
        try:
            done = self.folder / PROGRESS
            told = json.loads(done.read_text(encoding="utf-8")) if done.is_file() else None
            progress = Progress(**told) if told else state.restore(accelerator, self.folder / STATES)
            if progress.best is None:
                return progress, {}
            return progress, torch.load(_best(self.folder, progress), map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file fails in as many ways as there are bytes
            raise CheckpointError(
                f"{self.folder}: what was learnt there cannot be read ({type(error).__name__}). Delete the folder to "
                "learn it again."
            ) from None

    def save(self, accelerator: Accelerator, progress: Progress, best: Weights) -> None:
        """After an epoch. Raises CheckpointError where it cannot be written; what was saved before stays whole."""
        if self.folder is None:
            return
        place = _best(self.folder, progress)
        try:
            if not place.is_file():
                with new_file(place) as file:
                    torch.save(dict(best), file)
        except (OSError, RuntimeError) as error:  # torch's own writer raises the latter for a full disk
            raise CheckpointError(
                f"{place}: cannot be written ({error}). Free some space and run the same command to go on."
            ) from None
        state.save(accelerator, self.folder / STATES, progress)
        state.prune(self.folder / STATES, keep=1)
        for other in self.folder.glob("best-*.pt"):
            if other != place:
                other.unlink()

    def end(self, progress: Progress) -> None:
        """Keep the best weights alone."""
        if self.folder is not None:
            write_bytes(self.folder / PROGRESS, json.dumps(asdict(progress)).encode())
            shutil.rmtree(self.folder / STATES, ignore_errors=True)


def _best(folder: Path, progress: Progress) -> Path:
    return folder / f"best-{progress.best_step:08d}.pt"
