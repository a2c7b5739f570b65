"""`openclap finetune`: somebody's sounds and a model to a better model for these sounds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from openclap.cli.console import list_skipped, note, print_json, print_table, progress, shown
from openclap.cli.live import training_line
from openclap.cli.model_options import Tokenizer
from openclap.cli.reading import ReadAs, caption_check
from openclap.cli.train import options_given

if TYPE_CHECKING:
    from openclap.evals.validation import Change, HeldOut
    from openclap.training.config import TrainConfig
    from openclap.training.pairs import Pairs
    from openclap.training.trainer import Outcome

HELD_OUT_SEED = 0


def finetune(
    sounds: Path,
    *options: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)],
    start: Annotated[str, Parameter(name="--from")],
    out: Path,
    tokenizer: Tokenizer = None,
    mode: Literal["heads", "last", "lora", "all"] | None = None,
    held_out: float = 0.2,
    read_as: ReadAs = ReadAs(),
    skip_caption_check: Annotated[bool, Parameter(negative="")] = False,
    processes: int = os.cpu_count() or 1,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Make a model better for your own sounds, and see by how much.

    Some pairs are held out, in whole groups, and scored after every epoch. Training ends when they get no better, and
    the best model is left in OUT/model. Stopped with Ctrl-C or killed, the same command goes on. Any value of the run
    can be replaced: --epochs 5 --optim.lr 3e-4 --batch-size 16. `openclap train small --values` explains them all.

    Parameters
    ----------
    sounds
        A folder of sounds (what they are stands in their names, in NAME.txt or NAME.json beside them, or in a table), a
        table, a Hugging Face data set, or shards; what it was recognised as is said.
    start
        The model to begin with: a folder, a file or a name (`openclap models`).
    out
        Folder of the run.
    mode
        What learns: "heads"; "last", these and the towers' last blocks; "lora", these and low-rank updates of
        attention; "all". Without it, what fits the number of sounds.
    held_out
        The share of pairs that is held out, where the sounds are not split already.
    skip_caption_check
        Go on with captions that look like identifiers, or are nearly all the same.
    processes
        How many sounds are decoded at once.
    json
        Print one JSON object in place of a table.
    """
    from openclap.errors import ConfigError
    from openclap.evals.validation import HeldOut
    from openclap.limits import PROCESSES, check_count
    from openclap.training.claim import check_folder
    from openclap.training.finetune import DEFAULTS, configure
    from openclap.training.trainer import train

    check_count("--processes", processes, most=PROCESSES)
    if not 0 < held_out < 1:
        raise ConfigError(f"--held-out is {held_out}, expected a share between 0 and 1.")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError("openclap finetune is for one process. Make shards, and give several to openclap train.")
    check_folder(out)
    given = options_given(options)
    for name, place in {"start": "--from", "data": "SOUNDS"}.items():
        if name in given:
            raise ConfigError(f"--{name} is for openclap train; here, {place} says it.")
    given |= {"tokenizer": str(tokenizer)} if tokenizer else {}
    # Before sounds are packed: impossible choices are refused, and the channel to pack is known.
    channels = configure(start, "", max(DEFAULTS), mode=mode, options=given).channels
    pairs = _pairs(
        sounds,
        out,
        recognised=read_as.recognise,
        check=partial(caption_check, skip=skip_caption_check),
        share=held_out,
        seed=HELD_OUT_SEED,
        channels=channels,
        processes=processes,
    )
    config = configure(start, str(pairs.train.folder), len(pairs.train), mode=mode, options=given, tell=note)
    held = HeldOut(pairs.held)
    note(_plan(config, len(pairs.train), len(held.clips)))
    with _told() as watch:
        outcome = train(config, out, shards=pairs.train, validate=held.score, watch=watch)
    list_skipped([(reason.partition(": ")[0], reason) for reason in outcome.skipped])
    return _stopped(outcome, json) if outcome.stopped else _finished(outcome, held, config, out, json=json)


