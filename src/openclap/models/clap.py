"""The two-tower model: clips and captions in one space.

B clips or captions, T captions of a batch, D embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openclap.models.config import HeadKind
from openclap.types import AudioBatch, AudioFeatures, Features, Moments, PairBatch, TextBatch

INITIAL_SCALE = math.log(1 / 0.07)
LARGEST_SCALE = math.log(100.0)
"""Logarithms of CLIP's logit scale: it starts at 1/0.07 and never exceeds 100 (Radford et al. 2021)."""


def mlp_relu(size_in: int, size_out: int) -> nn.Module:
    """LAION-CLAP's `MLPLayers`."""
    return nn.Sequential(nn.Linear(size_in, size_out), nn.ReLU(), nn.Linear(size_out, size_out))


def mlp_gelu(size_in: int, size_out: int) -> nn.Module:
    """The audio head of open_clip."""
    return nn.Sequential(nn.Linear(size_in, size_out), nn.GELU(), nn.Linear(size_out, size_out))


def mlp_gelu_narrow(size_in: int, size_out: int) -> nn.Module:
    """The default head of open_clip's encoders from transformers: a hidden layer of the mean size, no biases."""
    hidden = (size_in + size_out) // 2
    return nn.Sequential(nn.Linear(size_in, hidden, bias=False), nn.GELU(), nn.Linear(hidden, size_out, bias=False))


