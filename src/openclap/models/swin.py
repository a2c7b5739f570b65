"""Swin transformer stages (Liu et al. 2021, arXiv:2103.14030) over a map of tokens.

Tokens are in the order of their windows: (B, windows · window², C). Norms, projections and MLPs are independent of the
order, attention needs no rearranging, and a shift, an un-shift or a merge is one gather with an index that is computed
when the network is built.

B clips, N tokens of the map, W windows, M tokens of a window (window²), H heads, C channels, E channels of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

Order = NDArray[np.int64]
"""The token of the map, counted row by row, at each position: a permutation of all tokens."""

Size = tuple[int, int]
"""Height and width in tokens."""

# As in Swin's code: next to nothing after the softmax.
MASKED = -100.0
"""Added to the score of two tokens that are neighbours only by the cyclic shift."""


def row_order(size: Size) -> Order:
    """Return the tokens row by row."""
    return np.arange(size[0] * size[1])


def window_order(size: Size, window: Size, shift: Size = (0, 0)) -> Order:
    """Return the tokens window by window, the map rolled by `shift` towards the top left before it is cut."""
    grid = np.roll(row_order(size).reshape(size), (-shift[0], -shift[1]), axis=(0, 1))
    return _tiles(grid, window).reshape(-1)


class Permutation(nn.Module):
    """(B, N, C) tokens in `source` order to `target` order.

    Its gradient is the inverse permutation, one copy; that of an index, which may name a token twice, is a sum.
    """

    order: Tensor
    inverse: Tensor

    def __init__(self, source: Order, target: Order) -> None:
        super().__init__()
        place = np.argsort(source)
        # Not in the state dict: orders, masks and positions follow from the sizes, so no checkpoint can disagree with
        # them.
        self.register_buffer("order", torch.from_numpy(place[target]), persistent=False)
        self.register_buffer("inverse", torch.from_numpy(np.argsort(place[target])), persistent=False)

    def forward(self, x_BNC: Tensor) -> Tensor:
        if not (x_BNC.requires_grad and torch.is_grad_enabled()):
            return x_BNC.index_select(1, self.order)
        permuted: Tensor = _Permute.apply(x_BNC, self.order, self.inverse)  # type: ignore[no-untyped-call]
        return permuted


class _Permute(torch.autograd.Function):
    @staticmethod
    def forward(x_BNC: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        return x_BNC.index_select(1, order)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, grad_BNC: Tensor) -> tuple[Tensor, None, None]:
        order, inverse = ctx.saved_tensors
        return _Permute.apply(grad_BNC, inverse, order), None, None  # type: ignore[no-untyped-call]


def shift_mask(size: Size, window: Size, shift: Size) -> Tensor:
    """(W, M, M): 0 where two tokens of a shifted window were neighbours on the map, MASKED where they were not."""
    rows, columns = (
        np.digitize(np.arange(length), [length - side, length - by])
        for length, side, by in zip(size, window, shift, strict=True)
    )  # rows and columns of the rolled map come from one of three bands each; without a shift, from one
    bands = np.where(shift[0], rows, 0)[:, None] * 3 + np.where(shift[1], columns, 0)[None, :]
    tiles = torch.from_numpy(_tiles(bands, window)).flatten(1)
    return (tiles.unsqueeze(1) != tiles.unsqueeze(2)).float() * MASKED


def relative_positions(window: Size, largest: int) -> Tensor:
    """(M · M,) rows of a bias table made for square windows of side `largest`, one for each offset of two tokens."""
    # Swin numbers the table by the offset in height, then in width, each counted from 0. A narrower window reads the
    # rows of its own offsets.
    coordinates = torch.stack(torch.meshgrid(*map(torch.arange, window), indexing="ij")).flatten(1)
    offset = coordinates[:, :, None] - coordinates[:, None, :] + largest - 1
    return (offset[0] * (2 * largest - 1) + offset[1]).flatten()


def merge_order(size: Size, next_window: Size) -> Order:
    """The order that puts each 2×2 neighbours side by side, (top left, bottom left, top right, bottom right), the
    groups in window order of the half-sized map."""
    # The order within a group is Swin's: the weights of the reduction are trained for it.
    half = (size[0] // 2, size[1] // 2)
    grid = row_order(size).reshape(half[0], 2, half[1], 2)
    groups = grid.transpose(0, 2, 3, 1).reshape(-1, 4)
    order: Order = groups[window_order(half, next_window)].reshape(-1)
    return order


def window_of(size: Size, largest: int) -> Size:
    """Return the largest window that a map can be cut into, no side longer than `largest`."""
    height, width = (max(side for side in range(1, largest + 1) if length % side == 0) for length in size)
    return height, width


def _tiles(grid: NDArray[np.int64], window: Size) -> NDArray[np.int64]:
    """(H, W) to (windows, window height, window width)."""
    height, width = window
    tiles = grid.reshape(grid.shape[0] // height, height, grid.shape[1] // width, width).transpose(0, 2, 1, 3)
    return tiles.reshape(-1, height, width)


class Layout(nn.Module):
    """The token order of one stage's map in each block, and the masks of its attention.

    Attributes:
        to_shifted, to_windows: from windows as they are to windows shifted by half, and back; neither does anything
            where one window holds the whole map.
        to_next: from the last block's order to that of the next merge or, after the last stage, row by row.
        mask, no_mask: (W, M, M), added to scores in shifted windows, and zeros.
        positions: rows of the bias table.
    """

    mask: Tensor
    no_mask: Tensor
    positions: Tensor

    def __init__(self, size: Size, largest: int, depth: int, *, last: bool) -> None:
        super().__init__()
        window = window_of(size, largest)
        # Half a window, so that the borders of plain windows lie in the middle of shifted ones. Where one window covers
        # the map, as in the last stage, there is no border to bridge.
        by = [side // 2 if length > side else 0 for length, side in zip(size, window, strict=True)]
        shift, windows = (by[0], by[1]), size[0] * size[1] // (window[0] * window[1])
        plain, shifted = window_order(size, window), window_order(size, window, shift)
        # Blocks alternate and begin with plain windows, so a stage of an even depth ends in shifted ones.
        end = shifted if depth % 2 == 0 else plain
        after = row_order(size) if last else merge_order(size, window_of((size[0] // 2, size[1] // 2), largest))
        mask = shift_mask(size, window, shift) if any(shift) else torch.zeros(windows, 1, 1)
        self.to_shifted = Permutation(plain, shifted) if any(shift) else nn.Identity()
        self.to_windows = Permutation(shifted, plain) if any(shift) else nn.Identity()
        self.to_next = Permutation(end, after)
        self.register_buffer("mask", mask, persistent=False)
        self.register_buffer("no_mask", torch.zeros(windows, 1, 1), persistent=False)
        self.register_buffer("positions", relative_positions(window, largest), persistent=False)


def layouts(size: Size, largest: int, depths: Sequence[int]) -> nn.ModuleList:
    """Build the layouts of all stages, each map half as high and wide as the one before."""
    stages = [(size[0] // 2**stage, size[1] // 2**stage) for stage in range(len(depths))]
    return nn.ModuleList(
        Layout(stage, largest, depth, last=number == len(depths))
        for number, (stage, depth) in enumerate(zip(stages, depths, strict=True), start=1)
    )


class WindowAttention(nn.Module):
    """Attention within windows, with a learned bias for each relative position."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        # Swin's initial values, for towers that are trained from scratch.
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BNC: Tensor, mask_WMM: Tensor, positions: Tensor) -> Tensor:
        """`mask_WMM` is added to the scores. Windows and heads share a dimension, so that bias and mask are the
        same for every clip and are laid out once for all of them."""
        windows = len(mask_WMM)
        tokens = x_BNC.shape[1] // windows
        bias_HMM = self.relative_position_bias_table[positions].T.unflatten(1, (tokens, tokens))
        scores_WHMM = mask_WMM.unsqueeze(1) + bias_HMM
        qkv = self.qkv(x_BNC).unflatten(1, (windows, tokens)).unflatten(3, (3, self.heads, -1))
        # (B, W, M, 3, H, E) to three of (B, W·H, M, E).
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
    """Stochastic depth: in training, drop the whole branch of a clip with probability `rate` (Huang et al. 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        is_active = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device) >= self.rate
        # Divided by the share that remains, so that the mean is that of evaluation, where nothing is left out.
        scaled: Tensor = x * (is_active / (1 - self.rate))
        return scaled


class SwinBlock(nn.Module):
    """Attention within windows, then an MLP, both residual."""

    def __init__(self, width: int, heads: int, window: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, window)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, 4 * width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x_BNC: Tensor, mask_WMM: Tensor, positions: Tensor) -> Tensor:
        attended_BNC: Tensor = x_BNC + self.drop_path(self.attn(self.norm1(x_BNC), mask_WMM, positions))
        out_BNC: Tensor = attended_BNC + self.drop_path(self.mlp(self.norm2(attended_BNC)))
        return out_BNC


class PatchMerging(nn.Module):
    """Merge each 2×2 neighbours, adjacent in the order, into one token of twice the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x_BNC: Tensor) -> Tensor:
        merged: Tensor = self.reduction(self.norm(x_BNC.unflatten(1, (-1, 4)).flatten(2)))
        return merged


class SwinStage(nn.Module):
    """Blocks in pairs, windows as they are and shifted by half; then, but for the last stage, a merge.

    (B, N, C) in window order of this map, to (B, N/4, 2C) in window order of the next map; the last stage keeps map
    and width and gives row order. The layout says which map it is.
    """

    def __init__(self, width: int, heads: int, window: int, drop_paths: Sequence[float], *, last: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(SwinBlock(width, heads, window, rate) for rate in drop_paths)
        self.downsample = nn.Identity() if last else PatchMerging(width)

    def forward(self, x_BNC: Tensor, layout: Layout) -> Tensor:
        for number, block in enumerate(self.blocks):
            shifted = number % 2 == 1
            if number > 0:
                # The first block needs no reordering: its input is already in plain windows.
                x_BNC = (layout.to_shifted if shifted else layout.to_windows)(x_BNC)
            x_BNC = block(x_BNC, layout.mask if shifted else layout.no_mask, layout.positions)
        next_map: Tensor = self.downsample(layout.to_next(x_BNC))
        return next_map
