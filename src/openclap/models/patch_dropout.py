"""Towers that read part of the time in training: steps get cheaper, and no two epochs see the same sound.

B clips, V views, T frames, F bins or columns, N tokens of a map, K blocks of columns, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from openclap.models.swin import gather_index, layouts, row_order, window_of, window_order


class WholeMap(nn.Module):
    """All tokens of a square map, from row by row to window by window, and the layouts of the stages that read them."""

    to_windows: Tensor

    def __init__(self, side: int, window: int, depths: tuple[int, ...]) -> None:
        super().__init__()
        self.layouts = layouts((side, side), window, depths)
        order = window_order((side, side), window_of((side, side), window))
        self.register_buffer("to_windows", gather_index(row_order((side, side)), order), persistent=False)

    def forward(self, x_BNC: Tensor) -> Tensor:
        return x_BNC[:, self.to_windows]


class PartOfMap(nn.Module):
    """Some columns of the map, drawn anew for every clip in every step, and layouts of the narrower map.

    A column is a moment in each of the strips that an HTSAT image stacks, so that whole moments are left out, as in
    structured patchout (Koutini et al. 2022, arXiv:2110.05069). Swin adds that neighbours must stay neighbours: the
    columns go in blocks as wide as one column of the last map, so that every merge still joins four tokens that touch,
    and windows of the first stage, where they are as wide as a block, hold one undivided moment. Windows of later
    stages are made narrower where the map no longer divides by their width; their biases are those of the same offsets.
    """

    rows: Tensor
    columns: Tensor
    to_windows: Tensor

    def __init__(self, side: int, window: int, depths: tuple[int, ...], kept: int) -> None:
        super().__init__()
        block = 2 ** (len(depths) - 1)
        self.blocks, self.kept = side // block, kept
        size = (side, kept * block)
        self.layouts = layouts(size, window, depths)
        order = window_order(size, window_of(size, window))
        self.register_buffer("rows", torch.arange(side)[:, None] * side, persistent=False)
        self.register_buffer("columns", torch.arange(block), persistent=False)
        self.register_buffer("to_windows", gather_index(row_order(size), order), persistent=False)

    def forward(self, x_BNC: Tensor) -> Tensor:
        """Drawn from torch's own generator of the device, which gradient caching and resuming replay."""
        drawn_BK = torch.rand(len(x_BNC), self.blocks, device=x_BNC.device).argsort(dim=1)[:, : self.kept]
        first_BK = drawn_BK.sort(dim=1).values * len(self.columns)
        columns_BF = (first_BK.unsqueeze(2) + self.columns).flatten(1)
        tokens_BN = (self.rows + columns_BF.unsqueeze(1)).flatten(1)[:, self.to_windows]
        return x_BNC.gather(1, tokens_BN.unsqueeze(2).expand(-1, -1, x_BNC.shape[2]))


class TimeCrop(nn.Module):
    """(B, V, T, F) to a stretch of each clip in training, drawn anew in every step; as it is when evaluating."""

    def __init__(self) -> None:
        super().__init__()
        self.share = 0.0

    def forward(self, x_BVTF: Tensor) -> Tensor:
        if not self.training or self.share == 0:
            return x_BVTF
        clips, views, frames, bins = x_BVTF.shape
        kept = max(1, round(frames * (1 - self.share)))
        start_B = (torch.rand(clips, device=x_BVTF.device) * (frames - kept + 1)).long()
        moments_BT = start_B.unsqueeze(1) + torch.arange(kept, device=x_BVTF.device)
        return x_BVTF.gather(2, moments_BT[:, None, :, None].expand(-1, views, -1, bins))
