"""Somebody's sounds and a model to a better model for these sounds: the choices that `openclap finetune` makes.

What a choice depends on is how many pairs there are to learn from (`DEFAULTS`). A pair is a sound and what is said of
it; some are held out, in whole groups (docs/decisions/0005), to see whether the model gets better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

from torch import nn

from openclap.errors import ConfigError
from openclap.loading import load
from openclap.training.config import OptimConfig, TrainConfig
from openclap.training.lora import projections
from openclap.training.optimizer import TOWERS
from openclap.training.options import override

if TYPE_CHECKING:
    from openclap.models.clap import CLAP

Mode = Literal["heads", "last", "lora", "all"]
MODES: tuple[Mode, ...] = get_args(Mode)
"""What learns: the heads; these and the towers' last blocks; these and low-rank updates of attention; everything."""

LORA_RANK = 8
LARGE_BATCH = 64
"""Below it, the statistics of a batch are too rough for batch norms, which keep those they came with."""
LAST_SHARE = 6
"""Of a tower's layers, one in six counts as last: 2 of 12, 1 of 6."""
WARMUP_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Defaults:
    """What fine-tuning does unless it is told otherwise."""

    mode: Mode
    epochs: int
    batch_size: int
    patience: int


DEFAULTS: Mapping[int, Defaults] = {
    0: Defaults("heads", epochs=30, batch_size=16, patience=5),
    500: Defaults("last", epochs=20, batch_size=32, patience=4),
    5_000: Defaults("all", epochs=10, batch_size=64, patience=3),
    50_000: Defaults("all", epochs=5, batch_size=128, patience=2),
}
"""By the number of pairs to learn from, from which on they hold. A batch is half of the pairs at most."""

RATES: Mapping[Mode, tuple[float, float]] = {
    "heads": (5e-4, 0.0),
    "last": (5e-4, 5e-5),
    "lora": (5e-4, 5e-4),
    "all": (2e-4, 2e-5),
}
"""Learning rates of heads and towers."""


def defaults(pairs: int) -> Defaults:
    """What to do with so many pairs to learn from."""
    return DEFAULTS[max(least for least in DEFAULTS if least <= pairs)]


def configure(
    start: str,
    data: str,
    pairs: int,
    *,
    mode: Mode | None = None,
    options: Mapping[str, str | None] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> TrainConfig:
    """The run that fine-tunes `start` on `pairs` pairs. `options` replace any of its values; a batch that is larger
    than the data is made smaller, which is told.

    Raises ConfigError for an option that is not there, and a mode that does not apply to the model;
    MissingTokenizerError for a model that cannot read captions.
    """
    usual, options = defaults(pairs), dict(options or {})
    mode = mode or usual.mode
    if mode not in MODES:
        raise ConfigError(f"mode is {mode!r}, expected one of: {', '.join(MODES)}.")
    model = load(start, tokenizer=options.get("tokenizer"))
    model.check_tokenizer()
    lr, tower_lr = RATES[mode]
    config = TrainConfig(
        start,
        data,
        epochs=usual.epochs,
        batch_size=max(2, min(usual.batch_size, pairs // 2)),
        optim=OptimConfig(lr=lr, tower_lr=tower_lr, weight_decay=0.01),
        frozen=frozen_in(model.clap, mode),
        lora=LORA_RANK if mode == "lora" else 0,
        patience=usual.patience,
    )
    config = override(config, options)
    if config.batch_size > pairs:
        tell(f"Batch size reduced to {pairs}: there are only {pairs} training pairs.")
        config = replace(config, batch_size=pairs)
    steps = config.epochs * (pairs // config.batch_size)
    if "optim.warmup_steps" not in {name.replace("-", "_") for name in options}:
        config = replace(config, optim=replace(config.optim, warmup_steps=math.ceil(WARMUP_SHARE * steps)))
    if "fixed_norms" not in {name.replace("-", "_") for name in options}:
        config = replace(config, fixed_norms=config.batch_size < LARGE_BATCH)
    return config


def frozen_in(clap: CLAP, mode: Mode) -> tuple[str, ...]:
    """The parts that do not learn, by name. Raises ConfigError for a mode that does not apply."""
    if mode == "lora":
        for tower in TOWERS:
            projections(clap, tower)
    if mode == "last":
        return tuple(
            part for tower in TOWERS for part in _outside(clap.get_submodule(tower), tower, last_of(clap, tower))
        )
    return () if mode == "all" else TOWERS


def last_of(clap: nn.Module, tower: str) -> list[str]:
    """The last blocks of a tower's longest list of blocks, and what comes after it.

    A Swin's last stage; a PANN's last block; of a text encoder's layers, one in six.
    """
    part = clap.get_submodule(tower)
    lists = {name: module for name, module in part.named_modules() if isinstance(module, nn.ModuleList)}
    blocks = max(lists, key=lambda name: sum(p.numel() for p in lists[name].parameters()))
    count = len(lists[blocks])
    first = count - max(1, count // LAST_SHARE)
    return [f"{tower}.{blocks}.{number}" for number in range(first, count)] + [
        f"{tower}.{name}" for name in _after(part, blocks)
    ]


def _after(tower: nn.Module, blocks: str) -> list[str]:
    """What a tower does with the blocks' output."""
    return [
        name
        for name, module in tower.named_modules()
        if name.rpartition(".")[2] in TAILS
        and name.count(".") <= blocks.count(".")
        and any(True for _ in module.parameters())
    ]


TAILS = ("norm", "linear", "tagger", "pooler", "layernorm", "final_layer_norm")
"""How layers after the blocks are called, here and in transformers."""


def _outside(part: nn.Module, name: str, learns: list[str]) -> list[str]:
    """The largest parts below `name` that hold parameters and none of what learns."""
    if name in learns or not any(True for _ in part.parameters()):
        return []
    if not any(one.startswith(f"{name}.") for one in learns):
        return [name]
    direct = [f"{name}.{key}" for key, _ in part.named_parameters(recurse=False)]
    return direct + [
        inner for key, child in part.named_children() for inner in _outside(child, f"{name}.{key}", learns)
    ]
