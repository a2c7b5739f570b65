"""A run as it goes: its log, its speed, and the signals that ask it to stop."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Row = dict[str, Any]
LOG = "log.jsonl"


class Clock:
    """Pairs a second, the share of time spent waiting for data, and the time left."""

    def __init__(self, pairs: int, total_steps: int) -> None:
        self.pairs, self.total_steps = pairs, total_steps
        self.last = self.ready = time.monotonic()
        self.smooth_s: float | None = None

    def data_ready(self) -> None:
        self.ready = time.monotonic()

    def step_done(self, step: int) -> Row:
        now = time.monotonic()
        took = max(now - self.last, 1e-9)
        wait = (self.ready - self.last) / took
        self.smooth_s = took if self.smooth_s is None else 0.9 * self.smooth_s + 0.1 * took
        self.last = now
        return {
            "pairs_per_s": self.pairs / took,
            "data_wait": wait,
            "seconds_left": self.smooth_s * (self.total_steps - step),
        }

    def leave_out(self) -> None:
        """What happened since the last step was no training."""
        self.last = time.monotonic()


@contextmanager
def log(path: Path, step: int) -> Iterator[Callable[[Row], None]]:
    """Append rows to the log; rows after `step`, which a killed run took but did not save, are dropped first."""
    rows = read_log(path) if path.exists() else []
    draft = path.with_suffix(".draft")
    draft.write_text("".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step), encoding="utf-8")
    draft.replace(path)
    with path.open("a", encoding="utf-8") as file:

        def write(row: Row) -> None:
            file.write(json.dumps(row) + "\n")
            file.flush()

        yield write


def read_log(path: Path) -> list[Row]:
    """The rows of a run's `log.jsonl`; lines that are none, such as a last one that a kill cut short, are left out."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "step" in row:
            rows.append(row)
    return rows


@contextmanager
def signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list, so that the step in hand is finished and saved; a second SIGINT
    interrupts at once."""
    received: list[int] = []

    def receive(number: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    try:
        before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: the caller's own signals stay
        before = {}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
