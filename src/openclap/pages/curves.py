"""Curves over the steps of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from openclap.pages.charts import Floats, Line, line_chart
from openclap.pages.render import markup

LogRow = Mapping[str, Any]
Panel = dict[str, Any]
POINTS = 240
MANY = 40


def curve(
    log: Sequence[LogRow],
    key: str,
    title: str,
    *,
    lead: str,
    y_label: str,
    change: Callable[[Floats], Floats] = lambda y: y,
) -> list[Panel]:
    """No panel, or one: a logged value over the steps and, where rows are many, its mean over stretches.

    Args:
        lead: a sentence with {first}, {last} and {steps} in it; the last is the mean of the last fiftieth.
        change: what is drawn of the values.
    """
    rows = [row for row in log if is_number(row.get("step")) and is_number(row.get(key))]
    if len(rows) < 2:
        return []
    step = np.array([float(row["step"]) for row in rows])
    value = change(np.array([float(row[key]) for row in rows]))
    last = float(value[-max(1, len(value) // 50) :].mean())
    told = lead.format(first=value[0], last=last, steps=int(step[-1]))
    lines = _lines(step, value, title.lower())
    return [
        {
            "title": title,
            "lead": told,
            "svg": markup(line_chart(lines, alt=told, x_label="step", y_label=y_label)),
            "key": [(line.name, line.style) for line in lines],
        }
    ]


def _lines(step: Floats, value: Floats, name: str) -> list[Line]:
    width = math.ceil(len(step) / POINTS)
    line = Line(name, _means(step, width), _means(value, width), "line-a")
    if len(step) <= MANY:
        return [line]
    smooth = math.ceil(len(step) / 24)
    raw = Line("logged", line.x, line.y, "line-raw")
    return [raw, Line("smoothed", _rolling(step, smooth), _rolling(value, smooth), "line-a")]


def is_number(value: Any) -> bool:
    """Whether a log's value can be drawn."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def _means(values: Floats, width: int) -> Floats:
    starts = np.arange(0, len(values), width)
    return np.asarray(np.add.reduceat(values, starts) / np.diff([*starts, len(values)]), np.float64)


def _rolling(values: Floats, width: int) -> Floats:
    return np.convolve(values, np.full(width, 1 / width), mode="valid")
