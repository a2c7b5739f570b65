"""Several models on one split of packed shards, as the table that suites give.

Rows of chance stand among the models' own: its value, and the widest of its intervals.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from openclap.evals.answers import Answers
from openclap.evals.asked import Asked
from openclap.evals.bench import SHOWN, Row, Table, compare
from openclap.evals.bootstrap import Estimate
from openclap.evals.clips import EvalClips
from openclap.evals.evaluation import Evaluation, Figure
from openclap.evals.protocol import UNKNOWN_POLICY

CHANCE = "chance"
KINDS = {"text_to_audio": "retrieval", "audio_to_text": "retrieval", "zero_shot": "zero_shot", "probe": "probe"}
"""The kind of task that an evaluation's figures belong to."""
NAMES = {"retrieval": "retrieval", "zero_shot": "zero-shot labels", "probe": "linear probe"}
HEADINGS = {"retrieval": "Retrieval", "zero_shot": "Zero-shot", "probe": "Linear probe"}


def as_table(evaluations: Mapping[str, Evaluation], clips: EvalClips) -> Table:
    """Evaluations of the same `clips`, by model, beside chance and compared in pairs."""
    first = next(iter(evaluations.values()))
    tasks = {f"split {first.split}, {name}": kind for kind, name in NAMES.items()}
    asked = {
        (model, task): found
        for task, kind in tasks.items()
        for model, each in evaluations.items()
        if (found := _asked(each, kind, clips)) is not None
    }
    rows = [
        row
        for task, kind in tasks.items()
        for row in (*_of_chance(evaluations, task, kind), *_of_models(evaluations, task, kind))
    ]
    return Table(
        suite="quick",
        rows=tuple(rows),
        comparisons=tuple(compare(tasks, list(evaluations), asked, first.seed)),
        missing={f"split {first.split}, {NAMES[kind]}": reason for kind, reason in first.left_out.items()},
        notes=tuple(_notes(evaluations)),
        lost=(),
        seed=first.seed,
        asked=asked,
    )


def _notes(evaluations: Mapping[str, Evaluation]) -> Iterator[tuple[str, str]]:
    """What is said of every model once, and of some with their names."""
    noted = {model: each.notes for model, each in evaluations.items()}
    split = next(iter(evaluations.values())).split
    for note in dict.fromkeys(note for notes in noted.values() for note in notes):
        of = [model for model, notes in noted.items() if note in notes]
        yield f"split {split}", note if len(of) == len(noted) else f"{', '.join(of)}: {note}"


def _asked(evaluation: Evaluation, kind: str, clips: EvalClips) -> Asked | None:
    """What a report draws of one model's task; None where it was not done."""
    if kind == "retrieval":
        found = evaluation.retrieval
        return Asked(clips, found.measures(), retrieval=found) if found else None
    answers: Answers | None = evaluation.zero_shot if kind == "zero_shot" else evaluation.probe
    if answers is None:
        return None
    return Asked(clips, answers.measures(), answers=answers, classes=answers.labels)


def _of_models(evaluations: Mapping[str, Evaluation], task: str, kind: str) -> Iterator[Row]:
    for model, each in evaluations.items():
        for figure in _figures(each, kind):
            yield _row(model, task, kind, figure, each)


def _of_chance(evaluations: Mapping[str, Evaluation], task: str, kind: str) -> Iterator[Row]:
    first = next(iter(evaluations.values()))
    for figures in zip(*(_figures(each, kind) for each in evaluations.values()), strict=True):
        chances = [figure.chance for figure in figures]
        widest = Estimate(chances[0].value, min(each.low for each in chances), max(each.high for each in chances))
        yield _row(CHANCE, task, kind, replace(figures[0], estimate=widest), replace(first, seconds=0.0))


def _figures(evaluation: Evaluation, kind: str) -> Sequence[Figure]:
    return [figure for figure in evaluation.figures if KINDS[figure.task] == kind]


def _row(model: str, task: str, kind: str, figure: Figure, evaluation: Evaluation) -> Row:
    metric = f"{figure.task}_{figure.metric}" if kind == "retrieval" else figure.metric
    long = evaluation.protocol.get("Clips", UNKNOWN_POLICY)
    return Row(
        model=model,
        task=task,
        kind=kind,
        metric=metric,
        estimate=figure.estimate,
        published=(),
        short="",
        n=figure.n,
        protocol=f"{evaluation.protocol[HEADINGS[kind]]} Long clips: {long}".rstrip("."),
        data_hash=evaluation.data_hash,
        seconds=evaluation.seconds,
        is_shown=metric in SHOWN[kind],
    )
