"""Probes that train networks: LAION-CLAP's heads on frozen embeddings, and fine-tuning of the audio tower.

The settings are LAION-CLAP's for supervised classification: the head reads the output of the audio head before L2
normalisation; AdamW at 1e-4 with decay 0.1, batches of 160, 100 epochs. The epoch that was best on the validation clips
answers. Training itself is in `openclap.training.classifier`.

P training clips, N clips, S samples, K outputs of a network, C classes, D embedding.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from openclap import __version__, paths
from openclap.arrays import Floats, Ints, Wave
from openclap.audio.augment import LAION_STRIPES, hide_stripes
from openclap.data.loader import concatenate, prefetch
from openclap.data.order import epoch_order, sample_rng
from openclap.embedder import Embedder
from openclap.embedding_cache import cache_folder
from openclap.errors import AudioError, ConfigError
from openclap.evals.cached_embedder import Embeddings, SoundEmbedder, read_sound
from openclap.evals.dataset import EvalClips
from openclap.evals.probing import LabelledClips, ProbeInput, Scorer, score
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
from openclap.training.finetune_config import LARGE_BATCH
from openclap.types import AudioBatch

RATES = (1e-4, 3e-5)
"""Learning rates that fine-tuning chooses from. The first, which wins on a tie, is LAION-CLAP's."""
DECAY, BATCH = 0.1, 160
PATIENCE = 10
"""Epochs without an improvement after which fine-tuning stops."""
WIDEST = 8
"""A SpecAugment stripe covers at most 1 / WIDEST of the frames, or of the mel bins."""
UNNORMALISED = "before L2 normalisation"


# Probes ---------------------------------------------------------------------------------------------------------------


def laion_linear(data: ProbeInput) -> tuple[Scorer, str]:
    """Train a linear layer on frozen embeddings."""
    return _fit_head(data, hidden=False)


def laion_mlp(data: ProbeInput) -> tuple[Scorer, str]:
    """Train a head with a hidden layer on frozen embeddings."""
    return _fit_head(data, hidden=True)


def fine_tune(data: ProbeInput) -> tuple[Scorer, str]:
    """Train a copy of the audio tower together with a head, from sounds.

    The learning rate is chosen with the epoch. Training takes a random crop of a longer clip and augments it with
    LAION's stripes; the answer for a clip is the mean over its windows.

    Raises ConfigError without a model to train, TrainingError when the loss is no longer finite.
    """
    tuned = [_fit_tower(data, rate) for rate in RATES]
    # max returns the first of equal scores: LAION-CLAP's rate.
    scorer, progress, rate = max(tuned, key=lambda each: each[1].best_score or 0.0)
    return scorer, _settings("The audio tower and its head", progress, rate, data)


def _fit_head(data: ProbeInput, *, hidden: bool) -> tuple[Scorer, str]:
    train, valid = data.with_validation()
    config = _head_config(data, train, RATES[0])
    torch.manual_seed(data.seed)
    network = classifier_head(train.embedding_PD.shape[1], train.truth_PC.shape[1], hidden=hidden)

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in _epoch_batches(train, config, epoch):
            yield torch.from_numpy(train.embedding_PD[rows]), torch.from_numpy(train.truth_PC[rows])

    @torch.inference_mode()
    def scorer(clips: EvalClips, embedding_ND: Embeddings) -> Floats:
        logit_NC: Tensor = network(torch.from_numpy(embedding_ND))
        return logit_NC.numpy().astype(np.float64)

    progress = _train(data, train, valid, network, batches, config, scorer, None)
    return scorer, _settings("A head with a hidden layer" if hidden else "A linear head", progress, RATES[0], data)


def _fit_tower(data: ProbeInput, rate: float) -> tuple[Scorer, TrainingProgress, float]:
    """A copy of the model's audio side with a new head, trained at one rate."""
    if data.model is None:
        raise ConfigError("Fine-tuning needs a model, but the ProbeInput has none.")
    train, valid = data.with_validation()
    embedder = _with_networks(data.model.embedder)
    config = _tower_config(_head_config(data, train, rate), embedder)
    torch.manual_seed(data.seed)
    head = classifier_head(embedder.preset.embedding_size, train.truth_PC.shape[1], hidden=True)
    # A copy: the model itself must stay as it is for other tasks. It was loaded without gradients.
    network = AudioEncoder(embedder.clap, head.to(embedder.device)).requires_grad_(True)
    # Validation reads sounds as the evaluation does: all windows, without augmentation.
    scorer = _SoundScorer(network, embedder, data.model.batch_size)
    batches = _SoundBatches(train, embedder, config).batches
    folder = _checkpoint_folder(data, train, valid, config)
    return scorer, _train(data, train, valid, network, batches, config, scorer, folder), rate


