"""Fine-tuning: choose the options of a run by the number of training pairs, and split sounds into training and
validation pairs.

`openclap.runs.finetune` puts these together. A pair is a sound with its captions. Validation pairs are whole groups
(docs/decisions/0005), so that the score shows how the model generalises.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from torch import nn

from openclap.audio.mono import Channels
from openclap.captions.check import CaptionCheck
from openclap.captions.rules import Caption
from openclap.data.build import build
from openclap.data.config import DataConfig
from openclap.data.manifest import SkippedRecord
from openclap.data.shards import TEXT, Fields, ShardIndex, captions_of_fields, index_shards
from openclap.data.split import shortfalls, split_by_group
from openclap.errors import ConfigError, DataError
from openclap.loading import load
from openclap.sources.columns import cell_text
from openclap.sources.recognise import RecognisedCollection, recognise
from openclap.training.config import OptimConfig, TrainConfig, override
from openclap.training.lora import attention_projections
from openclap.training.optimizer import TOWERS
from openclap.types import Progress

if TYPE_CHECKING:
    from openclap.models.clap import CLAP

FinetuneMode = Literal["heads", "last", "lora", "all"]
MODES: tuple[FinetuneMode, ...] = get_args(FinetuneMode)
"""Trained parts: the heads; heads and the towers' last blocks; heads and low-rank updates of attention; everything."""

LORA_RANK = 8
LARGE_BATCH = 64
"""Smaller batches estimate batch norms' statistics too roughly, so the initial model's are used."""
LAST_SHARE = 6
"""One in six of a tower's layers counts as last: 2 of 12, 1 of 6."""
WARMUP_SHARE = 0.1

TRAIN, VALIDATION_SPLITS = "train", ("valid", "validation", "val", "test", "eval")
"""Names of split folders; the first validation split that exists is used."""
MIN_PAIRS = 4
"""Two pairs for training and two for validation: retrieval needs a wrong answer."""
SMALL_COLLECTION = 1000
"""Records; in smaller collections the validation fraction may be less than two pairs."""
ROUNDS_TO_TWO = 1.5
"""The smallest number of pairs that `split_by_group` rounds to two."""
LAYOUT_SAMPLES, CHECKED_SAMPLES = 20, 2000
"""Samples of shards whose layout is checked, and samples whose captions are checked."""


@dataclass(frozen=True, slots=True)
class FinetuneDefaults:
    """The default options of fine-tuning."""

    mode: FinetuneMode
    epochs: int
    batch_size: int
    patience: int


FINETUNE_DEFAULTS: Mapping[int, FinetuneDefaults] = {
    0: FinetuneDefaults("heads", epochs=30, batch_size=16, patience=5),
    500: FinetuneDefaults("last", epochs=20, batch_size=32, patience=4),
    5_000: FinetuneDefaults("all", epochs=10, batch_size=64, patience=3),
    50_000: FinetuneDefaults("all", epochs=5, batch_size=128, patience=2),
}
"""By the smallest number of training pairs. A batch is half of the pairs at most."""

LEARNING_RATES: Mapping[FinetuneMode, tuple[float, float]] = {
    "heads": (5e-4, 0.0),
    "last": (5e-4, 5e-5),
    "lora": (5e-4, 5e-4),
    "all": (2e-4, 2e-5),
}
"""The highest learning rates of heads and towers."""
STEP_SHARE = 0.01
"""The part of a head's typical weight that a step may change it by, at the full learning rate."""


def finetune_defaults(pairs: int) -> FinetuneDefaults:
    """Choose the defaults for a number of training pairs."""
    return FINETUNE_DEFAULTS[max(least for least in FINETUNE_DEFAULTS if least <= pairs)]


