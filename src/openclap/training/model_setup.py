"""Set up accelerate and prepare the model, as the configuration says.

These choices are made here, once, so that neither the trainer nor the networks branch on them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from openclap.errors import ConfigError, require
from openclap.models.pann import ConvBlock
from openclap.models.swin import SwinBlock
from openclap.models.text_tower import TextTower
from openclap.training.config import TrainConfig
from openclap.training.feature_cache import remember
from openclap.training.lora import adapt
from openclap.training.optimizer import fix_norms, freeze, hold_still, thaw

if TYPE_CHECKING:
    from accelerate import Accelerator

    from openclap.models.clap import CLAP

PROJECT = "openclap"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def accelerator_for(config: TrainConfig, out: Path, *, device: torch.device | None = None) -> Accelerator:
    """Devices, processes, precision and trackers. A GPU is used where there is one, unless `device` is a CPU.

    Raises ConfigError for what this machine cannot do.
    """
    require("accelerate", "train")
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState
    from accelerate.utils import ProjectConfiguration

    check_trackers(config.trackers)
    _check_precision(config)
    on_cpu = not torch.accelerator.is_available() or (device is not None and device.type == "cpu")
    AcceleratorState._reset_state()  # or the first run's precision would be every later one's in this process
    accelerator = Accelerator(
        cpu=on_cpu,  # without it, processes on a machine without a GPU are strangers
        mixed_precision="no" if config.precision == "fp32" else config.precision,
        log_with=list(config.trackers) or None,
        project_config=ProjectConfiguration(logging_dir=str(out / "tensorboard")),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],  # tagging heads learn nothing
    )
    if accelerator.num_processes > 1 and config.unfreeze_at:
        raise ConfigError("unfreeze_at works in one process. Leave it out, or train on one device.")
    return accelerator


def sums(accelerator: Accelerator, numbers: list[int]) -> list[int]:
    """Each number's sum over all processes, which are to call this together."""
    if accelerator.num_processes == 1:
        return numbers
    total: list[int] = accelerator.reduce(torch.tensor(numbers, device=accelerator.device), "sum").tolist()
    return total


def from_first(accelerator: Accelerator, number: float) -> float:
    """What the first process has."""
    if accelerator.num_processes == 1:
        return number
    from accelerate.utils import broadcast

    return float(broadcast(torch.tensor(number, dtype=torch.float64, device=accelerator.device)))


def _check_precision(config: TrainConfig) -> None:
    """Raises ConfigError for a precision that this machine has not."""
    if config.precision == "fp16" and not torch.cuda.is_available():
        raise ConfigError("precision fp16 needs a GPU, and there is none here. Choose bf16 or fp32.")


def check_trackers(names: tuple[str, ...]) -> None:
    """Raises ConfigError for a tracker that accelerate does not know, MissingExtraError for one not installed."""
    require("accelerate", "train")
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            near = get_close_matches(name, LOGGER_TYPE_TO_CLASS, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(LOGGER_TYPE_TO_CLASS)}."
            raise ConfigError(f"trackers names {name!r}, which accelerate does not know. {hint}")
        if name == "tensorboard":
            require("tensorboard", "train")
        elif importlib.util.find_spec(name) is None:
            raise ConfigError(f"trackers names {name!r}, which is not installed. Run: pip install {name}")


def prepare_networks(clap: CLAP, config: TrainConfig, accelerator: Accelerator) -> CLAP:
    """The model as it is going to learn: parts frozen, low-rank updates in place, norms in step with each other.

    Raises ConfigError where a choice does not apply to its towers.
    """
    freeze(clap, config.frozen)
    if config.unfreeze_at and not config.frozen:
        raise ConfigError(f"unfreeze_at is {config.unfreeze_at}, and nothing is frozen until then. Name it in frozen.")
    if config.augment.patch_dropout:
        clap.audio_tower.drop_patches(config.augment.patch_dropout)  # type: ignore[operator]
    if config.lora:
        adapt(clap, config.lora)
    if config.checkpointing:
        save_memory(clap)
    remember(clap, config)
    if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
        clap = nn.SyncBatchNorm.convert_sync_batchnorm(clap)
    return clap


def compile_towers(clap: CLAP, config: TrainConfig) -> None:
    """Translate the towers, where that is asked for."""
    if config.compile:
        clap.audio_tower.compile()
        clap.text_tower.compile()


def set_modes(clap: nn.Module, config: TrainConfig, step: int) -> None:
    """Training mode, but for what is frozen at `step`, and for norms that are fixed."""
    clap.train()
    if config.unfreeze_at and step >= config.unfreeze_at:
        thaw(clap, config.frozen)
    else:
        hold_still(clap, config.frozen)
    if config.fixed_norms:
        fix_norms(clap)


def save_memory(clap: CLAP) -> None:
    """Keep no activations of the towers' blocks for the backward pass: compute them there once more.

    Raises ConfigError where the text encoder cannot do it.
    """
    for module in clap.audio_tower.modules():
        if isinstance(module, SwinBlock | ConvBlock):
            again = partial(_forward_and_again, module)
            module.forward = partial(  # type: ignore[method-assign]
                checkpoint, module.forward, use_reentrant=False, context_fn=again
            )
    tower = clap.text_tower
    assert isinstance(tower, TextTower)
    encoder: Any = tower.encoder
    enable = getattr(encoder, "activation_checkpointing_enable", encoder.gradient_checkpointing_enable)
    try:
        enable({"use_reentrant": False})
    except ValueError:
        raise ConfigError(
            f"checkpointing does not apply: transformers has none for {tower.config.model_type}. Leave it out."
        ) from None


def _forward_and_again(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), statistics_kept(block)


@contextmanager
def statistics_kept(block: nn.Module) -> Iterator[None]:
    """Batch norms count a batch once, though it is computed twice."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]  # type: ignore[union-attr]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)  # type: ignore[union-attr]
