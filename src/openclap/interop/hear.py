"""The common API of HEAR, the Holistic Evaluation of Audio Representations (Turian et al. 2022, arXiv:2203.03022).

HEAR's tools take this module by name and a model by path:

    hear-validator openclap.interop.hear --model FOLDER
    python -m heareval.embeddings.runner openclap.interop.hear --model FOLDER

A scene embedding is that of `Embedder.embed_audio`. A timestamp embedding is that of a short window around it.

S clips, N samples, T timestamps, D embedding.
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
"""Sample rates of HEAR's recordings, in Hz."""
WINDOW_S, HOP_MS = 1.0, 50.0
"""HEAR requires a hop of at most 50 ms, the tolerance of its onset scores."""
BATCH = 16
"""Clips, or windows, that are embedded together."""


class HearModel(nn.Module):
    """The model object of HEAR's API.

    Attributes:
        sample_rate: rate of the input in Hz.
        scene_embedding_size, timestamp_embedding_size: D of either.
    """

    def __init__(self, embedder: Embedder, window_s: float | None = None, hop_ms: float = HOP_MS) -> None:
        super().__init__()
        rate = embedder.frontend.sample_rate
        window_s = min(WINDOW_S, embedder.window_s) if window_s is None else window_s
        if rate not in RATES:
            raise ConfigError(
                f"The model reads audio at {rate} Hz, and HEAR's recordings come in {', '.join(map(str, RATES))} Hz."
            )
        if not isinstance(window_s, int | float) or not 1 <= window_s * rate <= embedder.frontend.samples:
            raise ConfigError(
                f"window_s is {window_s!r}, expected at most {embedder.window_s:g} seconds, the model's input."
            )
        if not isinstance(hop_ms, int | float) or not 1000 <= hop_ms * rate < math.inf:
            raise ConfigError(f"hop_ms is {hop_ms!r}, expected a finite number of milliseconds, at least one sample.")
        self.clap, self.logmel = embedder.clap, embedder.frontend.logmel
        self.embedder = embedder
        self.window, self.hop_ms = round(window_s * rate), float(hop_ms)
        self.sample_rate = rate
        self.scene_embedding_size = self.timestamp_embedding_size = embedder.embedding_size
        self.eval()

    def forward(self, audio_SN: Tensor) -> Tensor:
        """Embed whole clips: (S, N) to (S, D)."""
        return torch.cat([self.embedder.audio_tensor(list(part)) for part in audio_SN.split(BATCH)])


def load_model(model_file_path: str = "", window_s: float | None = None, hop_ms: float = HOP_MS) -> HearModel:
    """Load a model that `openclap.load` reads, on the CPU; HEAR's tools move it.

    Args:
        window_s: length of the window around each timestamp in seconds; by default 1, or the model's input if shorter.
        hop_ms: time between timestamps.

    Raises ConfigError for a window, a hop or a sample rate that does not fit.
    """
    from openclap.loading import load

    if not model_file_path:
        raise ConfigError("No model is given. Pass its folder, file or name as model_file_path, or --model.")
    return HearModel(load(model_file_path, device="cpu"), window_s, hop_ms)


def get_scene_embeddings(audio: Tensor, model: HearModel) -> Tensor:
    """Embed (S, N) clips at `model.sample_rate` as (S, D) float32 unit vectors. Raises AudioError for other input."""
    _check(audio)
    with torch.no_grad():
        embeddings_SD: Tensor = model(audio)
    return embeddings_SD


def get_timestamp_embeddings(audio: Tensor, model: HearModel) -> tuple[Tensor, Tensor]:
    """Return (S, T, D) float32 unit vectors, and their (S, T) times in milliseconds from the start.

    Timestamps are multiples of the hop, from 0 to the end of the clip at most; each is computed by itself, so that
    rounding errors do not add up. Windows are padded with silence. Raises AudioError for other input.
    """
    _check(audio)
    clips, samples = audio.shape
    rate, half = model.sample_rate, model.window // 2
    count = int(samples / rate * 1000 / model.hop_ms) + 1
    times_T = torch.arange(count, dtype=torch.float64) * model.hop_ms
    starts_T = (times_T / 1000 * rate).round().long()
    # Padding by half a window shifts the windows, so that each is centred on its timestamp.
    padded_SN = F.pad(audio, (half, model.window))
    with torch.no_grad():
        embeddings = [
            model(torch.cat([padded_SN[:, start : start + model.window] for start in part]))
            # All clips of a few timestamps at a time: memory does not grow with the length of the clips.
            for part in starts_T.split(max(1, BATCH // clips))
        ]
    embeddings_STD = torch.cat([part.unflatten(0, (-1, clips)) for part in embeddings]).transpose(0, 1)
    return embeddings_STD.contiguous(), times_T.float().to(audio.device).expand(clips, -1).contiguous()


def _check(audio: Tensor) -> None:
    """Raise AudioError for anything but (S, N) samples."""
    if not torch.is_tensor(audio) or audio.ndim != 2 or not audio.is_floating_point() or 0 in audio.shape:
        found = f"{audio.dtype} of {tuple(audio.shape)}" if torch.is_tensor(audio) else f"a {type(audio).__name__}"
        raise AudioError(f"audio is {found}, expected a non-empty floating-point tensor of shape (clips, samples).")
    check_samples(audio.detach().float().cpu().numpy(), "audio")
