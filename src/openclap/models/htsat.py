"""HTSAT, the hierarchical token-semantic audio transformer (Chen et al. 2022, arXiv:2202.00874).

A log-mel is folded into a square image, which a Swin transformer encodes. The mean of its last map is the embedding,
and a convolution over that map gives class scores for each moment.

B clips, V views, T frames, F mel bins, S side of the image, N tokens, C channels, K classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openclap.models.config import HTSAT_PATCH, HTSATConfig
from openclap.models.fusion import FUSIONS, WhereLong, end_to_end, only_long, view_module
from openclap.models.patch_dropout import PartOfMap, WholeMap
from openclap.models.swin import SwinStage
from openclap.types import AudioBatch, AudioFeatures

DROP_PATH = 0.1
"""Stochastic depth of the last block; it grows linearly from 0 in the first."""


class HTSAT(nn.Module):
    """Log-mels (B, V, T, F) to (B, C) embeddings: the mean over the last map."""

    def __init__(self, config: HTSATConfig) -> None:
        super().__init__()
        self.config = config
        side = config.image // HTSAT_PATCH
        rates = torch.linspace(0, DROP_PATH, sum(config.depths)).tolist()
        starts = [sum(config.depths[:stage]) for stage in range(len(config.depths))]
        self.bn0 = nn.BatchNorm2d(config.n_mels)
        self.views = view_module(config.fusion, config.n_mels)
        self.fold = Fold(config.image, config.n_mels)
        self.patch_embed = patch_embedding(config)
        self.layers = nn.ModuleList(
            SwinStage(
                config.width * 2**stage,
                config.heads[stage],
                config.window,
                rates[starts[stage] : starts[stage] + config.depths[stage]],
                last=stage == len(config.depths) - 1,
            )
            for stage in range(len(config.depths))
        )
        self.norm = nn.LayerNorm(config.embedding_size)
        # The last map is 8×8 for LAION's sizes, with 4 pieces of the log-mel stacked in it, so each moment has 2 rows
        # of frequency, which the tagging head reads at once.
        last, bands = side // 2 ** (len(config.depths) - 1), config.image // config.n_mels
        self.tagger = Tagger(config.embedding_size, config.classes, last // bands) if config.classes else None
        self.whole = WholeMap(side, config.window, config.depths)
        # Kept apart from `whole`, because validation during training reads the whole map with the same network.
        self.training_map: WholeMap | PartOfMap = self.whole

    def drop_patches(self, share: float) -> None:
        """Drop this share of the time in training steps, rounded to columns of the last map (eighths); 0 for none.
        Evaluation and `features` read everything."""
        side, depths = self.config.image // HTSAT_PATCH, self.config.depths
        columns = side // 2 ** (len(depths) - 1)
        remaining = max(1, round(columns * (1 - share)))
        # Layouts are computed on the CPU, and the network may already be on its device.
        part = PartOfMap(side, self.config.window, depths, remaining) if remaining < columns else self.whole
        self.training_map = part.to(self.norm.weight.device)

    def forward(self, batch: AudioBatch) -> Tensor:
        """(B, C) embedding."""
        return self.last_map(batch, self.training_map if self.training else self.whole).mean(dim=1)

    def features(self, batch: AudioBatch) -> AudioFeatures:
        """Compute the embedding, and the latent vector and class scores of every frame of the image.

        The last map has one moment for 32 frames; moments are repeated to frames, as in the reference.
        """
        map_BNC = self.last_map(batch, self.whole)
        grid_BTFC = self.fold.undo(map_BNC)
        fine_BTC = self.to_frames(grid_BTFC.mean(dim=2))
        if self.tagger is None:
            return AudioFeatures(embedding=map_BNC.mean(dim=1), fine=fine_BTC)
        logits_BTK = self.tagger(grid_BTFC)
        return AudioFeatures(
            embedding=map_BNC.mean(dim=1),
            clipwise=logits_BTK.mean(dim=1).sigmoid(),
            framewise=self.to_frames(logits_BTK.sigmoid()),
            fine=fine_BTC,
        )

    def with_moments(self, batch: AudioBatch) -> tuple[Tensor, Tensor]:
        """(B, C) embedding and (B, M, C), the latent vector of each moment: the mean over its part of the last map."""
        map_BNC = self.last_map(batch, self.whole)
        return map_BNC.mean(dim=1), self.fold.undo(map_BNC).mean(dim=2)

    def to_frames(self, moments_BTK: Tensor) -> Tensor:
        """Repeat moments to as many frames as the image has."""
        frames = self.config.image * self.fold.pieces
        return moments_BTK.repeat_interleave(frames // moments_BTK.shape[1], dim=1)

    def last_map(self, batch: AudioBatch, tokens: WholeMap | PartOfMap) -> Tensor:
        """(B, N, C): the normalised tokens of the last stage, row by row."""
        # Batch norm takes dimension 1 as channels, so mel bins go there: one mean and variance for each, shared by all
        # views. It precedes fusion, as in LAION-CLAP.
        mel_BVTF = self.bn0(batch.mel_BVTF.transpose(1, 3)).transpose(1, 3)
        image_BVSS = self.fold(self.views(mel_BVTF, batch.is_long_B))
        x_BNC = tokens(self.patch_embed(image_BVSS, batch.is_long_B))
        for stage, layout in zip(self.layers, tokens.layouts, strict=True):
            x_BNC = stage(x_BNC, layout)
        normed: Tensor = self.norm(x_BNC)
        return normed


class Fold(nn.Module):
    """(B, V, T, F) to a square (B, V, S, S): time is stretched to S·S/F frames, cut in S/F pieces, and the pieces
    are stacked along frequency."""

    def __init__(self, image: int, n_mels: int) -> None:
        super().__init__()
        self.image, self.pieces = image, image // n_mels

    def forward(self, mel_BVTF: Tensor) -> Tensor:
        size = (self.image * self.pieces, mel_BVTF.shape[-1])
        if mel_BVTF.shape[-2:] != size:
            # As in HTSAT's code: 1001 frames become 4 · 256.
            mel_BVTF = F.interpolate(mel_BVTF, size, mode="bicubic", align_corners=True)
        # Swin reads squares; the pieces keep neighbouring frames and bins neighbours, except at the seams.
        image_BVSS: Tensor = mel_BVTF.unflatten(2, (self.pieces, self.image)).transpose(3, 4).flatten(2, 3)
        return image_BVSS

    def undo(self, map_BNC: Tensor) -> Tensor:
        """(B, N, C) tokens of a square map to (B, time, frequency, C)."""
        side = round(map_BNC.shape[1] ** 0.5)
        grid: Tensor = map_BNC.unflatten(1, (self.pieces, side // self.pieces, side))  # (B, piece, frequency, time, C)
        return grid.transpose(2, 3).flatten(1, 2)


class PatchEmbed(nn.Module):
    """Embed each 4×4 pixels as one token: (B, V, S, S) to (B, N, C), row by row."""

    def __init__(self, width: int, views: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(views, width, HTSAT_PATCH, HTSAT_PATCH)
        self.norm = nn.LayerNorm(width)

    def forward(self, image_BVSS: Tensor, is_long_B: Tensor) -> Tensor:
        return self.tokens(self.proj(image_BVSS))

    def tokens(self, map_BCSS: Tensor) -> Tensor:
        normed: Tensor = self.norm(map_BCSS.flatten(2).transpose(1, 2))
        return normed


class FusedPatchEmbed(PatchEmbed):
    """2-D fusion: local views are embedded with patches three times as long, laid side by side, and fused with the
    whole view's map."""

    def __init__(self, width: int, fusion: str) -> None:
        super().__init__(width, 1)
        # Three times as long in time, because three views share the width of the whole one: 21 columns each, 63 in all,
        # and one of zeros.
        local = (HTSAT_PATCH, 3 * HTSAT_PATCH)
        self.mel_conv2d = nn.Conv2d(1, width, local, local)
        self.fusion_model = FUSIONS[fusion](width, nn.Conv2d)
        self.where_long: WhereLong = only_long

    def forward(self, image_BVSS: Tensor, is_long_B: Tensor) -> Tensor:
        whole = self.proj(image_BVSS[:, :1])

        def fused(clips: Tensor) -> Tensor:
            views = self.mel_conv2d(image_BVSS[clips, 1:].flatten(0, 1).unsqueeze(1))
            both: Tensor = self.fusion_model(whole[clips], end_to_end(views, whole.shape[-1]))
            return both

        return self.tokens(self.where_long(whole, is_long_B, fused))


def patch_embedding(config: HTSATConfig) -> PatchEmbed:
    """Build the first layer that a kind of fusion needs."""
    if config.fusion is not None and config.fusion.endswith("_2d"):
        return FusedPatchEmbed(config.width, config.fusion.removesuffix("_2d"))
    return PatchEmbed(config.width, views=4 if config.fusion == "channel_map" else 1)


class Tagger(nn.Conv2d):
    """The token-semantic head: (B, T, F, C) to the classes' logits of every moment (B, T, K)."""

    def __init__(self, width: int, classes: int, bands: int) -> None:
        # The kernel covers the moment before and the one after, and all rows of them, so frequency disappears.
        super().__init__(width, classes, kernel_size=(bands, 3), padding=(0, 1))

    def forward(self, moments_BTFC: Tensor) -> Tensor:
        return super().forward(moments_BTFC.permute(0, 3, 2, 1)).flatten(2).transpose(1, 2)
