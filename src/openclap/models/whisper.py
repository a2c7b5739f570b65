"""The audio tower of CLAP-Whisper (open_clip): Whisper's encoder (Radford et al. 2022, arXiv:2212.04356), then pooling.

B clips, T frames, F mel bins, L positions (two frames each), D width, H heads, E = D / H.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openclap.models.config import WhisperConfig
from openclap.types import AudioBatch, AudioFeatures


class WhisperTower(nn.Module):
    """Log-mels (B, 1, T, F), T = 2 · positions, to (B, C) embeddings: the mean over pairs of positions."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.conv1 = nn.Conv1d(config.n_mels, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        # Computed, never loaded: not part of the state dict.
        self.register_buffer("positions_LD", sinusoids(config.positions, width), persistent=False)
        self.blocks = nn.ModuleList(WhisperBlock(width, config.heads) for _ in range(config.layers))
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Linear(width, config.embedding_size)

    positions_LD: Tensor

    def forward(self, batch: AudioBatch) -> Tensor:
        """(B, C) embedding."""
        pooled: Tensor = self.states(batch).mean(dim=1)
        return pooled

    def features(self, batch: AudioBatch) -> AudioFeatures:
        """The embedding; this tower has no tagging head."""
        return AudioFeatures(embedding=self(batch))

    def with_moments(self, batch: AudioBatch) -> tuple[Tensor, Tensor]:
        """(B, C) embedding and (B, M, C), the latent vector of each moment: the state of a pair of positions."""
        states_BMC = self.states(batch)
        return states_BMC.mean(dim=1), states_BMC

    def states(self, batch: AudioBatch) -> Tensor:
        """(B, L / 2, C): the projected states of pairs of positions."""
        x_BDT = F.gelu(self.conv1(batch.mel_BVTF[:, 0].transpose(1, 2)))
        x_BLD = F.gelu(self.conv2(x_BDT)).transpose(1, 2)
        x_BLD = x_BLD + self.positions_LD[: x_BLD.shape[1]].to(x_BLD.dtype)
        for block in self.blocks:
            x_BLD = block(x_BLD)
        halved_BLD = F.avg_pool1d(x_BLD.transpose(1, 2), 2).transpose(1, 2)
        projected: Tensor = self.proj(self.ln_post(halved_BLD))
        return projected


def sinusoids(length: int, width: int) -> Tensor:
    """(L, D) position embeddings: sines of D / 2 frequencies from 1 down to 1/10000, then their cosines."""
    step = math.log(10000.0) / (width // 2 - 1)
    angles = torch.arange(length)[:, None] * torch.exp(-step * torch.arange(width // 2))
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class WhisperBlock(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn_ln, self.mlp_ln = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = WhisperAttention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x_BLD: Tensor) -> Tensor:
        x_BLD = x_BLD + self.attn(self.attn_ln(x_BLD))
        out: Tensor = x_BLD + self.mlp(self.mlp_ln(x_BLD))
        return out


class WhisperAttention(nn.Module):
    """Self-attention whose keys have no bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x_BLD: Tensor) -> Tensor:
        q_BHLE, k_BHLE, v_BHLE = (
            layer(x_BLD).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        mixed_BHLE = F.scaled_dot_product_attention(q_BHLE, k_BHLE, v_BHLE)
        out: Tensor = self.out(mixed_BHLE.transpose(1, 2).flatten(2))
        return out
