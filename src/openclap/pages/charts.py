"""Charts as SVG: curves, intervals on a bar, confusion tables, and bar charts as files of their own.

They are written directly rather than with a plotting library: a page is one file without scripts, its text is
selectable and in the page's font, `<title>` gives each mark a tooltip, and CSS variables (`style.css`) adapt the
colours to light and dark mode. Every mark with a meaningful colour also differs in shape or text. All text is escaped
here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from openclap.arrays import Floats, Ints

WIDTH, HEIGHT = 460, 280
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 44
MOST_LABELS = 40
CELLS = ((7, 42), (12, 34), (20, 28), (MOST_LABELS, 17))
"""The largest number of labels, and the pixels of a cell of their confusion table."""
BAR_STYLE = (
    "<style>text{font:12px system-ui,sans-serif;fill:#57606a}rect{fill:#0d6f74}"
    "@media(prefers-color-scheme:dark){text{fill:#a3a6aa}rect{fill:#5cc4c6}}</style>"
)
"""Colours of a chart outside of a page; both sets are legible on white and on black."""
NUMBERED = 28  # pixels from which on a cell has room for its percentage


@dataclass(frozen=True, slots=True)
class Curve:
    """One curve: `style` is a CSS class of the page: line-a, line-b, either with -chance, or line-raw."""

    name: str
    x: Floats
    y: Floats
    style: str


@dataclass(frozen=True, slots=True)
class Scale:
    """A map from data to pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * ((at - low) / ((high - low) or 1.0))


def line_chart(
    curves: Sequence[Curve], *, alt: str, x_label: str, y_label: str, log_x: bool = False, shares: bool = False
) -> str:
    """Curves over one pair of axes. With `shares` y runs from 0 to 100 %, otherwise over the (finite) data."""
    x_all = np.concatenate([curve.x for curve in curves])
    y_all = np.concatenate([curve.y for curve in curves])
    y_ticks = [0, 0.25, 0.5, 0.75, 1.0] if shares else nice_ticks(float(y_all.min()), float(y_all.max()))
    x_low, x_high = float(x_all.min()), float(x_all.max())
    x_ticks = log_ticks(x_low, x_high) if log_x else nice_ticks(x_low, x_high, inside=True)
    x_scale = Scale(x_low, x_high, LEFT, WIDTH - RIGHT, log_x)
    y_scale = Scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    parts = [_grid_line(y_scale(tick), f"{tick:.0%}" if shares else f"{tick:g}") for tick in y_ticks]
    parts += [_text(x_scale(tick), HEIGHT - BOTTOM + 18, _count(tick), "middle") for tick in x_ticks]
    parts += [
        _text(LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 6, x_label, "middle", "axis"),
        f'<text class="axis" text-anchor="middle" transform="translate(12 {(HEIGHT - BOTTOM + TOP) / 2}) '
        f'rotate(-90)">{escape(y_label)}</text>',
    ]
    for curve in curves:
        points = [f"{x_scale(x):.1f},{y_scale(y):.1f}" for x, y in zip(curve.x, curve.y, strict=True)]
        # A single point is drawn as a line of no length, of which only the round caps are visible.
        dot = ' style="stroke-width: 8"' if len(points) == 1 else ""
        path = " ".join(points * 2 if dot else points)
        name = f"<title>{escape(curve.name)}</title>"
        parts.append(f'<polyline class="{curve.style}" points="{path}"{dot}>{name}</polyline>')
    return _svg(WIDTH, HEIGHT, alt, parts)


def interval_bar(
    value: float,
    interval: tuple[float, float],
    *,
    alt: str,
    chance: tuple[float, float] | None = None,
    ring: float | None = None,
) -> str:
    """A dot for a figure in 0..1, with a line for its interval, a band for the interval of chance, and a ring for the
    figure of another model."""
    x_scale = Scale(0.0, 1.0, 5, 175)
    parts = ['<line class="bar-base" x1="5" y1="10" x2="175" y2="10"/>']
    if chance is not None and not math.isnan(chance[0]):
        left, right = map(x_scale, chance)
        width = max(right - left, 2.0)
        parts.append(f'<rect class="bar-chance" x="{left:.1f}" y="3" width="{width:.1f}" height="14" rx="2"/>')
    if ring is not None:
        parts.append(f'<circle class="bar-other" cx="{x_scale(ring):.1f}" cy="10" r="4"/>')
    if not math.isnan(interval[0]):
        left, right = map(x_scale, interval)
        parts.append(f'<line class="bar-span" x1="{left:.1f}" y1="10" x2="{right:.1f}" y2="10"/>')
    parts.append(f'<circle class="bar-dot" cx="{x_scale(value):.1f}" cy="10" r="4.5"/>')
    return _svg(180, 20, alt, parts)


