"""`openclap eval`: a model's quality as one table."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from openclap import paths
from openclap.cli.console import note, print_table, progress, results

if TYPE_CHECKING:
    from openclap.evals.evaluation import Evaluation


def evaluate(
    checkpoint: str,
    *,
    data: Path | None = None,
    split: str = "test",
    suite: Literal["quick"] = "quick",
    baseline: str | None = None,
    json: Path | None = None,
    html: Path | None = None,
    seed: int = 0,
) -> None:
    """Measure a model: retrieval both ways, zero-shot labels and a linear probe, each against chance.

    Prints each figure with its 95 % interval over groups, what chance gives, and, with --baseline, another model's.

    Parameters
    ----------
    checkpoint
        A model folder or name.
    data
        A folder that `openclap dataset build` wrote; the demo's without it. Its split `train` teaches the probe.
    split
        The split to measure on.
    suite
        Which tasks: "quick" is all three on packed shards.
    baseline
        A model to stand beside it, such as what training started from.
    json
        Write everything, every rank included, as JSON to this file.
    html
        Write a self-contained page with plots and sounds to this file.
    seed
        Of the resamples and chance draws.
    """
    import openclap
    from openclap.errors import ConfigError
    from openclap.evals.clips import load_clips
    from openclap.evals.report import write_report
    from openclap.evals.suite import evaluate as measure

    for wanted in (json, html):
        if wanted and wanted.is_dir():
            raise ConfigError(f"{wanted}: is a folder, expected the name of a file to write.")
    shards = data or paths.home() / "demo" / "shards"
    embedder = openclap.load(checkpoint)
    other = openclap.load(baseline) if baseline else None
    test = load_clips(shards / split)
    train = load_clips(shards / "train") if split != "train" and (shards / "train").is_dir() else None
    with progress("Measuring") as advance:
        evaluation = measure(
            embedder,
            test,
            train,
            untrained=other,
            seed=seed,
            progress=lambda _, done, total: advance(done, total),
        )
    show(evaluation)
    if json:
        _write(json, evaluation.to_json())
    if html:
        write_report(html, evaluation, title=f"{checkpoint} on {split}", training_log=None, clips=test)
        note(f"Wrote {html}")


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
    print_table(head, named, right=range(2, 7))
    results.print("above: is the whole interval better than chance's?", style="dim")


def _write(path: Path, text: str) -> None:
    from openclap.errors import ConfigError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}).") from None
    note(f"Wrote {path}")