def _pairs(sounds: Path, out: Path, **choices: Any) -> Pairs:
    """The pairs of `sounds`, packed into `out` if need be by the choices of `pairs_of`; lists the ones left out."""
    from openclap.training.claim import SHARDS
    from openclap.training.pairs import pairs_of

    with progress("Reading sounds") as advance:
        pairs = pairs_of(sounds.expanduser(), out / SHARDS, progress=advance, **choices)
    list_skipped([(item.file, item.reason) for item in pairs.skipped])
    for sentence in pairs.notes:
        note(sentence)
    return pairs


def _stopped(outcome: Outcome, json: bool) -> int:
    if json:
        print_json(_facts(outcome, []))
    note(f"Stopped at step {outcome.step} of {outcome.total_steps}, saved. Run the same command to go on.")
    return 130


def _finished(outcome: Outcome, held: HeldOut, config: TrainConfig, out: Path, *, json: bool) -> int:
    """Both models on the held-out pairs, the curves, and what came of it."""
    import openclap
    from openclap.training.page import write_page

    changes = held.compare(
        openclap.load(config.start, tokenizer=config.tokenizer or None, channels=config.channels),
        openclap.load(outcome.model, channels=config.channels),
    )
    if json:
        print_json(_facts(outcome, changes))
    else:
        show(changes)
    note(f"The curves are in {shown(write_page(out))}")
    note(_verdict(outcome))
    return 0


def show(changes: Sequence[Change]) -> None:
    """Held-out figures before and after, to stdout."""
    print_table(
        ["held-out pairs", "", "before", "95 %", "after", "95 %", "change", "95 %"],
        [
            [_TASKS[one.task], one.metric]
            + [text for each in (one.before, one.after) for text in (f"{each.value:.3f}", _interval(each, ".3f"))]
            + [f"{one.difference.value:+.3f}", _interval(one.difference, "+.3f")]
            for one in changes
        ],
        right=range(2, 8),
    )


_TASKS = {"text_to_audio": "text→audio", "audio_to_text": "audio→text"}


def _interval(estimate: Any, form: str) -> str:
    return "one group" if isnan(estimate.low) else f"{estimate.low:{form}} to {estimate.high:{form}}"


def _plan(config: TrainConfig, learns: int, held: int) -> str:
    towers = {("audio_tower", "text_tower"): "the heads", (): "all of it"}
    what = towers.get(config.frozen, "the parts that are not frozen")
    if config.lora:
        what = f"the heads, and updates of rank {config.lora} to attention"
    epochs = "1 epoch" if config.epochs == 1 else f"Up to {config.epochs} epochs"
    return (
        f"Learning from {learns} pairs, {held} held out. What learns of the model: {what}. {epochs}, "
        f"{config.batch_size} pairs a batch."
    )


def _verdict(outcome: Outcome) -> str:
    assert outcome.start is not None and outcome.best is not None
    if outcome.best_step == 0:
        return (
            f"Held-out pairs were found no better than before (score {outcome.start:.3f}), so {outcome.model} is the "
            "model you began with. More sounds, or a lower --optim.lr, may help."
        )
    return (
        f"Score on held-out pairs: {outcome.start:.3f} before, {outcome.best:.3f} after step {outcome.best_step}. "
        f"The model is in {outcome.model}"
    )


def _facts(outcome: Outcome, changes: Sequence[Change]) -> dict[str, Any]:
    facts = asdict(outcome) | {"model": str(outcome.model), "skipped": list(outcome.skipped)}
    return facts | {"held_out": [_change(one) for one in changes]}


def _change(one: Change) -> dict[str, Any]:
    """As JSON has it; the bounds of a figure without an interval are null."""
    estimates = {"before": one.before, "after": one.after, "difference": one.difference}
    return {"task": one.task, "metric": one.metric} | {
        name: {
            "value": each.value,
            "low": None if isnan(each.low) else each.low,
            "high": None if isnan(each.high) else each.high,
        }
        for name, each in estimates.items()
    }


@contextmanager
def _told() -> Iterator[Callable[[dict[str, Any]], None]]:
    """The live line of training, and a line for every score."""
    with training_line() as step:

        def watch(row: dict[str, Any]) -> None:
            if row["step"]:
                step(row)
            if "score" in row:
                best = ", the best so far" if row["step"] and row["best_step"] == row["step"] else ""
                when = f"epoch {row['epoch']}" if row["step"] else "before"
                note(f"{when}: score {row['score']:.3f}{best}")

        yield watch
