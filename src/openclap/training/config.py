"""The configuration of a training run, and its options by name ("epochs", "optim.lr").

A recipe returns a `TrainConfig`; a model's architecture is a preset (`openclap.presets`). Nothing here imports torch,
so that recipes can be listed and edited without it. A field that is itself a frozen dataclass is a group of options,
with names after a dot. Options are read here and not by cyclopts, which takes the defaults of a partly given dataclass
from its class and not from the recipe (docs/decisions/0014-options-of-a-run.md).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from numbers import Real
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from openclap.audio.augment import UNCHANGED, AugmentConfig
from openclap.audio.mono import Channels, MonoConfig
from openclap.data.lengths import LengthConfig
from openclap.errors import ConfigError
from openclap.formatting import join_first
from openclap.limits import COUNT, PROCESSES, check_count
from openclap.models.config import ObjectiveConfig

if TYPE_CHECKING:
    from openclap.presets import Preset

C = TypeVar("C")

LARGEST_SEED = 2**32 - 1
"""numpy's limit."""
LARGEST_RANK = 4096
"""Limit for LoRA: no tower is wider."""
TrainingPrecision = Literal["fp32", "bf16", "fp16"]
Schedule = Literal["cosine", "linear", "constant", "wsd"]


@dataclass(frozen=True, slots=True)
class OptimConfig:
    """AdamW (Loshchilov & Hutter 2019) with linear warm-up and a schedule.

    Attributes:
        lr: learning rate of the projection heads and the temperature.
        tower_lr: learning rate of the trainable tower parameters.
        betas: AdamW's decay rates of the first and second moment.
        warmup_steps: steps in which the learning rates rise linearly to their full value.
        schedule: "cosine" or "linear" decay to zero after warm-up; "constant"; or "wsd", constant until a last linear
            decay to zero (warm-up, stable, decay: Hu et al. 2024, arXiv:2404.06395).
        cooldown: the last share of the steps, in which "wsd" decays.
        layer_decay: factor of the learning rate from each layer of a tower to the one below it (Bao et al. 2021,
            arXiv:2106.08254); 1 for equal rates.
        ema: decay of an exponential moving average of the weights, which is validated and becomes the finished model;
            0 for none.
        weight_decay: decay of matrices and filters; gains, biases and the temperature have none.
        clip_norm: maximum norm of the whole gradient.
    """

    lr: float = 1e-3
    tower_lr: float = 1e-4
    # 0.98 as for CLIP's transformers (Radford et al. 2021).
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.1
    warmup_steps: int = 20
    clip_norm: float = 1.0
    schedule: Schedule = "cosine"
    cooldown: float = 0.2
    layer_decay: float = 1.0
    ema: float = 0.0

    def __post_init__(self) -> None:
        rates = {"lr": self.lr, "tower_lr": self.tower_lr, "weight_decay": self.weight_decay}
        check_count("optim.warmup_steps", self.warmup_steps, least=0)
        for name, value in {"cooldown": self.cooldown, "layer_decay": self.layer_decay}.items():
            if not 0 < value <= 1:
                raise ConfigError(f"optim.{name} is {value}, expected more than 0, up to 1.")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"optim.ema is {self.ema}, expected 0 to below 1.")
        for name, value in rates.items():
            if not 0 <= value < math.inf:
                raise ConfigError(f"optim.{name} is {value}, expected 0 or more.")
        if not self.clip_norm > 0:
            raise ConfigError(f"optim.clip_norm is {self.clip_norm}, expected more than 0.")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"optim.betas is {self.betas}, expected two numbers from 0 to below 1.")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One training run.

    Attributes:
        start: the initial model: anything that `openclap.load` reads.
        data: a folder of shards (one split).
        tokenizer: a `tokenizer.json`, for an initial model without one; "" for its own.
        epochs: passes over the data.
        batch_size: pairs in a batch, on each process.
        accumulate: batches whose gradients are accumulated into one step.
        chunk: pairs whose activations are in memory at a time (gradient caching): the same step in less memory and a
            third more time; 0 computes the whole batch at once. The gradients need memory too, so choose a chunk a
            little smaller than the largest batch that fits whole.
        caption: which captions of a clip are used: one at "random", the "first", or "all" at once.
        caption_fields: fields of a sample's JSON that hold captions, each with its probability: "text=0.7" and
            "original_data.title=0.3". A clip draws one of those that it has; one with "=0" serves clips without others.
        lengths: clips at their own length, for towers that read any length.
        channels: how a sound with several channels becomes mono: their "mean", or the "left", "right" or "loudest".
        objective, augment: the training objective, and data augmentation.
        teacher: models whose similarities become part of the targets (`objective.teacher_share`), several separated by
            commas; "" for none.
        frozen: parts of the model that are not trained, by prefixes of their names.
        unfreeze_at: the step from which frozen parts are trained too; 0 for never.
        freeze_batch_norm: use the towers' batch norms with the running statistics of the initial model.
        start_share: the share of the initial weights in the model that is validated and written, the rest being the
            trained ones (see `openclap.training.averaging`); 0 for none.
        lora: rank of the low-rank updates of the towers' attention (Hu et al. 2021); 0 for none.
        precision: "bf16" and "fp16" compute most of the forward pass in 16 bits (fp16 needs a GPU).
        compile: compile the towers with `torch.compile`: a slow first step, faster ones afterwards.
        activation_checkpointing: compute the towers' activations again in the backward pass, to save memory.
        patience: stop after this many validations without a better score; 0 for never.
        trackers: experiment trackers: "tensorboard", or any other that accelerate supports and that is installed.
        seed: of order, captions, crops, augmentation and dropout.
        save_every: steps between checkpoints.
        keep_checkpoints: how many of the newest checkpoints stay on disk.
        remote_checkpoints: a folder or address ("s3://bucket/run") to which each checkpoint is copied, and from which a
            run resumes when its own folder is gone; "" for none.
        workers: processes that decode; 0 decodes in the training process.
    """

    start: str
    data: str
    epochs: int
    batch_size: int
    accumulate: int = 1
    chunk: int = 0
    caption: Literal["random", "first", "all"] = "random"
    caption_fields: tuple[str, ...] = ("text=1",)
    channels: Channels = "mean"
    lengths: LengthConfig = field(default_factory=LengthConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    augment: AugmentConfig = UNCHANGED
    teacher: tuple[str, ...] = ()
    optim: OptimConfig = field(default_factory=OptimConfig)
    frozen: tuple[str, ...] = ()
    unfreeze_at: int = 0
    freeze_batch_norm: bool = False
    start_share: float = 0.0
    lora: int = 0
    precision: TrainingPrecision = "fp32"
    compile: bool = False
    activation_checkpointing: bool = False
    patience: int = 0
    trackers: tuple[str, ...] = ("tensorboard",)
    # LAION-CLAP's seed.
    seed: int = 3407
    save_every: int = 50
    keep_checkpoints: int = 2
    remote_checkpoints: str = ""
    tokenizer: str = ""
    workers: int = 0

    def __post_init__(self) -> None:
        # Built for its check alone.
        MonoConfig(self.channels)
        parse_caption_fields(self.caption_fields)
        at_least = dict.fromkeys(("epochs", "batch_size", "accumulate", "save_every", "keep_checkpoints"), 1)
        for name, least in (
            at_least | dict.fromkeys(("chunk", "unfreeze_at", "lora", "patience", "workers", "seed"), 0)
        ).items():
            most = {"workers": PROCESSES, "seed": LARGEST_SEED, "lora": LARGEST_RANK}.get(name, COUNT)
            check_count(name, getattr(self, name), least=least, most=most)
        if self.objective.frames:
            self._check_frames()
        if not 0 <= self.start_share < 1:
            raise ConfigError(f"start_share is {self.start_share}, expected a share from 0 to below 1.")
        if self.start_share and self.lora:
            raise ConfigError(
                "start_share averages whole weights, and lora trains updates of them. Leave one of them out."
            )
        if self.batch_size < 2:
            raise ConfigError("batch_size is 1, expected 2 or more: a contrastive loss needs negatives in the batch.")
        if self.teacher and self.objective.kind == "siglip":
            raise ConfigError("objective.kind is siglip, which has no softmax for a teacher. Choose infonce or mlp.")
        if self.teacher and self.augment.mixup:
            raise ConfigError(
                f"augment.mixup is {self.augment.mixup}, expected 0 with a teacher: it has embedded no mixtures."
            )

    def _check_frames(self) -> None:
        """Raise ConfigError for options that the frame loss excludes."""
        moved = [f"augment.{name}" for name in ("shift", "mixup", "patch_dropout") if getattr(self.augment, name)]
        if moved or self.chunk:
            raise ConfigError(
                f"objective.frames does not go with {join_first(moved or ['chunk'], 4)}: "
                + (
                    "on- and offsets would no longer fit the sound."
                    if moved
                    else "it needs the moments of whole batches."
                )
                + " Leave one of them out."
            )

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain data, for `config.json` in the run folder."""
        return asdict(self)


