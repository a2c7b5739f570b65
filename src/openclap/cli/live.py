"""A training run as it goes, in a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from openclap.cli.console import note, notes

PLAIN_EVERY_S = 10.0
TREND = 40
"""Steps that the curve of the loss goes back."""
BLOCKS = "▁▂▃▄▅▆▇█"
SCORES = ("validation", "score")
"""How keys begin that hold what was measured on held-out pairs."""

Row = dict[str, Any]


@contextmanager
def training_line() -> Iterator[Callable[[Row], None]]:
    """Yields what to call with each row of a run: in a terminal a view that stays in its place, elsewhere a line every
    10 s."""
    if not notes.is_terminal:
        yield _Plain()
        return
    view = _View()
    with Live(view.drawn(), console=notes, refresh_per_second=4) as live:

        def watch(row: Row) -> None:
            view.take(row)
            live.update(view.drawn())

        yield watch


def describe(row: Row) -> str:
    """A row as words: step, loss, temperature, speed, time left; a score alone where no step was taken."""
    parts = [f"step {row['step']}/{row['total_steps']}"]
    if "loss" in row:
        left = timedelta(seconds=round(row["seconds_left"]))
        parts += [f"loss {row['loss']:.3f}", f"temperature {1 / row['scale']:.4f}"]
        parts += [f"{row['pairs_per_s']:.0f} pairs/s", f"{left} left"]
    return "  ".join(parts + [f"{name} {value:.4f}" for name, value in scores(row).items()])


def scores(row: Row) -> dict[str, float]:
    """What a row says of held-out pairs, by spoken names."""
    return {key.replace("_", " "): float(value) for key, value in row.items() if key.startswith(SCORES)}


def sparkline(values: list[float]) -> str:
    """A value a character, between the lowest and the highest."""
    low, span = min(values), (max(values) - min(values)) or 1.0
    return "".join(BLOCKS[round((value - low) / span * (len(BLOCKS) - 1))] for value in values)


class _View:
    """A bar, and under it the last row's numbers."""

    def __init__(self) -> None:
        columns = (
            TextColumn("Training"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.description}"),
        )
        self.bar = Progress(*columns, console=notes)
        self.task = self.bar.add_task("starting", total=None)
        self.row: Row = {}
        self.losses: list[float] = []
        self.scores: dict[str, float] = {}

    def take(self, row: Row) -> None:
        self.row = row
        self.losses = [*self.losses, *([float(row["loss"])] if "loss" in row else [])][-TREND:]
        self.scores |= scores(row)
        left = f"{timedelta(seconds=round(row['seconds_left']))} left" if "seconds_left" in row else ""
        told = f"step {row['step']}/{row['total_steps']}  epoch {row.get('epoch', 1)}  {left}"
        self.bar.update(self.task, completed=row["step"], total=row["total_steps"], description=told)

    def drawn(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for name, value in self.lines():
            table.add_row(Text(name, style="dim"), value)  # a note that is printed above would show marks as they are
        return Group(self.bar, table)

    def lines(self) -> Iterator[tuple[str, str]]:
        """Names and values, of those that are known."""
        row = self.row
        if self.losses:
            yield "loss", f"{self.losses[-1]:.3f}  {sparkline(self.losses)}"
            yield "temperature", f"{1 / row['scale']:.4f}" if "scale" in row else ""
        for key, name, form in KNOWN:
            if key in row:
                yield name, form(float(row[key]))
        for name, score in self.scores.items():
            yield name, f"{score:.4f}"


KNOWN: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("grad_norm", "gradient norm", lambda value: f"{value:.3f}"),
    ("alignment", "alignment", lambda value: f"{value:.3f}"),
    ("pairs_per_s", "pairs a second", lambda value: f"{value:,.1f}"),
    ("data_wait", "waiting for data", lambda value: f"{value:.0%}"),
    ("mfu", "of the matmul peak", lambda value: f"{value:.0%}"),
    ("memory_mb", "memory", lambda value: f"{value / 1e3:.2f} GB"),
)
"""Keys of a row, their names, and how their values are written."""


class _Plain:
    def __init__(self) -> None:
        self.last = float("-inf")

    def __call__(self, row: Row) -> None:
        now = time.monotonic()
        if now - self.last >= PLAIN_EVERY_S or row["step"] == row["total_steps"] or scores(row):
            self.last = now
            note(describe(row))
