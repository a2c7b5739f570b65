"""Curves over the steps of a training run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from openclap.arrays import Floats
from openclap.pages.charts import Curve, line_chart
from openclap.pages.render import markup

LogRow = Mapping[str, Any]
Panel = dict[str, Any]
"""A chart with its title, a sentence and a key, as the macro `draw` of `macros.html` takes it."""
POINTS = 240
"""The largest number of points of a curve."""
SMOOTHED_FROM = 40
"""Number of rows above which a smoothed curve is drawn over the logged one."""


def curve(
    log: Sequence[LogRow],
    key: str,
    title: str,
    *,
    lead: str,
    y_label: str,
    change: Callable[[Floats], Floats] = lambda y: y,
) -> list[Panel]:
    """A panel with a logged value over the steps, or none for fewer than two values.

    Args:
        lead: a sentence with {first}, {last} and {steps} in it; the last is the mean of the last fiftieth.
        change: applied to the values before they are drawn.
    """
    rows = [row for row in log if is_number(row.get("step")) and is_number(row.get(key))]
    if len(rows) < 2:
        return []
    step = np.array([float(row["step"]) for row in rows])
    value = change(np.array([float(row[key]) for row in rows]))
    last = float(value[-max(1, len(value) // 50) :].mean())
    sentence = lead.format(first=value[0], last=last, steps=int(step[-1]))
    curves = _curves(step, value, title.lower())
    return [
        {
            "title": title,
            "lead": sentence,
            "svg": markup(line_chart(curves, alt=sentence, x_label="step", y_label=y_label)),
            "key": [(drawn.name, drawn.style) for drawn in curves],
        }
    ]


def _curves(step: Floats, value: Floats, name: str) -> list[Curve]:
    width = math.ceil(len(step) / POINTS)
    logged = Curve(name, _means(step, width), _means(value, width), "line-a")
    if len(step) <= SMOOTHED_FROM:
        return [logged]
    window = math.ceil(len(step) / 24)
    smoothed = Curve("smoothed", _rolling_mean(step, window), _rolling_mean(value, window), "line-a")
    return [Curve("logged", logged.x, logged.y, "line-raw"), smoothed]


def is_number(value: Any) -> bool:
    """Whether a logged value is a finite number."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def _means(values: Floats, width: int) -> Floats:
    starts = np.arange(0, len(values), width)
    return np.asarray(np.add.reduceat(values, starts) / np.diff([*starts, len(values)]), np.float64)


def _rolling_mean(values: Floats, width: int) -> Floats:
    return np.convolve(values, np.full(width, 1 / width), mode="valid")
