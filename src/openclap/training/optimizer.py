"""Trainable parameters, their learning rates, and the schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from openclap.errors import ConfigError
from openclap.training.config import OptimConfig

TOWERS = ("audio_tower", "text_tower")
LEARNED_TOKENS = ("registers", "query")
"""Learned tokens of NaFlex towers that, as in open_clip, have no weight decay; its pooling latent has."""
HEADS = "categories"
"""PANN's list of category heads."""
FUSED_DEVICES = ("cpu", "cuda", "mps", "xpu")
"""Devices with a fused AdamW: one kernel updates all parameters."""


def warmup_cosine(step: int, *, warmup_steps: int, total_steps: int) -> float:
    """Compute the factor of the base learning rate at `step` (from 0): linear from 1/warmup to 1, then a cosine to 0.

    As LAION-CLAP's `cosine_lr`.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * _progress(step, warmup_steps, total_steps)))


def warmup_linear(step: int, *, warmup_steps: int, total_steps: int) -> float:
    """Compute the factor with the same warm-up and a straight line to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 1 - _progress(step, warmup_steps, total_steps)


def warmup_constant(step: int, *, warmup_steps: int, total_steps: int) -> float:
    """Compute the factor with the same warm-up and no decay."""
    return (step + 1) / warmup_steps if step < warmup_steps else 1.0


def warmup_stable_decay(step: int, *, warmup_steps: int, total_steps: int, cooldown: float) -> float:
    """Compute the factor with the same warm-up, 1 until the last share `cooldown` of the steps, and then a line to 0.

    As open_clip's "const-cooldown" with power 1. Where warm-up and decay overlap, the smaller factor counts.
    """
    decay = (total_steps - step) / (cooldown * total_steps)
    return min(warmup_constant(step, warmup_steps=warmup_steps, total_steps=total_steps), decay)


SCHEDULES: dict[str, Callable[..., float]] = {
    "cosine": warmup_cosine,
    "linear": warmup_linear,
    "constant": warmup_constant,
    "wsd": warmup_stable_decay,
}


def schedule_factor(config: OptimConfig, step: int, total_steps: int) -> float:
    """Compute the factor of the base learning rates at `step` (from 0)."""
    more = {"cooldown": config.cooldown} if config.schedule == "wsd" else {}
    schedule = SCHEDULES[config.schedule]
    return schedule(step, warmup_steps=config.warmup_steps, total_steps=total_steps, **more)


def _progress(step: int, warmup_steps: int, total_steps: int) -> float:
    return (step - warmup_steps) / max(1, total_steps - warmup_steps)


def freeze(model: nn.Module, prefixes: Sequence[str]) -> None:
    """Freeze the named parts: no gradients, and batch norms and dropouts in evaluation mode.

    Raises ConfigError for a prefix that matches no parameter.
    """
    for prefix in prefixes:
        named = [p for name, p in model.named_parameters() if _is_under(name, prefix)]
        if not named:
            raise ConfigError(f"frozen names {prefix!r}, which is no part of the model.")
        for parameter in named:
            parameter.requires_grad_(False)
    # Without gradients alone, running statistics would still move and dropout add noise.
    set_eval(model, prefixes)


def set_eval(model: nn.Module, prefixes: Sequence[str]) -> None:
    """Put batch norms and dropouts of the named parts into evaluation mode."""
    for name, module in model.named_modules():
        if any(_is_under(name, prefix) for prefix in prefixes):
            module.eval()


def unfreeze(model: nn.Module, prefixes: Sequence[str]) -> None:
    """Give the named parts gradients again. Their mode is set by `set_training_modes` in `model_setup`."""
    for name, parameter in model.named_parameters():
        if any(_is_under(name, prefix) for prefix in prefixes):
            parameter.requires_grad_(True)


def freeze_tower_batch_norms(model: nn.Module) -> None:
    """Let the towers' batch norms use their running statistics and leave them unchanged; gains and biases still
    train."""
    for name, module in model.named_modules():
        # Evaluation mode of the norms alone: dropout in the towers stays on.
        if isinstance(module, _BatchNorm) and any(_is_under(name, tower) for tower in TOWERS):
            module.eval()


