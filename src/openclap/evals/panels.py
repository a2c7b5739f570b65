"""The report's drawn parts: each a title, a sentence and a chart of an evaluation or a log."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from openclap.evals.answers import Answers
from openclap.evals.bootstrap import chance_recall
from openclap.evals.charts import confusion_chart, most_frequent
from openclap.evals.evaluation import TASK_NAMES, Evaluation
from openclap.evals.ranks import Floats, Ints
from openclap.evals.retrieval import Retrieval
from openclap.pages.charts import Line, line_chart
from openclap.pages.curves import LogRow, Panel, curve
from openclap.pages.render import markup

CURVE_POINTS = 60
MISTAKES = 8


def recall_panel(found: Retrieval) -> Panel:
    """Recall at every k, both ways, each against its exact chance."""
    clips, captions = found.ranks.clips, len(found.captions)
    last, ten = max(clips, 2), min(10, max(clips, 2))
    k = np.unique(np.append(np.geomspace(1, last, CURVE_POINTS).astype(np.int64), ten))
    at, counts = k.astype(np.float64), np.bincount(found.ranks.owner_T, minlength=clips)
    lines = [
        Line("text → audio, chance", at, chance_recall(np.ones(1, np.int64), clips, k), "line-a-chance"),
        Line("audio → text, chance", at, chance_recall(counts, captions, k), "line-b-chance"),
        Line("text → audio", at, _share_within(found.ranks.text_to_audio_T, k), "line-a"),
        Line("audio → text", at, _share_within(found.ranks.best(), k), "line-b"),
    ]
    told = ", ".join(f"{line.name} {line.y[np.searchsorted(k, ten)]:.0%}" for line in lines)
    alt = f"Recall against k. At {ten}: {told}."
    chart = line_chart(lines, alt=alt, x_label="first k (log)", y_label="recall", log_x=True, shares=True)
    return {
        "title": "Retrieval",
        "lead": "The share of queries whose answer is among the first k.",
        "svg": markup(chart),
        "key": [(line.name, line.style) for line in lines[2:] + lines[:2]],
    }


def loss_panels(log: Sequence[LogRow]) -> list[Panel]:
    """No chart, or one: the logged loss."""
    lead = "Training loss from {first:.2f} to {last:.2f} over {steps:,} steps."
    return curve(log, "loss", "Training loss", lead=lead, y_label="loss")


def confusion_panels(evaluation: Evaluation) -> list[Panel]:
    """A table of confusions for each labelling task that was done."""
    tasks = (("zero_shot", evaluation.zero_shot), ("probe", evaluation.probe))
    return [_matrix(TASK_NAMES[name], answers) for name, answers in tasks if answers is not None]


def _matrix(title: str, answers: Answers) -> Panel:
    count_CC = answers.classified.confusion()
    labels, part_CC = most_frequent(answers.labels, count_CC)
    cut = (
        f"The {len(labels)} most frequent of {len(answers.labels)} labels." if len(labels) < len(answers.labels) else ""
    )
    right = f"{np.trace(count_CC):,} of {count_CC.sum():,} clips are named right"
    wrong_CC = count_CC - np.diag(np.diag(count_CC))
    worst = [int(flat) for flat in np.argsort(-wrong_CC, axis=None, kind="stable")[:MISTAKES]]
    pairs = [divmod(flat, len(answers.labels)) for flat in worst if wrong_CC.flat[flat]]
    return {
        "title": f"{title}: {right}",
        "note": cut,
        "many": len(labels) > 12,
        "svg": markup(confusion_chart(labels, part_CC, alt=f"Confusion of {len(labels)} labels. {right}.")),
        "mistakes": [
            f"{_spoken(answers.labels[row])} named {_spoken(answers.labels[column])}: "
            f"{count_CC[row, column]} of {count_CC[row].sum()}"
            for row, column in pairs
        ],
    }


def _share_within(rank_N: Ints, k: Ints) -> Floats:
    return np.asarray((rank_N[:, None] <= k).mean(0), np.float64)


def _spoken(label: str) -> str:
    return label.replace("_", " ")
