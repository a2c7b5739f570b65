"""The frame loss: each moment of a clip against the phrases of the batch, beside a contrastive objective.

Models that learn from whole clips and captions alone need not know when a sound is heard. Phrases with on- and offsets
teach it, as in FLAM (Wu et al. 2025, arXiv:2505.05335) and FineLAP: a binary decision for every moment and phrase, with
the phrases of the whole batch as a bank of negatives.

B clips, M moments, P phrases, D embedding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openclap.models.objectives import FRAMES_PREFIX, Objective
from openclap.types import Features, Moments

INITIAL_SCALE, INITIAL_BIAS = math.log(10.0), -2.0


class FrameLoss(nn.Module):
    """Binary cross-entropy of moments and phrases: logits are scale · cosine + bias, both learned.

    Active pairs are rare, so three means are weighted: 1/2 active pairs, 1/4 the other moments of clips that have the
    phrase, which teach when, and 1/4 the phrases of other clips, which teach what. (FLAM corrects for rare pairs by a
    bias that depends on the phrase.) A logit of 0 is then as much for as against the phrase, whatever the batch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.tensor(INITIAL_SCALE)), nn.Parameter(torch.tensor(INITIAL_BIAS))

    def forward(self, moments: Moments) -> Tensor:
        count = min(moments.audio_BMD.shape[1], moments.active_BMP.shape[1])
        active_BMP = moments.active_BMP[:, :count]
        valid_BMP = moments.valid_BM[:, :count, None].expand_as(active_BMP)
        logits_BMP = self.scale.exp() * moments.audio_BMD[:, :count] @ moments.phrase_PD.T + self.bias
        loss_BMP = F.binary_cross_entropy_with_logits(logits_BMP, active_BMP.to(logits_BMP.dtype), reduction="none")
        has_phrase_BMP = active_BMP.any(dim=1, keepdim=True).expand_as(active_BMP)
        loss: Tensor = (
            _mean(loss_BMP, valid_BMP & active_BMP) / 2
            + _mean(loss_BMP, valid_BMP & ~active_BMP & has_phrase_BMP) / 4
            + _mean(loss_BMP, valid_BMP & ~has_phrase_BMP) / 4
        )
        return loss


def _mean(loss: Tensor, chosen: Tensor) -> Tensor:
    """The mean over the chosen pairs; 0, with a gradient of 0, where there are none."""
    return (loss * chosen).sum() / chosen.sum().clamp_min(1)


class WithFrames(Objective):
    """An objective plus `weight` times the frame loss of each process's own batch, averaged over processes."""

    def __init__(self, inner: Objective, weight: float, learned: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.inner, self.weight, self.transforms = inner, weight, inner.transforms
        self.frames = FrameLoss()
        known = {
            name.removeprefix(FRAMES_PREFIX): value for name, value in learned.items() if name.startswith(FRAMES_PREFIX)
        }
        if known:
            self.frames.load_state_dict(known)

    def forward(self, own: Features, everyone: Features) -> Tensor:
        share: Tensor = self.inner(own, everyone)
        if own.moments is None:  # no clip of this process has phrases, but every parameter needs a gradient
            return share + 0.0 * (self.frames.scale + self.frames.bias)
        # Shares of processes are summed, so each counts by its part of the clips.
        frames: Tensor = self.frames(own.moments)
        return share + self.weight * frames * (len(own.clip_B) / len(everyone.clip_B))

    def learned(self) -> dict[str, Tensor]:
        return self.inner.learned() | {FRAMES_PREFIX + name: value for name, value in self.frames.state_dict().items()}
