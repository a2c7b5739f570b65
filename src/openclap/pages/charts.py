"""Charts as inline SVG in the page's own colours: small, sharp, and right in light and dark.

Colours come from the page's CSS variables (`style.css`); every mark that colour tells is told by shape or text as
well. Everything that is not a number is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WIDTH, HEIGHT = 460, 280
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 44


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: `style` is a CSS class of the page: line-a, line-b, either with -chance, line-raw."""

    name: str
    x: Floats
    y: Floats
    style: str


@dataclass(frozen=True, slots=True)
class Scale:
    """From the data's numbers to pixels."""

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
    across = Scale(x_low, x_high, LEFT, WIDTH - RIGHT, log_x)
    up = Scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    parts = [_rule(up(tick), f"{tick:.0%}" if shares else f"{tick:g}") for tick in y_ticks]
    parts += [text(across(tick), HEIGHT - BOTTOM + 18, _count(tick), "middle") for tick in x_ticks]
    parts += [
        text(LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 6, x_label, "middle", "axis"),
        f'<text class="axis" text-anchor="middle" transform="translate(12 {(HEIGHT - BOTTOM + TOP) / 2}) '
        f'rotate(-90)">{escape(y_label)}</text>',
    ]
    for line in lines:
        points = [f"{across(x):.1f},{up(y):.1f}" for x, y in zip(line.x, line.y, strict=True)]
        dot = ' style="stroke-width: 8"' if len(points) == 1 else ""  # which its round ends make of no length
        drawn = " ".join(points * 2 if dot else points)
        name = f"<title>{escape(line.name)}</title>"
        parts.append(f'<polyline class="{line.style}" points="{drawn}"{dot}>{name}</polyline>')
    return svg(WIDTH, HEIGHT, alt, parts)


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


def svg(width: float, height: float, alt: str, parts: Sequence[str], fixed: bool = False) -> str:
    """A drawing of `parts` that says `alt` to those who do not see it."""
    sized = f' width="{width}" height="{height}"' if fixed else ""
    name = f'role="img" aria-label="{escape(alt)}"'
    return f'<svg {name} viewBox="0 0 {width} {height}"{sized}>{"".join(parts)}</svg>'


def _rule(y: float, label: str) -> str:
    line = f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>'
    return line + text(LEFT - 8, y + 4, label, "end")


def text(x: float, y: float, words: str, anchor: str, style: str = "tick") -> str:
    """Words at a place."""
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _count(number: float) -> str:
    return f"{number / 1000:,g}k" if number >= 10_000 else f"{number:,g}"
