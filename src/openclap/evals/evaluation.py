"""What an evaluation found, as data: figures with their intervals, and the protocol that made them.

T captions, A clips, N answers, C labels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from openclap.evals.answers import Answers
from openclap.evals.bootstrap import Estimate
from openclap.evals.retrieval import Retrieval

TASK_NAMES = {
    "text_to_audio": "Text → audio",
    "audio_to_text": "Audio → text",
    "zero_shot": "Zero-shot labels",
    "probe": "Linear probe",
}
SHORT_NAMES = {
    "text_to_audio": "text→audio",
    "audio_to_text": "audio→text",
    "zero_shot": "zero-shot",
    "probe": "probe",
}
METRIC_NAMES = {
    "median_rank": "median rank",
    "mean_rank": "mean rank",
    "balanced_accuracy": "balanced accuracy",
}
SHORT_METRICS = {"balanced_accuracy": "balanced"}


@dataclass(frozen=True, slots=True)
class Figure:
    """One number and everything needed to judge it. `n` counts the questions asked: captions, or clips."""

    task: str
    metric: str
    estimate: Estimate
    chance: Estimate
    untrained: Estimate | None
    n: int

    @property
    def is_rank(self) -> bool:
        """Ranks count from 1 and lower is better; everything else is a share of 1 and higher is better."""
        return self.metric.endswith("rank")

    @property
    def above_chance(self) -> str:
        """yes: the whole interval beats chance's. no: not even the figure does. touching: in between. –: a value or an
        interval is not defined."""
        sign = -1.0 if self.is_rank else 1.0
        bounds = (sign * self.chance.low, sign * self.chance.high)
        if sign * self.estimate.value <= max(bounds):
            return "no"
        ours = (sign * self.estimate.low, sign * self.estimate.high)
        if any(math.isnan(number) for number in (self.estimate.value, *bounds, *ours)):
            return "–"
        return "yes" if min(ours) > max(bounds) else "touching"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of `openclap.evals.suite.evaluate`.

    `left_out` maps a task to the reason it was not done. `protocol` is sentences by heading. `data_hash` and
    `train_hash` digest keys, captions, labels, groups and audio. The last three hold what a report draws.
    """

    figures: tuple[Figure, ...]
    left_out: Mapping[str, str]
    notes: tuple[str, ...]
    protocol: Mapping[str, str]
    split: str
    clips: int
    captions: int
    groups: int
    skipped: tuple[str, ...]
    seed: int
    data_hash: str
    train_hash: str | None
    seconds: float
    retrieval: Retrieval | None
    zero_shot: Answers | None
    probe: Answers | None

    def figure(self, task: str, metric: str) -> Figure | None:
        """The figure of this task and metric, where the task was done."""
        return next((one for one in self.figures if (one.task, one.metric) == (task, metric)), None)

    def to_json(self) -> str:
        """JSON text: figures, protocol and data, with every rank and confusion so that others can recount."""
        record = {
            "figures": [_figure_record(figure) for figure in self.figures],
            "left_out": dict(self.left_out),
            "notes": self.notes,
            "protocol": dict(self.protocol),
            "data": {
                "split": self.split,
                "clips": self.clips,
                "captions": self.captions,
                "groups": self.groups,
                "sha256": self.data_hash,
                "train_sha256": self.train_hash,
                "skipped": self.skipped,
            },
            "seed": self.seed,
            "seconds": round(self.seconds, 3),
            "ranks": _ranks_record(self.retrieval),
            "zero_shot": _answers_record(self.zero_shot),
            "probe": _answers_record(self.probe),
        }
        return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)


def table(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """The figures as rows of strings that fit 80 columns; the first row is the heading. Intervals are 95 %. `before` is
    the untrained model, where there was one."""
    head = ("task", "metric", "value", "95 %", "chance", "95 %", "before", "above")
    rows = [
        (
            SHORT_NAMES[figure.task],
            SHORT_METRICS.get(figure.metric, METRIC_NAMES.get(figure.metric, figure.metric)),
            shown(figure.estimate.value, figure.is_rank),
            span(figure.estimate, figure.is_rank),
            shown(figure.chance.value, figure.is_rank),
            span(figure.chance, figure.is_rank),
            shown(figure.untrained.value, figure.is_rank) if figure.untrained else "–",
            figure.above_chance,
        )
        for figure in evaluation.figures
    ]
    if any(figure.untrained for figure in evaluation.figures):
        return [head, *rows]
    return [(*row[:-2], row[-1]) for row in (head, *rows)]


def shown(value: float, is_rank: bool) -> str:
    """A share with three decimals, a rank with one."""
    if math.isnan(value):
        return "–"
    return f"{value:.1f}" if is_rank else f"{value:.3f}"


def span(estimate: Estimate, is_rank: bool) -> str:
    """An interval, or a dash where there is none."""
    if math.isnan(estimate.low):
        return "–"
    return f"{shown(estimate.low, is_rank)}–{shown(estimate.high, is_rank)}"


def _figure_record(figure: Figure) -> dict[str, Any]:
    return {
        "task": figure.task,
        "metric": figure.metric,
        **_estimate_record(figure.estimate),
        "chance": _estimate_record(figure.chance),
        "untrained": _estimate_record(figure.untrained) if figure.untrained else None,
        "above_chance": None if figure.above_chance == "–" else figure.above_chance,
        "n": figure.n,
    }


def _estimate_record(estimate: Estimate) -> dict[str, float | None]:
    record = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {name: None if math.isnan(value) else value for name, value in record.items()}


def _ranks_record(retrieval: Retrieval | None) -> dict[str, Any] | None:
    if retrieval is None:
        return None
    return {
        "text_to_audio": retrieval.ranks.text_to_audio_T.tolist(),
        "audio_to_text": retrieval.ranks.audio_to_text_T.tolist(),
        "owner": retrieval.ranks.owner_T.tolist(),
    }


def _answers_record(answers: Answers | None) -> dict[str, Any] | None:
    if answers is None:
        return None
    return {"labels": answers.labels, "confusion": answers.classified.confusion().tolist()}
