"""A run as one page, from its log: curves, figures and choices. It can be made of a run that is still going, was
stopped or was killed."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from openclap.errors import DataError
from openclap.pages.curves import LogRow, Panel, curve, is_number
from openclap.pages.render import render, write
from openclap.training.claim import CONFIG
from openclap.training.leave import MODEL
from openclap.training.live import LOG, read_log

PAGE = "report.html"
SCORES = ("validation", "score")
"""How keys of rows begin that hold what was measured on held-out pairs."""


def write_page(run: Path) -> Path:
    """Write `run/report.html` and return its path.

    Raises DataError when the folder holds no run, or one that took no step; MissingExtraError without jinja2.
    """
    log, done = _read(run), (run / MODEL).exists()
    html = render(
        "openclap.training",
        "run.html",
        "train",
        title=f"Training run {run.absolute().name}",
        claim=_claim(log),
        state=_state(log, done=done),
        facts=_facts(log, done=done),
        groups=[group for group in _groups(log) if group["charts"]],
        choices=_choices(run / CONFIG),
    )
    return write(run / PAGE, html)


def _read(run: Path) -> list[LogRow]:
    if not (run / LOG).is_file():
        raise DataError(f"{run}: holds no {LOG}. Expected the folder of a run, as given to openclap train --out.")
    log: list[LogRow] = [row for row in read_log(run / LOG) if is_number(row.get("step"))]
    if not any(is_number(row.get("loss")) for row in log):
        raise DataError(f"{run / LOG}: holds no step yet. Try again when the run has taken some.")
    return log


def _claim(log: Sequence[LogRow]) -> str:
    losses = _values(log, "loss")
    claim = f"The loss went from {losses[0]:.2f} to {_end(losses):.2f}"
    for key in score_keys(log)[:1]:
        scores = _values(log, key)
        claim += f", {_spoken(key)} from {scores[0]:.3f} to {max(scores):.3f} at best"
    return f"{claim}."


def _state(log: Sequence[LogRow], *, done: bool) -> str:
    step, total = int(log[-1]["step"]), int(log[-1].get("total_steps", 0))
    if step >= total:
        return f"All {step:,} steps are taken."
    if done:
        return f"Stopped early after {step:,} of {total:,} steps: the validation score no longer improved."
    return f"{step:,} of {total:,} steps are taken; the same command goes on from the last saved state."


def _facts(log: Sequence[LogRow], *, done: bool) -> list[tuple[str, str]]:
    speeds, waits = _values(log, "pairs_per_s"), _values(log, "data_wait")
    facts = [("Steps", f"{int(log[-1]['step']):,}"), ("Epochs", f"{log[-1].get('epoch', 1)}")]
    if speeds:
        facts.append(("Pairs a second", f"{statistics.median(speeds):,.1f}"))
    if waits:
        facts.append(("Waiting for data", f"{statistics.median(waits):.0%}"))
    if used := _values(log, "mfu"):
        facts.append(("Of the matmul peak", f"{statistics.median(used):.0%}"))
    if held := _values(log, "memory_mb"):
        facts.append(("Memory", f"{max(held) / 1e3:,.1f} GB"))
    if scales := _values(log, "scale"):
        facts.append(("Temperature", f"{1 / scales[0]:.3f} → {1 / scales[-1]:.3f}"))
    left = _values(log[-1:], "seconds_left")
    if left and not done and left[0]:
        facts.append(("Left", str(timedelta(seconds=round(left[0])))))
    return facts


def _groups(log: Sequence[LogRow]) -> list[dict[str, Any]]:
    """The curves that the log has values for."""
    near = "{first:.3g} at first, {last:.3g} at the end."
    learning: list[Panel] = [
        *curve(log, "loss", "Loss", lead="From {first:.2f} to {last:.2f} over {steps:,} steps.", y_label="loss"),
        *curve(log, "lr", "Learning rate", lead="Of the heads: " + near, y_label=""),
        *curve(log, "scale", "Temperature", lead=near, y_label="", change=np.reciprocal),
        *curve(log, "grad_norm", "Gradient norm", lead="Before clipping: " + near, y_label="norm"),
    ]
    quality = [
        panel
        for key in score_keys(log)
        for panel in curve(log, key, _spoken(key).capitalize(), lead="On held-out pairs: " + near, y_label="score")
    ]
    space = [
        *curve(log, "alignment", "Alignment", lead="Of pairs, 0 to 4, less is nearer: " + near, y_label="distance²"),
        *curve(log, "uniformity_audio", "Uniformity of sounds", lead="Less is more even: " + near, y_label="log"),
        *curve(log, "uniformity_text", "Uniformity of captions", lead="Less is more even: " + near, y_label="log"),
    ]
    speed = [
        *curve(log, "pairs_per_s", "Pairs a second", lead=near, y_label="pairs/s"),
        *curve(log, "data_wait", "Waiting for data", lead="The share of each step: " + near, y_label="share"),
        *curve(log, "mfu", "Use of the device", lead="The share of its matmul peak: " + near, y_label="share"),
        *curve(log, "memory_mb", "Memory", lead="The most that was held, in MB: " + near, y_label="MB"),
    ]
    named = {
        "How it learned": learning,
        "How good it got": quality,
        "How its vectors lie": space,
        "How fast it was": speed,
    }
    return [{"title": title, "charts": charts} for title, charts in named.items()]


def score_keys(log: Sequence[LogRow]) -> list[str]:
    """Keys of what was measured on held-out pairs, in the order in which they first come."""
    return list(dict.fromkeys(key for row in log for key in row if key.startswith(SCORES) and is_number(row[key])))


def _choices(config: Path) -> list[tuple[str, str]]:
    """The run's configuration, groups after a dot."""
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return [("config.json", "is missing or damaged")]
    return [
        (f"{name}.{inner}" if inner else name, f"{leaf}")
        for name, value in values.items()
        for inner, leaf in (value.items() if isinstance(value, dict) else [("", value)])
    ]


def _values(log: Sequence[LogRow], key: str) -> list[float]:
    return [float(row[key]) for row in log if is_number(row.get(key))]


def _end(values: Sequence[float]) -> float:
    """The mean of the last fiftieth, as under the curves."""
    return statistics.fmean(values[-max(1, len(values) // 50) :])


def _spoken(key: str) -> str:
    return key.replace("_", " ")
