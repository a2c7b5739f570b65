"""Charts as inline SVG in the page's own colours: small, sharp, and right in light and dark.

Colours come from the page's CSS variables; every mark that colour tells is told by shape or text as well.
Everything that is not a number is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from openclap.evals.ranks import Floats, Ints
from openclap.evals.uncertainty import Estimate

WIDTH, HEIGHT = 460, 280
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 44
MOST_LABELS = 40
CELLS = ((7, 42), (12, 34), (20, 28), (MOST_LABELS, 17))
"""For up to so many labels, cells of so many pixels."""
NUMBERED = 28  # cells this large show their percent


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: `style` is a CSS class of the page: line-a, line-b, either with -chance, line-raw."""

    name: str
    x: Floats
    y: Floats
    style: str


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * ((at - low) / ((high - low) or 1.0))


def line_chart(
    lines: Sequence[Line], *, alt: str, x_label: str, y_label: str, log_x: bool = False, shares: bool = False
) -> str:
    """Curves over one pair of axes. `shares` fixes y to 0..100 %, else y spans the (finite) data."""
    x_all = np.concatenate([line.x for line in lines])
    y_all = np.concatenate([line.y for line in lines])
    y_ticks = [0, 0.25, 0.5, 0.75, 1.0] if shares else nice_ticks(float(y_all.min()), float(y_all.max()))
    x_low, x_high = float(x_all.min()), float(x_all.max())
    x_ticks = log_ticks(x_low, x_high) if log_x else nice_ticks(x_low, x_high, inside=True)
    across = _Scale(x_low, x_high, LEFT, WIDTH - RIGHT, log_x)
    up = _Scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    parts = [_rule(up(tick), f"{tick:.0%}" if shares else f"{tick:g}") for tick in y_ticks]
    parts += [_text(across(tick), HEIGHT - BOTTOM + 18, _count(tick), "middle") for tick in x_ticks]
    parts += [
        _text(LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 6, x_label, "middle", "axis"),
        f'<text class="axis" text-anchor="middle" transform="translate(12 {(HEIGHT - BOTTOM + TOP) / 2}) '
        f'rotate(-90)">{escape(y_label)}</text>',
    ]
    for line in lines:
        points = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in zip(line.x, line.y, strict=True))
        parts.append(f'<polyline class="{line.style}" points="{points}"><title>{escape(line.name)}</title></polyline>')
    return _svg(WIDTH, HEIGHT, alt, parts)


def interval_bar(estimate: Estimate, chance: Estimate, untrained: Estimate | None, alt: str) -> str:
    """A figure on 0..1: a band for chance, a ring for the untrained model, a dot on a line for ours."""
    at = _Scale(0.0, 1.0, 5, 175)
    band = max(at(chance.high) - at(chance.low), 2.0)
    parts = [
        '<line class="bar-base" x1="5" y1="10" x2="175" y2="10"/>',
        f'<rect class="bar-chance" x="{at(chance.low):.1f}" y="3" width="{band:.1f}" height="14" rx="2"/>',
    ]
    if untrained is not None:
        parts.append(f'<circle class="bar-untrained" cx="{at(untrained.value):.1f}" cy="10" r="4"/>')
    if not math.isnan(estimate.low):
        ends = f'x1="{at(estimate.low):.1f}" y1="10" x2="{at(estimate.high):.1f}" y2="10"'
        parts.append(f'<line class="bar-span" {ends}/>')
    parts.append(f'<circle class="bar-dot" cx="{at(estimate.value):.1f}" cy="10" r="4.5"/>')
    return _svg(180, 20, alt, parts)


def confusion_chart(labels: Sequence[str], count_CC: Ints, *, alt: str) -> str:
    """Rows are true labels, columns answers, each row adding up to 100 %; right answers are framed."""
    size = next(size for most, size in CELLS if len(labels) <= most)
    longest = 7.4 * max(len(_short(label)) for label in labels)
    margin, slant = longest + 14, 0.71 * longest + 18  # column names stand at 45 degrees
    share_CC = count_CC / np.maximum(count_CC.sum(1, keepdims=True), 1)
    parts = []
    for row, label in enumerate(labels):
        middle = slant + (row + 0.5) * size
        parts.append(_text(margin - 8, middle + 4, _short(label), "end"))
        turn = f"translate({margin + (row + 0.5) * size + 3:.0f} {slant - 7:.0f}) rotate(-45)"
        parts.append(f'<text transform="{turn}">{escape(_short(label))}</text>')
        for column, other in enumerate(labels):
            told = f"{label} named {other}: {count_CC[row, column]} of {count_CC[row].sum()}"
            cell = _cell(size, float(share_CC[row, column]), row == column, told)
            place = f"translate({margin + column * size:.0f} {slant + row * size:.0f})"
            parts.append(f'<g transform="{place}">{cell}</g>')
    side = len(labels) * size
    return _svg(math.ceil(margin + side + slant), math.ceil(slant + side + 4), alt, parts, fixed=True)


def most_frequent(labels: Sequence[str], count_CC: Ints) -> tuple[list[str], Ints]:
    """The labels that occur, at most MOST_LABELS of them, and their part of the table."""
    weight_C = count_CC.sum(1) + count_CC.sum(0) / (1 + count_CC.sum())
    kept = np.sort(np.argsort(-weight_C, kind="stable")[: min(MOST_LABELS, int((weight_C > 0).sum()))])
    return [labels[i] for i in kept], count_CC[np.ix_(kept, kept)]


def nice_ticks(low: float, high: float, *, inside: bool = False) -> list[float]:
    """Round numbers that cover low..high (or lie inside it), about five of them."""
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


def _cell(size: int, share: float, right: bool, told: str) -> str:
    edge = f'x="0.5" y="0.5" width="{size - 1}" height="{size - 1}"'
    parts = [f"<title>{escape(told)}</title>"]
    if share:
        parts.append(f'<rect class="shade" width="{size}" height="{size}" fill-opacity="{share:.2f}"/>')
    parts.append(f'<rect class="{"cell-right" if right else "cell"}" {edge}/>')
    if size >= NUMBERED and share >= 0.005:
        ink = "cell-dark" if share > 0.5 else "cell-light"
        parts.append(_text(size / 2, size / 2 + 4, f"{100 * share:.0f}", "middle", ink))
    return "".join(parts)


def _svg(width: float, height: float, alt: str, parts: Sequence[str], fixed: bool = False) -> str:
    sized = f' width="{width}" height="{height}"' if fixed else ""
    name = f'role="img" aria-label="{escape(alt)}"'
    return f'<svg {name} viewBox="0 0 {width} {height}"{sized}>{"".join(parts)}</svg>'


def _rule(y: float, label: str) -> str:
    line = f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>'
    return line + _text(LEFT - 8, y + 4, label, "end")


def _text(x: float, y: float, text: str, anchor: str, style: str = "tick") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _count(number: float) -> str:
    return f"{number / 1000:,g}k" if number >= 10_000 else f"{number:,g}"


def _short(label: str) -> str:
    spoken = label.replace("_", " ")
    return spoken if len(spoken) <= 20 else spoken[:19] + "…"
