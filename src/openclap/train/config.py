"""What a run chooses. A recipe returns one of these; what weights need is a preset (`openclap.presets`)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any

from openclap.errors import ConfigError


@dataclass(frozen=True, slots=True)
class OptimConfig:
    """AdamW (Loshchilov & Hutter 2019) with linear warm-up and cosine decay to zero.

    Attributes:
        lr: of the heads and the temperature.
        tower_lr: of those tower parameters that learn.
        weight_decay: on matrices and filters alone; gains, biases and the temperature have none.
        clip_norm: largest norm of the whole gradient.
    """

    lr: float = 1e-3
    tower_lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.1
    warmup_steps: int = 20
    clip_norm: float = 1.0

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
        frozen: parts of the model that do not learn, by the beginning of their names.
        save_every: steps between saved states.
        keep: how many saved states stay.
        workers: processes that decode; 0 decodes in the training process.
    """

    start: str
    data: str
    epochs: int
    batch_size: int
    optim: OptimConfig = field(default_factory=OptimConfig)
    frozen: tuple[str, ...] = ()
    seed: int = 3407
    save_every: int = 50
    keep: int = 2
    workers: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "save_every", "keep"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 1 or more.")
        if not 0 <= self.seed < 2**32 or self.workers < 0:
            raise ConfigError(f"seed is {self.seed}, workers {self.workers}; expected 0 or more, the seed below 2**32.")
        if self.batch_size < 2:
            raise ConfigError("batch_size is 1, expected 2 or more: a pair is told apart from the rest of its batch.")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, to be written beside the run."""
        return asdict(self)


def override(config: TrainConfig, options: dict[str, str]) -> TrainConfig:
    """`config` with some values replaced, named as on the command line: "epochs", "optim.lr".

    Raises ConfigError for a name that is not there, naming the nearest, and for a value of another kind.
    """
    for name, text in options.items():
        group, _, leaf = name.replace("-", "_").rpartition(".")
        if group not in ("", "optim") or leaf not in _names(config, group) or name == "optim":
            raise ConfigError(f"There is no option --{name}. {_nearest(name, config)}")
        if group:
            config = replace(config, optim=replace(config.optim, **{leaf: _parse(name, text, config.optim, leaf)}))
        else:
            config = replace(config, **{leaf: _parse(name, text, config, leaf)})
    return config


def option_names(config: TrainConfig) -> list[str]:
    """Every name that `override` takes."""
    return [name for name in _names(config, "") if name != "optim"] + [
        f"optim.{name}" for name in _names(config, "optim")
    ]


def _names(config: TrainConfig, group: str) -> list[str]:
    return [field.name for field in fields(config.optim if group else config)]


def _nearest(name: str, config: TrainConfig) -> str:
    names = option_names(config)
    near = get_close_matches(name.replace("-", "_"), names, n=1, cutoff=0.5)
    return f"Did you mean --{near[0].replace('_', '-')}?" if near else f"There are: {', '.join(names)}."


def _parse(name: str, text: str, holder: Any, leaf: str) -> Any:
    """`text` as the kind of value that stands there now."""
    now = getattr(holder, leaf)
    try:
        if isinstance(now, tuple):
            kind = type(now[0]) if now else str
            return tuple(kind(part) for part in text.split(",") if part)
        return type(now)(text)
    except ValueError:
        raise ConfigError(f"--{name} is {text!r}, expected something like {now!r}.") from None
