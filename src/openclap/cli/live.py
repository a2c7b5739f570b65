"""The view of a training run in a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Self

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from openclap.cli.console import note, notes, progress

if TYPE_CHECKING:
    from openclap.training.logging import TrainingRow

PLAIN_EVERY_S = 10.0
"""Seconds between two lines where stderr is not a terminal."""
TREND = 40
"""Steps in the sparkline of the loss."""
BLOCKS = "▁▂▃▄▅▆▇█"
SCORE_PREFIXES = ("validation", "score")
"""Prefixes of the columns with validation scores."""


@contextmanager
def training_progress() -> Iterator[Callable[[TrainingRow], None]]:
    """Yield a callback for the rows of a run.

    In a terminal it updates a view in place, elsewhere it prints a line every 10 s.
    """
    if not notes.is_terminal:
        yield _PlainLines()
        return
    view = _View()
    with Live(view.render(), console=notes, refresh_per_second=4) as live:

        def update(row: TrainingRow) -> None:
            view.update(row)
            live.update(view.render())

        yield update


class RunDisplay:
    """Shows a run in a terminal: a bar for each stage before training, then the view of training.

    Each view is opened at its first call and closes the previous one: rich can draw only one at a time.
    """

    def __init__(self) -> None:
        self.stack, self.stage = ExitStack(), ""
        self.update: Callable[..., None] = lambda *values: None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the current view, so that a line can be printed."""
        self.stack.close()
        self.stage = ""

    def on_bar(self, stage: str, done: int, total: int) -> None:
        self._open(stage, lambda: progress(stage))
        self.update(done, total)

    def on_teaching(self, done: int, total: int) -> None:
        self.on_bar("Embedding with the teacher", done, total)

    def on_row(self, row: TrainingRow) -> None:
        self._open("training", training_progress)
        if row["step"]:
            self.update(row)

    def _open(self, stage: str, view: Callable[[], AbstractContextManager[Callable[..., None]]]) -> None:
        if self.stage != stage:
            self.stack.close()
            self.stage, self.update = stage, self.stack.enter_context(view())


def describe(row: TrainingRow) -> str:
    """Format a row as text: step, loss, temperature, speed, time left; for the initial model, its score."""
    parts = [f"step {row['step']}/{row['total_steps']}"]
    if "loss" in row:
        left = timedelta(seconds=round(row["seconds_left"]))
        parts += [f"loss {row['loss']:.3f}", f"temperature {1 / row['scale']:.4f}"]
        parts += [f"{row['pairs_per_s']:.0f} pairs/s", f"{left} left"]
    return "  ".join(parts + [f"{name} {value:.4f}" for name, value in scores(row).items()])


def scores(row: TrainingRow) -> dict[str, float]:
    """Select the validation scores of a row, with readable names."""
    return {key.replace("_", " "): float(value) for key, value in row.items() if key.startswith(SCORE_PREFIXES)}


def sparkline(values: list[float]) -> str:
    """Draw one character for each value, between the lowest and the highest."""
    low, span = min(values), (max(values) - min(values)) or 1.0
    return "".join(BLOCKS[round((value - low) / span * (len(BLOCKS) - 1))] for value in values)


class _View:
    """A progress bar, and under it the numbers of the last row."""

    def __init__(self) -> None:
        columns = (
            TextColumn("Training"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.description}"),
        )
        self.bar = Progress(*columns, console=notes)
        self.task = self.bar.add_task("starting", total=None)
        self.row: TrainingRow = {}
        self.losses: list[float] = []
        self.scores: dict[str, float] = {}

    def update(self, row: TrainingRow) -> None:
        self.row = row
        self.losses = [*self.losses, *([float(row["loss"])] if "loss" in row else [])][-TREND:]
        self.scores |= scores(row)
        left = f"{timedelta(seconds=round(row['seconds_left']))} left" if "seconds_left" in row else ""
        description = f"step {row['step']}/{row['total_steps']}  epoch {row.get('epoch', 1)}  {left}"
        self.bar.update(self.task, completed=row["step"], total=row["total_steps"], description=description)

    def render(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for name, value in self.lines():
            # Text and not markup: a note that is printed above the view would show the tags.
            table.add_row(Text(name, style="dim"), value)
        return Group(self.bar, table)

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield the names and formatted values that are known so far."""
        row = self.row
        if self.losses:
            yield "loss", f"{self.losses[-1]:.3f}  {sparkline(self.losses)}"
            yield "temperature", f"{1 / row['scale']:.4f}" if "scale" in row else ""
        for key, name, form in COLUMNS:
            if key in row:
                yield name, form(float(row[key]))
        for name, score in self.scores.items():
            yield name, f"{score:.4f}"


COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("grad_norm", "gradient norm", lambda value: f"{value:.3f}"),
    ("alignment", "alignment", lambda value: f"{value:.3f}"),
    ("pairs_per_s", "pairs per second", lambda value: f"{value:,.1f}"),
    ("data_wait", "waiting for data", lambda value: f"{value:.0%}"),
    ("mfu", "of the matmul peak", lambda value: f"{value:.0%}"),
    ("memory_mb", "memory", lambda value: f"{value / 1e3:.2f} GB"),
)
"""Columns of the log, their names in the view, and the formats of their values."""


class _PlainLines:
    """Prints a line every PLAIN_EVERY_S seconds, and for every score and the last step."""

    def __init__(self) -> None:
        self.last = float("-inf")

    def __call__(self, row: TrainingRow) -> None:
        now = time.monotonic()
        if now - self.last >= PLAIN_EVERY_S or row["step"] == row["total_steps"] or scores(row):
            self.last = now
            note(describe(row))
