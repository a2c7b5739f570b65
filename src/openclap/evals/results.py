"""Results of an evaluation: figures with their intervals, as Markdown, JSON or an HTML page."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openclap.evals.bootstrap import DRAWS, RESAMPLES, Difference, Estimate
from openclap.evals.dataset import EvalClips
from openclap.evals.metrics import Classified, Measure, Metric, classes_in_detail
from openclap.evals.tagging import Tagged, areas, average_precisions
from openclap.formatting import markdown_table
from openclap.text.prompts import SOUND

if TYPE_CHECKING:
    from openclap.evals.hard_text import HardText
    from openclap.evals.retrieval import Retrieval
    from openclap.evals.zero_shot import Reliability
    from openclap.pages.step_curves import LogRow

MOST_CONFUSED = 100
"""Classes up to which a JSON record holds the whole confusion table."""


@dataclass(frozen=True, slots=True)
class Published:
    """A figure that a paper reports, in percent."""

    metric: Metric
    value: float
    system: str


@dataclass(frozen=True, slots=True)
class TaskOutput:
    """The predictions of one model for one task, with everything that a report draws.

    Attributes:
        clips: those that were measured on.
        measures: every figure; items are clips, as `clips` numbers them.
        lost: (key, reason) of the clips that could not be embedded.
        classified: the answers of a task with one label per clip, and `classified_N`, the clips that they belong to.
        classes: the names of the classes of `classified` or `tagged`.
    """

    clips: EvalClips
    measures: Mapping[Metric, Measure]
    notes: tuple[str, ...] = ()
    lost: tuple[tuple[str, str], ...] = ()
    retrieval: Retrieval | None = None
    hard_text: HardText | None = None
    classified: Classified | None = None
    classified_N: Sequence[int] = ()
    tagged: Tagged | None = None
    classes: tuple[str, ...] = ()
    reliability: Reliability | None = None


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One figure of one model. Shares are of 1, ranks count from 1; `published` figures are in percent.

    Attributes:
        dataset: the data set or split that was measured on.
        chance: the figure without any skill, where the task computes it.
        baseline: the same figure of the baseline model, where there is one.
        incomplete: the share of the published data that took part, such as "9 of 975 clips"; "" for all of it.
        n: the number of queries: captions or clips.
        data_hash: a SHA-256 of the clips: ids, captions, labels, groups and sounds.
        seconds: the time of the whole task.
        is_shown: whether tables have the figure; JSON has all.
    """

    model: str
    task: str
    kind: str
    dataset: str
    metric: Metric
    estimate: Estimate
    chance: Estimate | None
    baseline: Estimate | None
    published: tuple[Published, ...]
    incomplete: str
    n: int
    protocol: str
    data_hash: str
    seconds: float
    is_shown: bool

    @property
    def above_chance(self) -> str:
        """yes: the whole interval is better than chance's. no: not even the figure is. touching: in between. –: a
        value or an interval is undefined."""
        if self.chance is None:
            return "–"
        # Ranks are better when lower; mirrored, higher is better for every figure.
        sign = -1.0 if self.metric.is_rank else 1.0
        bounds = (sign * self.chance.low, sign * self.chance.high)
        # Before the check for NaN: a figure that is no better than chance needs no interval of its own.
        if sign * self.estimate.value <= max(bounds):
            return "no"
        ours = (sign * self.estimate.low, sign * self.estimate.high)
        if any(math.isnan(number) for number in (self.estimate.value, *bounds, *ours)):
            return "–"
        return "yes" if min(ours) > max(bounds) else "touching"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The change of one figure from model `a` to model `b`: the figure of `b` less that of `a`."""

    task: str
    metric: Metric
    a: str
    b: str
    difference: Difference


@dataclass(frozen=True, slots=True)
class DataFacts:
    """The clips of one split: counts, a SHA-256, and a sentence for each unreadable sample."""

    name: str
    clips: int
    captions: int
    groups: int
    sha256: str
    skipped: tuple[str, ...]

    @classmethod
    def of(cls, clips: EvalClips) -> DataFacts:
        captions = sum(len(clip.captions) for clip in clips.clips)
        return cls(clips.name, len(clips), captions, len(set(clips.groups)), clips.digest, clips.skipped)


@dataclass(frozen=True, slots=True)
class Results:
    """The result of `openclap.evals.runner.evaluate`.

    Attributes:
        suite: its name.
        models: their names, in order.
        baseline: the name of the baseline model, where there is one.
        skipped: by task, the reason why it could not be done.
        notes: (task or split, sentence).
        data: the splits that were measured on, and the training split of a collection.
        outputs: by (model, task), what the report draws.
    """

    suite: str
    models: tuple[str, ...]
    rows: tuple[MetricRow, ...]
    comparisons: tuple[Comparison, ...]
    skipped: Mapping[str, str]
    notes: tuple[tuple[str, str], ...]
    data: tuple[DataFacts, ...]
    seed: int
    seconds: float
    baseline: str | None = None
    outputs: Mapping[tuple[str, str], TaskOutput] = field(default_factory=dict, repr=False)

    @property
    def lost(self) -> tuple[tuple[str, str, str], ...]:
        """(task, clip, reason) of every clip that could not be embedded."""
        lost = {
            (task, clip, reason): None for (_, task), output in self.outputs.items() for clip, reason in output.lost
        }
        return tuple(lost)

    @property
    def methods(self) -> dict[str, str]:
        """How figures of these kinds are computed: sentences by heading."""
        kinds = {row.kind for row in self.rows}
        # Only the methods that were used, so that a reader need not guess which apply.
        names = [name for name, of in METHOD_KINDS.items() if not of or kinds & set(of)]
        if not any(row.chance for row in self.rows):
            names.remove("Chance")
        return {name: METHODS[name] for name in names} | {"Seed": str(self.seed)}

    def row(self, metric: Metric | str, task: str | None = None, model: str | None = None) -> MetricRow | None:
        """The first figure of this metric, such as "text_to_audio_R@1", where there is one."""
        key = metric if isinstance(metric, str) else metric.key
        return next(
            (
                row
                for row in self.rows
                if row.metric.key == key and task in (None, row.task) and model in (None, row.model)
            ),
            None,
        )

    def to_markdown(self) -> str:
        """The table, comparisons, protocols, published figures and notes."""
        from openclap.evals.result_tables import (
            comparison_heading,
            comparison_table,
            protocols_of,
            published_lines,
            right_columns,
            table_of,
        )

        table = table_of(self)
        parts = [f"# Suite {self.suite}", markdown_table(table, right=right_columns(table))]
        if self.comparisons:
            changes = comparison_table(self)
            parts += [f"## {comparison_heading(self)}"]
            parts += [markdown_table(changes, right=right_columns(changes))]
        parts += ["## Protocols", "\n".join(f"{n}. {line}." for n, line in enumerate(protocols_of(self), start=1))]
        for title, lines in (
            ("Published", published_lines(self)),
            ("Not done", [f"{task}: {reason}" for task, reason in self.skipped.items()]),
            ("Notes", [f"{subject}: {sentence}" for subject, sentence in self.notes]),
            ("Methods", [f"{name}: {sentence}" for name, sentence in self.methods.items()]),
        ):
            if lines:
                parts += [f"## {title}", "\n".join(f"- {line}" for line in lines)]
        return "\n\n".join(parts) + "\n"

    def to_json(self) -> str:
        """Everything: each figure with its intervals, published figures, notes, ranks, and clips that were left out."""
        record = {
            "suite": self.suite,
            "models": self.models,
            "baseline": self.baseline,
            "seed": self.seed,
            "seconds": round(self.seconds, 3),
            "figures": [_row_record(row) for row in self.rows],
            "comparisons": [_comparison_record(comparison) for comparison in self.comparisons],
            "classes": [
                {"model": model, "task": task, "classes": rows}
                for (model, task), output in self.outputs.items()
                if (rows := _class_records(output))
            ],
            "answers": [
                {"model": model, "task": task} | record
                for (model, task), output in self.outputs.items()
                if (record := _answer_record(output))
            ],
            "skipped": dict(self.skipped),
            "notes": [{"subject": subject, "note": sentence} for subject, sentence in self.notes],
            "left_out": [{"task": task, "clip": clip, "reason": reason} for task, clip, reason in self.lost],
            "data": [asdict(facts) for facts in self.data],
            "methods": self.methods,
        }
        # JSON has no NaN: undefined numbers were written as null, and one that was missed must not pass.
        return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)

    def write_html(
        self,
        path: str | os.PathLike[str],
        *,
        title: str | None = None,
        training_log: Sequence[LogRow] | None = None,
    ) -> Path:
        """Write one page with plots and sounds, which needs no network and no other file, and return its path.

        Args:
            training_log: rows with `step` and `loss`, and where known `scale` and `pairs_per_s`, for a loss curve.

        Raises MissingExtraError without jinja2.
        """
        from openclap.evals.report import write_report

        return write_report(path, self, title=title or f"Suite {self.suite}", training_log=training_log)


# The protocol of each figure ------------------------------------------------------------------------------------------

UNKNOWN_POLICY = "The model gets every clip whole and states no rule for clips longer than its input"
METHODS = {
    "Retrieval": (
        "Cosine similarity of unit vectors, all captions against all clips. Text → audio queries with every caption: "
        "R@k is the share whose own clip ranks within k, mAP@10 the mean of 1/rank within 10. Audio → text queries "
        "with every clip: R@k and ranks take its best-placed caption, mAP@10 is the sum of i/rank over its captions "
        "within 10, best first, divided by their count. Captions with several right clips are measured like clips with "
        "several captions."
    ),
    "Zero-shot": (
        f"One prompt per label (“{SOUND}” unless a task has its own), over all labels of the split; _ in labels reads "
        "as a space. The label with the highest cosine similarity is the answer."
    ),
    "Probe": (
        "A classifier on the embeddings of the training split. A linear probe is logistic regression; its C is chosen "
        "on the validation split of the data set, or, where there is none, by cross-validation of up to 5 folds over "
        "groups of the training split. The test split is used once."
    ),
    "Hard text": (
        "Each caption beside wrong ones that rules make of it: two events in the other order, two sources that "
        "exchange what they do, a part denied, another number. The figure is the share of pairs in which the sound is "
        "closer to the right caption."
    ),
    "Ties": "Broken against the model: a wrong candidate with the same score, within 0.00001, ranks first.",
    "Intervals": (
        f"95 % percentile intervals of {RESAMPLES:,} bootstrap resamples of groups (takes of one recording are one "
        "group); the pool that is searched stays whole."
    ),
    "Chance": (
        f"Retrieval: mean and 95 % interval of {DRAWS} random similarities of the same shape. Labels: the best "
        "constant answer (accuracy: the most frequent label; balanced accuracy: 1 / labels), with the 95 % interval "
        f"of these answers against {DRAWS} permutations of the labels by group. Hard text: one half, with the interval "
        "of as many tosses of a coin. “Above chance” is yes when the two "
        "intervals do not meet, no when the figure lies within chance’s, and touching in between."
    ),
}
"""Sentences by heading, for people who read a result without this code beside them."""
METHOD_KINDS: dict[str, tuple[str, ...]] = {
    "Retrieval": ("retrieval",),
    "Zero-shot": ("zero_shot", "tagging"),
    "Probe": ("probe",),
    "Hard text": ("hard_text",),
    "Ties": (),
    "Intervals": (),
    "Chance": (),
}
"""The kinds of task that each heading is about; () for all."""


# JSON -----------------------------------------------------------------------------------------------------------------


def _row_record(row: MetricRow) -> dict[str, Any]:
    return {
        "model": row.model,
        "task": row.task,
        "kind": row.kind,
        "dataset": row.dataset,
        "direction": row.metric.direction,
        "metric": row.metric.name,
        "is_rank": row.metric.is_rank,
        "shown": row.is_shown,
        **_estimate_record(row.estimate),
        "chance": _estimate_record(row.chance) if row.chance else None,
        "baseline": _estimate_record(row.baseline) if row.baseline else None,
        "above_chance": None if row.above_chance == "–" else row.above_chance,
        # Shares, like our figures; rounding removes the digits that dividing percent by 100 adds.
        "published": [{"value": round(figure.value / 100, 6), "system": figure.system} for figure in row.published],
        "incomplete": row.incomplete or None,
        "n": row.n,
        "protocol": row.protocol,
        "data_sha256": row.data_hash,
        "seconds": round(row.seconds, 3),
    }


def _comparison_record(comparison: Comparison) -> dict[str, Any]:
    return {
        "task": comparison.task,
        "direction": comparison.metric.direction,
        "metric": comparison.metric.name,
        "models": [comparison.a, comparison.b],
        "change": f"from {comparison.a} to {comparison.b}",
        **_estimate_record(comparison.difference.estimate),
        "p": None if math.isnan(comparison.difference.p) else comparison.difference.p,
    }


def _class_records(output: TaskOutput) -> list[dict[str, Any]]:
    """The figures of each class that can be judged."""
    if output.classified is not None:
        rows = classes_in_detail(output.classified)
        return [asdict(row) | {"label": output.classes[row.label]} for row in rows]
    if output.tagged is None:
        return []
    precision_C, area_C = average_precisions(output.tagged), areas(output.tagged)
    return [
        {
            "label": output.classes[c],
            "clips": int(output.tagged.truth_NC[:, c].sum()),
            "average_precision": float(precision_C[c]),
            "AUC": float(area_C[c]),
        }
        for c in output.tagged.occurring.tolist()
    ]


def _answer_record(output: TaskOutput) -> dict[str, Any]:
    """Every rank or pair of captions, or the confusion of classes where they are few."""
    if output.retrieval is not None:
        # Of every pair of a caption and a right clip; with one clip per caption, the pairs are the captions.
        ranks, relevance = output.retrieval.ranks, output.retrieval.ranks.relevance
        return {
            "text_to_audio": ranks.text_to_audio_P.tolist(),
            "audio_to_text": ranks.audio_to_text_P.tolist(),
            "owner": relevance.clip_P.tolist(),
        } | ({} if relevance.is_of_owners else {"caption": relevance.caption_P.tolist()})
    if output.hard_text is not None:
        hard = output.hard_text
        return {
            "pairs": [
                {"clip": output.clips.clips[pair.clip].key, "kind": pair.kind, "right": pair.right, "wrong": pair.wrong}
                | {"right_cosine": float(right), "wrong_cosine": float(wrong)}
                for pair, right, wrong in zip(hard.pairs, hard.right_P, hard.wrong_P, strict=True)
            ]
        }
    if output.classified is not None and len(output.classes) <= MOST_CONFUSED:
        return {"labels": output.classes, "confusion": output.classified.confusion().tolist()}
    return {}


def _estimate_record(estimate: Estimate) -> dict[str, float | None]:
    record = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {name: None if math.isnan(value) else value for name, value in record.items()}
