"""`openclap eval`: the quality of models as one table."""

from __future__ import annotations

import json as jsons
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openclap import paths
from openclap.audio.mono import Channels, MonoConfig
from openclap.cli.console import note, print_table, progress, results
from openclap.cli.defaults import default_model
from openclap.cli.model_options import Tokenizer, TrimSilence
from openclap.cli.reading import ReadAs, note_doubts

if TYPE_CHECKING:
    from openclap.embedder import Embedder
    from openclap.evals.bench import Table
    from openclap.evals.clips import EvalClips
    from openclap.evals.evaluation import Evaluation
    from openclap.evals.hearing import Listener

NUMBERS = ("ours", "published", "difference", "n", "seconds")
"""Columns of a suite's table that stand to the right."""
LARGEST_SEED = 2**32 - 1
"""That numpy and scikit-learn take."""
NOTED = 3
"""Notes on one task that are shown; JSON and Markdown have all."""


def evaluate(
    *checkpoints: str,
    suite: str = "quick",
    data: Path | None = None,
    split: str = "test",
    baseline: str | None = None,
    training: Path | None = None,
    read_as: ReadAs = ReadAs(),
    processes: int = 1,
    batch_size: int = 16,
    precision: str = "fp32",
    device: str | None = None,
    tokenizer: Tokenizer = None,
    channels: Channels = "mean",
    trim_silence: TrimSilence = False,
    json: Path | None = None,
    markdown: Path | None = None,
    html: Path | None = None,
    seed: int = 0,
) -> None:
    """Evaluate models: retrieval between sounds and text, zero-shot classification, and probing.

    The suite "quick" measures on packed shards, each figure with its 95 % interval over groups, what chance gives, and,
    with --baseline, what another model does. The suite "paper" stands beside what papers report. Several checkpoints
    are compared in pairs. Vectors are kept in $OPENCLAP_HOME/evals: the same command goes on where it was
    stopped, and takes seconds the next time.

    Parameters
    ----------
    checkpoints
        Model folders, files or names; the demo's model without any.
    suite
        "quick", "paper", "supervised" (trains networks, fine-tuned towers too: hours), or a TOML file of tasks
        (docs/howto/evaluate.md).
    data
        quick: a folder that `openclap dataset build` wrote, or whatever it reads; the demo's without it. Its split
        `train` teaches the probe; of what has no splits, all is measured on. Otherwise: the folder that holds the
        published sets, each in a folder of its own; $OPENCLAP_HOME/datasets without it.
    split
        quick: the split to measure on.
    baseline
        quick, of one model: another to stand beside it, such as what training started from.
    training
        A `manifest.parquet` of what the models were trained on; clips of its uploads and with its sounds are left out.
    processes
        Processes that embed, each with a model of its own. The table is the same with any number.
    batch_size
        Windows in one forward pass. The table is the same with any number.
    precision
        What the models compute in: fp32, bf16, int8 or auto.
    device
        Where they compute: cpu, cuda, …; a GPU without it, when there is one.
    channels
        The channel to read of sounds with several: their mean, or the left, the right or the loudest one.
    trim_silence
        Cut silent ends (below -80 dBFS) off each sound before it is embedded.
    json
        Write everything as JSON to this file.
    markdown
        Write the table as Markdown to this file.
    html
        Write a self-contained page with plots and sounds to this file.
    seed
        Of resamples, draws and networks.
    """
    from openclap.errors import ConfigError

    if not 0 <= seed <= LARGEST_SEED:
        raise ConfigError(f"--seed is {seed}, expected a whole number from 0 to {LARGEST_SEED}.")
    outputs = _Outputs(json, markdown, html)
    outputs.check()
    models = checkpoints or (default_model(),)
    places = [str(Path(name).resolve()) if Path(name).exists() else name for name in models]
    if twice := next((name for name, place in zip(models, places, strict=True) if places.count(place) > 1), None):
        raise ConfigError(f"{twice} is named twice, expected different checkpoints.")
    mono = MonoConfig(channels, trim_silence)
    computing = _Computing(processes, batch_size, precision, device, tokenizer, mono)
    if suite == "quick":
        if training:
            raise ConfigError("--training belongs to suites of published sets, such as --suite paper.")
        _quick(models, baseline, data or paths.home() / "demo" / "shards", split, read_as, computing, outputs, seed)
    else:
        if read_as != ReadAs():
            raise ConfigError(
                "--source, --audio-column and --caption-column belong to the suite quick. Tasks name their sources."
            )
        if baseline or split != "test":
            raise ConfigError("--baseline and --split belong to the suite quick. Name every model as a checkpoint.")
        _published(models, suite, data or paths.home() / "datasets", training, computing, outputs, seed)


