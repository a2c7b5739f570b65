"""A run's report: one HTML page with curves, figures and options, from its log.

It can be written while a run is going on, and after it was stopped or killed.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from openclap.errors import DataError
from openclap.pages.render import render, write
from openclap.pages.step_curves import Panel, curve, is_number
from openclap.training.checkpointing import CONFIG, MODEL
from openclap.training.logging import LOG, read_log

REPORT = "report.html"
SCORE_PREFIXES = ("validation", "score")
"""Prefixes of the columns with validation scores."""
Log = Sequence[Mapping[str, Any]]


def write_report(run: Path) -> Path:
    """Write `run/report.html` and return its path.

    Raises DataError when the folder holds no run, or one without a step; MissingExtraError without jinja2.
    """
    log, is_finished = _read(run), (run / MODEL).exists()
    html = render(
        "openclap.training",
        "curves_page.html",
        "train",
        title=f"Training run {run.absolute().name}",
        headline=_headline(log),
        state=_state(log, is_finished=is_finished),
        facts=_facts(log, is_finished=is_finished),
        groups=[group for group in _chart_groups(log) if group["charts"]],
        options=_options(run / CONFIG),
    )
    return write(run / REPORT, html)


def _read(run: Path) -> Log:
    if not (run / LOG).is_file():
        raise DataError(f"{run}: holds no {LOG}. Expected the folder of a run, the value of openclap train --out.")
    log = [row for row in read_log(run / LOG) if is_number(row.get("step"))]
    if not any(is_number(row.get("loss")) for row in log):
        raise DataError(f"{run / LOG}: holds no step yet. Try again when the run has taken some.")
    return log


def _headline(log: Log) -> str:
    losses = _values(log, "loss")
    sentence = f"The loss went from {losses[0]:.2f} to {_mean_of_end(losses):.2f}"
    for key in score_columns(log)[:1]:
        scores = _values(log, key)
        sentence += f", {_title(key)} from {scores[0]:.3f} to {max(scores):.3f} at best"
    return f"{sentence}."


def _state(log: Log, *, is_finished: bool) -> str:
    step, total = int(log[-1]["step"]), int(log[-1].get("total_steps", 0))
    # By the steps and not by the model's folder, which a run that stopped early has as well.
    if step >= total:
        return f"All {step:,} steps are taken."
    if is_finished:
        return f"Stopped early after {step:,} of {total:,} steps: the validation score no longer improved."
    return f"{step:,} of {total:,} steps are taken; the same command resumes from the last checkpoint."


def _facts(log: Log, *, is_finished: bool) -> list[tuple[str, str]]:
    speeds, waits = _values(log, "pairs_per_s"), _values(log, "data_wait")
    facts = [("Steps", f"{int(log[-1]['step']):,}"), ("Epochs", f"{log[-1].get('epoch', 1)}")]
    if speeds:
        facts.append(("Pairs per second", f"{statistics.median(speeds):,.1f}"))
    if waits:
        facts.append(("Waiting for data", f"{statistics.median(waits):.0%}"))
    if utilisation := _values(log, "mfu"):
        facts.append(("Of the matmul peak", f"{statistics.median(utilisation):.0%}"))
    if memory := _values(log, "memory_mb"):
        facts.append(("Memory", f"{max(memory) / 1e3:,.1f} GB"))
    if scales := _values(log, "scale"):
        facts.append(("Temperature", f"{1 / scales[0]:.3f} → {1 / scales[-1]:.3f}"))
    left = _values(log[-1:], "seconds_left")
    if left and not is_finished and left[0]:
        facts.append(("Left", str(timedelta(seconds=round(left[0])))))
    return facts


def _chart_groups(log: Log) -> list[dict[str, Any]]:
    """Draw the curves for which the log has values."""
    range_ = "{first:.3g} at first, {last:.3g} at the end."
    optimisation: list[Panel] = [
        *curve(log, "loss", "Loss", lead="From {first:.2f} to {last:.2f} over {steps:,} steps.", y_label="loss"),
        *curve(log, "lr", "Learning rate", lead="Of the heads: " + range_, y_label=""),
        *curve(log, "scale", "Temperature", lead=range_, y_label="", change=np.reciprocal),
        *curve(log, "grad_norm", "Gradient norm", lead="Before clipping: " + range_, y_label="norm"),
    ]
    validation = [
        panel
        for key in score_columns(log)
        for panel in curve(log, key, _title(key).capitalize(), lead="On validation pairs: " + range_, y_label="score")
    ]
    geometry = [
        *curve(log, "alignment", "Alignment", lead="Of pairs, 0 to 4, lower is closer: " + range_, y_label="distance²"),
        *curve(log, "uniformity_audio", "Uniformity of sounds", lead="Lower is more even: " + range_, y_label="log"),
        *curve(log, "uniformity_text", "Uniformity of captions", lead="Lower is more even: " + range_, y_label="log"),
    ]
    speed = [
        *curve(log, "pairs_per_s", "Pairs per second", lead=range_, y_label="pairs/s"),
        *curve(log, "data_wait", "Waiting for data", lead="The share of each step: " + range_, y_label="share"),
        *curve(log, "mfu", "Utilisation", lead="The share of the device's matmul peak: " + range_, y_label="share"),
        *curve(log, "memory_mb", "Memory", lead="The peak so far, in MB: " + range_, y_label="MB"),
    ]
    groups = {"Optimisation": optimisation, "Validation": validation, "Embeddings": geometry, "Speed": speed}
    return [{"title": title, "charts": charts} for title, charts in groups.items()]


def score_columns(log: Log) -> list[str]:
    """List the columns with validation scores, in order of their first row."""
    columns = (key for row in log for key in row if key.startswith(SCORE_PREFIXES) and is_number(row[key]))
    return list(dict.fromkeys(columns))


def _options(config: Path) -> list[tuple[str, str]]:
    """Read the run's configuration; the names of grouped options follow a dot."""
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return [("config.json", "is missing or damaged")]
    return [
        (f"{name}.{inner}" if inner else name, f"{leaf}")
        for name, value in values.items()
        for inner, leaf in (value.items() if isinstance(value, dict) else [("", value)])
    ]


def _values(log: Log, key: str) -> list[float]:
    return [float(row[key]) for row in log if is_number(row.get(key))]


def _mean_of_end(values: Sequence[float]) -> float:
    """Average the last fiftieth, as the captions of the curves do."""
    return statistics.fmean(values[-max(1, len(values) // 50) :])


def _title(key: str) -> str:
    return key.replace("_", " ")
