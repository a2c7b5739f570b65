"""Networks that name labels: a head, alone or on a model's audio side, and how either is taught.

B items of a batch, D embedding, C classes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openclap.errors import TrainingError
from openclap.malloc import all_memory_kept
from openclap.training.config import TrainConfig
from openclap.training.kept import Kept
from openclap.training.model_setup import accelerator_for, set_modes
from openclap.training.optimizer import SCHEDULES, build_optimizer, set_rate
from openclap.training.state import Progress

if TYPE_CHECKING:
    from openclap.models.clap import CLAP
    from openclap.types import AudioBatch

Batches = Callable[[int], Iterable[tuple[Any, Tensor]]]
"""An epoch, from 0, to its batches: what the network reads, and which labels each item has (B, C)."""
DROPOUT = 0.1
"""Of LAION-CLAP's head."""


class AudioSide(nn.Module):
    """A copy of a model's audio tower and head: an AudioBatch to (B, D), before L2 normalisation.

    With `labels`, which reads these, to (B, C).
    """

    def __init__(self, clap: CLAP, labels: nn.Module | None = None) -> None:
        super().__init__()
        self.audio_tower = copy.deepcopy(clap.audio_tower)
        self.audio_head = copy.deepcopy(clap.audio_head)
        self.labels = labels or nn.Identity()

    def forward(self, batch: AudioBatch) -> Tensor:
        found: Tensor = self.labels(self.audio_head(self.audio_tower(batch)))
        return found


def label_head(size: int, classes: int, *, hidden: bool) -> nn.Module:
    """(B, D) to (B, C) logits: linear, or LAION-CLAP's MLP, whose hidden layer has twice as many numbers."""
    if not hidden:
        return nn.Linear(size, classes)
    return nn.Sequential(nn.Linear(size, 2 * size), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(2 * size, classes))


def of_one(logit_BC: Tensor, truth_BC: Tensor) -> Tensor:
    """Cross-entropy, where each item has one label."""
    return F.cross_entropy(logit_BC, truth_BC.to(torch.uint8).argmax(1))


def of_many(logit_BC: Tensor, truth_BC: Tensor) -> Tensor:
    """Binary cross-entropy, the mean over items and classes."""
    return F.binary_cross_entropy_with_logits(logit_BC, truth_BC.to(logit_BC.dtype))


def teach(
    network: nn.Module,
    batches: Batches,
    config: TrainConfig,
    *,
    per_epoch: int,
    loss: Callable[[Tensor, Tensor], Tensor],
    score: Callable[[], float],
    tell: Callable[[int], None] = lambda epoch: None,
    keep: Path | None = None,
) -> Progress:
    """Teach `network` for `config.epochs` epochs, or until `config.patience` of them were no
    better; then leave it as it was when it was best. What is best is told in epochs, 0 for the start.

    Args:
        per_epoch: how many batches an epoch has.
        loss: of logits and labels, `of_one` or `of_many`.
        score: of the network as it is, in evaluation mode; more is better.
        tell: told each epoch that is over.
        keep: a folder (see `Kept`) where it goes on when it was stopped, and is found when it was done.

    Raises TrainingError when the loss is no longer finite, ConfigError for what this machine cannot do, CheckpointError
    for what is kept and damaged, or cannot be.
    """
    accelerator = accelerator_for(config, Path(), device=next(network.parameters()).device)
    wrapped, optimizer = accelerator.prepare(network, build_optimizer(network, config.optim))
    kept = Kept(keep)
    with kept.alone(), all_memory_kept():
        progress, best = kept.begin(accelerator)
        if not best:
            progress, best = _scored(progress, network, score), copy.deepcopy(network.state_dict())
        for epoch in range(progress.step, config.epochs):
            if config.patience and progress.waited >= config.patience:
                break
            set_modes(network, config, epoch)
            for number, (inputs, truth_BC) in enumerate(batches(epoch), start=epoch * per_epoch):
                set_rate(optimizer, _share(config, number, per_epoch))
                optimizer.zero_grad(set_to_none=True)
                lost = loss(wrapped(inputs.to(accelerator.device)), truth_BC.to(accelerator.device))
                _check(lost, epoch, config)
                accelerator.backward(lost)
                accelerator.clip_grad_norm_(network.parameters(), config.optim.clip_norm)
                optimizer.step()
            _check_weights(network, epoch, config)
            progress = _scored(replace(progress, step=epoch + 1), network, score)
            if progress.best_step == progress.step:
                best = copy.deepcopy(network.state_dict())
            kept.save(accelerator, progress, best)
            tell(progress.step)
        kept.end(progress)
    network.load_state_dict(best)
    network.eval()
    return progress


def _scored(progress: Progress, network: nn.Module, score: Callable[[], float]) -> Progress:
    network.eval()
    return progress.scored(score())


def _share(config: TrainConfig, step: int, per_epoch: int) -> float:
    """Of the base rate."""
    schedule = SCHEDULES[config.optim.schedule]
    return schedule(step, warmup_steps=config.optim.warmup_steps, total_steps=config.epochs * per_epoch)


def _check_weights(network: nn.Module, epoch: int, config: TrainConfig) -> None:
    """Raise TrainingError when the epoch's last update has left weights that are not finite: a score would blame the
    sounds."""
    if not all(bool(weight.isfinite().all()) for weight in network.parameters()):
        raise TrainingError(
            f"{config.data}: in epoch {epoch + 1} the weights have become infinite or NaN, at a learning rate of "
            f"{config.optim.lr:g}."
        )


def _check(loss: Tensor, epoch: int, config: TrainConfig) -> None:
    if not math.isfinite(loss.item()):
        raise TrainingError(
            f"{config.data}: in epoch {epoch + 1} the loss is {loss.item()}, at a learning rate of {config.optim.lr:g}."
        )
