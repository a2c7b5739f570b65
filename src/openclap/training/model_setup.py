"""Set up accelerate and prepare the model for a configuration.

Every choice is made here, once, so that neither the trainer nor the networks branch on the configuration.
"""

from __future__ import annotations

import importlib.util
from contextlib import AbstractContextManager, nullcontext
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from openclap.errors import ConfigError, require
from openclap.models import modern_text, naflex
from openclap.models.naflex import NaFlex
from openclap.models.pann import ConvBlock
from openclap.models.swin import SwinBlock
from openclap.models.text_tower import TextTower
from openclap.runtimes.torch import CPU_TOKENS, GPU_TOKENS
from openclap.training.config import TrainConfig
from openclap.training.feature_cache import cache_frozen_towers
from openclap.training.lora import add_lora
from openclap.training.optimizer import (
    freeze,
    freeze_running_statistics,
    freeze_tower_batch_norms,
    set_eval,
    unfreeze,
)

if TYPE_CHECKING:
    from accelerate import Accelerator

    from openclap.models.clap import CLAP

PROJECT = "openclap"
"""The project's name in experiment trackers."""
BLOCKS = (SwinBlock, ConvBlock, naflex.Block, modern_text.ModernBlock)
"""Blocks of this package's own towers."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def build_accelerator(config: TrainConfig, out: Path, *, device: torch.device | None = None) -> Accelerator:
    """Choose device, processes, precision and trackers. A GPU is used where there is one, unless `device` is a CPU.

    Raises ConfigError for a choice that this machine does not support.
    """
    require("accelerate", "train")
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState
    from accelerate.utils import ProjectConfiguration

    check_trackers(config.trackers)
    _check_precision(config)
    on_cpu = not torch.accelerator.is_available() or (device is not None and device.type == "cpu")
    # accelerate keeps one state for the whole process: without a reset, every run has the first run's precision.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        cpu=on_cpu,  # without it, processes on a machine without a GPU do not form a group
        mixed_precision="no" if config.precision == "fp32" else config.precision,
        log_with=list(config.trackers) or None,
        project_config=ProjectConfiguration(logging_dir=str(out / "tensorboard")),
        # Tagging heads get no gradient from a contrastive loss, and fusion only from long clips.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    # DistributedDataParallel decides once, when it wraps the model, which parameters it exchanges.
    if accelerator.num_processes > 1 and config.unfreeze_at:
        raise ConfigError("unfreeze_at works in one process. Leave it out, or train on one device.")
    return accelerator


def _check_precision(config: TrainConfig) -> None:
    if config.precision == "fp16" and not torch.cuda.is_available():
        raise ConfigError("The precision fp16 needs a GPU, and there is none here. Choose bf16 or fp32.")


def check_trackers(names: tuple[str, ...]) -> None:
    """Raise ConfigError for a tracker that accelerate does not support, MissingExtraError for one not installed."""
    require("accelerate", "train")
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            close = get_close_matches(name, LOGGER_TYPE_TO_CLASS, n=1, cutoff=0.5)
            hint = f"Did you mean {close[0]}?" if close else f"There are: {', '.join(LOGGER_TYPE_TO_CLASS)}."
            raise ConfigError(f"trackers names {name!r}, which accelerate does not support. {hint}")
        if name == "tensorboard":
            require("tensorboard", "train")
        elif importlib.util.find_spec(name) is None:
            raise ConfigError(f"trackers names {name!r}, which is not installed. Run pip install {name} to install it.")


def prepare_model(clap: CLAP, config: TrainConfig, accelerator: Accelerator) -> CLAP:
    """Freeze parts, add low-rank updates, set up caches, and synchronise batch norms across GPUs.

    Raises ConfigError where a choice does not apply to the model's towers.
    """
    # First: LoRA, the caches and the optimizer go by which parameters are trained.
    freeze(clap, config.frozen)
    if config.unfreeze_at and not config.frozen:
        raise ConfigError(f"unfreeze_at is {config.unfreeze_at}, and nothing is frozen until then. Name it in frozen.")
    if isinstance(clap.audio_tower, NaFlex):
        at_a_time = CPU_TOKENS if accelerator.device.type == "cpu" else GPU_TOKENS
        clap.audio_tower.group_by_length(config.lengths.patches or at_a_time)
    if config.augment.patch_dropout:
        clap.audio_tower.drop_patches(config.augment.patch_dropout)  # type: ignore[operator]
    if config.lora:
        add_lora(clap, config.lora)
    if config.activation_checkpointing:
        checkpoint_activations(clap)
    cache_frozen_towers(clap, config)
    # LAION-CLAP synchronises batch norms, too. On CPUs torch has no SyncBatchNorm, so each process has its own
    # statistics.
    if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
        clap = nn.SyncBatchNorm.convert_sync_batchnorm(clap)
    return clap


def compile_towers(clap: CLAP, config: TrainConfig) -> None:
    """Compile the towers with `torch.compile` if the configuration asks for it."""
    if config.compile:
        clap.audio_tower.compile()
        clap.text_tower.compile()


def set_training_modes(clap: nn.Module, config: TrainConfig, step: int) -> None:
    """Put the model into training mode, except parts that are frozen at `step` and batch norms with fixed statistics.

    Validation and the check of embeddings leave the model in evaluation mode, so this follows each of them.
    """
    # The whole model first: whatever is excepted below may have been trained until now, or may be from now on.
    clap.train()
    if config.unfreeze_at and step >= config.unfreeze_at:
        unfreeze(clap, config.frozen)
    else:
        set_eval(clap, config.frozen)
    if config.freeze_batch_norm:
        freeze_tower_batch_norms(clap)


def checkpoint_activations(clap: CLAP) -> None:
    """Compute the activations of the towers' blocks again in the backward pass instead of storing them.

    Raises ConfigError where the text encoder does not support it.
    """
    for module in (*clap.audio_tower.modules(), *clap.text_tower.modules()):
        # Blocks hold nearly all activations; what is between them is stored.
        if isinstance(module, BLOCKS):
            contexts = partial(_checkpoint_contexts, module)
            # On the instance, so that names in the state dict stay as they are.
            module.forward = partial(  # type: ignore[method-assign]
                checkpoint, module.forward, use_reentrant=False, context_fn=contexts
            )
    tower = clap.text_tower
    if not isinstance(tower, TextTower):  # the modern text transformer, whose blocks are among ours
        return
    encoder: Any = tower.encoder
    enable = getattr(encoder, "activation_checkpointing_enable", encoder.gradient_checkpointing_enable)
    try:
        enable({"use_reentrant": False})
    except ValueError:
        raise ConfigError(
            "activation_checkpointing does not apply: transformers has none for "
            f"{tower.config.model_type}. Leave it out."
        ) from None


def _checkpoint_contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of the first and the second forward pass; the second must not move running statistics again."""
    return nullcontext(), freeze_running_statistics(block)
