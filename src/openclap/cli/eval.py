"""`openclap eval`: measure models and print one table."""

from __future__ import annotations

import json as jsons
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from openclap.cli.console import note, print_table, progress, results
from openclap.cli.defaults import default_model
from openclap.cli.model_options import LoadOptions
from openclap.cli.reading import ReadAs, note_doubts, print_recognised

if TYPE_CHECKING:
    from openclap.embedder import Embedder
    from openclap.evals.results import Results
    from openclap.sources.recognise import RecognisedCollection

LARGEST_SEED = 2**32 - 1
"""The largest seed of numpy and scikit-learn."""
ON_COLLECTION = ("quick", "hard-text")
"""Suites that measure on the collection of --data."""
NOTES_PER_TASK = 3
"""Notes printed per task; JSON and Markdown have all."""


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
    load_options: LoadOptions = LoadOptions(),
    json: Path | None = None,
    markdown: Path | None = None,
    html: Path | None = None,
    seed: int = 0,
) -> None:
    """Evaluate models: retrieval between sounds and text, zero-shot classification, and probing.

    The suite "quick" measures on one collection and shows, beside each figure, its 95 % interval over groups, the
    chance level and, with --baseline, the figure of another model. The suite "paper" has the tasks whose figures papers
    report; "hard-text" asks whether a sound is closer to its caption than to one that a rule changed in one respect.
    Several checkpoints are compared in pairs. Embeddings are cached (`openclap cache`): after a stop, the
    same command resumes, and a repetition takes seconds.

    Parameters
    ----------
    checkpoints
        Model folders, files or names. Default: mini, which is in the package.
    suite
        "quick", "hard-text" (right captions beside wrong ones made by rule), "paper", "supervised" (which trains
        networks for hours), or a TOML file of tasks (docs/howto/evaluate.md).
    data
        For the suites quick and hard-text: a folder that `openclap dataset build` wrote, or any collection that it
        reads. Default: the demo's sounds. The probe is trained on the split `train`; a collection without splits is
        measured as a whole. For other suites: the folder of the published data sets, each in a folder of its own.
        Default: $OPENCLAP_HOME/datasets.
    split
        The split to measure on, in the suites quick and hard-text.
    baseline
        A second model to compare a single checkpoint with, such as the start of its training.
    training
        The `manifest.parquet` of the models' training data: clips with its upload ids or its samples are left out.
    processes
        The number of embedding workers, each with a model of its own. Figures do not depend on it.
    batch_size
        The number of windows per forward pass. Figures do not depend on it.
    json
        Write all results as JSON to this file.
    markdown
        Write the table as Markdown to this file.
    html
        Write a self-contained page with plots and sounds to this file.
    seed
        The seed of bootstrap resamples, few-shot draws and networks.
    """
    from openclap.errors import ConfigError, DataError
    from openclap.evals import runner
    from openclap.limits import PROCESSES, check_count

    if not 0 <= seed <= LARGEST_SEED:
        raise ConfigError(f"--seed is {seed}, expected a whole number from 0 to {LARGEST_SEED}.")
    check_count("--processes", processes, most=PROCESSES)
    check_count("--batch-size", batch_size)
    outputs = _Outputs(json, markdown, html)
    # Before hours of work, whose result could then not be written.
    outputs.check()
    if suite not in ON_COLLECTION and read_as != ReadAs():
        raise ConfigError(
            f"--source, --audio-column and --caption-column belong to the suites {' and '.join(ON_COLLECTION)}. Other "
            "tasks name their sources."
        )
    with progress("Evaluating") as advance:
        evaluation = runner.evaluate(
            list(checkpoints) or [default_model()],
            data,
            suite=suite,
            split=split,
            baseline=baseline,
            training=training,
            processes=processes,
            batch_size=batch_size,
            seed=seed,
            # A function and not a model: the evaluation loads it, in its worker processes as well.
            load=partial(_load, load_options),
            reading=read_as.reading,
            recognised=_note_collection,
            progress=lambda _, done, total: advance(done, total),
            note=None if suite in ON_COLLECTION else note,
        )
    if not evaluation.rows:
        reason = next(iter(evaluation.skipped.values()))
        raise DataError(f"No task of the suite {evaluation.suite} could be evaluated. The first: {reason}")
    show(evaluation)
    is_single = suite in ON_COLLECTION and len(evaluation.models) == 1
    outputs.write(evaluation, f"{evaluation.models[0]} on {split}" if is_single else None)


def _note_collection(collection: RecognisedCollection) -> None:
    """Print the recognised form of a collection, and doubts about its captions, to stderr."""
    print_recognised(collection)
    note_doubts(collection)


