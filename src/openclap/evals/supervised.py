"""What learns labels by training networks: LAION-CLAP's heads on frozen vectors, and the audio tower with a head.

The settings are LAION-CLAP's, of its supervised classification: the head reads the audio head's vectors before they
are made unit vectors; AdamW at 1e-4 with decay 0.1, batches of 160, 100 epochs. What answers is the epoch that was
best on the clips to choose with. P clips to learn from, N clips, S samples, C classes, D embedding.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from openclap import __version__
from openclap.audio.augment import LAION_STRIPES, hide_stripes
from openclap.data.loader import concatenate, prefetch
from openclap.data.order import epoch_order, sample_rng
from openclap.embedder import Embedder
from openclap.errors import ConfigError
from openclap.evals.clips import EvalClips, Vectors
from openclap.evals.lesson import Lesson, Part, Scorer, figure
from openclap.evals.outcomes import sound_at
from openclap.evals.ranks import Floats, Ints
from openclap.evals.raw import over_pieces, with_networks
from openclap.training.checkpointing import TrainingProgress
from openclap.training.classifier import (
    AudioEncoder,
    LabelledBatches,
    classifier_head,
    multi_label_loss,
    single_label_loss,
    train_classifier,
)
from openclap.training.config import OptimConfig, TrainConfig
from openclap.training.finetune import LARGE_BATCH
from openclap.types import AudioBatch

RATES = (1e-4, 3e-5)
"""Learning rates that fine-tuning chooses from. The first, which wins on a tie, is LAION-CLAP's."""
DECAY, BATCH = 0.1, 160
PATIENCE = 10
"""Epochs of fine-tuning without a better one, after which it stops."""
WIDEST = 8
"""A hidden stripe takes at most one part in so many of the frames, or of the bins."""


def laion_linear(lesson: Lesson) -> tuple[Scorer, str]:
    """A linear layer, taught on the vectors as they are."""
    return _head(lesson, hidden=False)


def laion_mlp(lesson: Lesson) -> tuple[Scorer, str]:
    """The same with a hidden layer."""
    return _head(lesson, hidden=True)


def fine_tune(lesson: Lesson) -> tuple[Scorer, str]:
    """The audio tower learns with the head, from sounds; the model itself stays as it is. The learning rate is chosen
    too. In training a longer clip gives a random stretch, and LAION's stripes are hidden; a clip's answer is the mean
    of its pieces'.

    Raises ConfigError without a model to train, TrainingError when the loss is no longer finite.
    """
    found = [_tuned(lesson, rate) for rate in RATES]
    scorer, progress, rate = max(found, key=lambda each: each[1].best_score or 0.0)
    return scorer, _told("The audio tower and its head", progress, rate, lesson)


def _head(lesson: Lesson, *, hidden: bool) -> tuple[Scorer, str]:
    part, config = lesson.train, _config(lesson, RATES[0])
    torch.manual_seed(lesson.seed)
    network = classifier_head(part.vectors_PD.shape[1], part.truth_PC.shape[1], hidden=hidden)

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in _shuffled(part, config, epoch):
            yield torch.from_numpy(part.vectors_PD[rows]), torch.from_numpy(part.truth_PC[rows])

    @torch.inference_mode()
    def scorer(clips: EvalClips, vectors_ND: Vectors) -> Floats:
        logit_NC: Tensor = network(torch.from_numpy(vectors_ND))
        return logit_NC.numpy().astype(np.float64)

    progress = _taught(lesson, network, batches, config, scorer, None)
    return scorer, _told("A head with a hidden layer" if hidden else "A linear head", progress, RATES[0], lesson)


def _tuned(lesson: Lesson, rate: float) -> tuple[Scorer, TrainingProgress, float]:
    """A copy of the model's audio side with a new head, taught at one rate."""
    if lesson.listener is None:
        raise ConfigError("There is no model to fine-tune: a lesson for it needs its listener.")
    embedder = with_networks(lesson.listener.embedder)
    config = _tuning(_config(lesson, rate), embedder)
    torch.manual_seed(lesson.seed)
    head = classifier_head(embedder.preset.embedding_size, lesson.train.truth_PC.shape[1], hidden=True)
    network = AudioEncoder(embedder.clap, head.to(embedder.device)).requires_grad_(True)
    scorer = _Answers(network, embedder, lesson.listener.batch_size)
    batches = _Sounds(lesson.train, embedder, config).batches
    return scorer, _taught(lesson, network, batches, config, scorer, _keep(lesson, config)), rate


