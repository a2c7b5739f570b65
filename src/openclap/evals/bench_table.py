"""A suite's table as rows of words, as Markdown and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from openclap.evals.asked import Asked
from openclap.evals.bench import Comparison, Row, Table
from openclap.evals.bootstrap import Estimate
from openclap.evals.metrics import per_class
from openclap.evals.tagging import areas, average_precisions

HEAD = ("model", "task", "metric", "ours", "published", "difference", "95 %", "n", "protocol", "data", "seconds")
BESIDE = ("published", "difference")
"""Columns that only published figures fill."""
COMPARED = ("task", "metric", "change", "by", "95 %", "p")
"""The change is from the first model to the second."""
NAMES = {"text_to_audio": "text→audio", "audio_to_text": "audio→text"}


def rows_of(table: Table) -> list[tuple[str, ...]]:
    """The shown figures, heading first. Shares are in percent, as papers write them.

    `published` and the difference are of the first row that is known, the others stand in `published_of`; where none
    is, there are no such columns. The share of the published set stands in place of the difference where it is not
    whole. Protocols are numbered as in `protocols_of`.
    """
    protocols = protocols_of(table)
    rows = [HEAD, *(_words(row, protocols.index(row.protocol) + 1) for row in table.rows if row.is_shown)]
    if any(row.published for row in table.rows):
        return rows
    return [tuple(cell for name, cell in zip(HEAD, row, strict=True) if name not in BESIDE) for row in rows]


def protocols_of(table: Table) -> list[str]:
    """The different protocols of the figures, in their order."""
    return list(dict.fromkeys(row.protocol for row in table.rows))


def compared(table: Table) -> list[tuple[str, ...]]:
    """The pairs of models, heading first."""
    return [COMPARED, *(_pair(each) for each in table.comparisons)]


def published_of(table: Table, task: str | None = None) -> list[str]:
    """Every published row of the figures that are shown, a line each; of one task, where it is given."""
    lines: dict[str, None] = {}
    for row in table.rows:
        for each in row.published if task in (None, row.task) else ():
            lines[f"{row.task}, {named(row.metric)}: {each.value:.1f} ({each.system})"] = None
    return list(lines)


def to_markdown(table: Table) -> str:
    """The table, comparisons, published rows and everything worth knowing."""
    parts = [f"# Suite {table.suite}", grid(rows_of(table))]
    if table.comparisons:
        parts += ["## Models in pairs, the change from the first to the second", grid(compared(table))]
    parts += ["## Protocols", "\n".join(f"{n}. {line}." for n, line in enumerate(protocols_of(table), start=1))]
    for title, lines in (
        ("Published", published_of(table)),
        ("Not done", [f"{task}: {reason}" for task, reason in table.missing.items()]),
        ("Worth knowing", [f"{task}: {sentence}" for task, sentence in table.notes]),
    ):
        if lines:
            parts += [f"## {title}", "\n".join(f"- {line}" for line in lines)]
    return "\n\n".join(parts) + "\n"


def to_json(table: Table) -> str:
    """Everything: each figure with its interval, the published rows, notes, and every clip that was left out."""
    record = {
        "suite": table.suite,
        "seed": table.seed,
        "figures": [_figure(row) for row in table.rows],
        "comparisons": [
            {
                "task": each.task,
                "metric": each.metric,
                "models": [each.a, each.b],
                "change": f"from {each.a} to {each.b}",
                **_estimate(each.difference.estimate),
                "p": None if math.isnan(each.difference.p) else each.difference.p,
            }
            for each in table.comparisons
        ],
        "classes": [
            {"model": model, "task": task, "classes": rows}
            for (model, task), asked in table.asked.items()
            if (rows := _classes(asked))
        ],
        "missing": table.missing,
        "notes": [{"task": task, "note": sentence} for task, sentence in table.notes],
        "left_out": [{"task": task, "clip": clip, "reason": reason} for task, clip, reason in table.lost],
    }
    return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)


def named(metric: str) -> str:
    """ "text_to_audio_R@1" as "text→audio R@1"."""
    for task, name in NAMES.items():
        if metric.startswith(f"{task}_"):
            return f"{name} {named(metric[len(task) + 1 :])}"
    return metric.replace("_", " ")


def shown(value: float, row: Row) -> str:
    """Percent with one decimal, or a rank with one."""
    return "–" if math.isnan(value) else f"{value if row.is_rank else 100 * value:.1f}"


def span(row: Row) -> str:
    """The interval, or a dash."""
    low, high = row.estimate.low, row.estimate.high
    return "–" if math.isnan(low) else f"{shown(low, row)}–{shown(high, row)}"


def difference(row: Row) -> str:
    """Ours less the first published, in points; the share of the published set where it is not whole, and a dash where
    one of the two is not there."""
    if not row.published or math.isnan(row.estimate.value):
        return "–"
    return row.short or _signed(100 * row.estimate.value - row.published[0].value)


def _words(row: Row, protocol: int) -> tuple[str, ...]:
    published = f"{row.published[0].value:.1f}" if row.published else "–"
    return (
        row.model,
        row.task,
        named(row.metric),
        shown(row.estimate.value, row),
        published,
        difference(row),
        span(row),
        f"{row.n:,}",
        f"[{protocol}]",
        row.data_hash[:12],
        f"{row.seconds:.1f}",
    )


def _pair(each: Comparison) -> tuple[str, ...]:
    value, scale = each.difference.estimate, 1.0 if each.metric.endswith("rank") else 100.0
    low, middle, high = (_signed(scale * number) for number in (value.low, value.value, value.high))
    interval = "–" if math.isnan(value.low) else f"{low} to {high}"
    p = "–" if math.isnan(each.difference.p) else f"{each.difference.p:.3f}"
    middle = "–" if math.isnan(value.value) else middle
    return each.task, named(each.metric), f"from {each.a} to {each.b}", middle, interval, p


def _signed(number: float) -> str:
    return f"{round(number, 1) + 0.0:+.1f}"


def _figure(row: Row) -> dict[str, Any]:
    return {
        "model": row.model,
        "task": row.task,
        "kind": row.kind,
        "metric": row.metric,
        "shown": row.is_shown,
        **_estimate(row.estimate),
        "published": [{"value": round(each.value / 100, 6), "system": each.system} for each in row.published],
        "short": row.short or None,
        "n": row.n,
        "protocol": row.protocol,
        "data_sha256": row.data_hash,
        "seconds": round(row.seconds, 3),
    }


def _classes(asked: Asked) -> list[dict[str, Any]]:
    """How each class fares, where there are classes; those that cannot be judged are left out."""
    if asked.answers is not None:
        rows = per_class(asked.answers.classified)
        return [asdict(row) | {"label": asked.classes[row.label]} for row in rows]
    if asked.tagged is None:
        return []
    precision_C, area_C = average_precisions(asked.tagged), areas(asked.tagged)
    return [
        {
            "label": asked.classes[c],
            "clips": int(asked.tagged.truth_NC[:, c].sum()),
            "average_precision": float(precision_C[c]),
            "AUC": float(area_C[c]),
        }
        for c in asked.tagged.occurring.tolist()
    ]


def _estimate(estimate: Estimate) -> dict[str, float | None]:
    record = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {name: None if math.isnan(value) else value for name, value in record.items()}


def grid(rows: Sequence[Sequence[str]]) -> str:
    """Rows of words as a Markdown table, the first as its head."""
    head, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