def confusion_chart(labels: Sequence[str], count_CC: Ints, *, alt: str) -> str:
    """A confusion table: rows are true labels and add up to 100 %, columns are answers; right answers are framed."""
    size = next(size for most, size in CELLS if len(labels) <= most)
    longest = 7.4 * max(len(_short(label)) for label in labels)
    margin, slant = longest + 14, 0.71 * longest + 18  # the names of columns stand at 45 degrees
    share_CC = count_CC / np.maximum(count_CC.sum(1, keepdims=True), 1)
    parts = []
    for row, label in enumerate(labels):
        middle = slant + (row + 0.5) * size
        parts.append(_text(margin - 8, middle + 4, _short(label), "end"))
        turn = f"translate({margin + (row + 0.5) * size + 3:.0f} {slant - 7:.0f}) rotate(-45)"
        parts.append(f'<text transform="{turn}">{escape(_short(label))}</text>')
        for column, answer in enumerate(labels):
            tooltip = f"{label} classified as {answer}: {count_CC[row, column]} of {count_CC[row].sum()}"
            cell = _cell(size, float(share_CC[row, column]), row == column, tooltip)
            place = f"translate({margin + column * size:.0f} {slant + row * size:.0f})"
            parts.append(f'<g transform="{place}">{cell}</g>')
    side = len(labels) * size
    return _svg(math.ceil(margin + side + slant), math.ceil(slant + side + 4), alt, parts, fixed=True)


def bar_chart(bars: Sequence[tuple[str, float, str]], *, alt: str, x_label: str) -> str:
    """Draw horizontal bars, from top to bottom, as an SVG file that stands alone, such as an image in Markdown.

    Args:
        bars: (name, length from 0 on, text at the end of the bar).
    """
    row, longest = 24, max((value for _, value, _ in bars), default=0.0) or 1.0
    margin = 12 + 6.6 * max((len(_short(name)) for name, _, _ in bars), default=0)
    # The text at the end needs room beside the longest bar.
    scale = Scale(0.0, longest, margin, WIDTH - 20 - 6.6 * max((len(text) for _, _, text in bars), default=0))
    parts = [BAR_STYLE]
    for number, (name, value, text) in enumerate(bars):
        top, width = 8 + number * row, scale(value) - margin
        parts.append(_text(margin - 8, top + 13, _short(name), "end"))
        parts.append(f'<rect x="{margin:.1f}" y="{top}" width="{max(width, 1.0):.1f}" height="{row - 7}" rx="2"/>')
        parts.append(_text(margin + max(width, 1.0) + 6, top + 13, text, "start"))
    bottom = 8 + len(bars) * row
    parts.append(_text(margin, bottom + 14, x_label, "start"))
    return _svg(WIDTH, bottom + 22, alt, parts).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)


def most_frequent(labels: Sequence[str], count_CC: Ints) -> tuple[list[str], Ints]:
    """The labels that occur, at most MOST_LABELS of them, and their part of a confusion table."""
    weight_C = count_CC.sum(1) + count_CC.sum(0) / (1 + count_CC.sum())
    chosen = np.sort(np.argsort(-weight_C, kind="stable")[: min(MOST_LABELS, int((weight_C > 0).sum()))])
    return [labels[i] for i in chosen], count_CC[np.ix_(chosen, chosen)]


def nice_ticks(low: float, high: float, *, inside: bool = False) -> list[float]:
    """About five round numbers that cover low..high, or lie inside it."""
    if high <= low:
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(raw))
    step = unit * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * unit >= raw * 0.999)
    first = math.ceil(low / step - 1e-9) if inside else math.floor(low / step + 1e-9)
    last = math.floor(high / step + 1e-9) if inside else math.ceil(high / step - 1e-9)
    return [round(place * step, 10) for place in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, … within low..high."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [f * 10.0**p for p in powers for f in (1, 2, 5) if low <= f * 10.0**p <= high]


def _cell(size: int, share: float, right: bool, tooltip: str) -> str:
    edge = f'x="0.5" y="0.5" width="{size - 1}" height="{size - 1}"'
    parts = [f"<title>{escape(tooltip)}</title>"]
    if share:
        parts.append(f'<rect class="shade" width="{size}" height="{size}" fill-opacity="{share:.2f}"/>')
    parts.append(f'<rect class="{"cell-right" if right else "cell"}" {edge}/>')
    if size >= NUMBERED and share >= 0.005:
        ink = "cell-dark" if share > 0.5 else "cell-light"
        parts.append(_text(size / 2, size / 2 + 4, f"{100 * share:.0f}", "middle", ink))
    return "".join(parts)


def _short(label: str) -> str:
    words = label.replace("_", " ")
    return words if len(words) <= 20 else words[:19] + "…"


def _svg(width: float, height: float, alt: str, parts: Sequence[str], fixed: bool = False) -> str:
    """A drawing of `parts`, with `alt` for screen readers."""
    sized = f' width="{width}" height="{height}"' if fixed else ""
    name = f'role="img" aria-label="{escape(alt)}"'
    return f'<svg {name} viewBox="0 0 {width} {height}"{sized}>{"".join(parts)}</svg>'


def _grid_line(y: float, label: str) -> str:
    line = f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>'
    return line + _text(LEFT - 8, y + 4, label, "end")


def _text(x: float, y: float, words: str, anchor: str, style: str = "tick") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _count(number: float) -> str:
    return f"{number / 1000:,g}k" if number >= 10_000 else f"{number:,g}"