def _load(options: LoadOptions, name: str) -> Embedder:
    """Load a model; --tokenizer is used only for models without one, since it applies to all checkpoints."""
    embedder = replace(options, tokenizer=None).load_named(name)
    return options.load_named(name) if options.tokenizer and not embedder.has_tokenizer else embedder


def show(evaluation: Results) -> None:
    """Print the figures and comparisons to stdout, and notes on them to stderr."""
    from openclap.evals.result_tables import (
        comparison_heading,
        comparison_table,
        is_compact,
        protocols_of,
        right_columns,
        table_of,
    )

    if is_compact(evaluation):
        show_table(table_of(evaluation))
    else:
        head, *rows = table = table_of(evaluation)
        print_table(head, rows, right=right_columns(table))
        for number, protocol in enumerate(protocols_of(evaluation), start=1):
            results.print(f"[{number}] {protocol}.", style="dim", markup=False)
    if evaluation.comparisons:
        show_changes(comparison_heading(evaluation), comparison_table(evaluation))
    for task, reason in evaluation.skipped.items():
        note(f"{task} was left out: {reason}")
    printed: Counter[str] = Counter()
    for subject, sentence in evaluation.notes:
        printed[subject] += 1
        if printed[subject] <= NOTES_PER_TASK:
            note(f"{subject}: {sentence}")


def show_table(table: Sequence[Sequence[str]]) -> None:
    """Print the table of one model beside the chance level, heading first; the name of each task once."""
    from openclap.evals.result_tables import right_columns

    print_table(table[0], _tasks_once(table), right=right_columns(table))
    results.print("above: is the whole interval better than chance's?", style="dim")


def show_changes(heading: str, table: Sequence[Sequence[str]]) -> None:
    """Print the changes from one model to another under a heading; the name of each task once."""
    from openclap.evals.result_tables import right_columns

    results.print(f"\n{heading}:", style="dim", markup=False)
    print_table(table[0], _tasks_once(table), right=right_columns(table))


def _tasks_once(table: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """The rows of a table, without the name of the task in rows that follow one of the same task."""
    rows = table[1:]
    return [("" if before[0] == row[0] else row[0], *row[1:]) for before, row in pairwise([[""], *rows])]


@dataclass(frozen=True, slots=True)
class _Outputs:
    """The files to write."""

    json: Path | None
    markdown: Path | None
    html: Path | None

    def check(self) -> None:
        """Check the files before hours of evaluation.

        Raises ConfigError for a folder, a place where nothing can be written, a file that is no evaluation, and one
        file for two formats; MissingExtraError for a page without jinja2.
        """
        from openclap.errors import ConfigError, require

        wanted = {name: path for name in ("json", "markdown", "html") if (path := getattr(self, name))}
        for name, path in wanted.items():
            if path.is_dir():
                raise ConfigError(f"{path}: is a folder, expected the name of a file to write.")
            above = next(place for place in path.absolute().parents if place.exists())
            if above.is_file():
                raise ConfigError(f"{path}: {above} is a file, expected a folder.")
            if not os.access(path if path.exists() else above, os.W_OK):
                raise ConfigError(f"{path}: cannot be written (no permission). Choose another place.")
            if path.is_file() and not _is_evaluation(path, name):
                raise ConfigError(
                    f"{path}: exists and is no evaluation written by --{name}. Choose another name for it."
                )
        if len({path.resolve() for path in wanted.values()}) < len(wanted):
            options = " and ".join(f"--{name}" for name in wanted)
            raise ConfigError(f"{options} name the same file, expected one file for each.")
        if self.html:
            require("jinja2", "eval")

    def write(self, evaluation: Results, title: str | None) -> None:
        """Write each file and print its path to stderr."""
        _write(self.json, lambda: evaluation.to_json() + "\n")
        _write(self.markdown, evaluation.to_markdown)
        if self.html:
            note(f"Wrote {evaluation.write_html(self.html, title=title)}")


def _write(path: Path | None, text: Callable[[], str]) -> None:
    from openclap.pages.render import write

    if path:
        note(f"Wrote {write(path, text())}")


BEGINNINGS = {"markdown": ("# Suite ",), "html": ("<!doctype html>",)}
"""First characters of earlier outputs."""


def _is_evaluation(path: Path, name: str) -> bool:
    """Whether a file is empty or an earlier output.

    `--json` is a flag without a value for other commands, so a model's path can end up behind it by mistake.
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        beginning = file.read(1)
        if name == "json" and beginning == "{":
            try:
                return "figures" in jsons.loads(beginning + file.read())
            except (ValueError, RecursionError):
                return False
        return not beginning or (beginning + file.read(20)).startswith(BEGINNINGS.get(name, ()))
