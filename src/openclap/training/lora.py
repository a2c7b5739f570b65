"""Low-rank updates of the towers' attention (Hu et al. 2021, arXiv:2106.09685), by peft.

The towers' own weights stay as they are; beside each projection of attention two thin matrices learn, whose product is
added to it. When the model is written they are added for good, so that a finished model is like any other.
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
"""The name under which peft keeps the updates."""


def adapt(clap: CLAP, rank: int) -> None:
    """Put updates of `rank` beside every projection of attention in both towers, which otherwise stop learning.

    They are scaled by two, and start at zero. Raises ConfigError for a tower without attention.
    """
    peft = require("peft", "train")
    places = [name for tower in ("audio_tower", "text_tower") for name in projections(clap, tower)]
    outside = [p for name, p in clap.named_parameters() if not _in_tower(name) and p.requires_grad]
    peft.LoraModel(clap, peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=places, bias="none"), ADAPTER)
    for parameter in outside:
        parameter.requires_grad_(True)


def projections(clap: CLAP, tower: str) -> list[str]:
    """Names of the linear layers of attention. Raises ConfigError when there are none."""
    part = clap.get_submodule(tower)
    attention = [name for name, module in part.named_modules() if "attention" in type(module).__name__.lower()]
    found = {
        f"{tower}.{name}.{inner}"
        for name in attention
        for inner, module in part.get_submodule(name).named_modules()
        if isinstance(module, nn.Linear)
    }
    if not found:
        raise ConfigError(
            f"LoRA does not apply to this model: its {tower.replace('_', ' ')} ({type(part).__name__}) has no "
            "attention. Set lora to 0, or fine-tune with the mode heads, last or all."
        )
    return sorted(found)


def merged(embedder: Embedder) -> Embedder:
    """The same model with the updates added for good, as one that never had any; `embedder` itself is not changed."""
    if not any(True for _ in _updates(embedder.clap)):
        return embedder
    peft = require("peft", "train")
    plain = copy.copy(embedder)
    plain.clap = copy.deepcopy(embedder.clap)
    for name, layer in list(_updates(plain.clap)):
        assert isinstance(layer, peft.tuners.lora.LoraLayer)
        layer.merge()
        plain.clap.set_submodule(name, layer.get_base_layer())
    return plain


def _updates(clap: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The layers that have updates, by name."""
    return ((name, module) for name, module in clap.named_modules() if hasattr(module, "lora_A"))


def _in_tower(name: str) -> bool:
    return "_tower." in name