def parse_caption_fields(options: Iterable[str]) -> dict[str, float]:
    """Read "text=0.7" as the field "text" with weight 0.7. Raises ConfigError for other forms and for no field."""
    fields: dict[str, float] = {}
    for option in options:
        name, _, weight = option.partition("=")
        try:
            fields[name.strip()] = float(weight)
        except ValueError:
            raise ConfigError(
                f"caption_fields has {option!r}, expected a field and its weight, like text=0.7."
            ) from None
    if not fields or "" in fields or not all(0 <= weight < math.inf for weight in fields.values()):
        raise ConfigError(
            f"caption_fields is {','.join(options)!r}, expected fields with weights of 0 or more, like "
            "text=0.7,original_data.title=0.3."
        )
    return fields


@dataclass(frozen=True, slots=True)
class ExpectedInputs:
    """The model and the data that a recipe expects, for planning before its start or data exist.

    Attributes:
        mean_s: seconds of a clip in the mean, for models that read clips at their own length.
    """

    preset: Preset
    pairs: int
    mean_s: float = 0.0


def override(config: C, options: Mapping[str, Any]) -> C:
    """Replace some values of `config` by option name ("epochs", "optim.lr"; "-" and "_" are the same).

    Text is converted to the field's type, and None, an option without a value, switches a boolean on. Paths become
    text and lists tuples, as `config.json` of a run and the comparison with it need them. Other values, such as a whole
    `OptimConfig` for "optim", are used as they are.

    Raises ConfigError for an unknown name (it suggests the closest), and for a value that is missing, of another type,
    cannot be converted or is out of range.
    """
    for name, value in options.items():
        path = name.replace("-", "_").split(".")
        is_whole_group = is_dataclass(value) and is_dataclass(getattr(config, ".".join(path), None))
        # Nested values are named one by one, so that a typo in a group is found, too.
        if not is_whole_group and ".".join(path) not in option_names(config):
            raise ConfigError(f"There is no option --{name}. {_suggestion(name, config)}")
        # One option after the other, each on a new object, so that the checks of __post_init__ see every change.
        config = _replace(config, path, name, value)
    return config


