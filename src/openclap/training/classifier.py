"""Train networks that predict labels: a head on embeddings, or a model's audio encoder with a head.

B items of a batch, D embedding, C classes.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openclap.errors import CheckpointError, TrainingError
from openclap.locks import only_writer
from openclap.malloc import retain_freed_memory
from openclap.storage import new_file, write_bytes
from openclap.training.checkpointing import (
    CHECKPOINTS,
    PROGRESS,
    TrainingProgress,
    prune_checkpoints,
    restore_checkpoint,
    save_checkpoint,
)
from openclap.training.config import TrainConfig
from openclap.training.model_setup import build_accelerator, set_training_modes
from openclap.training.optimizer import build_optimizer, schedule_factor, set_learning_rate

if TYPE_CHECKING:
    from accelerate import Accelerator

    from openclap.models.clap import CLAP
    from openclap.types import AudioBatch

LabelledBatches = Callable[[int], Iterable[tuple[Any, Tensor]]]
"""Returns an epoch's batches (from epoch 0): the network's inputs, and a boolean (B, C) matrix of labels."""
DROPOUT = 0.1
"""As in LAION-CLAP's head."""
Weights = Mapping[str, Tensor]


class AudioEncoder(nn.Module):
    """A copy of a model's audio tower and projection head: an AudioBatch to (B, D), before L2 normalisation.

    With a `classifier` on top of them, to (B, C).
    """

    def __init__(self, clap: CLAP, classifier: nn.Module | None = None) -> None:
        super().__init__()
        self.audio_tower = copy.deepcopy(clap.audio_tower)
        self.audio_head = copy.deepcopy(clap.audio_head)
        self.classifier = classifier or nn.Identity()

    def forward(self, batch: AudioBatch) -> Tensor:
        output: Tensor = self.classifier(self.audio_head(self.audio_tower(batch)))
        return output


def classifier_head(size: int, classes: int, *, hidden: bool) -> nn.Module:
    """Build a head from (B, D) to (B, C) logits: linear, or LAION-CLAP's MLP with a hidden layer of 2·D."""
    if not hidden:
        return nn.Linear(size, classes)
    return nn.Sequential(nn.Linear(size, 2 * size), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(2 * size, classes))


def single_label_loss(logit_BC: Tensor, truth_BC: Tensor) -> Tensor:
    """Compute cross-entropy, for items with one label each."""
    # argmax needs numbers; torch has none for booleans.
    return F.cross_entropy(logit_BC, truth_BC.to(torch.uint8).argmax(1))


def multi_label_loss(logit_BC: Tensor, truth_BC: Tensor) -> Tensor:
    """Compute binary cross-entropy, the mean over items and classes."""
    return F.binary_cross_entropy_with_logits(logit_BC, truth_BC.to(logit_BC.dtype))


def train_classifier(
    network: nn.Module,
    batches: LabelledBatches,
    config: TrainConfig,
    *,
    per_epoch: int,
    loss: Callable[[Tensor, Tensor], Tensor],
    score: Callable[[], float],
    progress: Callable[[int], None] = lambda epoch: None,
    checkpoints: Path | None = None,
) -> TrainingProgress:
    """Train `network` for `config.epochs` epochs, or until `config.patience` runs out, and restore its best weights.

    Args:
        per_epoch: batches in an epoch.
        loss: of logits and labels: `single_label_loss` or `multi_label_loss`.
        score: scores the network as it is, in evaluation mode; higher is better.
        progress: called with the number of epochs done, after each.
        checkpoints: a folder to resume from when training was stopped, and to load the result from when it is done.

    Returns:
        Progress counted in epochs instead of steps; epoch 0 is the initial network.

    Raises TrainingError for a loss or weights that are not finite, ConfigError for a choice that this machine does not
    support, CheckpointError for a checkpoint that is damaged or cannot be written.
    """
    accelerator = build_accelerator(config, Path(), device=next(network.parameters()).device)
    wrapped, optimizer = accelerator.prepare(network, build_optimizer(network, config.optim))
    store = ClassifierCheckpoints(checkpoints)
    with store.lock(), retain_freed_memory():
        now, best = store.restore(accelerator)
        if not best:
            # The initial network counts as epoch 0, so that training can never make it worse.
            now, best = _add_score(now, network, score), copy.deepcopy(network.state_dict())
        for epoch in range(now.step, config.epochs):
            if config.patience and now.validations_since_best >= config.patience:
                break
            set_training_modes(network, config, epoch)
            for number, (inputs, truth_BC) in enumerate(batches(epoch), start=epoch * per_epoch):
                set_learning_rate(optimizer, _rate_factor(config, number, per_epoch))
                optimizer.zero_grad(set_to_none=True)
                batch_loss = loss(wrapped(inputs.to(accelerator.device)), truth_BC.to(accelerator.device))
                _check_loss(batch_loss, epoch, config)  # before the update, which would ruin the weights
                accelerator.backward(batch_loss)
                accelerator.clip_grad_norm_(network.parameters(), config.optim.clip_norm)
                optimizer.step()
            _check_weights(network, epoch, config)
            now = _add_score(replace(now, step=epoch + 1), network, score)
            if now.best_step == now.step:
                # In memory, so that the best weights are there without a folder, too.
                best = copy.deepcopy(network.state_dict())
            store.save(accelerator, now, best)
            progress(now.step)
        store.finish(now)
    network.load_state_dict(best)
    network.eval()
    return now


