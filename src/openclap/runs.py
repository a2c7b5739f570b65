"""Train and fine-tune models: `openclap.train` and `openclap.finetune`.

A run is a call of one of them, in a run folder, which a second call resumes. The loop itself is in
`openclap.training.trainer`; here recipes are found, sounds are split, and the result is measured and reported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from openclap.data.build import caption_check
from openclap.errors import ConfigError
from openclap.evals.validation import MetricChange, RetrievalValidation
from openclap.formatting import join_first
from openclap.limits import PROCESSES, check_count, check_path
from openclap.loading import load
from openclap.recipes import recipe as find_recipe
from openclap.sources.recognise import ReadOptions, RecognisedCollection, recognise
from openclap.training import trainer
from openclap.training.checkpointing import SHARDS, check_run_folder
from openclap.training.config import TrainConfig, override, parse_caption_fields
from openclap.training.curves_page import write_report
from openclap.training.finetune_config import FINETUNE_DEFAULTS, FinetuneMode, PairSplit, finetune_config, split_pairs
from openclap.training.optimizer import TOWERS
from openclap.training.teacher import load_teachers
from openclap.training.trainer import OnRow, TrainingResult
from openclap.types import Progress

SPLIT_SEED = 0
"""The seed of the split into training and validation pairs, so that a resumed run has the same."""
OnSentence = Callable[[str], None]
"""Called with a sentence for the user."""


def _ignore(*values: Any) -> None:
    """Do nothing: the default of every callback."""


@dataclass(frozen=True, slots=True)
class FinetuneResult:
    """The result of fine-tuning.

    Attributes:
        training: the run's own result: the model's folder, steps and scores.
        changes: each retrieval figure on the validation pairs before and after, with 95 % intervals; empty for a run
            that was stopped.
        report: the page with the curves; None for a run that was stopped.
        split: the training and validation pairs, and the sounds that were left out.
    """

    training: TrainingResult
    changes: tuple[MetricChange, ...]
    report: Path | None
    split: PairSplit

    @property
    def model(self) -> Path:
        """The folder of the finished model, which is the initial model where nothing was better."""
        return self.training.model


def train(
    recipe: str | os.PathLike[str] | TrainConfig,
    out: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    progress: OnRow = _ignore,
    teaching: Progress = _ignore,
    **options: Any,
) -> TrainingResult:
    """Train a model by a recipe; called again with the same arguments, resume from the last checkpoint.

    The model is written to `out/model`, checkpoints to `out/checkpoints`, the log to `out/log.jsonl` and
    `out/tensorboard`, and the curves to `out/report.html`. Ctrl-C and SIGTERM let the current step finish and save it.

    Args:
        recipe: a recipe's name ("demo"), the path of a Python file with a function `config()`, or a configuration.
        out: the run folder.
        data: a folder of shards, in place of the recipe's.
        progress: called with a row of the log after each step.
        teaching: called with sounds that the teachers have embedded, and sounds in all.
        options: values of the recipe to override, such as `epochs=5`. Options of groups are given as
            `**{"optim.lr": 3e-4}` or whole, `optim=OptimConfig(lr=3e-4)`.

    Raises ConfigError for an unknown recipe or option, or a folder that holds another run; DataError for unusable
    shards; TrainingError for a run that diverges or collapses.

    Examples:
        >>> from pathlib import Path
        >>> import openclap
        >>> sounds = sorted((Path(openclap.__file__).parent / "demo" / "sounds").glob("supersonic-*.ogg"))[:8]
        >>> rows = [f"{path},{path.stem[11:].replace('-', ' ')}" for path in sounds]
        >>> _ = Path("sounds.csv").write_text("file,caption\\n" + "\\n".join(rows))
        >>> _ = openclap.build_dataset("sounds.csv", "set", test_fraction=0)
        >>> result = openclap.train("demo", data="set/train", out="run", epochs=1, batch_size=4)
        >>> result.step
        2
        >>> openclap.load(result.model).embed_text(["a drum"]).shape
        (1, 384)
    """
    config = training_config(recipe, options | ({} if data is None else {"data": check_path("data", data)}))
    out = Path(check_path("out", out))
    result = trainer.train(config, out, progress=progress, teaching=teaching)
    if is_first_process():
        write_report(out)
    return result


def training_config(recipe: str | os.PathLike[str] | TrainConfig, options: Mapping[str, Any]) -> TrainConfig:
    """Find a recipe and override some of its values by option name.

    Raises ConfigError for an unknown recipe or option.
    """
    config = (
        recipe
        if isinstance(recipe, TrainConfig)
        else find_recipe(check_path("recipe", recipe, "a TrainConfig, or the name or file of a recipe"))
    )
    return override(config, options)


def finetune(
    sounds: str | os.PathLike[str],
    start: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    mode: FinetuneMode | None = None,
    validation_fraction: float = 0.2,
    reading: ReadOptions = ReadOptions(),
    skip_caption_check: bool = False,
    processes: int = 1,
    progress: OnRow = _ignore,
    packing: Progress = _ignore,
    teaching: Progress = _ignore,
    note: OnSentence = _ignore,
    **options: Any,
) -> FinetuneResult:
    """Fine-tune a model on your own sounds; called again with the same arguments, resume from the last checkpoint.

    Some pairs are validation pairs, in whole groups, and are scored after every epoch. Training ends when the score no
    longer improves, and the best model is written to `out/model`.

    Args:
        sounds: a folder of sounds (captions from their names, from NAME.txt or NAME.json beside them, or from a table),
            a table, a Hugging Face data set, or shards.
        start: the initial model: anything that `openclap.load` reads.
        out: the run folder.
        mode: the trained parts: "heads"; "last", heads and the towers' last blocks; "lora", heads and low-rank updates
            of attention; "all". By default, by the number of pairs.
        validation_fraction: the share of validation pairs, where the sounds are not split already.
        reading: the source and columns to read `sounds` by, where they are not recognised.
        skip_caption_check: accept captions that look like identifiers, or are nearly all the same.
        processes: sounds that are decoded at the same time while they are packed. With more than 1, a script must
            call this under `if __name__ == "__main__":`, because each process imports the script again.
        progress: called with a row of the log after each step, and with a score alone for the initial model.
        packing: called with sounds packed and sounds in all.
        teaching: called with sounds that the teachers have embedded, and sounds in all.
        note: called with a sentence about each choice: how `sounds` are read, and what is trained.
        options: values of the run to override, as in `train`.

    Raises ConfigError for an unknown option, a mode that does not apply to the model, or a folder that holds another
    run; DataError for too few usable pairs, or captions that are identifiers; TrainingError for a run that diverges.

    Examples:
        >>> import shutil
        >>> from pathlib import Path
        >>> import openclap
        >>> sounds = Path(openclap.__file__).parent / "demo" / "sounds"
        >>> Path("drums").mkdir()
        >>> for sound in sorted(sounds.glob("supersonic-drum-*.ogg"))[:8]:
        ...     _ = shutil.copy(sound, "drums")
        >>> result = openclap.finetune("drums", "mini", "run", epochs=1)
        >>> [change.metric.label for change in result.changes]
        ['text→audio R@1', 'text→audio R@10', 'text→audio mAP@10', ...]
        >>> result.model.name
        'model'
    """
    check_count("processes", processes, most=PROCESSES)
    if not isinstance(validation_fraction, Real) or not 0 < validation_fraction < 1:
        raise ConfigError(f"validation_fraction is {validation_fraction!r}, expected a share between 0 and 1.")
    # A name and not a loaded model: a resumed run loads it again.
    start = check_path("start", start, "the folder, file or name of a model")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError(
            "Fine-tuning runs in one process. For several, build shards and train on them with 'openclap train'."
        )
    sounds, out = Path(check_path("sounds", sounds)).expanduser(), Path(check_path("out", out))
    check_run_folder(out)
    # Before sounds are packed, with the largest defaults: impossible options are refused at once, and the channel that
    # is packed is known.
    planned = finetune_config(start, "", max(FINETUNE_DEFAULTS), mode=mode, options=options)
    channels, fields = planned.channels, parse_caption_fields(planned.caption_fields)
    load_teachers(planned.teacher, "cpu", channels)  # so are teachers that are missing or cannot embed captions
    split = split_pairs(
        sounds,
        out / SHARDS,
        recognise=lambda path: _recognise(path, reading, note),
        check=lambda source: caption_check(source, skip=skip_caption_check, note=note),
        validation_fraction=validation_fraction,
        seed=SPLIT_SEED,
        channels=channels,
        fields=fields,
        processes=processes,
        progress=packing,
    )
    for sentence in split.notes:
        note(sentence)
    config = finetune_config(start, str(split.train.folder), len(split.train), mode=mode, options=options, note=note)
    validation = RetrievalValidation(split.validation, fields=fields)
    note(_describe_run(config, len(split.train), len(validation.clips)))
    result = trainer.train(
        config, out, shards=split.train, validate=validation.score, progress=progress, teaching=teaching
    )
    if result.stopped:
        return FinetuneResult(result, (), None, split)
    changes = validation.compare(
        load(config.start, tokenizer=config.tokenizer or None, channels=config.channels),
        load(result.model, channels=config.channels),
    )
    return FinetuneResult(result, tuple(changes), write_report(out), split)


def is_first_process() -> bool:
    """Check whether this is the process that writes and prints, of the several that torchrun starts."""
    return os.environ.get("RANK", "0") == "0"


def _recognise(path: Path, reading: ReadOptions, note: OnSentence) -> RecognisedCollection:
    """Choose the source that reads `path`, and name it and the tables that are not read."""
    source = recognise(path, reading)
    note(source.summary)
    if source.unread:
        note(f"Not read: {join_first(source.unread)}.")
    return source


def _describe_run(config: TrainConfig, training_pairs: int, validation_pairs: int) -> str:
    parts = {TOWERS: "the heads", (): "the whole model"}
    trained = parts.get(config.frozen, "the parts that are not frozen")
    if config.lora:
        trained = f"the heads, and updates of rank {config.lora} to attention"
    of_towers = "" if config.frozen == TOWERS and not config.lora else f" (towers {config.optim.tower_lr:g})"
    epochs = "1 epoch" if config.epochs == 1 else f"up to {config.epochs} epochs"
    return (
        f"{training_pairs} training pairs, {validation_pairs} validation pairs. Training {trained}: {epochs}, "
        f"{config.batch_size} pairs a batch, learning rate {config.optim.lr:g}{of_towers}."
    )
