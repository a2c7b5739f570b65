"""Results of an evaluation as tables of cells: for terminals, Markdown and pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from openclap.evals.bootstrap import Estimate
from openclap.evals.metrics import DIRECTION_LABELS, Metric
from openclap.evals.results import Comparison, MetricRow, Results

NUMERIC = ("value", "95 %", "chance", "before", "published", "difference", "n", "seconds", "change", "p")
"""Columns to align right."""


@dataclass(frozen=True, slots=True)
class _Column:
    heading: str
    cell: Callable[[MetricRow], str]


def table_of(results: Results) -> list[tuple[str, ...]]:
    """The figures that tables show as rows of cells, heading first. Intervals are 95 %.

    The columns are those that some row fills: `chance` and `above` where tasks compute chance, `before` with a
    baseline, `published` and `difference` beside published figures, `model` with several models. A table with chance
    fits 80 columns, so it leaves n, protocol, data and time to the record as JSON. `published` is the first known row;
    `published_lines` has all of them. Protocols are numbered as in `protocols_of`.
    """
    columns = _columns(results)
    cells = [tuple(column.cell(row) for column in columns) for row in results.rows if row.is_shown]
    return [tuple(column.heading for column in columns), *cells]


def is_compact(results: Results) -> bool:
    """Whether the table is the narrow one of a single model beside chance.

    It has the direction of retrieval in place of the task's name, so there must not be two retrieval tasks.
    """
    retrievals = {row.task for row in results.rows if row.metric.direction}
    return len(results.models) == 1 and len(retrievals) < 2 and any(row.chance for row in results.rows)


def _columns(results: Results) -> list[_Column]:
    percent, compact = in_percent(results), is_compact(results)
    protocols = protocols_of(results)
    columns = [_Column("model", lambda row: row.model)] if len(results.models) > 1 else []
    if compact:
        columns += [_Column("task", _compact_task), _Column("metric", lambda row: _compact_metric(row.metric))]
    else:
        columns += [_Column("task", lambda row: row.task), _Column("metric", lambda row: row.metric.label)]
    columns.append(_Column("value", lambda row: shown(row.estimate, row.metric, percent)))
    if any(row.published for row in results.rows):
        columns.append(_Column("published", lambda row: f"{row.published[0].value:.1f}" if row.published else "–"))
        columns.append(_Column("difference", difference))
    columns.append(_Column("95 %", lambda row: span(row.estimate, row.metric, percent)))
    if any(row.chance for row in results.rows):
        columns.append(_Column("chance", lambda row: shown(row.chance, row.metric, percent)))
        columns.append(_Column("95 %", lambda row: span(row.chance, row.metric, percent)))
    if results.baseline is not None:
        columns.append(_Column("before", lambda row: shown(row.baseline, row.metric, percent)))
    if any(row.chance for row in results.rows):
        # The other columns would not fit beside chance.
        return [*columns, _Column("above", lambda row: row.above_chance)]
    return [
        *columns,
        _Column("n", lambda row: f"{row.n:,}"),
        _Column("protocol", lambda row: f"[{protocols.index(row.protocol) + 1}]"),
        _Column("data", lambda row: row.data_hash[:12]),
        _Column("seconds", lambda row: f"{row.seconds:.1f}"),
    ]


def _compact_task(row: MetricRow | Comparison) -> str:
    return DIRECTION_LABELS[row.metric.direction] if row.metric.direction else row.task


def _compact_metric(metric: Metric) -> str:
    return "balanced" if metric.name == "balanced_accuracy" else metric.short_label


def in_percent(results: Results) -> bool:
    """Whether shares are shown in percent: beside published figures, as papers write them."""
    return any(row.published for row in results.rows)


def right_columns(table: Sequence[Sequence[str]]) -> list[int]:
    """The numbers of the columns to align right."""
    return [number for number, heading in enumerate(table[0]) if heading in NUMERIC]


def protocols_of(results: Results) -> list[str]:
    """The distinct protocols of the figures, in their order."""
    return list(dict.fromkeys(row.protocol for row in results.rows))


def published_lines(results: Results, task: str | None = None) -> list[str]:
    """Every published figure beside the results, a line each; of one task, where it is named."""
    lines: dict[str, None] = {}
    for row in results.rows:
        for figure in row.published if task in (None, row.task) else ():
            lines[f"{row.task}, {row.metric.label}: {figure.value:.1f} ({figure.system})"] = None
    return list(lines)


def comparison_heading(results: Results) -> str:
    """The heading of `comparison_table`, with the names of the models where they are one pair."""
    pairs = _pairs(results)
    first, second = pairs.pop() if len(pairs) == 1 else ("the first model", "the second")
    return f"Changes from {first} to {second}"


def comparison_table(results: Results) -> list[tuple[str, ...]]:
    """The change of each figure from the first model of a pair to the second, heading first.

    The models of a single pair are in `comparison_heading`, and those of several in a column.
    """
    percent, compact, several = in_percent(results), is_compact(results), len(_pairs(results)) > 1
    heading = ("task", "metric", *(("models",) if several else ()), "change", "95 %", "p")
    return [heading, *(_comparison_cells(each, percent, compact, several) for each in results.comparisons)]


def _pairs(results: Results) -> set[tuple[str, str]]:
    return {(comparison.a, comparison.b) for comparison in results.comparisons}


def _comparison_cells(comparison: Comparison, percent: bool, compact: bool, several: bool) -> tuple[str, ...]:
    metric, estimate = comparison.metric, comparison.difference.estimate
    low, value, high = (_signed(n, metric, percent) for n in (estimate.low, estimate.value, estimate.high))
    interval = "–" if math.isnan(estimate.low) else f"{low} to {high}"
    p = "–" if math.isnan(comparison.difference.p) else f"{comparison.difference.p:.3f}"
    names = (_compact_task(comparison), _compact_metric(metric)) if compact else (comparison.task, metric.label)
    models = (f"from {comparison.a} to {comparison.b}",) if several else ()
    return *names, *models, value, interval, p


def shown(estimate: Estimate | None, metric: Metric, percent: bool) -> str:
    """A value: a rank with one decimal, a share with three, or in percent with one; a dash where it is undefined."""
    return "–" if estimate is None else _number(estimate.value, metric, percent)


def span(estimate: Estimate | None, metric: Metric, percent: bool) -> str:
    """An interval, or a dash where it is undefined."""
    if estimate is None or math.isnan(estimate.low):
        return "–"
    return f"{_number(estimate.low, metric, percent)}–{_number(estimate.high, metric, percent)}"


def difference(row: MetricRow) -> str:
    """The figure less the first published one, in points.

    The share of the published data stands in its place where that is not all of it: a figure on a part of a data set
    is no comparison.
    """
    if not row.published or math.isnan(row.estimate.value):
        return "–"
    # + 0.0 turns -0.0 into 0.0.
    return row.incomplete or f"{round(100 * row.estimate.value - row.published[0].value, 1) + 0.0:+.1f}"


def _number(value: float, metric: Metric, percent: bool) -> str:
    if math.isnan(value):
        return "–"
    if metric.is_rank:
        return f"{value:.1f}"
    return f"{100 * value:.1f}" if percent else f"{value:.3f}"


def _signed(value: float, metric: Metric, percent: bool) -> str:
    if math.isnan(value):
        return "–"
    scale, digits = (1.0, 1) if metric.is_rank else (100.0, 1) if percent else (1.0, 3)
    return f"{round(scale * value, digits) + 0.0:+.{digits}f}"  # + 0.0 turns -0.0 into 0.0
