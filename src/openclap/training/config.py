"""What a run chooses. A recipe returns one of these; what weights need is a preset (`openclap.presets`)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from openclap.audio.augment import UNCHANGED, AugmentConfig
from openclap.audio.mono import Channels, MonoConfig
from openclap.errors import ConfigError
from openclap.limits import COUNT, PROCESSES, check_count
from openclap.models.objectives import ObjectiveConfig

LARGEST_SEED = 2**32 - 1
"""Of numpy."""
LARGEST_RANK = 4096
"""Of low-rank updates: towers are no wider."""
Precision = Literal["fp32", "bf16", "fp16"]
Schedule = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True, slots=True)
class OptimConfig:
    """AdamW (Loshchilov & Hutter 2019) with linear warm-up, then a schedule.

    Attributes:
        lr: of the heads and the temperature.
        tower_lr: of those tower parameters that learn.
        betas: how slowly AdamW's means of gradients and of their squares follow.
        warmup_steps: in which the rates rise to these.
        schedule: after warm-up: "cosine" or "linear" to zero, or "constant".
        weight_decay: on matrices and filters alone; gains, biases and the temperature have none.
        clip_norm: largest norm of the whole gradient.
    """

    lr: float = 1e-3
    tower_lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.1
    warmup_steps: int = 20
    clip_norm: float = 1.0
    schedule: Schedule = "cosine"

    def __post_init__(self) -> None:
        rates = {"lr": self.lr, "tower_lr": self.tower_lr, "weight_decay": self.weight_decay}
        check_count("optim.warmup_steps", self.warmup_steps, least=0)
        for name, value in rates.items():
            if not 0 <= value < math.inf:
                raise ConfigError(f"optim.{name} is {value}, expected 0 or more.")
        if not self.clip_norm > 0:
            raise ConfigError(f"optim.clip_norm is {self.clip_norm}, expected more than 0.")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"optim.betas is {self.betas}, expected two numbers from 0 to below 1.")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One run.

    Attributes:
        start: a model that `openclap.load` reads, whose weights training begins with.
        data: a folder of shards (one split).
        tokenizer: a `tokenizer.json`, for a start that has none beside it; "" for its own.
        epochs: passes over the data.
        batch_size: pairs that one process puts through the model together.
        accumulate: batches whose gradients make one step.
        chunk: pairs whose activations are held at a time: gradient caching, the same step in less memory and a third
            more time; 0 holds the whole batch's. The gradients stand beside them, so a chunk holds a little less than
            the largest batch that fits whole.
        caption: which of a clip's captions are learnt from: one at "random", the "first", or "all" at once.
        channels: of sounds with several: their "mean", or the "left", "right" or "loudest" one.
        objective, augment: what is minimised, and how sounds are varied.
        frozen: parts of the model that do not learn, by the beginning of their names.
        unfreeze_at: the step from which they learn too; 0 for never.
        fixed_norms: the towers' batch norms use the statistics that they came with, whatever is in the batch.
        lora: rank of the low-rank updates that the towers' attention learns (Hu et al. 2021); 0 for none.
        precision: "bf16" and "fp16" compute most of the forward pass in 16 bits (fp16 needs a GPU).
        compile: translate the towers with `torch.compile`: slow at first, faster from then on.
        checkpointing: compute the towers' activations again in the backward pass, for less memory.
        patience: validations without a better score after which training stops; 0 for never.
        trackers: who is told the curves: "tensorboard", or any other that accelerate knows and is installed.
        seed: of order, captions, crops, augmentation and dropout.
        save_every: steps between saved states.
        keep: how many saved states stay.
        states: a folder or address ("s3://bucket/run") that each saved state is copied to, and that a run whose own
            folder is gone goes on from; "" for none.
        workers: processes that decode; 0 decodes in the training process.
    """

    start: str
    data: str
    epochs: int
    batch_size: int
    accumulate: int = 1
    chunk: int = 0
    caption: Literal["random", "first", "all"] = "random"
    channels: Channels = "mean"
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    augment: AugmentConfig = UNCHANGED
    optim: OptimConfig = field(default_factory=OptimConfig)
    frozen: tuple[str, ...] = ()
    unfreeze_at: int = 0
    fixed_norms: bool = False
    lora: int = 0
    precision: Precision = "fp32"
    compile: bool = False
    checkpointing: bool = False
    patience: int = 0
    trackers: tuple[str, ...] = ("tensorboard",)
    seed: int = 3407
    save_every: int = 50
    keep: int = 2
    states: str = ""
    tokenizer: str = ""
    workers: int = 0

    def __post_init__(self) -> None:
        MonoConfig(self.channels)
        at_least = dict.fromkeys(("epochs", "batch_size", "accumulate", "save_every", "keep"), 1)
        for name, least in (
            at_least | dict.fromkeys(("chunk", "unfreeze_at", "lora", "patience", "workers", "seed"), 0)
        ).items():
            most = {"workers": PROCESSES, "seed": LARGEST_SEED, "lora": LARGEST_RANK}.get(name, COUNT)
            check_count(name, getattr(self, name), least=least, most=most)
        if self.batch_size < 2:
            raise ConfigError("batch_size is 1, expected 2 or more: a pair is told apart from the rest of its batch.")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, to be written beside the run."""
        return asdict(self)
