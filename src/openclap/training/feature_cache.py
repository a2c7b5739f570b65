"""Cache the outputs of frozen towers across epochs, keyed by log-mel and by caption.

Each input passes through its tower alone, so its output does not depend on its batch, and a resumed run is bit-equal
though it starts with an empty cache. On a GPU, single inputs would be slower than large batches, so nothing is cached
there.

B clips or captions, L tokens, D a tower's size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor, nn

from openclap.audio.augment import UNCHANGED
from openclap.models.clap import CLAP
from openclap.models.modern_text import ModernText
from openclap.models.naflex import join_moments
from openclap.models.text_tower import TextTower
from openclap.training.config import TrainConfig
from openclap.types import AudioBatch, TextBatch

Key = bytes | None
"""A cache key; None for an input that never repeats."""
SplitInputs = Callable[[Any], Iterator[tuple[Key, Any]]]
"""Splits a tower's batch into batches of one, each with its key."""
Output = Tensor | tuple[Tensor, ...]
"""A tower's output: embeddings, or embeddings and moments."""
CAPACITY = 1 << 30
"""Bytes of outputs cached for each tower."""


def cache_frozen_towers(clap: CLAP, config: TrainConfig) -> list[str]:
    """Cache the outputs of towers that are frozen throughout the run, and return these towers' names.

    Nothing is cached where an input would not repeat exactly (one epoch, augmentation), where the tower changes during
    the run (`unfreeze_at`), or where single inputs are slow or inexact (GPU, 16 bits, `compile`).
    """
    # Random crops of long clips do not matter here: they have no key and are computed each time.
    is_plain = config.precision == "fp32" and not (config.compile or config.unfreeze_at)
    if not (config.epochs > 1 and is_plain and clap.logit_scale.device.type == "cpu"):
        return []
    # Of the augmentations only mixup changes captions: it joins two.
    repeats = {"audio_tower": config.augment == UNCHANGED, "text_tower": not config.augment.mixup}
    assert isinstance(clap.text_tower, TextTower | ModernText)
    split_text: SplitInputs = split_padded_captions if clap.text_tower.config.padded else split_captions
    # Towers only. Heads are small and nearly always trained.
    splits = {"audio_tower": split_clips, "text_tower": split_text}
    frozen = [
        name
        for name in splits
        if repeats[name] and name in config.frozen and not _is_trainable(clap.get_submodule(name))
    ]
    for name in frozen:
        # On the instance, so that networks stay free of training's concerns and the saved model has no trace of it.
        tower = clap.get_submodule(name)
        tower.forward = CachedForward(tower.forward, splits[name])
        if name == "audio_tower" and config.objective.frames:
            tower.with_moments = CachedForward(tower.with_moments, splits[name])  # type: ignore[arg-type, assignment]
    return frozen


def _is_trainable(tower: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in tower.parameters())


class CachedForward:
    """A tower's forward pass that computes each input once: a batch to (B, D), or to (B, D) and moments (B, M, D),
    without gradients."""

    def __init__(self, forward: Callable[[Any], Output], split: SplitInputs) -> None:
        self.forward, self.split = forward, split
        self.outputs: dict[bytes, Output] = {}
        self.free_bytes = CAPACITY

    def __call__(self, batch: AudioBatch | TextBatch) -> Output:
        with torch.no_grad():
            outputs = [self._output(key, single) for key, single in self.split(batch)]
        if isinstance(outputs[0], Tensor):
            return torch.cat(outputs)  # type: ignore[arg-type]
        embedded, latent = zip(*outputs, strict=True)
        # Clips at their own length have as many moments as they are long.
        return torch.cat(embedded), join_moments(latent)

    def _output(self, key: Key, single: AudioBatch | TextBatch) -> Output:
        if key is not None and key in self.outputs:
            return self.outputs[key]
        output = self.forward(single)
        # Copies: a view would keep the whole hidden state alive.
        output = output.clone() if isinstance(output, Tensor) else tuple(rows.clone() for rows in output)
        size = sum(rows.nbytes for rows in ([output] if isinstance(output, Tensor) else output))
        # What no longer fits is computed anew each time: slower, and otherwise the same.
        if key is not None and size <= self.free_bytes:
            self.outputs[key] = output
            self.free_bytes -= size
        return output


def split_clips(batch: AudioBatch) -> Iterator[tuple[Key, AudioBatch]]:
    """Split clips, keyed by a digest of the log-mel; a long clip has no key, since each epoch crops it elsewhere."""
    for single in batch.split(1):
        frames = b"" if single.frames_B is None else single.frames_B.numpy().tobytes()
        mel = single.mel_BVTF.numpy().tobytes()
        yield None if bool(single.is_long_B) else blake2b(mel, digest_size=16).digest() + frames, single


def split_captions(batch: TextBatch) -> Iterator[tuple[Key, TextBatch]]:
    """Split captions, keyed by their tokens, without the padding that longer captions of the batch require."""
    for ids_L, mask_L in zip(batch.ids_BL, batch.mask_BL, strict=True):
        tokens = int(mask_L.sum())
        yield ids_L[:tokens].numpy().tobytes(), TextBatch(ids_L[None, :tokens], mask_L[None, :tokens])


def split_padded_captions(batch: TextBatch) -> Iterator[tuple[Key, TextBatch]]:
    """Split captions with their padding, for text towers whose output depends on it."""
    for ids_L, mask_L in zip(batch.ids_BL, batch.mask_BL, strict=True):
        yield ids_L.numpy().tobytes() + mask_L.numpy().tobytes(), TextBatch(ids_L[None], mask_L[None])