@contextmanager
def freeze_running_statistics(model: nn.Module) -> Iterator[None]:
    """Leave the running statistics of batch norms unchanged; in training mode they still normalise by the batch's own.

    For forward passes that must not count: a second pass over the same clips, and batches of silence.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    # The counter moves in every training pass, whatever the momentum.
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]  # type: ignore[union-attr]
    for norm in norms:
        # Not track_running_stats = False: then autograd saves two tensors fewer, and activation checkpointing requires
        # that the second pass saves what the first one did.
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)  # type: ignore[union-attr]


def parameter_groups(model: nn.Module, config: OptimConfig, *, also: Sequence[str] = ()) -> list[dict[str, object]]:
    """Group the trainable parameters by learning rate, with and without weight decay; empty groups are left out.

    Args:
        also: prefixes of frozen parts to include because they are unfrozen later. An optimizer's groups cannot change
            while its state is saved and restored.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    rates = learning_rates(model, config)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad or any(_is_under(name, prefix) for prefix in also):
            groups.setdefault((rates[name], _is_decayed(name, parameter)), []).append(parameter)
    return [
        {"params": parameters, "base_lr": rate, "weight_decay": config.weight_decay if decays else 0.0}
        for (rate, decays), parameters in groups.items()
    ]


def _is_decayed(name: str, parameter: nn.Parameter) -> bool:
    # Vectors (gains, biases, the temperature) are not, nor are learned tokens, which are vectors in all but shape.
    return parameter.ndim > 1 and name.rpartition(".")[2] not in LEARNED_TOKENS


def learning_rates(model: nn.Module, config: OptimConfig) -> dict[str, float]:
    """Compute the base learning rate of every parameter: that of the heads, or that of the towers, which decays by
    `config.layer_decay` from a tower's top to its embedding."""
    rates = {name: config.tower_lr if "_tower." in name else config.lr for name, _ in model.named_parameters()}
    if config.layer_decay == 1:
        return rates
    for prefix in TOWERS:
        # As in BEiT: the top, above all blocks, has the full rate, and the embedding that of one more layer.
        layers = layer_numbers(model.get_submodule(prefix))
        top = max(layers.values(), default=0)
        for name, layer in layers.items():
            rates[f"{prefix}.{name}"] *= config.layer_decay ** (top - layer)
    return rates


def layer_numbers(tower: nn.Module) -> dict[str, int]:
    """Number a tower's parameters by layer: 0 below its first block, 1 from there, and one more after the last block.

    Blocks are the members of the innermost module lists, in order. What stands between two blocks, such as a merging of
    patches, belongs to the one before.
    """
    lists = {name: module for name, module in tower.named_modules() if isinstance(module, nn.ModuleList)}
    # Not lists without weights, such as HTSAT's layouts of windows, nor PANN's heads, which stand side by side.
    lists = {name: module for name, module in lists.items() if name != HEADS and any(True for _ in module.parameters())}
    inner = [name for name in lists if not any(other.startswith(f"{name}.") for other in lists)]
    blocks = [f"{name}.{number}." for name in inner for number in range(len(lists[name]))]
    numbers: dict[str, int] = {}
    layer = 0
    for name, _ in tower.named_parameters():
        layer = next((number for number, block in enumerate(blocks, 1) if name.startswith(block)), layer)
        # Parameters come in the order of the forward pass, so the last block's own have been seen by then.
        is_above = bool(blocks) and layer == len(blocks) and not name.startswith(blocks[-1])
        numbers[name] = layer + is_above
    return numbers


def build_optimizer(
    model: nn.Module, config: OptimConfig, *, also: Sequence[str] = (), objective: nn.Module | None = None
) -> torch.optim.AdamW:
    """Build AdamW over the trainable parameters, fused where the device supports it.

    The objective's own parameters get the heads' learning rate and no decay. Raises ConfigError when every part of the
    model is frozen.
    """
    groups = parameter_groups(model, config, also=also)
    if not groups:
        raise ConfigError("Every part of the model is frozen, so there is nothing to train.")
    if objective is not None and (objective_parameters := list(objective.parameters())):
        # Decay would pull SigLIP's bias, which belongs far below 0, towards it.
        groups.append({"params": objective_parameters, "base_lr": config.lr, "weight_decay": 0.0})
    # The rate is a placeholder: `set_learning_rate` sets each group's from its base_lr before every step.
    fused = next(model.parameters()).device.type in FUSED_DEVICES
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=fused)


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group to its base learning rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def _is_under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix.rstrip(".") + ".")
