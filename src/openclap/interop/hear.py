"""The common API of HEAR, the Holistic Evaluation of Audio Representations (Turian et al. 2022, arXiv:2203.03022).

Its tools take a module by name and a model by path:

    hear-validator openclap.interop.hear --model FOLDER
    python -m heareval.embeddings.runner openclap.interop.hear --model FOLDER

A scene is embedded as `Embedder.embed_audio` does. A timestamp's embedding is that of a short window around it.

S sounds, N samples, T timestamps, D embedding.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openclap.audio.io import check_samples
from openclap.errors import AudioError, ConfigError

if TYPE_CHECKING:
    from openclap.embedder import Embedder

RATES = (16000, 22050, 44100, 48000)
"""Hz in which HEAR's recordings come."""
WINDOW_S, HOP_MS = 1.0, 50.0
"""HEAR asks for a hop of at most 50 ms: its scores of onsets allow as much."""
BATCH = 16
"""Sounds, or windows, that are embedded together."""


class Model(nn.Module):
    """What HEAR's tools hand around.

    Attributes:
        sample_rate: Hz of the sounds that are given.
        scene_embedding_size, timestamp_embedding_size: D of each.
    """

    def __init__(self, embedder: Embedder, window_s: float | None = None, hop_ms: float = HOP_MS) -> None:
        super().__init__()
        rate = embedder.frontend.sample_rate
        window_s = min(WINDOW_S, embedder.window_s) if window_s is None else window_s
        if rate not in RATES:
            raise ConfigError(
                f"The model hears {rate} Hz, and HEAR's recordings come in {', '.join(map(str, RATES))} Hz."
            )
        if not isinstance(window_s, int | float) or not 1 <= window_s * rate <= embedder.frontend.samples:
            raise ConfigError(
                f"window_s is {window_s!r}, expected seconds up to the {embedder.window_s:g} the model reads."
            )
        if not isinstance(hop_ms, int | float) or not 1000 <= hop_ms * rate < math.inf:
            raise ConfigError(f"hop_ms is {hop_ms!r}, expected milliseconds that are longer than one sample.")
        self.clap, self.logmel = embedder.clap, embedder.frontend.logmel
        self.embedder = embedder
        self.window, self.hop_ms = round(window_s * rate), float(hop_ms)
        self.sample_rate = rate
        self.scene_embedding_size = self.timestamp_embedding_size = embedder.preset.embedding_size
        self.eval()

    def forward(self, audio_SN: Tensor) -> Tensor:
        """(S, D): each sound as a whole."""
        return torch.cat([self.embedder.audio_tensor(list(part)) for part in audio_SN.split(BATCH)])


def load_model(model_file_path: str = "", window_s: float | None = None, hop_ms: float = HOP_MS) -> Model:
    """A model, whatever `openclap.load` reads, on the CPU: HEAR's tools move it.

    Args:
        window_s: seconds of sound around each timestamp that its embedding hears; 1, or what the model reads at once.
        hop_ms: from timestamp to timestamp.
    """
    from openclap.loading import load

    if not model_file_path:
        raise ConfigError("No model is given. Pass its folder, file or name as model_file_path, or --model.")
    return Model(load(model_file_path, device="cpu"), window_s, hop_ms)


def get_scene_embeddings(audio: Tensor, model: Model) -> Tensor:
    """(S, D) float32 unit vectors of (S, N) sounds at `model.sample_rate`. Raises AudioError for what is none."""
    _check(audio)
    with torch.no_grad():
        vectors: Tensor = model(audio)
    return vectors


def get_timestamp_embeddings(audio: Tensor, model: Model) -> tuple[Tensor, Tensor]:
    """(S, T, D) float32 unit vectors, and (S, T) where they are, in milliseconds from the start.

    Timestamps are multiples of the hop, from 0 to the end at most, each computed for itself: no rounding adds up. The
    window around one is silent where it reaches beyond the sound. Raises AudioError for what is no sound.
    """
    _check(audio)
    sounds, samples = audio.shape
    rate, half = model.sample_rate, model.window // 2
    stamps = int(samples / rate * 1000 / model.hop_ms) + 1
    times_T = torch.arange(stamps, dtype=torch.float64) * model.hop_ms
    starts_T = (times_T / 1000 * rate).round().long()
    padded_SN = F.pad(audio, (half, model.window))
    with torch.no_grad():
        vectors = [
            model(torch.cat([padded_SN[:, start : start + model.window] for start in part]))
            for part in starts_T.split(max(1, BATCH // sounds))
        ]
    vectors_STD = torch.cat([part.unflatten(0, (-1, sounds)) for part in vectors]).transpose(0, 1)
    return vectors_STD.contiguous(), times_T.float().to(audio.device).expand(sounds, -1).contiguous()


def _check(audio: Tensor) -> None:
    """Raises AudioError for anything but (S, N) samples."""
    if not torch.is_tensor(audio) or audio.ndim != 2 or not audio.is_floating_point() or 0 in audio.shape:
        found = f"{audio.dtype} of {tuple(audio.shape)}" if torch.is_tensor(audio) else f"a {type(audio).__name__}"
        raise AudioError(f"audio is {found}, expected a floating-point tensor (sounds, samples), none of them 0.")
    check_samples(audio.detach().float().cpu().numpy(), "audio")
