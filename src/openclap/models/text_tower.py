"""Text towers: any Hugging Face encoder, and how its states become one vector.

B captions, L tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from openclap.types import TextBatch


@dataclass(frozen=True, slots=True)
class TextTowerConfig:
    """An encoder by its transformers `model_type` and sizes.

    Attributes:
        sizes: what is handed to that type's configuration class (`hidden_size`, `vocab_size`, …).
        pooling: "mean" over the tokens that are not padding, or "cls", the first token's state.
        context: captions are cut to this many tokens.
    """

    model_type: str
    pooling: Literal["mean", "cls"]
    context: int
    hidden_size: int
    sizes: Mapping[str, Any] = field(default_factory=dict)


class TextTower(nn.Module):
    """(B, L) token ids to (B, D)."""

    def __init__(self, config: TextTowerConfig) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoModel

        self.config = config
        sizes = dict(config.sizes) | {"hidden_size": config.hidden_size}
        self.encoder = AutoModel.from_config(AutoConfig.for_model(config.model_type, **sizes))
        self.encoder.pooler = None  # BERT's extra layer, which neither pooling reads
        self.pool = POOLINGS[config.pooling]

    def forward(self, batch: TextBatch) -> Tensor:
        states_BLD = self.encoder(input_ids=batch.ids_BL, attention_mask=batch.mask_BL).last_hidden_state
        return self.pool(states_BLD, batch.mask_BL)


def mean_pool(states_BLD: Tensor, mask_BL: Tensor) -> Tensor:
    """The mean over tokens that are not padding (Reimers & Gurevych 2019)."""
    weight_BL1 = mask_BL.unsqueeze(-1).to(states_BLD.dtype)
    return (states_BLD * weight_BL1).sum(dim=1) / weight_BL1.sum(dim=1).clamp_min(1.0)


def cls_pool(states_BLD: Tensor, mask_BL: Tensor) -> Tensor:
    """The first token's state."""
    return torch.select(states_BLD, 1, 0)


POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mean": mean_pool, "cls": cls_pool}
