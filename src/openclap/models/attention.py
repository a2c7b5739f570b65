"""Attention as in the transformers of NaFlexCLAP: rotary positions, normed queries and keys, a gate on the output.

B items, L tokens, H heads, D width, E = D / H width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROTARY_BASE = 10000.0


class Rotation(NamedTuple):
    """Cosines and sines (L, E) by which `rotate` turns the pairs of a head's elements at each position."""

    cos_LE: Tensor
    sin_LE: Tensor


def rotation(angles_LP: Tensor) -> Rotation:
    """The rotation by an angle for each position and each of the P = E / 2 pairs of neighbouring elements."""
    angles_LE = angles_LP.repeat_interleave(2, dim=-1)
    return Rotation(angles_LE.cos(), angles_LE.sin())


def bands(number: int, device: torch.device | None = None) -> Tensor:
    """(P,) angular frequencies 10000^(−i/P), from 1 downwards (Su et al. 2021, arXiv:2104.09864)."""
    return ROTARY_BASE ** (-torch.arange(number, dtype=torch.float32, device=device) / number)


def rotate(x_BHLE: Tensor, by: Rotation) -> Tensor:
    """Turn each pair of neighbours (2i, 2i + 1); other models pair element i with i + E / 2."""
    even, odd = x_BHLE.unflatten(-1, (-1, 2)).unbind(-1)
    turned_BHLE = torch.stack([-odd, even], dim=-1).flatten(-2)
    return x_BHLE * by.cos_LE.to(x_BHLE.dtype) + turned_BHLE * by.sin_LE.to(x_BHLE.dtype)


def keys_only(valid_BL: Tensor | None) -> Tensor | None:
    """The mask (B, 1, 1, L) by which every token attends to valid tokens; None where all are valid."""
    return None if valid_BL is None else valid_BL[:, None, None, :]


class GatedAttention(nn.Module):
    """Self-attention over (B, L, D).

    Args:
        norm: builds the norm of queries and keys over E, before they are rotated; None for none.
        gate: multiply the output, before its last projection, by the sigmoid of a projection of the input.
        bias, gate_bias: whether the projections, and that of the gate, have a bias.
        causal: attend to earlier tokens and to itself only.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        norm: Callable[[int], nn.Module] | None,
        gate: bool,
        bias: bool = True,
        gate_bias: bool = True,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.q_norm = norm(width // heads) if norm else nn.Identity()
        self.k_norm = norm(width // heads) if norm else nn.Identity()
        self.gate = nn.Linear(width, width, bias=gate_bias) if gate else None
        self.proj = nn.Linear(width, width, bias=bias)

    def forward(self, x_BLD: Tensor, by: Rotation, mask: Tensor | None) -> Tensor:
        q_BHLE, k_BHLE, v_BHLE = self.qkv(x_BLD).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed_BHLE = F.scaled_dot_product_attention(
            rotate(self.q_norm(q_BHLE), by),
            rotate(self.k_norm(k_BHLE), by),
            v_BHLE,
            # Padding stands at the end, so a causal token never attends to it, and needs no mask for it.
            attn_mask=None if self.causal else mask,
            is_causal=self.causal,
        )
        out_BLD = mixed_BHLE.transpose(1, 2).flatten(2)
        if self.gate is not None:
            out_BLD = out_BLD * self.gate(x_BLD).sigmoid()
        projected: Tensor = self.proj(out_BLD)
        return projected
