"""Low-rank adaptation of the towers' attention (LoRA, Hu et al. 2021, arXiv:2106.09685), by peft.

The towers' own weights are frozen; beside each projection of attention two thin matrices are trained, and their product
is added to its output. They are merged into the weights when the model is written, so a finished model is like any
other.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import nn

from openclap.errors import ConfigError, require

if TYPE_CHECKING:
    from openclap.embedder import Embedder
    from openclap.models.clap import CLAP

ADAPTER = "default"
"""The name of the updates within peft."""


def add_lora(clap: CLAP, rank: int) -> None:
    """Add low-rank updates to every attention projection of both towers, and freeze the rest of the towers.

    The updates start at zero and are scaled by two. Raises ConfigError for a tower without attention.
    """
    peft = require("peft", "train")
    targets = [name for tower in ("audio_tower", "text_tower") for name in attention_projections(clap, tower)]
    # Heads and temperature are trained in full.
    outside = [p for name, p in clap.named_parameters() if not _in_tower(name) and p.requires_grad]
    # The scale is alpha / rank, so the same learning rate suits every rank.
    peft.LoraModel(clap, peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, bias="none"), ADAPTER)
    for parameter in outside:
        parameter.requires_grad_(True)  # peft has frozen everything but its own matrices


def attention_projections(clap: CLAP, tower: str) -> list[str]:
    """List the names of a tower's linear layers of attention. Raises ConfigError when there are none."""
    part = clap.get_submodule(tower)
    # By the names of classes, which transformers' encoders and our Swin have in common.
    attention = [name for name, module in part.named_modules() if "attention" in type(module).__name__.lower()]
    projections = {
        f"{tower}.{name}.{inner}"
        for name in attention
        for inner, module in part.get_submodule(name).named_modules()
        if isinstance(module, nn.Linear)
    }
    if not projections:
        raise ConfigError(
            f"LoRA does not apply to this model: its {tower.replace('_', ' ')} ({type(part).__name__}) has no "
            "attention. Set lora to 0, or fine-tune with the mode heads, last or all."
        )
    return sorted(projections)


def merge_lora(embedder: Embedder) -> Embedder:
    """Return a copy of the model with its low-rank updates merged into the weights; without updates, `embedder`."""
    if not any(True for _ in _updated_layers(embedder.clap)):
        return embedder
    peft = require("peft", "train")
    # A copy is merged: training goes on with the separate matrices.
    plain = copy.copy(embedder)
    plain.clap = copy.deepcopy(embedder.clap)
    for name, layer in list(_updated_layers(plain.clap)):
        assert isinstance(layer, peft.tuners.lora.LoraLayer)
        layer.merge()
        # A plain linear layer again, so that the saved model needs no peft.
        plain.clap.set_submodule(name, layer.get_base_layer())
    return plain


def _updated_layers(clap: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, module) for name, module in clap.named_modules() if hasattr(module, "lora_A"))


def _in_tower(name: str) -> bool:
    return "_tower." in name
