"""The simplest contrastive loss, for notebooks and as the reference of tests; training uses `models.objectives`.

B pairs, D embedding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def contrastive_loss(audio_BD: Tensor, text_BD: Tensor, scale: Tensor | float) -> Tensor:
    """Symmetric InfoNCE: each clip picks its caption among the batch's, each caption its clip.

    Equal captions of two clips count as negatives of each other, as in LAION-CLAP.

    Args:
        audio_BD, text_BD: unit vectors, row i of each being a pair.
        scale: the inverse temperature, already exp'd.

    Returns:
        A scalar: the mean of the two cross-entropies (Radford et al. 2021, figure 3).
    """
    logits_BB = scale * audio_BD @ text_BD.T
    pair_B = torch.arange(len(logits_BB), device=logits_BB.device)
    return (F.cross_entropy(logits_BB, pair_B) + F.cross_entropy(logits_BB.T, pair_B)) / 2
