"""A suite as one HTML page: the table, what papers report, plots, and the hardest cases to listen to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from openclap.evals.answers import Answers
from openclap.evals.asked import Asked
from openclap.evals.bench import Row, Table
from openclap.evals.bench_table import compared, difference, named, published_of, shown, span
from openclap.evals.bootstrap import Estimate
from openclap.evals.calibration import Reliability
from openclap.evals.charts import confusion_chart, interval_bar, most_frequent
from openclap.evals.examples import hardest, players
from openclap.evals.panels import recall_panel
from openclap.evals.report import shown_query
from openclap.evals.tagging import Tagged, areas, average_precisions
from openclap.pages.charts import Line, line_chart
from openclap.pages.curves import Panel
from openclap.pages.render import markup, render, write

HARDEST = 3
"""Cases a task that can be listened to."""
ROOM = 900_000
"""Bytes of players a task, as base64."""
CLASSES = 12
"""Classes named at each end of a table of them."""


def write_suite_report(path: str | os.PathLike[str], table: Table) -> Path:
    """Write the page and return its path. It needs nothing else: no script, no network, sounds and charts inside.

    Raises MissingExtraError without jinja2.
    """
    tasks = list(dict.fromkeys(task for _, task in table.asked))
    content = {
        "title": f"Suite {table.suite}",
        "claim": _claim(table, tasks),
        "has_published": any(row.published for row in table.rows),
        "sections": [_section(table, task) for task in tasks],
        "missing": list(table.missing.items()),
        "compared": compared(table) if table.comparisons else [],
    }
    return write(Path(path), render("openclap.evals", "bench.html", "eval", **content))


def _claim(table: Table, tasks: list[str]) -> str:
    models = len({model for model, _ in table.asked})
    done = f"{len(tasks)} task{'s' if len(tasks) != 1 else ''} for {models} model{'s' if models != 1 else ''}"
    beside = sum(bool(row.published) for row in table.rows if row.is_shown)
    return f"{done}, {beside} figures beside published ones." if beside else f"{done}."


def _section(table: Table, task: str) -> dict[str, Any]:
    rows = [row for row in table.rows if row.task == task and row.is_shown]
    several = len({row.model for row in rows}) > 1
    return {
        "name": task,
        "head": "Model" if several else "Figure",
        "groups": _groups(rows) if several else [{"name": "", "rows": [_row(row, named(row.metric)) for row in rows]}],
        "protocols": list(dict.fromkeys(row.protocol for row in rows)),
        "data_hash": rows[0].data_hash,
        "published": published_of(table, task),
        "notes": [sentence for about, sentence in table.notes if about == task],
        "parts": [_part(model, asked) for (model, about), asked in table.asked.items() if about == task],
    }


def _groups(rows: list[Row]) -> list[dict[str, Any]]:
    """A figure each, the models beneath one another."""
    return [
        {"name": named(metric), "rows": [_row(row, row.model) for row in rows if row.metric == metric]}
        for metric in dict.fromkeys(row.metric for row in rows)
    ]


def _row(row: Row, name: str) -> dict[str, Any]:
    words = f"{named(row.metric)} {shown(row.estimate.value, row)}, interval {span(row)}"
    published = row.published[0] if row.published else None
    beside = Estimate(published.value / 100, published.value / 100, published.value / 100) if published else None
    return {
        "name": name,
        "value": shown(row.estimate.value, row),
        "span": span(row),
        "bar": "" if row.is_rank else markup(interval_bar(row.estimate, None, beside, words)),
        "published": f"{published.value:.1f}" if published else "–",
        "system": published.system if published else "",
        "difference": difference(row),
        "n": f"{row.n:,}",
    }


def _part(model: str, asked: Asked) -> dict[str, Any]:
    """Plots and hardest cases of one model."""
    player = players(asked.clips, ROOM)
    return {
        "model": model,
        "charts": list(_charts(asked)),
        "confusion": _confusion(asked.answers) if asked.answers else None,
        "classes": _classes(asked.tagged, asked.classes) if asked.tagged else [],
        "queries": [shown_query(each) for each in hardest(asked.retrieval, asked.clips, HARDEST, player)]
        if asked.retrieval
        else [],
        "mistakes": list(_mistakes(asked, player)),
    }


def _charts(asked: Asked) -> Iterator[Panel]:
    if asked.retrieval:
        yield recall_panel(asked.retrieval)
    if asked.sureness:
        yield _reliability(asked.sureness)


def _reliability(found: Reliability) -> Panel:
    there = found.count_B > 0
    ends = np.array([0.0, 1.0])
    lines = [
        Line("right as often as sure", ends, ends, "line-a-chance"),
        Line("this model", found.confidence_B[there], found.accuracy_B[there], "line-a"),
    ]
    told = f"Calibration error {100 * found.error:.1f} points."
    return {
        "title": "How sure, how often right",
        "lead": f"{told} Answers in {len(found.count_B)} equal bins of confidence.",
        "svg": markup(line_chart(lines, alt=told, x_label="confidence", y_label="share right", shares=True)),
        "key": [(line.name, line.style) for line in lines[::-1]],
    }


def _confusion(answers: Answers) -> Any:
    count_CC = answers.classified.confusion()
    labels, part_CC = most_frequent(answers.labels, count_CC)
    right = f"{np.trace(count_CC):,} of {count_CC.sum():,} clips are named right"
    return {"title": right, "svg": markup(confusion_chart(labels, part_CC, alt=f"Confusion of {len(labels)} labels."))}


def _classes(tagged: Tagged, classes: tuple[str, ...]) -> list[tuple[str, str, str, str]]:
    """(class, clips, average precision, AUC), best first; the middle is left out of many."""
    precision_C, area_C = average_precisions(tagged), areas(tagged)
    order = [int(c) for c in np.argsort(-precision_C, kind="stable") if not np.isnan(precision_C[c])]
    rows = [
        (classes[c], str(int(tagged.truth_NC[:, c].sum())), f"{100 * precision_C[c]:.1f}", f"{100 * area_C[c]:.1f}")
        for c in order
    ]
    return rows if len(rows) <= 2 * CLASSES else [*rows[:CLASSES], ("…", "", "", ""), *rows[-CLASSES:]]


def _mistakes(asked: Asked, player: Callable[[int], str | None]) -> Iterator[dict[str, Any]]:
    """The clips whose right label stands furthest behind the label that was given."""
    if asked.answers is None:
        return
    answers, classified = asked.answers, asked.answers.classified
    row_N = np.arange(len(classified.label_N))
    score_NC = np.nan_to_num(classified.score_NC.astype(np.float64), neginf=-1e9)
    behind_N = score_NC[row_N, classified.predicted_N] - score_NC[row_N, classified.label_N]
    for item in np.argsort(-behind_N, kind="stable")[:HARDEST]:
        if classified.rank_N[item] > 1:
            place = int(answers.clip_N[item])
            yield {
                "clip": asked.clips.clips[place].title or asked.clips.clips[place].key,
                "label": answers.labels[classified.label_N[item]],
                "said": answers.labels[classified.predicted_N[item]],
                "rank": int(classified.rank_N[item]),
                "player": player(place),
            }
