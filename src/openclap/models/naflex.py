"""The audio transformer of NaFlexCLAP (open_clip): patches of a log-mel of any length, with axial rotary positions.

A vision transformer with the parts of NaViT (Dehghani et al. 2023, arXiv:2307.06304) and of later models: clips keep
their own length, positions are rotations by frequency and time, and one learned query pools the patches.

B clips, T frames, F mel bins; patches lie in R rows of frequency and C columns of time; N tokens, D width, P elements
of a patch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openclap.arrays import batches_by_length
from openclap.models.attention import GatedAttention, Rotation, bands, keys_only, rotation
from openclap.models.config import NaFlexConfig
from openclap.models.patch_dropout import AllPatches, PartOfPatches
from openclap.models.swin import MLP
from openclap.types import AudioBatch, AudioFeatures

EPSILON = 1e-6
"""Of every layer norm in this tower; CLIP's text tower has 1e-5."""
INITIAL_WIDTH = 0.02
"""Standard deviation of fresh weights."""
SILENCE_DB = -100.0
"""The log-mel of silence."""


class NaFlex(nn.Module):
    """Log-mels (B, 1, T, F) with the number of frames of each clip to (B, D) embeddings.

    Without `frames_B` all T frames of every clip count. An embedding does not depend on the padding of its batch.
    """

    def __init__(self, config: NaFlexConfig) -> None:
        super().__init__()
        self.config = config
        width, norm = config.width, nn.LayerNorm(config.width, EPSILON)
        # `norm_pre` has a bias of its own, which would make that of the projection superfluous.
        self.embed = nn.Linear(config.patch_freq * config.patch_time, width, bias=not config.pre_norm)
        self.registers = nn.Parameter(1e-6 * torch.randn(1, config.registers, width)) if config.registers else None
        self.norm_pre = norm if config.pre_norm else nn.Identity()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, EPSILON)
        self.pool = MapPool(width, config.heads, int(width * (config.pool_mlp_ratio or config.mlp_ratio)))
        self.dropout: AllPatches | PartOfPatches = AllPatches()
        self.patches_at_a_time = 0
        initialise(self)

    def drop_patches(self, share: float) -> None:
        """Drop this share of each clip's patches in training, drawn anew in every step."""
        self.dropout = PartOfPatches(share)

    def group_by_length(self, patches_at_a_time: int) -> None:
        """Compute clips of similar length together, at most so many patches with padding at a time: the same embeddings
        in less time, where lengths differ."""
        self.patches_at_a_time = patches_at_a_time

    def forward(self, batch: AudioBatch) -> Tensor:
        """(B, D) embedding."""
        if not self.patches_at_a_time or batch.frames_B is None:
            return self.embed_together(batch)
        groups, place_B = self._groups(batch.frames_B)
        return torch.cat([self.embed_together(batch.rows(rows)) for rows in groups])[place_B]

    def _groups(self, frames_B: Tensor) -> tuple[list[list[int]], Tensor]:
        """The rows of clips that are computed together, and the place (B,) of each clip in their concatenation."""
        patches = [self.config.tokens(frames) for frames in frames_B.tolist()]
        groups = [rows.tolist() for rows in batches_by_length(patches, self.patches_at_a_time)]
        order_B = torch.tensor([row for rows in groups for row in rows], device=frames_B.device)
        return groups, order_B.argsort()

    def embed_together(self, batch: AudioBatch) -> Tensor:
        """(B, D) embeddings of clips that are all padded to the longest."""
        states_BND, valid_BN = self.states(batch)
        pooled: Tensor = self.pool(states_BND, keys_only(valid_BN))
        return pooled

    def with_moments(self, batch: AudioBatch) -> tuple[Tensor, Tensor]:
        """(B, D) embedding and (B, M, D), the latent vector of each moment: the patches of one column pooled alone.

        Moments after the end of a clip are those of padding, or zeros.
        """
        if not self.patches_at_a_time or batch.frames_B is None:
            return self.moments_together(batch)
        groups, place_B = self._groups(batch.frames_B)
        embedded, latent = zip(*[self.moments_together(batch.rows(rows)) for rows in groups], strict=True)
        return torch.cat(embedded)[place_B], join_moments(latent)[place_B]

    def moments_together(self, batch: AudioBatch) -> tuple[Tensor, Tensor]:
        """The same of clips that are all padded to the longest."""
        states_BND, valid_BN = self.states(batch)
        rows = self.config.rows
        column_BCRD = states_BND.unflatten(1, (rows, -1)).transpose(1, 2)
        latent_BCD: Tensor = self.pool(column_BCRD.flatten(0, 1), None).unflatten(0, (len(column_BCRD), -1))
        return self.pool(states_BND, keys_only(valid_BN)), latent_BCD

    def states(self, batch: AudioBatch) -> tuple[Tensor, Tensor | None]:
        """(B, N, D), the normalised states of all patches, and which of them are valid (B, N); None for all."""
        mel_BTF, frames_B = batch.mel_BVTF[:, 0], batch.frames_B
        columns = self.config.columns(mel_BTF.shape[1])
        valid_BN = None
        if frames_B is not None:
            mel_BTF = fill_padding(mel_BTF, frames_B, self.config)
            valid_BN = valid_patches(columns, frames_B, self.config)
        patches_BNP = patches(complete_column(mel_BTF, self.config), self.config)
        by = self.positions(columns, patches_BNP.device)
        # Before they are embedded: what is dropped costs nothing.
        patches_BNP, valid_BN, by = self.dropout(patches_BNP, valid_BN, by)
        x_BND = self.tokens(patches_BNP)
        registers = x_BND.shape[1] - patches_BNP.shape[1]
        mask = keys_only(_with_registers(valid_BN, registers))
        for block in self.blocks:
            x_BND = block(x_BND, by, mask)
        return self.norm(x_BND)[:, registers:], valid_BN

    def features(self, batch: AudioBatch) -> AudioFeatures:
        """The embedding; this tower has no tagging head."""
        return AudioFeatures(embedding=self(batch))

    def tokens(self, patches_BNP: Tensor) -> Tensor:
        """Embed patches, after the register tokens."""
        x_BND = self.embed(patches_BNP)
        if self.registers is not None:
            x_BND = torch.cat([self.registers.expand(x_BND.shape[0], -1, -1).to(x_BND.dtype), x_BND], dim=1)
        normed: Tensor = self.norm_pre(x_BND)
        return normed

    def positions(self, columns: int, device: torch.device) -> Rotation:
        """The rotation of each token: half of the pairs by its row, half by its column; registers are not rotated."""
        rows, pairs = self.config.rows, self.config.width // self.config.heads // 2
        band_P = bands(pairs // 2, device)
        row_RCP = (torch.arange(rows, device=device)[:, None] * band_P)[:, None].expand(-1, columns, -1)
        column_RCP = (torch.arange(columns, device=device)[:, None] * band_P).expand(rows, -1, -1)
        angles_NP = torch.cat([row_RCP, column_RCP], dim=-1).flatten(0, 1)
        return rotation(F.pad(angles_NP, (0, 0, self.config.registers, 0)))


def join_moments(parts: Sequence[Tensor]) -> Tensor:
    """Concatenate (B, M, D) along B; zeros make up for the moments that shorter clips lack."""
    longest = max(part.shape[1] for part in parts)
    return torch.cat([F.pad(part, (0, 0, 0, longest - part.shape[1])) for part in parts])


def initialise(tower: NaFlex) -> None:
    """Draw initial weights as timm's NaFlexVit does: truncated normal, 0.02 wide, and zero biases.

    The projections that end a branch of block n are divided by √(2n), as BEiT's (Bao et al. 2021, arXiv:2106.08254), so
    that the sum of branches does not grow with the depth.
    """
    for module in tower.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=INITIAL_WIDTH)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    with torch.no_grad():
        for number, block in enumerate(tower.blocks, start=1):
            assert isinstance(block, Block)
            for projection in (block.attn.proj, block.mlp.fc2):
                projection.weight.div_(math.sqrt(2 * number))


