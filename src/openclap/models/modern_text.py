"""The modern text transformer of NaFlexCLAP (open_clip): RMSNorm, SwiGLU, rotary positions, normed queries and keys.

B captions, L tokens, D width, H heads, E = D / H.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openclap.models.attention import GatedAttention, Rotation, bands, keys_only, rotation
from openclap.models.config import ModernTextSizes, TextTowerConfig
from openclap.types import TextBatch

SWIGLU_GAIN = 1.22
"""open_clip's factor of the initial weights of a SwiGLU's first layer."""


class ModernText(nn.Module):
    """(B, L) token ids to (B, D).

    The first token of a caption counts even where its mask is 0, so that a caption without tokens has an embedding.
    """

    def __init__(self, config: TextTowerConfig) -> None:
        super().__init__()
        self.config = config
        sizes, width = ModernTextSizes(**config.sizes), config.hidden_size
        self.head_size = width // sizes.heads
        self.token_embedding = nn.Embedding(sizes.vocab_size, width)
        self.blocks = nn.ModuleList(ModernBlock(width, sizes) for _ in range(sizes.num_hidden_layers))
        self.ln_final = nn.RMSNorm(width, sizes.norm_eps)
        self.pool: QueryPool | EosPool | MeanPool = POOLS[config.pooling](width, sizes)
        initialise(self, sizes)

    def forward(self, batch: TextBatch) -> Tensor:
        valid_BL = first_is_valid(batch.mask_BL)
        return self.pooled(batch.ids_BL, valid_BL, keys_only(None if bool(valid_BL.all()) else valid_BL))

    def masked(self, batch: TextBatch) -> Tensor:
        """The same with a mask in any case, for exported graphs."""
        valid_BL = first_is_valid(batch.mask_BL)
        return self.pooled(batch.ids_BL, valid_BL, keys_only(valid_BL))

    def pooled(self, ids_BL: Tensor, valid_BL: Tensor, mask: Tensor | None) -> Tensor:
        """(B, D) of tokens that attend by `mask`."""
        x_BLD = self.token_embedding(ids_BL)
        by = self.positions(x_BLD.shape[1], x_BLD.device)
        for block in self.blocks:
            x_BLD = block(x_BLD, by, mask)
        pooled_BD: Tensor = self.pool(self.ln_final(x_BLD), ids_BL, valid_BL)
        return pooled_BD

    def positions(self, length: int, device: torch.device) -> Rotation:
        """The rotation of each token, the first one at position 0."""
        return rotation(torch.arange(length, device=device)[:, None] * bands(self.head_size // 2, device))


@torch.no_grad()
def initialise(tower: ModernText, sizes: ModernTextSizes) -> None:
    """Draw initial weights as open_clip's: normal, 1/√width wide, embeddings 0.02, and zero biases but for gates.

    Projections that end a branch are divided by √(2 · layers), so that the sum of branches does not grow with the
    depth; gates with a bias start open.
    """
    width = tower.config.hidden_size
    for module in tower.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=width**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.normal_(tower.token_embedding.weight, std=0.02)
    tower.token_embedding.weight[sizes.pad_id].zero_()
    for block in tower.blocks:
        attention, mlp = block.attn, block.mlp
        assert isinstance(attention, GatedAttention) and isinstance(mlp, TextSwiGLU)
        # Half of a SwiGLU's hidden layer only gates the other half, so both are a little wider.
        mlp.w12.weight.mul_(SWIGLU_GAIN)
        mlp.w3.weight.mul_(math.sqrt(width / mlp.w3.in_features))
        for projection in (attention.proj, mlp.w3):
            projection.weight.div_(math.sqrt(2 * sizes.num_hidden_layers))
        if attention.gate is not None and attention.gate.bias is not None:
            nn.init.ones_(attention.gate.bias)


def first_is_valid(mask_BL: Tensor) -> Tensor:
    """The mask as booleans, true at the first token."""
    return F.pad(mask_BL[:, 1:].bool(), (1, 0), value=True)


class ModernBlock(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, sizes: ModernTextSizes) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(width, sizes.norm_eps), nn.RMSNorm(width, sizes.norm_eps)
        self.attn = GatedAttention(
            width,
            sizes.heads,
            norm=(lambda size: nn.RMSNorm(size, sizes.norm_eps)) if sizes.qk_norm else None,
            gate=sizes.gated,
            bias=sizes.attention_bias,
            gate_bias=sizes.gate_bias,
            causal=sizes.causal,
        )
        self.mlp = TextSwiGLU(width, int(width * sizes.mlp_ratio), bias=sizes.mlp_bias)

    def forward(self, x_BLD: Tensor, by: Rotation, mask: Tensor | None) -> Tensor:
        x_BLD = x_BLD + self.attn(self.norm1(x_BLD), by, mask)
        out: Tensor = x_BLD + self.mlp(self.norm2(x_BLD))
        return out


class TextSwiGLU(nn.Module):
    """Linear, gated by SiLU of its second half, linear: the other half than in `openclap.models.naflex.SwiGLU`."""

    def __init__(self, width: int, hidden: int, *, bias: bool) -> None:
        super().__init__()
        self.w12, self.w3 = nn.Linear(width, 2 * hidden, bias=bias), nn.Linear(hidden, width, bias=bias)

    def forward(self, x_BLD: Tensor) -> Tensor:
        value, gate = self.w12(x_BLD).chunk(2, dim=-1)
        out: Tensor = self.w3(value * F.silu(gate))
        return out


class QueryPool(nn.Module):
    """Attention with one learned query. Unlike `openclap.models.naflex.MapPool` it has no projection and no MLP."""

    def __init__(self, width: int, sizes: ModernTextSizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.query = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.q = nn.Linear(width, width, bias=sizes.attention_bias)
        self.kv = nn.Linear(width, 2 * width, bias=sizes.attention_bias)
        head = width // sizes.heads
        self.q_norm = nn.RMSNorm(head, sizes.norm_eps) if sizes.qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(head, sizes.norm_eps) if sizes.qk_norm else nn.Identity()

    def forward(self, x_BLD: Tensor, ids_BL: Tensor, valid_BL: Tensor) -> Tensor:
        query_BHLE = self.q(self.query).expand(x_BLD.shape[0], -1, -1).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k_BHLE, v_BHLE = self.kv(x_BLD).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        pooled_BHLE = F.scaled_dot_product_attention(
            self.q_norm(query_BHLE), self.k_norm(k_BHLE), v_BHLE, attn_mask=keys_only(valid_BL)
        )
        pooled_BD: Tensor = pooled_BHLE.transpose(1, 2).flatten(1)
        return pooled_BD


class EosPool(nn.Module):
    """The state of the first end marker; in a caption without one, of its last token."""

    def __init__(self, width: int, sizes: ModernTextSizes) -> None:
        super().__init__()
        self.eos_id = sizes.eos_id

    def forward(self, x_BLD: Tensor, ids_BL: Tensor, valid_BL: Tensor) -> Tensor:
        is_end_BL = ids_BL == self.eos_id
        last_B = valid_BL.long().cumsum(dim=1).argmax(dim=1)
        place_B = torch.where(is_end_BL.any(dim=1), is_end_BL.long().argmax(dim=1), last_B)
        return x_BLD.gather(1, place_B[:, None, None].expand(-1, -1, x_BLD.shape[2])).squeeze(1)


class MeanPool(nn.Module):
    """The mean of the states of valid tokens."""

    def __init__(self, width: int, sizes: ModernTextSizes) -> None:
        super().__init__()

    def forward(self, x_BLD: Tensor, ids_BL: Tensor, valid_BL: Tensor) -> Tensor:
        weight_BL1 = valid_BL.unsqueeze(-1).to(x_BLD.dtype)
        mean_BD: Tensor = (x_BLD * weight_BL1).sum(dim=1) / weight_BL1.sum(dim=1)
        return mean_BD


POOLS: dict[str, Callable[[int, ModernTextSizes], QueryPool | EosPool | MeanPool]] = {
    "map": QueryPool,
    "eos": EosPool,
    "mean": MeanPool,
}
