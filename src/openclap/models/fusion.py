"""Feature fusion for clips longer than the input: the whole view and three local views become one map.

DAF, AFF and iAFF are those of Dai et al. 2021 (arXiv:2009.14082) as LAION-CLAP uses them (Wu et al. 2023,
arXiv:2211.06687, section 3.2). Only long clips are fused; the four views of a short clip are equal, and one is read.

B clips, V views (whole, front, middle, back), T frames, F mel bins, C channels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openclap.models.config import FusionKind

BOTTLENECK = 4
"""Factor by which attention reduces the channels."""
LOCAL_VIEWS = 3
"""Front, middle and back."""


class DirectFusion(nn.Module):
    """DAF: the sum."""

    def __init__(self, channels: int, conv: type[nn.Module]) -> None:
        super().__init__()

    def forward(self, whole: Tensor, local: Tensor) -> Tensor:
        return whole + local


class AttentionFusion(nn.Module):
    """AFF: 2·x·w + 2·y·(1 − w), w = sigmoid(local(x + y) + global(x + y)).

    The factor 2 is in LAION's code but not in the paper. Its weights were trained with it.
    """

    def __init__(self, channels: int, conv: type[nn.Module]) -> None:
        super().__init__()
        self.local_att = bottleneck(channels, conv)
        self.global_att = pooled_bottleneck(channels, conv)

    def forward(self, whole: Tensor, local: Tensor) -> Tensor:
        both = whole + local
        weight = torch.sigmoid(self.local_att(both) + of_several(self.global_att, both))
        return 2 * whole * weight + 2 * local * (1 - weight)


class IterativeAttentionFusion(nn.Module):
    """iAFF: x·w + y·(1 − w), twice, the first result giving the second weight.

    LAION: the second pass reuses the first global branch (test_iaff_reuses_the_first_global_branch). Its checkpoints
    contain a second one, which is never used.
    """

    def __init__(self, channels: int, conv: type[nn.Module]) -> None:
        super().__init__()
        self.local_att = bottleneck(channels, conv)
        self.global_att = pooled_bottleneck(channels, conv)
        self.local_att2 = bottleneck(channels, conv)

    def forward(self, whole: Tensor, local: Tensor) -> Tensor:
        mixed = whole + local
        for branch in (self.local_att, self.local_att2):
            weight = torch.sigmoid(branch(mixed) + of_several(self.global_att, mixed))
            mixed = whole * weight + local * (1 - weight)
        return mixed


def bottleneck(channels: int, conv: type[nn.Module]) -> nn.Sequential:
    """Build two pointwise convolutions, each with batch norm, a quarter of the channels between them."""
    norm = NORMS[conv]
    inner = channels // BOTTLENECK
    return nn.Sequential(conv(channels, inner, 1), norm(inner), nn.ReLU(), conv(inner, channels, 1), norm(channels))


def pooled_bottleneck(channels: int, conv: type[nn.Module]) -> nn.Sequential:
    """Build a bottleneck over the mean of the whole map."""
    return nn.Sequential(POOLS[conv](1), *bottleneck(channels, conv))


def of_several(pooled: nn.Module, x: Tensor) -> Tensor:
    """Apply a pooled branch; in training, a single clip is repeated, as LAION-CLAP does.

    Batch norm needs more than one value per channel, and pooling leaves one for each clip.
    """
    if pooled.training and len(x) == 1:
        return torch.select(pooled(x.repeat_interleave(2, dim=0)), 0, 0).unsqueeze(0)
    result: Tensor = pooled(x)
    return result


NORMS: dict[type[nn.Module], type[nn.Module]] = {nn.Conv1d: nn.BatchNorm1d, nn.Conv2d: nn.BatchNorm2d}
POOLS: dict[type[nn.Module], type[nn.Module]] = {nn.Conv1d: nn.AdaptiveAvgPool1d, nn.Conv2d: nn.AdaptiveAvgPool2d}
# The first part of a FusionKind. Attribute names in these modules are those of LAION's state dict.
FUSIONS: dict[str, type[nn.Module]] = {
    "daf": DirectFusion,
    "aff": AttentionFusion,
    "iaff": IterativeAttentionFusion,
}


class FirstView(nn.Module):
    """No fusion: (B, V, T, F) to its first view, (B, 1, T, F)."""

    def forward(self, mel_BVTF: Tensor, is_long_B: Tensor) -> Tensor:
        return mel_BVTF[:, :1]


class AllViews(nn.Module):
    """The views as they are, for a layer after this one to fuse: 2-D fusion and channel_map."""

    def forward(self, mel_BVTF: Tensor, is_long_B: Tensor) -> Tensor:
        return mel_BVTF


class FusedViews(nn.Module):
    """1-D fusion on the log-mel: (B, 4, T, F) to (B, 1, T, F)."""

    def __init__(self, n_mels: int, fusion: str) -> None:
        super().__init__()
        # Stride 3, because three views share the width of one: 1001 frames become 334 each, 1002 in all, cut to 1001.
        self.mel_conv1d = nn.Sequential(
            nn.Conv1d(n_mels, n_mels, kernel_size=5, stride=3, padding=2), nn.BatchNorm1d(n_mels)
        )
        self.fusion_model = FUSIONS[fusion](n_mels, nn.Conv1d)
        self.where_long: WhereLong = only_long

    def forward(self, mel_BVTF: Tensor, is_long_B: Tensor) -> Tensor:
        whole_BFT = mel_BVTF[:, 0].transpose(1, 2)

        def fused(clips: Tensor) -> Tensor:
            views_BVFT = mel_BVTF[clips, 1:].transpose(2, 3)
            local_BFT = end_to_end(self.mel_conv1d(views_BVFT.flatten(0, 1)), whole_BFT.shape[-1])
            fused_BFT: Tensor = self.fusion_model(whole_BFT[clips], local_BFT)
            return fused_BFT

        return self.where_long(whole_BFT, is_long_B, fused).transpose(1, 2).unsqueeze(1)


def end_to_end(views: Tensor, width: int) -> Tensor:
    """Lay the three local views of each clip, stacked in the batch, side by side along the last dimension.

    The result is zero-padded or cut to `width`.
    """
    # Front, middle and back follow each other as they do in the clip.
    row = torch.cat(views.unflatten(0, (-1, LOCAL_VIEWS)).unbind(1), dim=-1)
    return F.pad(row, (0, max(0, width - row.shape[-1])))[..., :width]


WhereLong = Callable[[Tensor, Tensor, Callable[[Tensor], Tensor]], Tensor]
"""(maps, mask of long clips, function that fuses the clips at some indices) to maps that are fused there."""


def only_long(maps: Tensor, is_long_B: Tensor, fused: Callable[[Tensor], Tensor]) -> Tensor:
    """Fuse the long clips only."""
    long = is_long_B.nonzero().squeeze(1)
    return replaced(maps, is_long_B, fused(long)) if len(long) else maps


def every_clip(maps: Tensor, is_long_B: Tensor, fused: Callable[[Tensor], Tensor]) -> Tensor:
    """Fuse every clip and select the long ones: the same result for exported graphs, whose shapes must be static."""
    is_long = is_long_B.reshape(-1, *[1] * (maps.ndim - 1))
    # In evaluation mode only: in training, short clips would enter the statistics of the fusion's batch norms.
    return torch.where(is_long, fused(torch.arange(maps.shape[0], device=maps.device)), maps)


def replaced(maps: Tensor, is_long_B: Tensor, values: Tensor) -> Tensor:
    """Replace the maps of long clips by `values`, in order."""
    # One gather instead of an assignment, which would change the input. `values` stand in front, so row n of `maps` has
    # the index n + the number of long clips.
    long = is_long_B.long()
    nth_long, nth = long.cumsum(0) - 1, torch.ones_like(long).cumsum(0) - 1
    return torch.cat([values, maps])[torch.where(is_long_B, nth_long, nth + long.sum())]


def view_module(fusion: FusionKind | None, n_mels: int) -> nn.Module:
    """Build the module between log-mels and first layer for a kind of fusion."""
    if fusion is None:
        return FirstView()
    if fusion.endswith("_1d"):
        return FusedViews(n_mels, fusion.removesuffix("_1d"))
    return AllViews()