def _with_registers(valid_BN: Tensor | None, registers: int) -> Tensor | None:
    return None if valid_BN is None else F.pad(valid_BN, (registers, 0), value=True)


def fill_padding(mel_BTF: Tensor, frames_B: Tensor, config: NaFlexConfig) -> Tensor:
    """Put the value of padding (see `NaFlexConfig.padding`) into the frames after each clip's last one."""
    is_padding_BT1 = (torch.arange(mel_BTF.shape[1], device=mel_BTF.device) >= frames_B[:, None]).unsqueeze(-1)
    if config.padding == "repeat":
        value = mel_BTF.gather(1, (frames_B - 1)[:, None, None].expand(-1, 1, mel_BTF.shape[2]))
    else:
        # The lowest value of each clip alone: padding of a batch must not be looked at.
        value = padding_value(mel_BTF.masked_fill(is_padding_BT1, torch.inf), config)
    return torch.where(is_padding_BT1, value, mel_BTF)


def complete_column(mel_BTF: Tensor, config: NaFlexConfig) -> Tensor:
    """Complete the last column of patches with the value of padding. No frame is dropped."""
    clips, frames, bins = mel_BTF.shape
    missing = config.columns(frames) * config.patch_time - frames
    return torch.cat([mel_BTF, padding_value(mel_BTF, config).expand(clips, missing, bins)], dim=1)


