"""Outputs of a network over the windows of sounds, averaged, and a model's embeddings before L2 normalisation.

N clips, S samples, K numbers that a network gives, D embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from openclap.audio.io import Wave
from openclap.embedder import Embedder
from openclap.errors import AudioError, ConfigError
from openclap.evals.clips import SoundEmbedder, Vectors
from openclap.training.classifier import AudioEncoder

RAW = "before L2 normalisation"


class RawEmbedder:
    """A model in fp32 whose vectors of sounds are the audio head's, not made unit vectors; of a sound of several
    pieces, their mean. Its sentences are the model's own.

    Raises ConfigError for what is no `openclap.Embedder`.
    """

    def __init__(self, embedder: SoundEmbedder) -> None:
        self.embedder = with_networks(embedder)
        self.clip_policy = self.embedder.clip_policy
        self._side = AudioEncoder(self.embedder.clap).eval()

    def embed_audio(self, sounds: list[Any], /, *, batch_size: int = 16) -> Vectors:
        """(N, D) float32. Raises AudioError for a sound that cannot be decoded."""
        waves = [self.embedder.read(sound) for sound in sounds]
        return over_pieces(self._side, self.embedder, waves, batch_size)

    def embed_each(self, sounds: Sequence[Any], batch_size: int = 16) -> Iterator[Vectors | AudioError]:
        """For each sound, in order, its (D,) vector, or the error that says why it has none."""
        waves = [self._read(sound) for sound in sounds]
        good = [wave for wave in waves if not isinstance(wave, AudioError)]
        vectors = iter(over_pieces(self._side, self.embedder, good, batch_size) if good else ())
        for wave in waves:
            yield wave if isinstance(wave, AudioError) else _finite(next(vectors))

    def embed_text(self, texts: list[str], /) -> Vectors:
        """(N, D) unit vectors."""
        return self.embedder.embed_text(texts)

    def _read(self, sound: Any) -> Wave | AudioError:
        try:
            return self.embedder.read(sound)
        except AudioError as error:
            return error


def with_networks(embedder: SoundEmbedder) -> Embedder:
    """The same, where its networks can be reached. Raises ConfigError otherwise."""
    if not isinstance(embedder, Embedder):
        raise ConfigError(f"{type(embedder).__name__} has no networks to reach, expected what openclap.load gives.")
    return embedder


@torch.inference_mode()
def over_pieces(network: nn.Module, embedder: Embedder, waves: Sequence[Wave], batch_size: int) -> Vectors:
    """(N, K) float32: what `network` makes of each waveform's pieces, averaged; `batch_size` pieces at a time."""
    pieces = [(row, piece) for row, wave_S in enumerate(waves) for piece in embedder.pieces(wave_S)]
    parts = []
    for start in range(0, len(pieces), batch_size):
        batch = embedder.frontend([piece for _, piece in pieces[start : start + batch_size]])
        parts.append(network(batch).float().cpu().numpy())
    row_P = np.array([row for row, _ in pieces])
    sum_NK = np.zeros((len(waves), parts[0].shape[1]), np.float32)
    np.add.at(sum_NK, row_P, np.concatenate(parts))
    return np.asarray(sum_NK / np.bincount(row_P)[:, None], np.float32)


def _finite(vector: Vectors) -> Vectors | AudioError:
    if np.isfinite(vector).all():
        return vector
    return AudioError("gives no finite vector. Are its samples far beyond -1..1?")
