"""Text towers: any Hugging Face encoder, and the pooling of its states.

B captions, L tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from openclap.errors import ConfigError
from openclap.models.config import TextTowerConfig
from openclap.types import TextBatch


class TextTower(nn.Module):
    """(B, L) token ids to (B, D)."""

    def __init__(self, config: TextTowerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder(config)
        self.pool = POOLINGS[config.pooling]

    def forward(self, batch: TextBatch) -> Tensor:
        """A batch without padding is read without a mask, which is faster and changes nothing."""
        padded = not bool(batch.mask_BL.all())
        output = self.encoder(input_ids=batch.ids_BL, attention_mask=batch.mask_BL if padded else None)
        return self.pool(output, batch)


def encoder(config: TextTowerConfig) -> nn.Module:
    """Build the transformers encoder, without unused parts: a decoder, or a pooler where another pooling is chosen."""
    from transformers import AutoConfig, AutoModel

    # From the preset alone: nothing is fetched from the hub, and the weights come from a checkpoint.
    settings = AutoConfig.for_model(config.model_type, **dict(config.sizes) | {"hidden_size": config.hidden_size})
    whole = AutoModel.from_config(settings)
    network: nn.Module = whole.get_encoder() if settings.is_encoder_decoder else whole
    if config.pooling != "pooler" and getattr(network, "pooler", None) is not None:
        # Its parameters would get no gradient, and be saved for nothing.
        network.pooler = None  # type: ignore[assignment]
    if config.pooling == "pooler" and getattr(network, "pooler", None) is None:
        raise ConfigError(f"{config.model_type} has no pooler; choose the pooling mean, cls or eot.")
    return network


def pooler(output: Any, batch: TextBatch) -> Tensor:
    """The encoder's own pooling layer."""
    pooled: Tensor = output.pooler_output
    return pooled


def mean_pool(output: Any, batch: TextBatch) -> Tensor:
    """The mean over tokens that are not padding (Reimers & Gurevych 2019)."""
    weight_BL1 = batch.mask_BL.unsqueeze(-1).to(output.last_hidden_state.dtype)
    total_BD: Tensor = (output.last_hidden_state * weight_BL1).sum(dim=1)
    # A caption without tokens gives zeros, not NaN.
    return total_BD / weight_BL1.sum(dim=1).clamp_min(1.0)


def mean_padded(output: Any, batch: TextBatch) -> Tensor:
    """The mean over all positions."""
    mean_BD: Tensor = output.last_hidden_state.mean(dim=1)
    return mean_BD


def cls_pool(output: Any, batch: TextBatch) -> Tensor:
    """The first token's state."""
    return torch.select(output.last_hidden_state, 1, 0)


def eot_pool(output: Any, batch: TextBatch) -> Tensor:
    """The state at the highest token id, which is CLIP's end of text."""
    states_BLD: Tensor = output.last_hidden_state
    # argmax returns the first of equals, so padding with the end of text itself does no harm.
    place_B11 = batch.ids_BL.argmax(dim=1)[:, None, None]
    return states_BLD.gather(1, place_B11.expand(-1, -1, states_BLD.shape[2])).squeeze(1)


def last_nonzero_pool(output: Any, batch: TextBatch) -> Tensor:
    """The state at the last token, if tokens are counted as Microsoft's CLAP of 2023 does: those whose id is not 0."""
    # Its padding is GPT-2's "!" (id 0). Each "!" within a text goes uncounted too, so that the state is that of an
    # earlier token (test_exclamation_marks_shift_the_pooled_token).
    place_B11 = ((batch.ids_BL != 0).sum(dim=1) - 1).clamp_min(0)[:, None, None]
    states_BLD: Tensor = output.last_hidden_state
    return states_BLD.gather(1, place_B11.expand(-1, -1, states_BLD.shape[2])).squeeze(1)


POOLINGS: dict[str, Callable[[Any, TextBatch], Tensor]] = {
    "pooler": pooler,
    "mean": mean_pool,
    "mean_padded": mean_padded,
    "cls": cls_pool,
    "eot": eot_pool,
    "last_nonzero": last_nonzero_pool,
}
