"""A suite of tasks for one model or several: one table, beside what papers report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from openclap.errors import CheckpointError, ConfigError, DataError, MissingTokenizerError, TrainingError
from openclap.evals.asked import Asked, ask
from openclap.evals.bootstrap import RESAMPLES, Difference, Estimate, bootstrap_interval, paired_difference
from openclap.evals.collected import Collected, collect
from openclap.evals.decontamination import trained_on
from openclap.evals.hearing import Listener
from openclap.evals.protocol import UNKNOWN_POLICY
from openclap.evals.tasks import LEARNERS, READS_RAW, Published, Task

TAGGING_RESAMPLES = 200
"""Of figures that are sums over hundreds of classes."""
SHOWN = {
    "retrieval": tuple(
        f"{task}_{metric}"
        for task in ("text_to_audio", "audio_to_text")
        for metric in ("R@1", "R@5", "R@10", "mAP@10", "median_rank")
    ),
    "zero_shot": ("accuracy", "mAP@10"),
    "few_shot": ("accuracy",),
    "tagging": ("mAP", "AUC"),
    "probe": ("accuracy", "mAP", "AUC"),
}
"""The metrics of each kind of task that a table has rows for; a record as JSON has all."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one model. Shares are of 1, ranks count from 1; `published` are in percent.

    Attributes:
        short: what is missing of the clips that `published` was measured on, such as "9 of 975 clips"; "" for nothing.
        n: how many clips, or captions, were asked about.
        data_hash: a SHA-256 of the clips: ids, captions, labels, groups, folds and sounds.
        seconds: that the whole task took.
    """

    model: str
    task: str
    kind: str
    metric: str
    estimate: Estimate
    published: tuple[Published, ...]
    short: str
    n: int
    protocol: str
    data_hash: str
    seconds: float
    is_shown: bool

    @property
    def is_rank(self) -> bool:
        """Ranks are better when lower, and are no percentages."""
        return self.metric.endswith("rank")


@dataclass(frozen=True, slots=True)
class Comparison:
    """The change of one figure from model `a` to model `b`: the figure of `b` less that of `a`."""

    task: str
    metric: str
    a: str
    b: str
    difference: Difference


@dataclass(frozen=True, slots=True)
class Table:
    """What a suite came to.

    Attributes:
        missing: by task, why it could not be done.
        notes: (task, sentence).
        lost: (task, clip, reason) of every clip that could not be heard.
        asked: by (model, task), what a report draws.
    """

    suite: str
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    missing: dict[str, str]
    notes: tuple[tuple[str, str], ...]
    lost: tuple[tuple[str, str, str], ...]
    seed: int
    asked: dict[tuple[str, str], Asked] = field(repr=False)


def run_suite(
    name: str,
    tasks: Sequence[Task],
    listeners: Sequence[Listener],
    data: Path,
    *,
    training: Path | None = None,
    seed: int = 0,
    note: Callable[[str], None] = lambda line: None,
) -> Table:
    """Ask every model every task. A set that is missing or unusable is told in `missing`, and the others are done.

    Args:
        data: the folder that holds the sets, each in a folder of its own as it is published.
        training: a `manifest.parquet` of training data; clips of its uploads, and with its sounds, are left
            out.
        seed: of resamples, draws and networks: the same seed, the same table.
        note: told what is being done.

    Raises DataError for what is no manifest, MissingTokenizerError for a model that cannot read the words of a task.
    """
    trained = trained_on(training) if training else None
    rows: list[Row] = []
    missing: dict[str, str] = {}
    notes: list[tuple[str, str]] = []
    found: dict[tuple[str, str], Asked] = {}
    for task in tasks:
        note(f"{task.name}: {task.kind.replace('_', ' ')}")
        try:
            collected = collect(task, data, trained)
            notes += [(task.name, sentence) for sentence in collected.notes]
            for listener in listeners:
                started = time.perf_counter()
                asked = ask(task, collected, listener, seed=seed)
                found[listener.name, task.name] = asked
                whose = f"{listener.name}: " if len(listeners) > 1 else ""
                notes += [
                    (task.name, whose + sentence) for sentence in (*asked.notes, *_of_groups(asked), *_of_lost(asked))
                ]
                seconds = time.perf_counter() - started
                rows += _rows(task, listener, asked, collected, seconds=seconds, seed=seed)
        except MissingTokenizerError:
            raise  # every task of words would fail, and one option mends it
        except (DataError, ConfigError, TrainingError, CheckpointError) as error:
            missing[task.name] = str(error)
    lost = {(task, clip, reason): None for (_, task), each in found.items() for clip, reason in each.lost}
    kinds = {task.name: task.kind for task in tasks}
    comparisons = tuple(compare(kinds, [each.name for each in listeners], found, seed))
    return Table(name, tuple(rows), comparisons, missing, tuple(dict.fromkeys(notes)), tuple(lost), seed, found)


def _rows(
    task: Task, listener: Listener, asked: Asked, collected: Collected, *, seconds: float, seed: int
) -> Iterator[Row]:
    protocol, short = protocol_of(task, listener, collected, asked), short_of(task, collected, asked)
    for metric, measure in asked.measures.items():
        groups = [asked.clips.clips[i].group for i in measure.clip_N]
        resamples = RESAMPLES if asked.tagged is None else TAGGING_RESAMPLES
        estimate = bootstrap_interval(measure.statistic, groups, resamples=resamples, seed=seed)
        yield Row(
            model=listener.name,
            task=task.name,
            kind=task.kind,
            metric=metric,
            estimate=estimate,
            published=tuple(each for each in task.published if each.metric == metric),
            short=short,
            n=len(measure.clip_N),
            protocol=protocol,
            data_hash=asked.clips.digest,
            seconds=seconds,
            is_shown=metric in SHOWN[task.kind],
        )


def short_of(task: Task, collected: Collected, asked: Asked) -> str:
    """The share of the published set that took part, where that is not all of it."""
    learnt = sum(len(part) for part in (collected.train, collected.valid) if part is not None)
    learnt -= len(asked.lost) - (len(collected.test) - len(asked.clips))  # what is lost is lost on either side
    parts = [f"{len(asked.clips):,} of {task.clips:,} clips"] if len(asked.clips) < task.clips else []
    parts += [f"{learnt:,} of {task.learns:,} to learn from"] if learnt < task.learns else []
    return ", ".join(parts)


def protocol_of(task: Task, listener: Listener, collected: Collected, asked: Asked) -> str:
    """How a figure was made, in one line: what was asked, with which words, and what becomes of long clips."""
    split = f"split {task.split}" if task.split else _folds(task, asked) if task.folds else "all clips"
    parts = [f"{task.kind.replace('_', '-')}, {split}{', some clips missing' if asked.lost else ''}"]
    if task.kind in ("zero_shot", "tagging"):
        words = " and ".join(f"“{template}”" for template in task.templates)
        parts.append(f"{len(collected.classes)} classes as {words}{', words from a file' if task.classes else ''}")
    if task.kind == "probe":
        where = (
            f"split {task.valid}" if task.valid else "groups of the training clips that were held out, if any could be"
        )
        parts.append(f"{LEARNERS[task.learner]}; choices made on {where}")
    if task.kind == "few_shot":
        parts.append("up to 8 clips a label, 10 draws, logistic regression (MAEB)")
    if not (task.kind == "probe" and task.learner in (*READS_RAW, "fine_tune")):
        parts.append(f"long clips: {listener.clip_policy or UNKNOWN_POLICY}")
    return "; ".join(parts).rstrip(".")


def _folds(task: Task, asked: Asked) -> str:
    """The folds that figures are averaged over."""
    there = len({clip.fold for clip in asked.clips.clips})
    return f"{there if there == task.folds else f'{there} of {task.folds}'} folds averaged"


def _of_groups(asked: Asked) -> Iterator[str]:
    if len(set(asked.clips.groups)) == 1:
        yield "All clips are one group, so there is no interval, and no p."


def _of_lost(asked: Asked) -> Iterator[str]:
    if asked.lost:
        clip, reason = asked.lost[0]
        yield f"{len(asked.lost)} clips could not be heard and were left out. First: {clip} ({reason.rstrip('.')})."


def compare(
    tasks: Mapping[str, str], models: Sequence[str], found: Mapping[tuple[str, str], Asked], seed: int
) -> Iterator[Comparison]:
    """Each pair of models, on every figure that is shown and that both were asked the same for.

    Args:
        tasks: the kind of each, by name.
        found: by (model, task).
    """
    for task, kind in tasks.items():
        for a, b in combinations(models, 2):
            ours, theirs = found.get((a, task)), found.get((b, task))
            if ours is None or theirs is None or ours.clips.digest != theirs.clips.digest:
                continue
            for metric in SHOWN[kind]:
                if metric in ours.measures:
                    pair = theirs.measures[metric], ours.measures[metric]
                    yield Comparison(task, metric, a, b, paired_difference(*pair, ours.clips.groups, seed=seed))
