"""`openclap finetune`: fine-tune a model on your own sounds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from openclap.cli.console import list_skipped, note, print_json, print_table, shown
from openclap.cli.live import RunDisplay
from openclap.cli.model_options import TokenizerFile
from openclap.cli.reading import ReadAs
from openclap.cli.train import parse_options

if TYPE_CHECKING:
    from openclap.evals.validation import MetricChange
    from openclap.runs import FinetuneResult
    from openclap.training.trainer import TrainingResult


def finetune(
    sounds: Path,
    *options: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)],
    start: Annotated[str, Parameter(name="--from")],
    out: Path,
    tokenizer: TokenizerFile = None,
    mode: Literal["heads", "last", "lora", "all"] | None = None,
    validation_fraction: float = 0.2,
    read_as: ReadAs = ReadAs(),
    skip_caption_check: bool = False,
    processes: int = os.cpu_count() or 1,
    json: bool = False,
) -> int:
    """Fine-tune a model on your own sounds, and measure by how much it improves.

    A share of the pairs, in whole groups, is used for validation after every epoch. Training ends when the score no
    longer improves; the best model is written to OUT/model. After Ctrl-C or a kill, the same command resumes. Every
    value of the recipe "small" is an option: --epochs 5 --optim.lr 3e-4 --batch-size 16; `openclap train small
    --list-options` lists them. Epochs, batch size and learning rates are chosen by the number of pairs, the mode and
    the initial model, and printed before training begins.

    Parameters
    ----------
    sounds
        A folder of sounds (captions from their names, from NAME.txt or NAME.json beside them, or from a table), a
        table, a Hugging Face data set, or shards. The first line of the output names the recognised form.
    start
        The initial model: a folder, a file or a name (`openclap models`).
    out
        The run folder.
    mode
        The parts to train: "heads"; "last", heads and the towers' last blocks; "lora", heads and low-rank updates of
        attention; "all". Default: chosen by the number of pairs.
    validation_fraction
        The share of validation pairs, unless the sounds come in splits.
    skip_caption_check
        Accept captions that look like identifiers, or are nearly all the same.
    processes
        The number of sounds to decode in parallel.
    json
        Print one JSON object instead of a table.
    """
    from openclap.errors import ConfigError
    from openclap.recipes import recipe
    from openclap.runs import finetune as run
    from openclap.training.config import override

    values = parse_options(options)
    for name, place in {"start": "--from", "data": "SOUNDS"}.items():
        if name in values:
            raise ConfigError(f"--{name} is an option of openclap train; here, give {place}.")
    # Check the names before they become keyword arguments: --note must be an unknown option, not the parameter `note`.
    override(recipe("small"), values)
    values |= {"tokenizer": str(tokenizer)} if tokenizer else {}
    with _Display(sounds.expanduser().absolute()) as display:
        result = run(
            sounds,
            start,
            out,
            mode=mode,
            validation_fraction=validation_fraction,
            reading=read_as.reading,
            skip_caption_check=skip_caption_check,
            processes=processes,
            progress=display.on_row,
            packing=display.on_packed,
            teaching=display.on_teaching,
            note=display.note,
            **values,
        )
    list_skipped([(item.file, item.reason) for item in result.split.skipped])
    list_skipped([(reason.partition(": ")[0], reason) for reason in result.training.skipped])
    return _print_result(result, json=json)


def _print_result(result: FinetuneResult, *, json: bool) -> int:
    training = result.training
    if json:
        print_json(_to_json(result))
    if result.report is None:
        note(f"Stopped at step {training.step} of {training.total_steps}, saved. Run the same command to resume.")
        # The code by which shells report an interrupt: scripts can tell a stopped run from a finished one.
        return 130
    if not json:
        print_changes(result.changes)
    note(f"The curves are in {shown(result.report)}")
    note(_verdict(training))
    return 0


def print_changes(changes: Sequence[MetricChange]) -> None:
    """Print the validation figures before and after fine-tuning."""
    print_table(
        ["validation pairs", "", "before", "95 %", "after", "95 %", "change", "95 %"],
        [
            [*change.metric.label.split(" ", 1)]
            + [text for e in (change.before, change.after) for text in (f"{e.value:.3f}", _interval(e, ".3f"))]
            + [f"{change.difference.value:+.3f}", _interval(change.difference, "+.3f")]
            for change in changes
        ],
        right=range(2, 8),
    )


def _interval(estimate: Any, form: str) -> str:
    return "one group" if isnan(estimate.low) else f"{estimate.low:{form}} to {estimate.high:{form}}"


def _verdict(result: TrainingResult) -> str:
    assert result.start_score is not None and result.best_score is not None
    if result.best_step == 0:
        return (
            f"The validation score did not improve (before: {result.start_score:.3f}), so {result.model} is the "
            "initial model. More sounds, or a lower --optim.lr, may help."
        )
    return (
        f"Validation score: {result.start_score:.3f} before, {result.best_score:.3f} after step {result.best_step}. "
        f"The model is in {result.model}"
    )


def _to_json(result: FinetuneResult) -> dict[str, Any]:
    training = result.training
    facts = asdict(training) | {"model": str(training.model), "skipped": list(training.skipped)}
    return facts | {"validation": [_change_to_json(change) for change in result.changes]}


def _change_to_json(change: MetricChange) -> dict[str, Any]:
    """Convert a change; the bounds of a figure without an interval become null."""
    estimates = {"before": change.before, "after": change.after, "difference": change.difference}
    return {"task": change.metric.direction, "metric": change.metric.name} | {
        name: {
            "value": estimate.value,
            "low": None if isnan(estimate.low) else estimate.low,
            "high": None if isnan(estimate.high) else estimate.high,
        }
        for name, estimate in estimates.items()
    }


class _Display(RunDisplay):
    """The display of a run, with a bar while sounds are packed, and notes with short paths."""

    def __init__(self, sounds: Path) -> None:
        super().__init__()
        self.sounds = sounds

    def note(self, sentence: str) -> None:
        self.close()
        note(sentence.replace(str(self.sounds), shown(self.sounds), 1))

    def on_packed(self, done: int, total: int) -> None:
        self.on_bar("Reading sounds", done, total)

    def on_row(self, row: dict[str, Any]) -> None:
        super().on_row(row)
        if "score" in row:
            best = ", the best so far" if row["step"] and row["best_step"] == row["step"] else ""
            when = f"epoch {row['epoch']}" if row["step"] else "before"
            note(f"{when}: score {row['score']:.3f}{best}")
