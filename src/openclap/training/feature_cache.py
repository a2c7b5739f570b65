"""Cache the outputs of frozen towers across epochs: by a clip's log-mel, and by caption.

Each input goes through its tower alone, so that its output does not depend on its batch, and a resumed run is bit-equal
though it computes everything again. On a GPU single inputs would be slower than large batches, so nothing is cached
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
from openclap.models.text_tower import TextTower
from openclap.training.config import TrainConfig
from openclap.types import AudioBatch, TextBatch

Known = bytes | None
"""By what an input is known again; None for one that never comes again."""
Parts = Callable[[Any], Iterator[tuple[Known, Any]]]
"""A tower's batch to batches of one, with what each is known by."""
ROOM = 1 << 30
"""Bytes of vectors that one tower keeps."""


def remember(clap: CLAP, config: TrainConfig) -> list[str]:
    """Let the towers that are the same all through a run remember; their names."""
    again = config.epochs > 1 and config.augment == UNCHANGED
    plain = config.precision == "fp32" and not (config.compile or config.unfreeze_at)
    if not (again and plain and clap.logit_scale.device.type == "cpu"):
        return []
    assert isinstance(clap.text_tower, TextTower)
    texts: Parts = whole_captions if clap.text_tower.config.padded else captions
    parts = {"audio_tower": clips, "text_tower": texts}
    still = [name for name in parts if name in config.frozen and not _learns(clap.get_submodule(name))]
    for name in still:
        tower = clap.get_submodule(name)
        tower.forward = Remembered(tower.forward, parts[name])
    return still


def _learns(tower: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in tower.parameters())


class Remembered:
    """A tower's forward pass that computes nothing twice: a batch to (B, D), without gradients."""

    def __init__(self, forward: Callable[[Any], Tensor], parts: Parts) -> None:
        self.forward, self.parts = forward, parts
        self.vectors: dict[bytes, Tensor] = {}
        self.room = ROOM

    def __call__(self, batch: AudioBatch | TextBatch) -> Tensor:
        with torch.no_grad():
            return torch.cat([self._vector(known, one) for known, one in self.parts(batch)])

    def _vector(self, known: Known, one: AudioBatch | TextBatch) -> Tensor:
        if known is not None and known in self.vectors:
            return self.vectors[known]
        vector_1D = self.forward(one).clone()  # of its own: a view would keep all states that it is a part of
        if known is not None and vector_1D.nbytes <= self.room:
            self.vectors[known] = vector_1D
            self.room -= vector_1D.nbytes
        return vector_1D


def clips(batch: AudioBatch) -> Iterator[tuple[Known, AudioBatch]]:
    """Clips by a digest of their log-mels; of a long one, each epoch hears another stretch."""
    for one in batch.split(1):
        frames = b"" if one.frames_B is None else one.frames_B.numpy().tobytes()
        mel = one.mel_BVTF.numpy().tobytes()
        yield None if bool(one.is_long_B) else blake2b(mel, digest_size=16).digest() + frames, one


def captions(batch: TextBatch) -> Iterator[tuple[Known, TextBatch]]:
    """Captions by their tokens, without the padding that longer ones brought."""
    for ids_L, mask_L in zip(batch.ids_BL, batch.mask_BL, strict=True):
        tokens = int(mask_L.sum())
        yield ids_L[:tokens].numpy().tobytes(), TextBatch(ids_L[None, :tokens], mask_L[None, :tokens])


def whole_captions(batch: TextBatch) -> Iterator[tuple[Known, TextBatch]]:
    """The same where padding counts."""
    for ids_L, mask_L in zip(batch.ids_BL, batch.mask_BL, strict=True):
        yield ids_L.numpy().tobytes() + mask_L.numpy().tobytes(), TextBatch(ids_L[None], mask_L[None])
