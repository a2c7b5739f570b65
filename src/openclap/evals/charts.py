"""The charts of an evaluation, as inline SVG (see `openclap.pages.charts`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from openclap.evals.bootstrap import Estimate
from openclap.evals.ranks import Ints
from openclap.pages.charts import Scale, svg, text

MOST_LABELS = 40
CELLS = ((7, 42), (12, 34), (20, 28), (MOST_LABELS, 17))
"""For up to so many labels, cells of so many pixels."""
NUMBERED = 28  # cells this large show their percent


def interval_bar(estimate: Estimate, chance: Estimate | None, other: Estimate | None, alt: str) -> str:
    """A figure on 0..1: a band for chance, a ring for what it stands beside, a dot on a line for ours."""
    at = Scale(0.0, 1.0, 5, 175)
    parts = ['<line class="bar-base" x1="5" y1="10" x2="175" y2="10"/>']
    if chance is not None and not math.isnan(chance.low):
        band = max(at(chance.high) - at(chance.low), 2.0)
        parts.append(f'<rect class="bar-chance" x="{at(chance.low):.1f}" y="3" width="{band:.1f}" height="14" rx="2"/>')
    if other is not None:
        parts.append(f'<circle class="bar-other" cx="{at(other.value):.1f}" cy="10" r="4"/>')
    if not math.isnan(estimate.low):
        ends = f'x1="{at(estimate.low):.1f}" y1="10" x2="{at(estimate.high):.1f}" y2="10"'
        parts.append(f'<line class="bar-span" {ends}/>')
    parts.append(f'<circle class="bar-dot" cx="{at(estimate.value):.1f}" cy="10" r="4.5"/>')
    return svg(180, 20, alt, parts)


def confusion_chart(labels: Sequence[str], count_CC: Ints, *, alt: str) -> str:
    """Rows are true labels, columns answers, each row adding up to 100 %; right answers are framed."""
    size = next(size for most, size in CELLS if len(labels) <= most)
    longest = 7.4 * max(len(_short(label)) for label in labels)
    margin, slant = longest + 14, 0.71 * longest + 18  # column names stand at 45 degrees
    share_CC = count_CC / np.maximum(count_CC.sum(1, keepdims=True), 1)
    parts = []
    for row, label in enumerate(labels):
        middle = slant + (row + 0.5) * size
        parts.append(text(margin - 8, middle + 4, _short(label), "end"))
        turn = f"translate({margin + (row + 0.5) * size + 3:.0f} {slant - 7:.0f}) rotate(-45)"
        parts.append(f'<text transform="{turn}">{escape(_short(label))}</text>')
        for column, other in enumerate(labels):
            told = f"{label} named {other}: {count_CC[row, column]} of {count_CC[row].sum()}"
            cell = _cell(size, float(share_CC[row, column]), row == column, told)
            place = f"translate({margin + column * size:.0f} {slant + row * size:.0f})"
            parts.append(f'<g transform="{place}">{cell}</g>')
    side = len(labels) * size
    return svg(math.ceil(margin + side + slant), math.ceil(slant + side + 4), alt, parts, fixed=True)


def most_frequent(labels: Sequence[str], count_CC: Ints) -> tuple[list[str], Ints]:
    """The labels that occur, at most MOST_LABELS of them, and their part of the table."""
    weight_C = count_CC.sum(1) + count_CC.sum(0) / (1 + count_CC.sum())
    kept = np.sort(np.argsort(-weight_C, kind="stable")[: min(MOST_LABELS, int((weight_C > 0).sum()))])
    return [labels[i] for i in kept], count_CC[np.ix_(kept, kept)]


def _cell(size: int, share: float, right: bool, told: str) -> str:
    edge = f'x="0.5" y="0.5" width="{size - 1}" height="{size - 1}"'
    parts = [f"<title>{escape(told)}</title>"]
    if share:
        parts.append(f'<rect class="shade" width="{size}" height="{size}" fill-opacity="{share:.2f}"/>')
    parts.append(f'<rect class="{"cell-right" if right else "cell"}" {edge}/>')
    if size >= NUMBERED and share >= 0.005:
        ink = "cell-dark" if share > 0.5 else "cell-light"
        parts.append(text(size / 2, size / 2 + 4, f"{100 * share:.0f}", "middle", ink))
    return "".join(parts)


def _short(label: str) -> str:
    spoken = label.replace("_", " ")
    return spoken if len(spoken) <= 20 else spoken[:19] + "…"
