"""`openclap eval`: measure models and print one table."""

from __future__ import annotations

import json as jsons
import os
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

    The suite "quick" measures on one collection: each figure with its 95 % interval over groups, the figure of chance,
    and, with --baseline, that of another model. The suite "paper" stands beside the figures of papers. Several
    checkpoints are compared in pairs. Embeddings are cached in $OPENCLAP_HOME/evals: the same command resumes after a
    stop, and takes seconds the next time.

    Parameters
    ----------
    checkpoints
        Model folders, files or names; the demo's model without any.
    suite
        "quick", "paper", "supervised" (trains networks, fine-tuned towers too: hours), or a TOML file of tasks
        (docs/howto/evaluate.md).
    data
        quick: a folder that `openclap dataset build` wrote, or anything that it reads; the demo's without it. The probe
        is trained on its split `train`; a collection without splits is measured on as a whole. Otherwise: the folder of
        the published data sets, each in a folder of its own; $OPENCLAP_HOME/datasets without it.
    split
        quick: the split to measure on.
    baseline
        Of one model: another one to show beside it, such as the start of its training.
    training
        A `manifest.parquet` of the models' training data; clips of its uploads and with its sounds are left out.
    processes
        Workers that embed, each with a model of its own. The table does not depend on their number.
    batch_size
        Windows in one forward pass. The table does not depend on it.
    json
        Write everything as JSON to this file.
    markdown
        Write the table as Markdown to this file.
    html
        Write a self-contained page with plots and sounds to this file.
    seed
        The seed of resamples, draws and networks.
    """
    from openclap.errors import ConfigError, DataError
    from openclap.evals import runner
    from openclap.limits import PROCESSES, check_count

    if not 0 <= seed <= LARGEST_SEED:
        raise ConfigError(f"--seed is {seed}, expected a whole number from 0 to {LARGEST_SEED}.")
    check_count("--processes", processes, most=PROCESSES)
    check_count("--batch-size", batch_size)
    outputs = _Outputs(json, markdown, html)
    outputs.check()
    if suite != "quick" and read_as != ReadAs():
        raise ConfigError(
            "--source, --audio-column and --caption-column belong to the suite quick. Tasks name their sources."
        )
    with progress("Measuring") as advance:
        found = runner.evaluate(
            list(checkpoints) or [default_model()],
            data,
            suite=suite,
            split=split,
            baseline=baseline,
            training=training,
            processes=processes,
            batch_size=batch_size,
            seed=seed,
            load=partial(_load, load_options),
            reading=read_as.reading,
            recognised=_note_form,
            progress=lambda _, done, total: advance(done, total),
            note=None if suite == "quick" else note,
        )
    if not found.rows:
        raise DataError(
            f"No task of the suite {found.suite} could be done. First: {next(iter(found.skipped.values()))}"
        )
    show(found)
    outputs.write(found, f"{found.models[0]} on {split}" if suite == "quick" and len(found.models) == 1 else None)


def _note_form(found: RecognisedCollection) -> None:
    """Print the form of loose sounds, and doubts about their captions, to stderr."""
    print_recognised(found)
    note_doubts(found)


def _load(options: LoadOptions, name: str) -> Embedder:
    """A model; with the tokenizer of --tokenizer where it has none of its own."""
    embedder = replace(options, tokenizer=None).load_named(name)
    return options.load_named(name) if options.tokenizer and not embedder.has_tokenizer else embedder


def show(found: Results) -> None:
    """Print the figures and comparisons to stdout, and notes on them to stderr."""
    from openclap.evals.results import comparison_table, is_compact, protocols_of, right_columns, table_of

    if is_compact(found):
        show_table(table_of(found))
    else:
        head, *rows = table = table_of(found)
        print_table(head, rows, right=right_columns(table))
        for number, protocol in enumerate(protocols_of(found), start=1):
            results.print(f"[{number}] {protocol}.", style="dim", markup=False)
    if found.comparisons:
        results.print("\nChanges from the first model to the second:", style="dim", markup=False)
        head, *rows = table = comparison_table(found)
        print_table(head, rows, right=right_columns(table))
    for task, reason in found.skipped.items():
        note(f"{task} was left out: {reason}")
    noted: dict[str, int] = {}
    for subject, sentence in found.notes:
        noted[subject] = noted.get(subject, 0) + 1
        if noted[subject] <= NOTES_PER_TASK:
            note(f"{subject}: {sentence}")


def show_table(table: Sequence[Sequence[str]]) -> None:
    """Print the table of one model beside chance, heading first; each task is named once."""
    from openclap.evals.results import right_columns

    head, *rows = table
    cells = [("" if before[0] == row[0] else row[0], *row[1:]) for before, row in pairwise([[""], *rows])]
    print_table(head, cells, right=right_columns(table))
    results.print("above: is the whole interval better than chance's?", style="dim")


@dataclass(frozen=True, slots=True)
class _Outputs:
    """The files to write."""

    json: Path | None
    markdown: Path | None
    html: Path | None

    def check(self) -> None:
        """Raise ConfigError for a folder, a place where nothing can be written, and a file with other content."""
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
            if path.is_file() and not _is_evaluation(path, name):
                raise ConfigError(
                    f"{path}: exists and is no evaluation written by --{name}. Choose another name for it."
                )
        if len({path.resolve() for path in wanted.values()}) < len(wanted):
            raise ConfigError(f"{' and '.join(f'--{name}' for name in wanted)} name one file, expected one for each.")
        if self.html:
            require("jinja2", "eval")  # before hours of measuring

    def write(self, found: Results, title: str | None) -> None:
        """Write each file and print its path to stderr."""
        _write(self.json, lambda: found.to_json() + "\n")
        _write(self.markdown, found.to_markdown)
        if self.html:
            note(f"Wrote {found.write_html(self.html, title=title)}")


def _write(path: Path | None, text: Callable[[], str]) -> None:
    from openclap.pages.render import write

    if path:
        note(f"Wrote {write(path, text())}")


BEGINNINGS = {"markdown": ("# Suite ",), "html": ("<!doctype html>",)}


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