@dataclass(frozen=True, slots=True)
class _Sounds:
    """Clips to learn from as the tower reads them: a pure function of the seed and the epoch."""

    part: Part
    embedder: Embedder
    config: TrainConfig

    def batches(self, epoch: int) -> Iterator[tuple[AudioBatch, Tensor]]:
        """Decoded by threads, one batch ahead."""
        return prefetch(self._read(epoch))

    def _read(self, epoch: int) -> Iterator[tuple[AudioBatch, Tensor]]:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for rows in _shuffled(self.part, self.config, epoch):
                audio = concatenate(list(pool.map(lambda row: self._heard(epoch, row), rows.tolist())))
                yield audio, torch.from_numpy(self.part.truth_PC[rows])

    def _heard(self, epoch: int, row: int) -> AudioBatch:
        rng = sample_rng(self.config.seed, epoch, row)
        wave_S = self.embedder.read(sound_at(self.part.clips, row))
        return hide_stripes(self.embedder.frontend([wave_S], rng=rng), self.config.augment, rng)


@dataclass(frozen=True, slots=True)
class _Answers:
    """A Scorer that hears."""

    network: nn.Module
    embedder: Embedder
    batch_size: int

    def __call__(self, clips: EvalClips, vectors_ND: Vectors) -> Floats:
        """(N, C) logits, from the clips' sounds."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            parts = [
                over_pieces(self.network, self.embedder, list(pool.map(self.embedder.read, sounds)), self.batch_size)
                for sounds in _in_batches(clips, self.batch_size)
            ]
        return np.concatenate(parts).astype(np.float64)


def _in_batches(clips: EvalClips, size: int) -> Iterator[list[object]]:
    for start in range(0, len(clips), size):
        yield [sound_at(clips, row) for row in range(start, min(start + size, len(clips)))]


def _taught(  # noqa: PLR0917
    lesson: Lesson, network: nn.Module, batches: LabelledBatches, config: TrainConfig, scorer: Scorer, keep: Path | None
) -> TrainingProgress:
    """Teach it, scored on what there is to choose with."""

    def tell(epoch: int) -> None:
        if lesson.listener is not None and lesson.listener.progress:
            lesson.listener.progress(f"Learning {config.data}", epoch, config.epochs)

    def score() -> float:
        return figure(lesson.valid, scorer, lesson.many)

    return train_classifier(
        network,
        batches,
        config,
        per_epoch=len(_shuffled(lesson.train, config, 0)),
        loss=multi_label_loss if lesson.many else single_label_loss,
        score=score,
        progress=tell,
        checkpoints=keep,
    )


def _keep(lesson: Lesson, config: TrainConfig) -> Path | None:
    """Beside the model's vectors, under a digest of what the lesson hangs on."""
    cache = lesson.listener.cache if lesson.listener else None
    if cache is None:
        return None
    digest = hashlib.sha256(
        repr((__version__, cache.identity, replace(config, start="", data=""), lesson.many)).encode()
    )
    for part in (lesson.train, lesson.valid):
        digest.update(repr((part.clips.digest, [clip.key for clip in part.clips.clips], part.truth_PC.shape)).encode())
        digest.update(np.packbits(part.truth_PC).tobytes())
    return cache.path.parent / f"taught-{digest.hexdigest()[:24]}"


def _shuffled(part: Part, config: TrainConfig, epoch: int) -> list[Ints]:
    """The rows of one epoch's batches, which are as equal as can be."""
    order_P = epoch_order(np.zeros(len(part.clips), np.int64), config.seed, epoch)
    return list(np.array_split(order_P, -(-len(order_P) // config.batch_size)))


def _config(lesson: Lesson, rate: float) -> TrainConfig:
    """How a head is taught."""
    clips = lesson.train.clips
    return TrainConfig(
        start=lesson.listener.name if lesson.listener else "",
        data=clips.name,
        epochs=lesson.epochs,
        batch_size=max(2, min(BATCH, len(clips))),
        optim=OptimConfig(lr=rate, tower_lr=rate, weight_decay=DECAY, warmup_steps=0),
        trackers=(),
        seed=lesson.seed,
    )


def _tuning(config: TrainConfig, embedder: Embedder) -> TrainConfig:
    """How a tower is taught with it: what it hears is varied, and small batches leave its norms as they are."""
    frontend = embedder.preset.frontend
    time_width = min(LAION_STRIPES.time_width, frontend.frames // WIDEST)
    mel_width = min(LAION_STRIPES.mel_width, frontend.mel.n_mels // WIDEST)
    return replace(
        config,
        augment=replace(LAION_STRIPES, time_width=time_width, mel_width=mel_width),
        freeze_batch_norm=config.batch_size < LARGE_BATCH,
        precision="bf16" if embedder.precision == "bf16" else "fp32",
        patience=PATIENCE,
    )


def _told(what: str, progress: TrainingProgress, rate: float, lesson: Lesson) -> str:
    untaught = "" if progress.best_step else ", for none made it better"
    return (
        f"{what}, learning rate {rate:g}, {progress.best_step} of {lesson.epochs} epochs{untaught}, chosen on "
        f"{lesson.valid.clips.name}."
    )
