"""Convolutional audio towers in the manner of PANN (Kong et al. 2020, arXiv:1912.10211).

B clips, V views, C channels, T frames, F mel bins, D embedding, K classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openclap.models.config import PANNConfig
from openclap.models.fusion import FUSIONS, WhereLong, end_to_end, only_long, view_module
from openclap.models.patch_dropout import TimeCrop
from openclap.types import AudioBatch, AudioFeatures

LAST_DROPOUT = 2.5
"""PANN drops 0.5 around the last layer where it drops 0.2 between blocks."""


class ConvBlock(nn.Module):
    """Convolution, batch norm and ReLU for each kernel; then `pool`. (B, C, T, F) to (B, C', T', F')."""

    def __init__(self, width_in: int, width_out: int, kernels: tuple[int, ...], pool: nn.Module) -> None:
        super().__init__()
        self.steps = len(kernels)
        for step, kernel in enumerate(kernels, start=1):
            # Batch norm follows and has a bias of its own.
            conv = nn.Conv2d(width_in, width_out, kernel, padding=kernel // 2, bias=False)
            # Names and order are those of PANN's checkpoints: conv1, conv2, bn1, bn2.
            self.add_module(f"conv{step}", conv)
            width_in = width_out
        for step in range(1, self.steps + 1):
            self.add_module(f"bn{step}", nn.BatchNorm2d(width_out))
        self.pool = pool

    def forward(self, x_BCTF: Tensor) -> Tensor:
        for step in range(1, self.steps + 1):
            conv, norm = self.get_submodule(f"conv{step}"), self.get_submodule(f"bn{step}")
            x_BCTF = F.relu_(norm(conv(x_BCTF)))
        pooled: Tensor = self.pool(x_BCTF)
        return pooled


class CategoryHead(nn.Sequential):
    """Three linear layers with ReLU between: pooled values (B, C) to the probabilities of categories (B, K), which
    exclude each other. Sizes and names are those of aiSFX's classifiers."""

    def __init__(self, width: int, classes: int) -> None:
        sizes = (width // 2, width // 4)
        super().__init__(
            nn.Linear(width, sizes[0]),
            nn.ReLU(),
            nn.Linear(sizes[0], sizes[1]),
            nn.ReLU(),
            nn.Linear(sizes[1], classes),
            nn.Softmax(dim=-1),
        )


class PANN(nn.Module):
    """Log-mels (B, V, T, F) of any number of frames to (B, D) embeddings: mean over frequency, then pooled over time.

    Without linear layer and first norm it is the "Cnn_9layers" of Kong et al.'s DCASE baselines (arXiv:1808.00773),
    which aiSFX (Ma & Lerch, ISMIR 2022) trained on sound-effect libraries.
    """

    def __init__(self, config: PANNConfig) -> None:
        super().__init__()
        self.config = config
        # Blocks beyond `pooled` keep their resolution: PANN-14 pools its sixth block by 1×1, which is an identity.
        halvings = config.halvings
        pools = [POOLS[config.pool](2) if block < halvings else nn.Identity() for block in range(len(config.widths))]
        views = 4 if config.fusion == "channel_map" else 1
        steps = zip((views, *config.widths[:-1]), config.widths, pools, strict=True)
        self.bn0 = nn.BatchNorm2d(config.n_mels) if config.n_mels else None
        self.views = view_module(config.fusion, config.n_mels or 0)
        self.blocks = nn.ModuleList(ConvBlock(i, o, config.kernels, pool) for i, o, pool in steps)
        self.fuse = map_fusion(config)
        self.crop = TimeCrop()
        # One of the two crops, chosen once; the other passes everything on. Cropping early saves the first block as
        # well.
        self.crop_views: nn.Module = nn.Identity() if self.fuse.fuses else self.crop
        self.crop_map: nn.Module = self.crop if self.fuse.fuses else nn.Identity()
        self.over_time = OVER_TIME[config.over_time]
        self.linear = nn.Linear(config.widths[-1], config.widths[-1]) if config.linear else None
        self.categories = nn.ModuleList(CategoryHead(config.widths[-1], classes) for classes in config.categories)
        self.tagger = nn.Linear(config.embedding_size, config.classes) if config.classes else None
        self.between, self.around = nn.Dropout(config.dropout), nn.Dropout(config.dropout * LAST_DROPOUT)
        self.blocks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # 1.3 × faster on CPUs

    def forward(self, batch: AudioBatch) -> Tensor:
        """(B, D) embedding."""
        return self.pool(self.last_map(batch))

    def with_moments(self, batch: AudioBatch) -> tuple[Tensor, Tensor]:
        """(B, D) embedding and (B, M, D), the latent vector of each moment: its part of the last map, pooled."""
        map_BCT = self.last_map(batch)
        alone = map_BCT.transpose(1, 2).flatten(0, 1).unsqueeze(2)  # (B · M, C, 1)
        latent_BMD: Tensor = self.pool(alone).unflatten(0, (-1, map_BCT.shape[2]))
        return self.pool(map_BCT), latent_BMD

    def last_map(self, batch: AudioBatch) -> Tensor:
        """(B, C, T): the output of the last block, averaged over frequency."""
        mel_BVTF = batch.mel_BVTF
        if self.bn0 is not None:
            mel_BVTF = self.bn0(mel_BVTF.transpose(1, 3)).transpose(1, 3)
        views_BVTF = self.crop_views(self.views(mel_BVTF, batch.is_long_B))
        x_BCTF = self.fuse(self.blocks[0](views_BVTF[:, : self.fuse.read]), views_BVTF, batch.is_long_B)
        x_BCTF = self.crop_map(x_BCTF)
        for block in self.blocks[1:]:
            x_BCTF = block(self.between(x_BCTF))
        averaged_BCT: Tensor = self.between(x_BCTF).mean(dim=3)
        return averaged_BCT

    def pool(self, map_BCT: Tensor) -> Tensor:
        """(B, D): the map pooled over time, and the probabilities of categories of the result."""
        pooled_BC = self.over_time(map_BCT)
        if self.linear is not None:
            # Dropout on both sides of the layer, as in PANN.
            pooled_BC = self.around(F.relu_(self.linear(self.around(pooled_BC))))
        return torch.cat([pooled_BC, *(head(pooled_BC) for head in self.categories)], dim=1)

    def drop_patches(self, share: float) -> None:
        """Read a random stretch of each clip in training steps, shorter by this share; 0 for all of it. 2-D fusion puts
        views side by side in time, so there the map is cropped after fusion."""
        self.crop.share = share

    def features(self, batch: AudioBatch) -> AudioFeatures:
        """The embedding and, where there is a tagging head, the class scores of the clip."""
        embedding_BD = self(batch)
        clipwise = None if self.tagger is None else self.tagger(embedding_BD).sigmoid()
        return AudioFeatures(embedding=embedding_BD, clipwise=clipwise)


class FirstMap(nn.Module):
    """No fusion after the first block, which reads `read` views."""

    fuses = False

    def __init__(self, read: int) -> None:
        super().__init__()
        self.read = read

    def forward(self, map_BCTF: Tensor, views_BVTF: Tensor, is_long_B: Tensor) -> Tensor:
        return map_BCTF


class FusedMap(nn.Module):
    """2-D fusion after the first block: local views through a convolution of their own, laid end to end in time."""

    read, fuses = 1, True

    def __init__(self, width: int, fusion: str) -> None:
        super().__init__()
        # Stride 6 in time: 3, because three views share the width of one, times 2 for the pooling of the first block,
        # with whose output the result is fused; 2 in frequency for the same pooling.
        self.mel_conv2d = nn.Sequential(
            nn.Conv2d(1, width, kernel_size=5, stride=(6, 2), padding=2), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.fusion_model = FUSIONS[fusion](width, nn.Conv2d)
        self.where_long: WhereLong = only_long

    def forward(self, map_BCTF: Tensor, views_BVTF: Tensor, is_long_B: Tensor) -> Tensor:
        def fused(clips: Tensor) -> Tensor:
            views_BCFT = self.mel_conv2d(views_BVTF[clips, 1:].flatten(0, 1).unsqueeze(1)).transpose(2, 3)
            local_BCTF = end_to_end(views_BCFT, map_BCTF.shape[2]).transpose(2, 3)
            both: Tensor = self.fusion_model(map_BCTF[clips], local_BCTF)
            return both

        return self.where_long(map_BCTF, is_long_B, fused)


def map_fusion(config: PANNConfig) -> FirstMap | FusedMap:
    """Build the module after the first block for a kind of fusion."""
    if config.fusion is not None and config.fusion.endswith("_2d"):
        return FusedMap(config.widths[0], config.fusion.removesuffix("_2d"))
    return FirstMap(read=4 if config.fusion == "channel_map" else 1)


def _max(x_BCT: Tensor) -> Tensor:
    return torch.amax(x_BCT, dim=2)


def _max_and_mean(x_BCT: Tensor) -> Tensor:
    return torch.amax(x_BCT, dim=2) + x_BCT.mean(dim=2)


POOLS: dict[str, Callable[[int], nn.Module]] = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}
OVER_TIME: dict[str, Callable[[Tensor], Tensor]] = {"max": _max, "max+mean": _max_and_mean}
