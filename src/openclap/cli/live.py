"""The live line of a training run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from openclap.cli.console import note, notes

PLAIN_EVERY_S = 10.0


@contextmanager
def training_line() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yields what to call with each row of a run: in a terminal one live line, elsewhere a line every 10 s."""
    if not notes.is_terminal:
        yield _Plain()
        return
    columns = (
        TextColumn("Training"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=notes) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda row: bar.update(task, completed=row["step"], total=row["total_steps"], description=describe(row))


def describe(row: dict[str, Any]) -> str:
    """A row as words: step, loss, temperature, speed, time left."""
    left = timedelta(seconds=round(row["seconds_left"]))
    return (
        f"step {row['step']}/{row['total_steps']}  loss {row['loss']:.3f}  temperature {1 / row['scale']:.4f}  "
        f"{row['pairs_per_s']:.0f} pairs/s  {left} left"
    )


class _Plain:
    def __init__(self) -> None:
        self.last = float("-inf")

    def __call__(self, row: dict[str, Any]) -> None:
        now = time.monotonic()
        if now - self.last >= PLAIN_EVERY_S or row["step"] == row["total_steps"]:
            self.last = now
            note(describe(row))