def option_names(config: Any) -> list[str]:
    """List every name that `override` takes: plain options first, then those of groups."""
    return sorted(_names(config), key=lambda name: name.count("."))


def describe_options(config: Any) -> list[tuple[str, str, str]]:
    """Describe every option: its command-line name, its value in `config`, and its meaning from the class docstring."""
    return [(f"--{name.replace('_', '-')}", value, meaning) for name, value, meaning in _describe(config)]


def _describe(group: Any, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    from docstring_parser import parse  # here, because only --list-options needs it

    meanings = {
        name.strip(): " ".join((entry.description or "").split())
        for entry in parse(type(group).__doc__ or "").params
        for name in entry.arg_name.split(",")
    }
    # Plain options before groups, as `option_names` lists them.
    inner = [option.name for option in fields(group) if is_dataclass(getattr(group, option.name))]
    for option in fields(group):
        if option.name not in inner:
            yield prefix + option.name, _to_text(getattr(group, option.name)), meanings.get(option.name, "")
    for name in inner:
        yield from _describe(getattr(group, name), f"{prefix}{name}.")


def _to_text(value: Any) -> str:
    """Write a value in the form that the command line reads."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _names(group: Any, prefix: str = "") -> Iterator[str]:
    for option in fields(group):
        value = getattr(group, option.name)
        if is_dataclass(value):
            yield from _names(value, f"{prefix}{option.name}.")
        else:
            yield prefix + option.name


def _replace(group: Any, path: list[str], name: str, value: Any) -> Any:
    first, *rest = path
    current = getattr(group, first)
    if rest:
        changed = _replace(current, rest, name, value)
    else:
        # Annotations are text in this module, so the types must be resolved.
        kind = get_type_hints(type(group))[first]
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
        is_text = value is None or isinstance(value, str)
        changed = _parse(name, value, kind, current) if is_text else _checked(name, value, kind, current)
    return replace(group, **{first: changed})


def _suggestion(name: str, config: Any) -> str:
    names = option_names(config)
    close = get_close_matches(name.replace("-", "_"), names, n=1, cutoff=0.5)
    return f"Did you mean --{close[0].replace('_', '-')}?" if close else f"There are: {', '.join(names)}."


def _parse(name: str, text: str | None, kind: Any, current: Any) -> Any:
    if text is None and kind is not bool:
        example = f", expected something like {current!r}" if current not in ("", ()) else ""
        raise ConfigError(f"--{name} has no value{example}.")
    if text is None:
        return True
    try:
        return _convert(text, kind)
    except ValueError as error:
        expected = str(error) if get_origin(kind) is Literal or kind is bool else f"something like {current!r}"
        raise ConfigError(f"--{name} is {text!r}, expected {expected}.") from None


def _checked(name: str, value: Any, kind: Any, current: Any) -> Any:
    value = tuple(value) if isinstance(value, list) else value
    if not _is_of_kind(value, kind):
        raise ConfigError(f"--{name} is {value!r}, expected something like {current!r}.")
    return value


def _is_of_kind(value: Any, kind: Any) -> bool:
    """Check a Python value against a field's type: a plain type, a Literal, a tuple, or a union of these."""
    origin, kinds = get_origin(kind), get_args(kind)
    if origin is Literal:
        return value in kinds
    if origin is tuple:
        return isinstance(value, tuple) and all(_is_of_kind(item, kinds[0]) for item in value)
    if origin in (Union, UnionType):
        return any(_is_of_kind(value, part) for part in kinds)
    # Numbers of any kind pass, since the configuration's own checks have the better sentence for 1.5 epochs.
    return isinstance(value, Real if kind in (int, float) else kind)


def _convert(text: str, kind: Any) -> Any:
    """Convert `text` to `kind`: a plain type, a Literal, a tuple, or a union of these. Raises ValueError."""
    origin, kinds = get_origin(kind), get_args(kind)
    if origin is Literal:
        if text not in kinds:
            raise ValueError(f"one of: {', '.join(map(str, kinds))}")
        return text
    if origin is tuple:
        return tuple(_convert(part.strip(), kinds[0]) for part in text.split(",") if part.strip())
    if origin in (Union, UnionType):
        if NoneType in kinds and text.lower() == "none":
            return None
        return _convert_to_first(text, [part for part in kinds if part is not NoneType])
    if kind is bool:
        return _to_bool(text)
    return kind(text)


def _convert_to_first(text: str, kinds: list[Any]) -> Any:
    for kind in kinds[:-1]:  # the last kind's error is the one to report
        try:
            return _convert(text, kind)
        except ValueError:
            continue
    return _convert(text, kinds[-1])


def _to_bool(text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise ValueError("yes or no")
    return _BOOLEANS[text.lower()]


_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