def padding_value(mel_BTF: Tensor, config: NaFlexConfig) -> Tensor:
    """(B, 1, 1) or (B, 1, F): the value that lengthens clips."""
    if config.padding == "repeat":
        return mel_BTF[:, -1:]
    if config.padding == "silence":
        return mel_BTF.new_full((1, 1, 1), SILENCE_DB)
    return mel_BTF.amin(dim=(1, 2), keepdim=True)


def patches(mel_BTF: Tensor, config: NaFlexConfig) -> Tensor:
    """(B, N, P): patches row by row of frequency; within a patch time runs fastest.

    open_clip's models made before 24 June 2026 have frequency fastest (`openclap.checkpoints.open_clip`).
    """
    split = mel_BTF.unflatten(2, (config.rows, config.patch_freq)).unflatten(1, (-1, config.patch_time))  # B C t R f
    patches_BNP: Tensor = split.permute(0, 3, 1, 4, 2).flatten(3).flatten(1, 2)
    return patches_BNP


def valid_patches(columns: int, frames_B: Tensor, config: NaFlexConfig) -> Tensor | None:
    """(B, N): the patches of each clip, those of a column that is filled in part among them; None if all are valid."""
    columns_B = -(-frames_B // config.patch_time)
    valid_BC = torch.arange(columns, device=frames_B.device) < columns_B[:, None]
    return None if bool(valid_BC.all()) else valid_BC.repeat(1, config.rows)


class Block(nn.Module):
    """A pre-norm transformer block. With layer scale (Touvron et al. 2021, arXiv:2103.17239) each branch is multiplied
    by learned gains."""

    def __init__(self, config: NaFlexConfig) -> None:
        super().__init__()
        width = config.width
        self.norm1, self.norm2 = nn.LayerNorm(width, EPSILON), nn.LayerNorm(width, EPSILON)
        self.attn = GatedAttention(width, config.heads, norm=_head_norm if config.qk_norm else None, gate=config.gated)
        mlp = SwiGLU if config.swiglu else MLP
        self.mlp = mlp(width, int(width * config.mlp_ratio))
        scale = config.layer_scale
        self.gamma_1 = nn.Parameter(torch.full((width,), scale)) if scale else None
        self.gamma_2 = nn.Parameter(torch.full((width,), scale)) if scale else None

    def forward(self, x_BND: Tensor, by: Rotation, mask: Tensor | None) -> Tensor:
        x_BND = x_BND + _scaled(self.attn(self.norm1(x_BND), by, mask), self.gamma_1)
        return x_BND + _scaled(self.mlp(self.norm2(x_BND)), self.gamma_2)


def _head_norm(size: int) -> nn.Module:
    return nn.LayerNorm(size, EPSILON)


def _scaled(branch_BND: Tensor, gain_D: Tensor | None) -> Tensor:
    return branch_BND if gain_D is None else branch_BND * gain_D


class SwiGLU(nn.Module):
    """Linear, gated by SiLU of its first half, linear (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x_BND: Tensor) -> Tensor:
        # timm: SiLU on the first half; open_clip's text tower has it on the second (`modern_text`).
        gate, value = self.fc1(x_BND).chunk(2, dim=-1)
        out: Tensor = self.fc2(F.silu(gate) * value)
        return out


class MapPool(nn.Module):
    """Pool by attention with one learned query, and an MLP (the map head of Zhai et al. 2022, arXiv:2106.04560).

    The query is not added to the attention's result, and the MLP has GELU in models with SwiGLU too, as in timm.
    """

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.latent = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)
        self.q, self.kv, self.proj = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, EPSILON)
        self.mlp = MLP(width, hidden)

    def forward(self, x_BND: Tensor, mask: Tensor | None) -> Tensor:
        query_BHLE = self.q(self.latent).expand(x_BND.shape[0], -1, -1).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k_BHNE, v_BHNE = self.kv(x_BND).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        pooled_BHLE = F.scaled_dot_product_attention(query_BHLE, k_BHNE, v_BHNE, attn_mask=mask)
        y_BD = self.proj(pooled_BHLE.transpose(1, 2).flatten(1))
        out: Tensor = y_BD + self.mlp(self.norm(y_BD))
        return out