class ResidualHead(nn.Module):
    """The projections of Microsoft's CLAP: a linear layer, a second one over its GELU added to it, a layer norm."""

    def __init__(self, size_in: int, size_out: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(size_in, size_out, bias=False)
        self.linear2 = nn.Linear(size_out, size_out, bias=False)
        self.layer_norm = nn.LayerNorm(size_out)
        self.drop = nn.Dropout(0.5)

    def forward(self, x_BC: Tensor) -> Tensor:
        """(B, D)."""
        first_BD = self.linear1(x_BC)
        normed_BD: Tensor = self.layer_norm(first_BD + self.drop(self.linear2(F.gelu(first_BD))))
        return normed_BD


HEADS: dict[HeadKind, Callable[[int, int], nn.Module]] = {
    "mlp_relu": mlp_relu,
    "mlp_gelu": mlp_gelu,
    "mlp_gelu_narrow": mlp_gelu_narrow,
    "linear": partial(nn.Linear, bias=False),
    "linear_bias": nn.Linear,
    "residual_norm": ResidualHead,
}
"""Projections from a tower's size to that of the shared space, by name."""


class MLPTransform(nn.Sequential):
    """Linear, ReLU, dropout, Linear: a transform of embeddings for LAION's four-term loss (its `audio_transform`)."""

    def __init__(self, size: int) -> None:
        super().__init__(nn.Linear(size, size), nn.ReLU(), nn.Dropout(0.1), nn.Linear(size, size))


class CLAP(nn.Module):
    """Audio tower and text tower, a projection head on each, and a learned temperature.

    Args:
        audio_tower: AudioBatch -> (B, `audio_size`); its `features` gives AudioFeatures.
        text_tower: TextBatch -> (B, `text_size`).
        embedding_size: D, the size of the shared space.
        temperatures: 2 for a second one, which LAION's four-term loss uses on the text side.
        transforms: an MLP on each side of the shared space, for that loss.
        audio_head, text_head: the projections, keys of `HEADS`.
        unit_audio: normalise the audio tower's output before its projection.
    """

    def __init__(
        self,
        audio_tower: nn.Module,
        text_tower: nn.Module,
        audio_size: int,
        text_size: int,
        embedding_size: int,
        *,
        temperatures: int = 1,
        transforms: bool = False,
        audio_head: HeadKind = "mlp_relu",
        text_head: HeadKind = "mlp_relu",
        unit_audio: bool = False,
    ) -> None:
        super().__init__()
        self.embedding_size = embedding_size
        self.audio_tower = audio_tower
        self.text_tower = text_tower
        self.audio_head = HEADS[audio_head](audio_size, embedding_size)
        self.text_head = HEADS[text_head](text_size, embedding_size)
        self._before_head = partial(F.normalize, dim=-1) if unit_audio else nn.Identity()
        self.audio_transform = MLPTransform(embedding_size) if transforms else None
        self.text_transform = MLPTransform(embedding_size) if transforms else None
        self.logit_scale = nn.Parameter(torch.tensor(INITIAL_SCALE))
        self.logit_scale_text = nn.Parameter(torch.tensor(INITIAL_SCALE)) if temperatures == 2 else None

    def audio_features(self, batch: AudioBatch) -> AudioFeatures:
        """The audio tower's output before projection, with class scores where it has a tagging head."""
        features: AudioFeatures = self.audio_tower.features(batch)  # type: ignore[operator]
        return features

    def encode_audio(self, batch: AudioBatch) -> Tensor:
        """(B, D), unit norm."""
        return self._project_audio(self.audio_tower(batch))

    def encode_moments(self, batch: AudioBatch) -> Tensor:
        """(B, M, D), unit norm: the moments of each clip in the shared space, at the tower's resolution in time.

        The latent vector of a moment is the tower's pooling of that moment alone: the mean of its part of HTSAT's last
        map, PANN's frame after mean over frequency, the column of patches under NaFlex's attention pool, the state of a
        pair of Whisper's positions. It goes through the head that pooled latents go through, because the head was
        trained on no other. Its context is the tower's receptive field. (Frame-wise similarity before pooling as in
        FLAM, Wu et al. 2025, arXiv:2505.05335; class scores of a tagging head have no part in it.)
        """
        return self._project_audio(self.audio_tower.with_moments(batch)[1])  # type: ignore[operator]

    def _project_audio(self, latent: Tensor) -> Tensor:
        return F.normalize(self.audio_head(self._before_head(latent)), dim=-1)

    def encode_text(self, batch: TextBatch) -> Tensor:
        """(B, D), unit norm."""
        return F.normalize(self.text_head(self.text_tower(batch)), dim=-1)

    def forward(self, batch: PairBatch) -> Features:
        """The features of a batch for an objective, in at least fp32: half precision is too coarse for softmaxes."""
        moments = None
        if batch.phrases is None:
            audio_BD = _fine(self.encode_audio(batch.audio))
        else:
            pooled, latent = self.audio_tower.with_moments(batch.audio)  # type: ignore[operator]
            audio_BD, moments_BMD = _fine(self._project_audio(pooled)), _fine(self._project_audio(latent))
            phrase_PD = _fine(self.encode_text(batch.phrases.text))
            moments = Moments(moments_BMD, phrase_PD, batch.phrases.active_BMP, batch.phrases.valid_BM)
        text_TD = _fine(self.encode_text(batch.text))
        return Features(
            audio_BD=audio_BD,
            text_TD=text_TD,
            clip_B=torch.arange(len(audio_BD), device=audio_BD.device),
            owner_T=batch.owner_T,
            caption_id_T=batch.caption_id_T,
            scale=self.scale,
            scale_text=None if self.logit_scale_text is None else _positive(self.logit_scale_text),
            # LAION: the transforms read unit vectors, and their output is not normalised again
            # (tests/models/test_parity.py).
            audio_mlp_BD=None if self.audio_transform is None else _fine(self.audio_transform(audio_BD)),
            text_mlp_TD=None if self.text_transform is None else _fine(self.text_transform(text_TD)),
            moments=moments,
        )

    @property
    def scale(self) -> Tensor:
        """The factor of similarities, exp(logit_scale), between 1 and 100."""
        return _positive(self.logit_scale)


def _positive(logit_scale: Tensor) -> Tensor:
    # Clamped when it is read: the parameter itself may lie beyond a bound, where it gets no gradient.
    return logit_scale.clamp(0.0, LARGEST_SCALE).exp()


def _fine(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
