"""Which parameters learn, how fast, and the schedule."""

from __future__ import annotations

import math

import torch
from torch import nn

from openclap.errors import ConfigError
from openclap.train.config import OptimConfig


def warmup_cosine(step: int, *, warmup_steps: int, total_steps: int) -> float:
    """The share of the base rate at `step` (from 0): linear from 1/warmup to 1, then a cosine to 0.

    As in LAION-CLAP's `cosine_lr`.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))


def freeze(model: nn.Module, prefixes: tuple[str, ...]) -> None:
    """Stop the named parts from learning: no gradients, and batch norms and dropouts as in evaluation.

    Raises ConfigError for a prefix that names nothing.
    """
    for prefix in prefixes:
        named = [p for name, p in model.named_parameters() if _under(name, prefix)]
        if not named:
            raise ConfigError(f"frozen names {prefix!r}, which is no part of the model.")
        for parameter in named:
            parameter.requires_grad_(False)
        for name, module in model.named_modules():
            if _under(name, prefix):
                module.eval()


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, object]]:
    """Towers and heads apart, each with and without weight decay, empty groups left out."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(("_tower." in name, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "base_lr": config.tower_lr if in_tower else config.lr,
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (in_tower, decays), parameters in groups.items()
    ]


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over what learns. Raises ConfigError when everything is frozen."""
    groups = parameter_groups(model, config)
    if not groups:
        raise ConfigError("Every part of the model is frozen, so there is nothing to train.")
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas)


def set_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Give every group its base rate times `share`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * share


def _under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix.rstrip(".") + ".")
