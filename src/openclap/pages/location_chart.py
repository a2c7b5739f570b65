"""The picture of `openclap locate`: a waveform, and below it the score of each label over time with its spans.

An SVG file that stands alone, as those of `openclap.pages.charts`. P columns of the waveform, T moments, C labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from openclap.arrays import Floats
from openclap.pages.charts import Scale, nice_ticks
from openclap.types import Span, Timeline

WIDTH, LEFT, RIGHT = 960, 150, 14
WAVE_HEIGHT, ROW_HEIGHT, GAP, AXIS = 90, 44, 10, 26
MOST_POINTS = 2000
"""Points of a curve; of longer timelines, the highest score of each stretch is drawn."""
STYLE = (
    "<style>text{font:12px system-ui,sans-serif;fill:#57606a}.wave{fill:#8b949e}.span{fill:#0d6f74;fill-opacity:.22}"
    ".curve{fill:none;stroke:#0d6f74;stroke-width:1.3}.line{stroke:#8b949e;stroke-width:.5}"
    "@media(prefers-color-scheme:dark){text{fill:#a3a6aa}.span{fill:#5cc4c6}.curve{stroke:#5cc4c6}}</style>"
)


def location_chart(low_P: Floats, high_P: Floats, timeline: Timeline, spans: Sequence[Span], *, unit: str) -> str:
    """Draw the waveform (lowest and highest sample of each column, in -1..1) and a row for each label.

    All rows have one scale, from the lowest to the highest score.
    """
    seconds = max(timeline.duration_s, 1e-3)
    x_scale = Scale(0.0, seconds, LEFT, WIDTH - RIGHT)
    low, high = float(timeline.scores.min(initial=0.0)), float(timeline.scores.max(initial=1.0))
    bottom = WAVE_HEIGHT + len(timeline.labels) * (ROW_HEIGHT + GAP) + GAP
    parts = [STYLE, _waveform(low_P, high_P, x_scale)]
    for row, label in enumerate(timeline.labels):
        top = WAVE_HEIGHT + GAP + row * (ROW_HEIGHT + GAP)
        y_scale = Scale(low, high, top + ROW_HEIGHT, top)
        own = [span for span in spans if span.label == label]
        parts += [_span(span, x_scale, top) for span in own]
        floor = top + ROW_HEIGHT
        parts.append(f'<line class="line" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}"/>')
        parts.append(_curve(timeline, row, x_scale, y_scale, unit))
        parts.append(f'<text x="{LEFT - 8}" y="{floor - 18}" text-anchor="end">{escape(_short(label))}</text>')
    for tick in nice_ticks(0.0, seconds, inside=True):
        x = x_scale(tick)
        parts.append(f'<line class="line" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g} s</text>')
    alt = f"A waveform of {seconds:.1f} s; " + "; ".join(
        f"{span.label} from {span.start_s:.1f} to {span.end_s:.1f} s" for span in spans[:20]
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(alt)}" '
        f'viewBox="0 0 {WIDTH} {bottom + AXIS}">{"".join(parts)}</svg>\n'
    )


def _waveform(low_P: Floats, high_P: Floats, x_scale: Scale) -> str:
    if not len(low_P):
        return ""
    x_P = np.linspace(x_scale.start, x_scale.end, len(low_P))
    middle, half = WAVE_HEIGHT / 2, WAVE_HEIGHT / 2 - 2
    loudest = max(float(np.abs(low_P).max()), float(np.abs(high_P).max()), 1e-6)
    upper = [f"{x:.1f},{middle - half * y / loudest:.1f}" for x, y in zip(x_P, high_P, strict=True)]
    lower = [f"{x:.1f},{middle - half * y / loudest:.1f}" for x, y in zip(x_P[::-1], low_P[::-1], strict=True)]
    return f'<polygon class="wave" points="{" ".join(upper + lower)}"/>'


def _span(span: Span, x_scale: Scale, top: float) -> str:
    left, right = x_scale(span.start_s), x_scale(span.end_s)
    title = escape(f"{span.label}: {span.start_s:.2f}–{span.end_s:.2f} s, {span.score:.2f}")
    return (
        f'<rect class="span" x="{left:.1f}" y="{top}" width="{max(right - left, 1):.1f}" height="{ROW_HEIGHT}">'
        f"<title>{title}</title></rect>"
    )


def _curve(timeline: Timeline, label: int, x_scale: Scale, y_scale: Scale, unit: str) -> str:
    step = -(-len(timeline.times_s) // MOST_POINTS) or 1
    starts = range(0, len(timeline.times_s), step)
    points = " ".join(
        f"{x_scale(float(timeline.times_s[at : at + step].mean())):.1f},"
        f"{y_scale(float(timeline.scores[at : at + step, label].max())):.1f}"
        for at in starts
    )
    return f'<polyline class="curve" points="{points}"><title>{escape(unit)}</title></polyline>'


def _short(label: str) -> str:
    return label if len(label) <= 22 else label[:21] + "…"
