"""Patch dropout: towers read part of a clip in training, so steps get cheaper and epochs differ.

HTSAT and PANN drop time, as their layers join neighbours; NaFlex towers drop single patches.

B clips, V views, T frames, F mel bins, N tokens of a map, R rows of a map, K remaining blocks of columns or patches,
C channels, P elements of a patch, E width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from openclap.models.attention import Rotation
from openclap.models.swin import Permutation, layouts, row_order, window_of, window_order


class WholeMap(nn.Module):
    """All tokens of a square map, from row by row to window by window, and the layouts of the stages that read them."""

    def __init__(self, side: int, window: int, depths: tuple[int, ...]) -> None:
        super().__init__()
        size = (side, side)
        self.layouts = layouts(size, window, depths)
        self.to_windows = Permutation(row_order(size), window_order(size, window_of(size, window)))

    def forward(self, x_BNC: Tensor) -> Tensor:
        in_windows: Tensor = self.to_windows(x_BNC)
        return in_windows


class PartOfMap(nn.Module):
    """Some columns of the map, drawn anew for every clip in every step, and layouts of the narrower map.

    A column is a moment in each of the strips that an HTSAT image stacks, so that whole moments are left out, as in
    structured patchout (Koutini et al. 2022, arXiv:2110.05069). Swin adds that neighbours must stay neighbours: the
    columns go in blocks as wide as one column of the last map, so that every merge still joins four tokens that touch,
    and windows of the first stage, where they are as wide as a block, hold one undivided moment. Windows of later
    stages are made narrower where the map no longer divides by their width; their biases are those of the same offsets.
    """

    def __init__(self, side: int, window: int, depths: tuple[int, ...], remaining: int) -> None:
        super().__init__()
        # Each stage but the last halves the map, so this many columns become one in the last map.
        block = 2 ** (len(depths) - 1)
        self.side, self.blocks, self.remaining = side, side // block, remaining
        size = (side, remaining * block)
        self.layouts = layouts(size, window, depths)
        self.to_windows = Permutation(row_order(size), window_order(size, window_of(size, window)))

    def forward(self, x_BNC: Tensor) -> Tensor:
        """Drawn from torch's own generator of the device, which gradient caching and resuming replay."""
        clips, tokens, _ = x_BNC.shape
        drawn_BK = torch.rand(clips, self.blocks, device=x_BNC.device).argsort(dim=1)[:, : self.remaining]
        # Drawn without replacement, then in the order of time: merges and windows join what stands side by side.
        chosen_BK = drawn_BK.sort(dim=1).values
        # Rows of all clips are numbered through, so that a single index_select gathers the whole batch.
        first_R = torch.arange(0, clips * self.side * self.blocks, self.blocks, device=x_BNC.device)
        chosen_BRK = first_R.view(clips, self.side, 1) + chosen_BK.unsqueeze(1)
        pieces = x_BNC.reshape(clips * self.side * self.blocks, -1)  # one block of columns of one row each
        narrow_BNC = pieces.index_select(0, chosen_BRK.flatten()).view(
            clips, tokens * self.remaining // self.blocks, -1
        )
        in_windows: Tensor = self.to_windows(narrow_BNC)
        return in_windows


class TimeCrop(nn.Module):
    """(B, V, T, F) to a stretch of each clip in training, drawn anew in every step; as it is when evaluating."""

    def __init__(self) -> None:
        super().__init__()
        self.share = 0.0

    def forward(self, x_BVTF: Tensor) -> Tensor:
        if not self.training or self.share == 0:
            return x_BVTF
        clips, views, frames, bins = x_BVTF.shape
        # All clips keep the same number of frames, so they still form one batch.
        remaining = max(1, round(frames * (1 - self.share)))
        start_B = (torch.rand(clips, device=x_BVTF.device) * (frames - remaining + 1)).long()
        moments_BT = start_B.unsqueeze(1) + torch.arange(remaining, device=x_BVTF.device)
        return x_BVTF.gather(2, moments_BT[:, None, :, None].expand(-1, views, -1, bins))


class AllPatches(nn.Module):
    """Patches (B, N, P), their validity and their rotation as they are."""

    def forward(
        self, patches_BNP: Tensor, valid_BN: Tensor | None, by: Rotation
    ) -> tuple[Tensor, Tensor | None, Rotation]:
        return patches_BNP, valid_BN, by


class PartOfPatches(nn.Module):
    """Some patches of each clip in training, drawn anew in every step, at their own positions.

    As the drop of tokens in FLIP (Li et al. 2023, arXiv:2212.00794) and timm's PatchDropout: each clip keeps the same
    share of its own patches, at least one.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(
        self, patches_BNP: Tensor, valid_BN: Tensor | None, by: Rotation
    ) -> tuple[Tensor, Tensor | None, Rotation]:
        if not self.training:
            return patches_BNP, valid_BN, by
        clips, patches, _ = patches_BNP.shape
        # Drawn on the device from torch's own generator, which gradient caching and resuming replay.
        drawn_BN = torch.rand(clips, patches, device=patches_BNP.device)
        own_B = torch.full((clips,), patches, device=drawn_BN.device) if valid_BN is None else valid_BN.sum(dim=1)
        if valid_BN is not None:
            drawn_BN = drawn_BN.masked_fill(~valid_BN, 2.0)  # after every patch of the clip
        kept_B = (own_B * (1 - self.share)).round().clamp_min(1)
        most = int(kept_B.max())
        chosen_BK = drawn_BN.argsort(dim=1)[:, :most]
        valid_BK = torch.arange(most, device=kept_B.device) < kept_B[:, None]
        return (
            patches_BNP.gather(1, chosen_BK.unsqueeze(-1).expand(-1, -1, patches_BNP.shape[2])),
            None if bool(valid_BK.all()) else valid_BK,
            Rotation(*(_chosen(table_LE, chosen_BK, patches) for table_LE in by)),
        )


def _chosen(table_LE: Tensor, chosen_BK: Tensor, patches: int) -> Tensor:
    """(B, 1, L', E): the rows of register tokens, which come first, and those of the chosen patches."""
    registers = len(table_LE) - patches
    first_BRE = table_LE[:registers].expand(len(chosen_BK), -1, -1)
    return torch.cat([first_BRE, table_LE[registers:][chosen_BK]], dim=1).unsqueeze(1)