def _add_score(progress: TrainingProgress, network: nn.Module, score: Callable[[], float]) -> TrainingProgress:
    network.eval()
    return progress.with_score(score())


def _rate_factor(config: TrainConfig, step: int, per_epoch: int) -> float:
    return schedule_factor(config.optim, step, config.epochs * per_epoch)


def _check_weights(network: nn.Module, epoch: int, config: TrainConfig) -> None:
    """Raise TrainingError when the epoch's last update has left weights that are not finite; scoring would blame the
    sounds."""
    if not all(bool(weight.isfinite().all()) for weight in network.parameters()):
        raise TrainingError(
            f"{config.data}: in epoch {epoch + 1} the weights have become infinite or NaN, at a learning rate of "
            f"{config.optim.lr:g}."
        )


def _check_loss(loss: Tensor, epoch: int, config: TrainConfig) -> None:
    if not math.isfinite(loss.item()):
        raise TrainingError(
            f"{config.data}: in epoch {epoch + 1} the loss is {loss.item()}, at a learning rate of {config.optim.lr:g}."
        )


@dataclass(frozen=True, slots=True)
class ClassifierCheckpoints:
    """Resumable checkpoints of classifier training: continue after the last whole epoch, and skip a finished training.

    The folder has the last epoch's checkpoint and the best weights; when training is done, the best weights and
    `progress.json`. Without a folder, nothing is saved.
    """

    folder: Path | None = None

    def lock(self) -> AbstractContextManager[None]:
        """Take the right to write in the folder. Raises DataError when another process has it."""
        if self.folder is None:
            return nullcontext()
        self.folder.mkdir(parents=True, exist_ok=True)
        return only_writer(self.folder)

    def restore(self, accelerator: Accelerator) -> tuple[TrainingProgress, Weights]:
        """Restore network, optimizer and progress, and load the best weights; without a checkpoint, no weights.

        Raises CheckpointError for a damaged file.
        """
        if self.folder is None:
            return TrainingProgress(), {}
        try:
            finished = self.folder / PROGRESS
            values = json.loads(finished.read_text(encoding="utf-8")) if finished.is_file() else None
            # A finished training has progress.json and no checkpoints any more.
            progress = (
                TrainingProgress(**values) if values else restore_checkpoint(accelerator, self.folder / CHECKPOINTS)
            )
            if progress.best_score is None:
                return progress, {}
            return progress, torch.load(_best_file(self.folder, progress), map_location="cpu", weights_only=True)
        except Exception as error:  # damaged bytes can fail in any way
            raise CheckpointError(
                f"{self.folder}: the trained classifier there cannot be read ({type(error).__name__}). Delete the "
                "folder to train it again."
            ) from None

    def save(self, accelerator: Accelerator, progress: TrainingProgress, best: Weights) -> None:
        """Save an epoch. Raises CheckpointError where that fails, which leaves the checkpoint before it whole."""
        if self.folder is None:
            return
        place = _best_file(self.folder, progress)
        try:
            # Weights first: a checkpoint must never name best weights that are not there.
            if not place.is_file():
                with new_file(place) as file:
                    torch.save(dict(best), file)
        except (OSError, RuntimeError) as error:  # torch's own writer raises RuntimeError for a full disk
            raise CheckpointError(
                f"{place}: cannot be written ({error}). Free some space and run the same command to continue."
            ) from None
        save_checkpoint(accelerator, self.folder / CHECKPOINTS, progress)
        prune_checkpoints(self.folder / CHECKPOINTS, keep=1)
        for other in self.folder.glob("best-*.pt"):
            if other != place:
                other.unlink()

    def finish(self, progress: TrainingProgress) -> None:
        """Mark training as finished, and remove all but the best weights."""
        if self.folder is not None:
            write_bytes(self.folder / PROGRESS, json.dumps(asdict(progress)).encode())
            shutil.rmtree(self.folder / CHECKPOINTS, ignore_errors=True)


def _best_file(folder: Path, progress: TrainingProgress) -> Path:
    return folder / f"best-{progress.best_step:08d}.pt"