@dataclass(frozen=True, slots=True)
class _Computing:
    """How models are computed."""

    processes: int
    batch_size: int
    precision: str
    device: str | None
    tokenizer: Path | None
    mono: MonoConfig

    def __post_init__(self) -> None:
        from openclap.limits import PROCESSES, check_count

        check_count("--processes", self.processes, most=PROCESSES)
        check_count("--batch-size", self.batch_size)

    def listener(self, model: str, advance: Callable[[int, int], None]) -> Listener:
        """A model that keeps its vectors."""
        from openclap.evals.hearing import open_listener

        return open_listener(
            model,
            partial(_load, model, self.tokenizer, precision=self.precision, device=self.device, **asdict(self.mono)),
            paths.home() / "evals",
            batch_size=self.batch_size,
            processes=self.processes,
            progress=lambda _, done, total: advance(done, total),
        )


def _load(model: str, tokenizer: Path | None, **options: Any) -> Embedder:
    """A model; with `tokenizer` where it has none of its own."""
    import openclap

    embedder = openclap.load(model, **options)
    return (
        openclap.load(model, tokenizer=tokenizer, **options) if tokenizer and not embedder.has_tokenizer else embedder
    )


def _quick(  # noqa: PLR0917
    models: Sequence[str],
    baseline: str | None,
    shards: Path,
    split: str,
    read_as: ReadAs,
    computing: _Computing,
    outputs: _Outputs,
    seed: int,
) -> None:
    """The three tasks on packed shards, beside chance."""
    from openclap.errors import ConfigError
    from openclap.evals.clips import load_clips
    from openclap.evals.several import as_table
    from openclap.evals.suite import evaluate as measure
    from openclap.evals.unpacked import unpacked

    if baseline and len(models) > 1:
        raise ConfigError("--baseline stands beside one model. Name every model as a checkpoint.")
    packed = any((shards / split).glob("*.tar")) or any(shards.glob("*/sizes.json"))
    with progress("Measuring") as advance:
        listeners = {model: computing.listener(model, advance) for model in models}
        other = computing.listener(baseline, advance) if baseline else None
        if (packed and read_as == ReadAs()) or not shards.exists():
            test = load_clips(shards / split)
            train = load_clips(shards / "train") if split != "train" and (shards / "train").is_dir() else None
        else:
            source = read_as.recognise(shards)
            test, train = unpacked(source, split)
            note_doubts(source)
        found = {
            model: measure(listener, test, train, untrained=other, seed=seed) for model, listener in listeners.items()
        }
    if len(models) > 1:
        _show_suite(table := as_table(found, test))
        outputs.write_suite(table)
    else:
        show(found[models[0]])
        outputs.write_quick(found[models[0]], test, f"{models[0]} on {split}")


def _published(  # noqa: PLR0917
    models: Sequence[str],
    suite: str,
    data: Path,
    training: Path | None,
    computing: _Computing,
    outputs: _Outputs,
    seed: int,
) -> None:
    """A suite of published sets, or of a file."""
    from openclap.errors import DataError
    from openclap.evals.bench import run_suite
    from openclap.evals.tasks import SUITES, read_suite

    tasks = SUITES[suite] if suite in SUITES else read_suite(Path(suite))
    with progress("Measuring") as advance:
        listeners = [computing.listener(model, advance) for model in models]
        table = run_suite(Path(suite).stem, tasks, listeners, data, training=training, seed=seed, note=note)
    if not table.rows:
        raise DataError(
            f"No task of the suite {table.suite} could be done. First: {next(iter(table.missing.values()))}"
        )
    _show_suite(table)
    outputs.write_suite(table)


