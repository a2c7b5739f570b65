"""Which parameters learn, how fast, and the schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from openclap.errors import ConfigError
from openclap.training.config import OptimConfig

TOWERS = ("audio_tower", "text_tower")
FUSED = ("cpu", "cuda", "mps", "xpu")
"""Devices on which one kernel updates all parameters."""


def warmup_cosine(step: int, *, warmup_steps: int, total_steps: int) -> float:
    """The share of the base rate at `step` (from 0): linear from 1/warmup to 1, then a cosine to 0.

    As in LAION-CLAP's `cosine_lr`.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * _progress(step, warmup_steps, total_steps)))


def warmup_linear(step: int, *, warmup_steps: int, total_steps: int) -> float:
    """The same with a straight line to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 1 - _progress(step, warmup_steps, total_steps)


def warmup_constant(step: int, *, warmup_steps: int, total_steps: int) -> float:
    """The same, staying at 1."""
    return (step + 1) / warmup_steps if step < warmup_steps else 1.0


SCHEDULES: dict[str, Callable[..., float]] = {
    "cosine": warmup_cosine,
    "linear": warmup_linear,
    "constant": warmup_constant,
}


def _progress(step: int, warmup_steps: int, total_steps: int) -> float:
    return (step - warmup_steps) / max(1, total_steps - warmup_steps)


def freeze(model: nn.Module, prefixes: Sequence[str]) -> None:
    """Stop the named parts from learning: no gradients, and batch norms and dropouts as in evaluation.

    Raises ConfigError for a prefix that names nothing.
    """
    for prefix in prefixes:
        named = [p for name, p in model.named_parameters() if _under(name, prefix)]
        if not named:
            raise ConfigError(f"frozen names {prefix!r}, which is no part of the model.")
        for parameter in named:
            parameter.requires_grad_(False)
    hold_still(model, prefixes)


def hold_still(model: nn.Module, prefixes: Sequence[str]) -> None:
    """Batch norms and dropouts of the named parts as in evaluation."""
    for name, module in model.named_modules():
        if any(_under(name, prefix) for prefix in prefixes):
            module.eval()


def thaw(model: nn.Module, prefixes: Sequence[str]) -> None:
    """Let the named parts learn."""
    for name, parameter in model.named_parameters():
        if any(_under(name, prefix) for prefix in prefixes):
            parameter.requires_grad_(True)


def fix_norms(model: nn.Module) -> None:
    """Let the towers' batch norms use their own statistics, and leave these as they are; gains and biases may learn."""
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and any(_under(name, tower) for tower in TOWERS):
            module.eval()


def parameter_groups(model: nn.Module, config: OptimConfig, *, also: Sequence[str] = ()) -> list[dict[str, object]]:
    """Towers and heads apart, each with and without weight decay, empty groups left out. What learns is in them, and
    what is named by `also`, which will learn later."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad or any(_under(name, prefix) for prefix in also):
            groups.setdefault(("_tower." in name, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "base_lr": config.tower_lr if in_tower else config.lr,
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (in_tower, decays), parameters in groups.items()
    ]


def build_optimizer(
    model: nn.Module, config: OptimConfig, *, also: Sequence[str] = (), objective: nn.Module | None = None
) -> torch.optim.AdamW:
    """AdamW over what learns, in one kernel where the device has it; what the objective itself learns, as heads do and
    without decay. Raises ConfigError when everything is frozen."""
    groups = parameter_groups(model, config, also=also)
    if not groups:
        raise ConfigError("Every part of the model is frozen, so there is nothing to train.")
    if objective is not None and (own := list(objective.parameters())):
        groups.append({"params": own, "base_lr": config.lr, "weight_decay": 0.0})
    fused = next(model.parameters()).device.type in FUSED
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=fused)


def set_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Give every group its base rate times `share`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * share


def _under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix.rstrip(".") + ".")
