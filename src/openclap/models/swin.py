"""Swin transformer stages (Liu et al. 2021, arXiv:2103.14030) over a square map of tokens.

Tokens are kept in the order of their windows: (B, windows · window², C). Norms, projections and MLPs do not mind
the order, attention then needs no rearranging, and a shift, an un-shift or a merge is one gather with an index
that is computed when the network is built.

B clips, N tokens of the map, W windows, M tokens of a window (window²), H heads, C channels, E channels of a head.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

Order = NDArray[np.int64]
"""Which token of the map, row by row, stands at each place: a permutation of range(side²)."""

MASKED = -100.0
"""What is added to the score of two tokens that a cyclic shift made neighbours."""


def row_order(side: int) -> Order:
    """Row by row."""
    return np.arange(side * side)


def window_order(side: int, window: int, shift: int) -> Order:
    """Window by window, the map rolled by `shift` towards the top left before it is cut."""
    grid = np.roll(row_order(side).reshape(side, side), (-shift, -shift), axis=(0, 1))
    tiles = grid.reshape(side // window, window, side // window, window).transpose(0, 2, 1, 3)
    return tiles.reshape(-1)


def gather_index(source: Order, target: Order) -> Tensor:
    """The index that takes tokens in `source` order to `target` order."""
    place = np.empty_like(source)
    place[source] = np.arange(len(source))
    return torch.from_numpy(place[target])


def shift_mask(side: int, window: int, shift: int) -> Tensor:
    """(W, M, M): 0 where two tokens of a shifted window were neighbours on the map, MASKED where they were not."""
    edges = np.digitize(np.arange(side), [side - window, side - shift])
    # rows and columns of the rolled map come from one of three bands each
    bands = torch.from_numpy(edges[:, None] * 3 + edges[None, :])
    tiles = bands.reshape(side // window, window, side // window, window).transpose(1, 2).reshape(-1, window * window)
    return (tiles.unsqueeze(1) != tiles.unsqueeze(2)).float() * MASKED


def relative_positions(window: int) -> Tensor:
    """(M · M,) rows of the bias table, one for each offset between two tokens of a window."""
    coordinates = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
    offset = coordinates[:, :, None] - coordinates[:, None, :] + window - 1
    return (offset[0] * (2 * window - 1) + offset[1]).flatten()


class WindowAttention(nn.Module):
    """Attention within windows, with a learned bias for each relative position."""

    positions: Tensor

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.tokens = heads, window * window
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.register_buffer("positions", relative_positions(window), persistent=False)

    def forward(self, x_BNC: Tensor, mask_WMM: Tensor) -> Tensor:
        """`mask_WMM` is added to the scores. Windows and heads share a dimension, so that bias and mask are the
        same for every clip and are laid out once for all of them."""
        windows = x_BNC.shape[1] // self.tokens
        bias_HMM = self.relative_position_bias_table[self.positions].T.unflatten(1, (self.tokens, self.tokens))
        scores_WHMM = mask_WMM.unsqueeze(1) + bias_HMM
        qkv = self.qkv(x_BNC).unflatten(1, (windows, self.tokens)).unflatten(3, (3, self.heads, -1))
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5).flatten(2, 3).unbind(0)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=scores_WHMM.flatten(0, 1).unsqueeze(0))
        out = out.unflatten(1, (windows, self.heads)).transpose(2, 3).flatten(3).flatten(1, 2)
        projected: Tensor = self.proj(out)
        return projected


class MLP(nn.Module):
    """Linear, GELU, Linear."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return projected


class DropPath(nn.Module):
    """In training, leaves a whole branch out for a clip with probability `rate` (Huang et al. 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device) >= self.rate
        scaled: Tensor = x * kept / (1 - self.rate)
        return scaled


class SwinBlock(nn.Module):
    """Attention within windows, then an MLP, each added to what came in."""

    def __init__(self, width: int, heads: int, window: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, window)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, 4 * width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x_BNC: Tensor, mask_WMM: Tensor) -> Tensor:
        attended_BNC: Tensor = x_BNC + self.drop_path(self.attn(self.norm1(x_BNC), mask_WMM))
        out_BNC: Tensor = attended_BNC + self.drop_path(self.mlp(self.norm2(attended_BNC)))
        return out_BNC


class PatchMerging(nn.Module):
    """Each 2×2 neighbours to one token of twice the width; the four stand side by side in the order."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x_BNC: Tensor) -> Tensor:
        merged: Tensor = self.reduction(self.norm(x_BNC.unflatten(1, (-1, 4)).flatten(2)))
        return merged


class SwinStage(nn.Module):
    """Blocks in pairs, windows as they are and shifted by half; then, but for the last stage, a merge.

    (B, side², C) in window order of this map, to (B, side²/4, 2C) in window order of the next map; the last stage
    keeps map and width and gives row order.
    """

    to_shifted: Tensor
    to_windows: Tensor
    to_next: Tensor
    mask: Tensor
    no_mask: Tensor

    def __init__(
        self, side: int, width: int, heads: int, window: int, drop_paths: Sequence[float], *, last: bool
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(SwinBlock(width, heads, window, rate) for rate in drop_paths)
        self.downsample = nn.Identity() if last else PatchMerging(width)
        self.shifts = side > window
        shift = window // 2 if self.shifts else 0
        plain, shifted = window_order(side, window, 0), window_order(side, window, shift)
        end = shifted if len(drop_paths) % 2 == 0 else plain
        after = row_order(side) if last else merge_order(side, window)
        mask = shift_mask(side, window, shift) if shift else torch.zeros(1, 1, 1)
        self.register_buffer("to_shifted", gather_index(plain, shifted), persistent=False)
        self.register_buffer("to_windows", gather_index(shifted, plain), persistent=False)
        self.register_buffer("to_next", gather_index(end, after), persistent=False)
        self.register_buffer("mask", mask, persistent=False)
        self.register_buffer("no_mask", torch.zeros((side // window) ** 2, 1, 1), persistent=False)

    def forward(self, x_BNC: Tensor) -> Tensor:
        for number, block in enumerate(self.blocks):
            shifted = self.shifts and number % 2 == 1
            if self.shifts and number > 0:
                x_BNC = x_BNC[:, self.to_shifted if shifted else self.to_windows]
            x_BNC = block(x_BNC, self.mask if shifted else self.no_mask)
        next_map: Tensor = self.downsample(x_BNC[:, self.to_next])
        return next_map


def merge_order(side: int, window: int) -> Order:
    """The order that puts each 2×2 neighbours side by side, (top left, bottom left, top right, bottom right), the
    groups in window order of the half-sized map."""
    grid = row_order(side).reshape(side // 2, 2, side // 2, 2)
    groups = grid.transpose(0, 2, 3, 1).reshape(-1, 4)
    order: Order = groups[window_order(side // 2, window, 0)].reshape(-1)
    return order