@dataclass(frozen=True, slots=True)
class _Outputs:
    """The files that were asked for."""

    json: Path | None
    markdown: Path | None
    html: Path | None

    def check(self) -> None:
        """Raises ConfigError for a folder, what can be in none, and a file that holds something else."""
        from openclap.errors import ConfigError, require

        wanted = {name: path for name in ("json", "markdown", "html") if (path := getattr(self, name))}
        for name, path in wanted.items():
            if path.is_dir():
                raise ConfigError(f"{path}: is a folder, expected the name of a file to write.")
            above = next(place for place in path.absolute().parents if place.exists())
            if above.is_file():
                raise ConfigError(f"{path}: {above} is a file, expected a folder.")
            if not os.access(path if path.exists() else above, os.W_OK):
                raise ConfigError(f"{path}: may not be written. Choose another place.")
            if path.is_file() and not _is_ours(path, name):
                raise ConfigError(
                    f"{path}: is there, and is no evaluation as --{name} writes it. Choose another name for it."
                )
        if len({path.resolve() for path in wanted.values()}) < len(wanted):
            raise ConfigError(f"{' and '.join(f'--{name}' for name in wanted)} name one file, expected one for each.")
        if self.html:
            require("jinja2", "eval")

    def write_suite(self, table: Table) -> None:
        from openclap.evals.bench_report import write_suite_report
        from openclap.evals.bench_table import to_json, to_markdown

        _write(self.json, lambda: to_json(table) + "\n")
        _write(self.markdown, lambda: to_markdown(table))
        if self.html:
            note(f"Wrote {write_suite_report(self.html, table)}")

    def write_quick(self, evaluation: Evaluation, clips: EvalClips, title: str) -> None:
        from openclap.evals.bench_table import grid
        from openclap.evals.evaluation import table
        from openclap.evals.report import write_report

        _write(self.json, lambda: evaluation.to_json() + "\n")
        _write(self.markdown, lambda: grid(table(evaluation)) + "\n")
        if self.html:
            page = write_report(self.html, evaluation, title=title, training_log=None, clips=clips)
            note(f"Wrote {page}")


def _show_suite(table: Table) -> None:
    """Figures and comparisons to stdout, what there is to say about them to stderr."""
    from openclap.evals.bench_table import compared, protocols_of, rows_of

    head, *rows = rows_of(table)
    print_table(head, rows, right=[place for place, name in enumerate(head) if name in NUMBERS])
    for number, protocol in enumerate(protocols_of(table), start=1):
        results.print(f"[{number}] {protocol}.", style="dim", markup=False)
    if table.comparisons:
        results.print("\nChanges from the first model to the second:", style="dim", markup=False)
        head, *rows = compared(table)
        print_table(head, rows, right=[3, 5])
    for task, reason in table.missing.items():
        note(f"{task} was left out: {reason}")
    said: dict[str, int] = {}
    for task, sentence in table.notes:
        said[task] = said.get(task, 0) + 1
        if said[task] <= NOTED:
            note(f"{task}: {sentence}")


def show(evaluation: Evaluation) -> None:
    """The table to stdout, what there is to say about it to stderr."""
    from openclap.evals.evaluation import table

    show_table(table(evaluation))
    for task, reason in evaluation.left_out.items():
        note(f"{task} was left out: {reason}")
    for line in evaluation.notes:
        note(line)


def show_table(rows: Sequence[Sequence[str]]) -> None:
    """The figures, heading first; a task is named once."""
    head, *figures = rows
    named = [("" if before[0] == row[0] else row[0], *row[1:]) for before, row in pairwise([[""], *figures])]
    print_table(head, named, right=range(2, len(head) - 1))
    results.print("above: is the whole interval better than chance's?", style="dim")


def _write(path: Path | None, text: Callable[[], str]) -> None:
    from openclap.pages.render import write

    if path:
        note(f"Wrote {write(path, text())}")


BEGINNINGS = {"markdown": ("# Suite ", "| task "), "html": ("<!doctype html>",)}


def _is_ours(path: Path, name: str) -> bool:
    """Whether a file is empty, or such an output: `--json` is a flag of other verbs, and what follows it a model."""
    with path.open(encoding="utf-8", errors="replace") as file:
        beginning = file.read(1)
        if name == "json" and beginning == "{":
            try:
                return "figures" in jsons.loads(beginning + file.read())
            except (ValueError, RecursionError):
                return False
        return not beginning or (beginning + file.read(20)).startswith(BEGINNINGS.get(name, ()))