def finetune_config(
    start: str,
    data: str,
    pairs: int,
    *,
    mode: FinetuneMode | None = None,
    options: Mapping[str, Any] | None = None,
    note: Callable[[str], None] = lambda sentence: None,
) -> TrainConfig:
    """Build the configuration that fine-tunes `start` on `pairs` pairs.

    Args:
        options: override any value by option name (see `training.config.override`).
        note: called with a sentence when the batch size is reduced to the number of pairs.

    Raises ConfigError for an unknown option or a mode that does not apply to the model; MissingTokenizerError for a
    model that cannot read captions.
    """
    defaults, options = finetune_defaults(pairs), dict(options or {})
    mode = mode or defaults.mode
    if mode not in MODES:
        raise ConfigError(f"mode is {mode!r}, expected one of: {', '.join(MODES)}.")
    # Loaded here, because the frozen parts of a mode depend on the towers, and a model that cannot read captions has
    # to be refused before sounds are packed.
    model = load(start, tokenizer=options.get("tokenizer"))
    model.check_tokenizer()
    # Pretrained towers get a tenth of the heads' rate; LoRA's matrices are new, like heads.
    most, tower_lr = LEARNING_RATES[mode]
    lr = head_learning_rate(model.clap, most)
    config = TrainConfig(
        start,
        data,
        epochs=defaults.epochs,
        # Half of the pairs: with one batch an epoch, every step would see the same negatives.
        batch_size=max(2, min(defaults.batch_size, pairs // 2)),
        # Weaker than in training from scratch: decay pulls towards 0, away from the pretrained weights.
        optim=OptimConfig(lr=lr, tower_lr=tower_lr, weight_decay=0.01),
        frozen=frozen_parts(model.clap, mode),
        lora=LORA_RANK if mode == "lora" else 0,
        patience=defaults.patience,
    )
    # Before what follows, which depends on the chosen batch size and epochs.
    config = override(config, options)
    if config.batch_size > pairs:
        note(f"Batch size reduced to {pairs}: there are only {pairs} training pairs.")
        config = replace(config, batch_size=pairs)
    # Of the options as they are now: a user's batch size changes the number of steps.
    steps = config.epochs * (pairs // config.batch_size)
    chosen = {name.replace("-", "_") for name in options}
    if not chosen & {"optim", "optim.warmup_steps"}:
        config = replace(config, optim=replace(config.optim, warmup_steps=math.ceil(WARMUP_SHARE * steps)))
    if "freeze_batch_norm" not in chosen:
        config = replace(config, freeze_batch_norm=config.batch_size < LARGE_BATCH)
    return config


def head_learning_rate(clap: CLAP, most: float) -> float:
    """Choose the learning rate of the heads by the size of their weights, to one digit: `most` or less.

    AdamW changes every weight by about the learning rate in each step, whatever its size: by 5e-4, which is a sixtieth
    of the typical weight of a layer of 384 that torch initialised, and a twentieth of that of the bundled model's text
    head. Small sets then make the model worse (docs/LOG.md, "The rate of fine-tuning").
    """
    sizes = [
        float(parameter.detach().square().mean().sqrt())
        for head in (clap.audio_head, clap.text_head)
        for parameter in head.parameters()
        if parameter.ndim > 1
    ]
    smallest = min((size for size in sizes if size > 0), default=math.inf)
    return min(most, float(f"{STEP_SHARE * smallest:.0e}"))


def frozen_parts(clap: CLAP, mode: FinetuneMode) -> tuple[str, ...]:
    """List the parts that a mode freezes, by name. Raises ConfigError for a mode that does not apply to the model."""
    if mode == "lora":
        for tower in TOWERS:
            attention_projections(clap, tower)
    if mode == "last":
        return tuple(
            part for tower in TOWERS for part in _outside(clap.get_submodule(tower), tower, last_blocks(clap, tower))
        )
    # For "lora", too: the low-rank matrices are added to frozen towers.
    return () if mode == "all" else TOWERS


def last_blocks(clap: nn.Module, tower: str) -> list[str]:
    """List the last blocks of a tower's longest list of blocks, and the layers after them.

    That is a Swin's last stage, a PANN's last block, and one in six of a text encoder's layers.
    """
    part = clap.get_submodule(tower)
    lists = {name: module for name, module in part.named_modules() if isinstance(module, nn.ModuleList)}
    # A Swin has a list of stages, each with a list of blocks: the list with the most parameters is the outer one.
    blocks = max(lists, key=lambda name: sum(p.numel() for p in lists[name].parameters()))
    count = len(lists[blocks])
    first = count - max(1, count // LAST_SHARE)
    return [f"{tower}.{blocks}.{number}" for number in range(first, count)] + [
        f"{tower}.{name}" for name in _layers_after(part, blocks)
    ]


def _layers_after(tower: nn.Module, blocks: str) -> list[str]:
    return [
        name
        for name, module in tower.named_modules()
        if name.rpartition(".")[2] in FINAL_LAYERS
        and name.count(".") <= blocks.count(".")
        and any(True for _ in module.parameters())
    ]


FINAL_LAYERS = ("norm", "linear", "tagger", "pooler", "layernorm", "final_layer_norm")
"""Names of layers after the blocks, here and in transformers."""


def _outside(part: nn.Module, name: str, trained: list[str]) -> list[str]:
    """List the largest parts below `name` that have parameters and contain none of the trained parts."""
    if name in trained or not any(True for _ in part.parameters()):
        return []
    if not any(inner.startswith(f"{name}.") for inner in trained):
        return [name]
    direct = [f"{name}.{key}" for key, _ in part.named_parameters(recurse=False)]
    return direct + [
        inner for key, child in part.named_children() for inner in _outside(child, f"{name}.{key}", trained)
    ]


@dataclass(frozen=True, slots=True)
class PairSplit:
    """Training and validation samples, the sounds left out of both with reasons, and notes about the split."""

    train: ShardIndex
    validation: ShardIndex
    skipped: tuple[SkippedRecord, ...] = ()
    notes: tuple[str, ...] = ()


def split_pairs(
    sounds: Path,
    folder: Path,
    *,
    recognise: Callable[[Path], RecognisedCollection] = recognise,
    check: Callable[[RecognisedCollection], CaptionCheck] | None = None,
    validation_fraction: float = 0.2,
    seed: int = 0,
    channels: Channels = "mean",
    fields: Fields = TEXT,
    processes: int = 1,
    progress: Progress | None = None,
) -> PairSplit:
    """Read the pairs of `sounds`, in any form that `recognise` supports, and split them.

    Shards in LAION's layout are used in place: a folder of splits as it is split, others divided by group. Everything
    else is packed into `folder`; called again, packed sounds are not packed again.

    Args:
        recognise: chooses the source that reads `sounds`.
        check: builds the check of captions that runs before anything is packed.
        validation_fraction: the share of pairs for validation, where `sounds` have no splits.
        channels: how sounds with several channels become mono (`openclap.audio.mono`).
        fields: the fields of a sample's JSON that hold captions, of shards that are used in place.

    Raises DataError for no pairs, or too few.
    """
    split = _split_in_place(sounds, validation_fraction, seed, fields)
    if split is not None and check:
        caption_check = check(RecognisedCollection(sounds.absolute(), "shards", lambda: iter(()), ""))
        for captions in _sample_captions(split.train, fields):
            caption_check.add(captions)
        caption_check.finish()
    if split is None:
        fractions = {"train": 1 - validation_fraction, "test": validation_fraction}
        config = DataConfig(splits=fractions, seed=seed, channels=channels)
        source = recognise(sounds.absolute())
        split = _pack(source, folder, config, check and check(source), processes, progress)
    _check_enough(split, sounds)
    return split


def _split_in_place(sounds: Path, fraction: float, seed: int, fields: Fields = TEXT) -> PairSplit | None:
    """Split shards in LAION's layout; None for anything else."""
    if sounds.suffix == ".tar" and sounds.is_file():
        return _split_laion(index_shards(sounds.parent, sounds.name), fraction, seed, fields)
    if _has_tars(sounds):
        return _split_laion(index_shards(sounds), fraction, seed, fields)
    if not _has_tars(sounds / TRAIN):
        return None
    validation = next((sounds / name for name in VALIDATION_SPLITS if _has_tars(sounds / name)), None)
    train = index_shards(sounds / TRAIN)
    if validation is None:
        return _split_laion(train, fraction, seed, fields)
    return PairSplit(train, index_shards(validation)) if _is_laion_layout(train, fields) else None


def _pack(  # noqa: PLR0917
    source: RecognisedCollection,
    folder: Path,
    config: DataConfig,
    check: CaptionCheck | None,
    processes: int,
    progress: Progress | None,
) -> PairSplit:
    records = source.read()
    first = list(islice(records, SMALL_COLLECTION))  # a large collection is never read into memory
    if len(first) < SMALL_COLLECTION:
        fraction = at_least_two(config.splits["test"], len(first))
        config = replace(config, splits={"train": 1 - fraction, "test": fraction})
    report = build(chain(first, records), folder, config, check=check, processes=processes, progress=progress)
    split = _split_in_place(folder, config.splits["test"], config.seed)
    if split is None:
        raise DataError(f"{source.path}: all of its pairs are validation pairs, so none is left for training.")
    return replace(split, skipped=report.skipped, notes=report.notes)


def _has_tars(folder: Path) -> bool:
    return any(path.is_file() for path in folder.glob("*.tar"))


def _split_laion(index: ShardIndex, fraction: float, seed: int, fields: Fields) -> PairSplit | None:
    return split_index(index, fraction, seed) if _is_laion_layout(index, fields) else None


def at_least_two(fraction: float, pairs: int) -> float:
    """Move `fraction` to the nearest value that gives both splits two pairs, where there are enough pairs."""
    if pairs < MIN_PAIRS:
        return fraction
    least = 2 / pairs
    if fraction * pairs < ROUNDS_TO_TWO:
        return least
    return 1 - least if (1 - fraction) * pairs < ROUNDS_TO_TWO else fraction


def _is_laion_layout(index: ShardIndex, fields: Fields) -> bool:
    """Check that most sounds have a JSON with captions in LAION's place or in one of the chosen fields. Damaged samples
    are skipped later."""
    # Mostly sounds without a JSON: another layout, which a source has to read.
    if 2 * len(index) < len(index) + index.unpaired:
        return False
    # The first readable sample decides: a set has one layout.
    for number in range(min(len(index), LAYOUT_SAMPLES)):
        try:
            return bool(index.read_sample(number, {**TEXT, **fields}).captions)
        except DataError:
            continue
    return False


def split_index(index: ShardIndex, fraction: float, seed: int) -> PairSplit:
    """Split samples into training and validation samples; a group is never divided."""
    # By group, since the takes of one recording are nearly the same sound (docs/decisions/0005).
    groups = _read_groups(index)
    fraction = at_least_two(fraction, len(groups))
    splits = {"train": 1 - fraction, "test": fraction}
    side = split_by_group(groups, splits, seed)
    train, validation = (
        select_samples(index, [i for i, group in enumerate(groups) if side[group] == name])
        for name in ("train", "test")
    )
    sizes = {name: Counter(group for group in groups if side[group] == name) for name in splits}
    # An empty split is an error of `_check_enough` and not a note.
    notes = tuple(shortfall.sentence for shortfall in shortfalls(splits, sizes) if not shortfall.empty)
    return PairSplit(train, validation, notes=notes)


def select_samples(index: ShardIndex, numbers: Sequence[int]) -> ShardIndex:
    """Select the samples with these numbers."""
    chosen = np.array(numbers, np.int64)
    keys = tuple(index.keys[i] for i in numbers)
    return replace(index, keys=keys, tar_S=index.tar_S[chosen], spans_S4=index.spans_S4[chosen])


def _read_groups(index: ShardIndex) -> list[str]:
    """Read each sample's group; a sample without one is a group of its own."""
    return [
        _group_of(_read_json(index, number)) or f"{index.tars[index.tar_S[number]]}/{index.keys[number]}"
        for number in range(len(index))
    ]


def _sample_captions(index: ShardIndex, fields: Fields) -> Iterator[list[Caption]]:
    """Read the captions of at most CHECKED_SAMPLES samples, spread over all shards."""
    # Spread over the shards, because neighbours in a tar often come from one source.
    for number in range(0, len(index), -(-len(index) // CHECKED_SAMPLES) or 1):
        try:
            by_field = captions_of_fields(json.loads(_read_json(index, number)), fields)
            yield [Caption(text, "given") for captions in by_field.values() for text in captions]
        except ValueError:
            continue  # a damaged sample is reported when it is read for training


def _read_json(index: ShardIndex, number: int) -> bytes:
    """Read the JSON of a sample without its sound."""
    with (index.folder / index.tars[index.tar_S[number]]).open("rb") as file:
        file.seek(int(index.spans_S4[number, 2]))
        return bytes(file.read(int(index.spans_S4[number, 3])))


def _group_of(sample_json: bytes) -> str | None:
    try:
        group = json.loads(sample_json)["original_data"]["group"]
    except (ValueError, KeyError, TypeError):
        return None
    return cell_text(group)


def _check_enough(split: PairSplit, sounds: Path) -> None:
    """Raise DataError for fewer than two training or two validation pairs."""
    train, validation = len(split.train), len(split.validation)
    if train >= 2 and validation >= 2:
        return
    skipped = f" {len(split.skipped)} were left out; the first: {split.skipped[0].reason}." if split.skipped else ""
    if train + validation < MIN_PAIRS:
        raise DataError(
            f"{sounds}: {_count_pairs(train + validation)}, and at least {MIN_PAIRS} are needed: two for training and "
            f"two for validation.{skipped}"
        )
    raise DataError(
        f"{sounds}: {_count_pairs(train)} for training and {validation} for validation, and both need two. Sounds of "
        "one group stay together, as numbered takes of one name do. Give them groups of their own in a table, or "
        f"choose another --validation-fraction.{skipped}"
    )


def _count_pairs(number: int) -> str:
    return f"{number} usable pair{'' if number == 1 else 's'} of sound and caption"