@dataclass(frozen=True, slots=True)
class _SoundBatches:
    """Training clips as the tower reads them: a pure function of the seed and the epoch."""

    train: LabelledClips
    embedder: Embedder
    config: TrainConfig

    def batches(self, epoch: int) -> Iterator[tuple[AudioBatch, Tensor]]:
        """The batches of an epoch, decoded by threads, one batch ahead of training."""
        return prefetch(self._read(epoch))

    def _read(self, epoch: int) -> Iterator[tuple[AudioBatch, Tensor]]:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for rows in _epoch_batches(self.train, self.config, epoch):
                audio = concatenate(list(pool.map(lambda row: self._read_clip(epoch, row), rows.tolist())))
                yield audio, torch.from_numpy(self.train.truth_PC[rows])

    def _read_clip(self, epoch: int, row: int) -> AudioBatch:
        rng = sample_rng(self.config.seed, epoch, row)
        wave_S = self.embedder.read(read_sound(self.train.clips, row))
        return hide_stripes(self.embedder.frontend([wave_S], rng=rng), self.config.augment, rng)


@dataclass(frozen=True, slots=True)
class _SoundScorer:
    """A Scorer that reads the sounds of clips and ignores their embeddings."""

    network: nn.Module
    embedder: Embedder
    batch_size: int

    def __call__(self, clips: EvalClips, embedding_ND: Embeddings) -> Floats:
        """(N, C) logits."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            parts = [
                _mean_over_windows(
                    self.network, self.embedder, list(pool.map(self.embedder.read, sounds)), self.batch_size
                )
                for sounds in _sounds_in_batches(clips, self.batch_size)
            ]
        return np.concatenate(parts).astype(np.float64)


def _sounds_in_batches(clips: EvalClips, size: int) -> Iterator[list[object]]:
    for start in range(0, len(clips), size):
        yield [read_sound(clips, row) for row in range(start, min(start + size, len(clips)))]


def _train(  # noqa: PLR0917
    data: ProbeInput,
    train: LabelledClips,
    valid: LabelledClips,
    network: nn.Module,
    batches: LabelledBatches,
    config: TrainConfig,
    scorer: Scorer,
    folder: Path | None,
) -> TrainingProgress:
    """Train `network`, with the score on the validation clips after every epoch."""

    def report(epoch: int) -> None:
        if data.model is not None and data.model.progress:
            data.model.progress(f"Training on {config.data}", epoch, config.epochs)

    return train_classifier(
        network,
        batches,
        config,
        per_epoch=len(_epoch_batches(train, config, 0)),
        loss=multi_label_loss if data.multilabel else single_label_loss,
        score=lambda: score(valid, scorer, data.multilabel),
        progress=report,
        checkpoints=folder,
    )


def _checkpoint_folder(
    data: ProbeInput, train: LabelledClips, valid: LabelledClips, config: TrainConfig
) -> Path | None:
    """A folder for fine-tuned towers, named after a digest of everything that training depends on."""
    cache = data.model.cache if data.model else None
    if cache is None:
        return None
    digest = hashlib.sha256(
        # Without start and data: their paths may change, and identity and digests stand for their content.
        repr((__version__, cache.identity, replace(config, start="", data=""), data.multilabel)).encode()
    )
    for part in (train, valid):
        digest.update(repr((part.clips.digest, [clip.key for clip in part.clips.clips], part.truth_PC.shape)).encode())
        digest.update(np.packbits(part.truth_PC).tobytes())
    folder = cache.file.folder
    return (paths.home() / "evals" if folder == cache_folder() else folder) / f"tuned-{digest.hexdigest()[:24]}"


def _epoch_batches(train: LabelledClips, config: TrainConfig, epoch: int) -> list[Ints]:
    """The rows of each batch of an epoch; batches are as equal in size as possible."""
    # As if all clips were in one shard: a shuffle of all, the same for a resumed epoch.
    order_P = epoch_order(np.zeros(len(train.clips), np.int64), config.seed, epoch)
    return list(np.array_split(order_P, -(-len(order_P) // config.batch_size)))


def _head_config(data: ProbeInput, train: LabelledClips, rate: float) -> TrainConfig:
    return TrainConfig(
        start=data.model.name if data.model else "",
        data=train.clips.name,
        epochs=data.epochs,
        batch_size=max(2, min(BATCH, len(train.clips))),
        optim=OptimConfig(lr=rate, tower_lr=rate, weight_decay=DECAY, warmup_steps=0),
        trackers=(),
        seed=data.seed,
    )


def _tower_config(config: TrainConfig, embedder: Embedder) -> TrainConfig:
    """The settings of a head, with augmentation, and with fixed norms for small batches."""
    frontend = embedder.preset.frontend
    # LAION's stripes are for 10 s and 64 bins; a smaller input would vanish behind them.
    time_width = min(LAION_STRIPES.time_width, frontend.frames // WIDEST)
    mel_width = min(LAION_STRIPES.mel_width, frontend.mel.n_mels // WIDEST)
    return replace(
        config,
        augment=replace(LAION_STRIPES, time_width=time_width, mel_width=mel_width),
        freeze_batch_norm=config.batch_size < LARGE_BATCH,
        # int8 networks cannot be trained.
        precision="bf16" if embedder.precision == "bf16" else "fp32",
        patience=PATIENCE,
    )


def _settings(network: str, progress: TrainingProgress, rate: float, data: ProbeInput) -> str:
    unimproved = "" if progress.best_step else ", since none improved the score"
    _, valid = data.with_validation()
    return (
        f"{network}, learning rate {rate:g}, {progress.best_step} of {data.epochs} epochs{unimproved}, chosen on "
        f"{valid.clips.name}."
    )


# Embeddings before L2 normalisation -----------------------------------------------------------------------------------


class UnnormalisedEmbedder:
    """A model in fp32 with the output of the audio head, before L2 normalisation, as its embeddings of sounds.

    A sound of several windows gets their mean. Embeddings of text are the model's own. Raises ConfigError for an
    embedder other than `openclap.Embedder`.
    """

    def __init__(self, embedder: SoundEmbedder) -> None:
        self.embedder = _with_networks(embedder)
        self.clip_policy = self.embedder.clip_policy
        self._side = AudioEncoder(self.embedder.clap).eval()

    def embed_audio(self, sounds: list[Any], /, *, batch_size: int = 16) -> Embeddings:
        """(N, D) float32. Raises AudioError for a sound that cannot be decoded."""
        waves = [self.embedder.read(sound) for sound in sounds]
        return _mean_over_windows(self._side, self.embedder, waves, batch_size)

    def embed_each(self, sounds: Sequence[Any], batch_size: int = 16) -> Iterator[Embeddings | AudioError]:
        """For each sound, in order, its (D,) embedding, or the error that explains why it has none."""
        waves = [self._read(sound) for sound in sounds]
        good = [wave for wave in waves if not isinstance(wave, AudioError)]
        vectors = iter(_mean_over_windows(self._side, self.embedder, good, batch_size) if good else ())
        for wave in waves:
            yield wave if isinstance(wave, AudioError) else _finite(next(vectors))

    def embed_text(self, texts: list[str], /) -> Embeddings:
        """(N, D) unit vectors."""
        return self.embedder.embed_text(texts)

    def _read(self, sound: Any) -> Wave | AudioError:
        try:
            return self.embedder.read(sound)
        except AudioError as error:
            return error


def _with_networks(embedder: SoundEmbedder) -> Embedder:
    """The embedder, checked to be one with torch networks. Raises ConfigError otherwise."""
    if not isinstance(embedder, Embedder):
        raise ConfigError(f"{type(embedder).__name__} has no networks, expected an openclap.Embedder.")
    return embedder


@torch.inference_mode()
def _mean_over_windows(network: nn.Module, embedder: Embedder, waves: Sequence[Wave], batch_size: int) -> Embeddings:
    """(N, K) float32: the mean over each waveform's windows of the outputs of `network`, in batches of windows."""
    # Windows of all sounds in one list, so that batches are full whatever the sounds' lengths.
    pieces = [(row, piece) for row, wave_S in enumerate(waves) for piece in embedder.pieces(wave_S)]
    parts = []
    for start in range(0, len(pieces), batch_size):
        batch = embedder.frontend([piece for _, piece in pieces[start : start + batch_size]])
        parts.append(network(batch).float().cpu().numpy())
    row_P = np.array([row for row, _ in pieces])
    sum_NK = np.zeros((len(waves), parts[0].shape[1]), np.float32)
    np.add.at(sum_NK, row_P, np.concatenate(parts))
    return np.asarray(sum_NK / np.bincount(row_P)[:, None], np.float32)


def _finite(vector: Embeddings) -> Embeddings | AudioError:
    if np.isfinite(vector).all():
        return vector
    return AudioError("has no finite embedding. Are its samples far beyond -1..1?")
