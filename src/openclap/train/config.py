"""What a run chooses. A recipe returns one of these; what weights need is a preset (`openclap.presets`)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from openclap.audio.augment import UNCHANGED, AugmentConfig
from openclap.errors import ConfigError
from openclap.models.objectives import ObjectiveConfig

C = TypeVar("C")
Precision = Literal["fp32", "bf16", "fp16"]
Schedule = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True, slots=True)
class OptimConfig:
    """AdamW (Loshchilov & Hutter 2019) with linear warm-up, then a schedule.

    Attributes:
        lr: of the heads and the temperature.
        tower_lr: of those tower parameters that learn.
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
        for name, value in (rates | {"warmup_steps": self.warmup_steps}).items():
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
        batch_size: pairs that one process puts through the model together.
        accumulate: batches whose gradients make one step.
        chunk: pairs whose activations are held at a time: gradient caching, the same step in less memory and a third
            more time; 0 holds the whole batch's.
        caption: which of a clip's captions are learnt from: one at "random", the "first", or "all" at once.
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
    workers: int = 0

    def __post_init__(self) -> None:
        at_least = dict.fromkeys(("epochs", "batch_size", "accumulate", "save_every", "keep"), 1)
        for name, least in (
            at_least | dict.fromkeys(("chunk", "unfreeze_at", "lora", "patience", "workers", "seed"), 0)
        ).items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected {least} or more.")
        if self.seed >= 2**32:
            raise ConfigError(f"seed is {self.seed}, expected a number below 2**32.")
        if self.batch_size < 2:
            raise ConfigError("batch_size is 1, expected 2 or more: a pair is told apart from the rest of its batch.")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, to be written beside the run."""
        return asdict(self)


def override(config: C, options: dict[str, str]) -> C:
    """`config` with some values replaced, named as on the command line: "epochs", "optim.lr".

    A value that is itself a frozen dataclass is a group, whose values are named after a dot. Text is read as the type
    that the field has. Raises ConfigError for a name that is not there, naming the nearest, and for a value of another
    kind.
    """
    for name, text in options.items():
        path = name.replace("-", "_").split(".")
        if ".".join(path) not in option_names(config):
            raise ConfigError(f"There is no option --{name}. {_nearest(name, config)}")
        config = _replaced(config, path, name, text)
    return config


def option_names(config: Any) -> list[str]:
    """Every name that `override` takes: plain values first, then those of groups."""
    return sorted(_names(config), key=lambda name: name.count("."))


def _names(holder: Any, before: str = "") -> Iterator[str]:
    for each in fields(holder):
        value = getattr(holder, each.name)
        if is_dataclass(value):
            yield from _names(value, f"{before}{each.name}.")
        else:
            yield before + each.name


def _replaced(holder: Any, path: list[str], name: str, text: str) -> Any:
    first, *rest = path
    now = getattr(holder, first)
    value = _replaced(now, rest, name, text) if rest else _parse(name, text, get_type_hints(type(holder))[first], now)
    return replace(holder, **{first: value})


def _nearest(name: str, config: Any) -> str:
    names = option_names(config)
    near = get_close_matches(name.replace("-", "_"), names, n=1, cutoff=0.5)
    return f"Did you mean --{near[0].replace('_', '-')}?" if near else f"There are: {', '.join(names)}."


def _parse(name: str, text: str, kind: Any, now: Any) -> Any:
    try:
        return _read(text, kind)
    except ValueError as error:
        expected = str(error) if get_origin(kind) is Literal or kind is bool else f"something like {now!r}"
        raise ConfigError(f"--{name} is {text!r}, expected {expected}.") from None


def _read(text: str, kind: Any) -> Any:
    """`text` as a value of `kind`: a plain type, a Literal, a tuple, or a choice of these. Raises ValueError."""
    origin, kinds = get_origin(kind), get_args(kind)
    if origin is Literal:
        if text not in kinds:
            raise ValueError(f"one of: {', '.join(map(str, kinds))}")
        return text
    if origin is tuple:
        return tuple(_read(part.strip(), kinds[0]) for part in text.split(",") if part.strip())
    if origin in (Union, UnionType):
        if NoneType in kinds and text.lower() == "none":
            return None
        return _first_that_reads(text, [each for each in kinds if each is not NoneType])
    if kind is bool:
        return _truth(text)
    return kind(text)


def _first_that_reads(text: str, kinds: list[Any]) -> Any:
    for kind in kinds[:-1]:
        try:
            return _read(text, kind)
        except ValueError:
            continue
    return _read(text, kinds[-1])


def _truth(text: str) -> bool:
    if text.lower() not in _TRUTHS:
        raise ValueError("yes or no")
    return _TRUTHS[text.lower()]


_TRUTHS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
