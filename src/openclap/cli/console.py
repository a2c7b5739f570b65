"""Printing for the command line: results to stdout; progress, notes and errors to stderr."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

SkippedFile = tuple[str, str]
"""A file that was left out, and why."""

PLAIN_EVERY_S = 30.0
"""Seconds between two lines of progress where stderr is not a terminal."""

results = Console(highlight=False, soft_wrap=True)
notes = Console(stderr=True, highlight=False, soft_wrap=True)


def complain(sentence: str) -> None:
    """Print an error sentence to stderr."""
    notes.print(Text("openclap: ", style="bold red").append(" ".join(sentence.split()), style="not bold default"))


def note(line: str) -> None:
    """Print a line to stderr."""
    notes.print(line, markup=False)


@contextmanager
def noting_warnings(most: int = 20) -> Iterator[None]:
    """Print the first `most` warnings of openclap as notes, and at the end the number of further ones."""
    from openclap.errors import AudioWarning, CheckpointWarning, IndexWarning

    kinds = (AudioWarning, CheckpointWarning, IndexWarning)
    count = 0

    def show(message: Any, category: type[Warning], *where: Any) -> None:
        nonlocal count
        if not issubclass(category, kinds):
            default_show(message, category, *where)
            return
        count += 1
        if count <= most:
            note(f"Note: {message}")

    with warnings.catch_warnings():
        for kind in kinds:
            warnings.simplefilter("always", kind)  # Python's default shows one warning per line of code
        default_show: Any = warnings.showwarning
        warnings.showwarning = show  # type: ignore[assignment]
        yield
    if count > most:
        note(f"… and {counted(count - most, 'more such note')}.")


def print_json(value: Any) -> None:
    """Print a result as JSON to stdout. Not by rich, which would fold long lines at the terminal's width."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Print a result as aligned columns to stdout; the columns numbered in `right` are aligned to the right.

    No cell is cut and no line is padded at its end: long lines fold in a terminal and stay whole in a pipe.
    """
    # Names and captions may hold line breaks, which would tear the table.
    rows = [[" ".join(cell.split()) for cell in row] for row in rows]
    # Widths in cells of a terminal: Chinese characters take two, combining marks none.
    widths = [max(map(cell_len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [(heads, "bold"), *((row, "") for row in rows)]
    for line, style in lines if any(heads) else lines[1:]:
        cells = [
            " " * (width - cell_len(cell)) + cell if number in right else set_cell_size(cell, width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        results.print("  ".join(cells).rstrip(), style=style, markup=False)


def list_skipped(skipped: Sequence[SkippedFile], most: int = 20) -> None:
    """Print the number of skipped files to stderr, and the first `most` with reasons."""
    if skipped:
        note(f"Skipped {len(skipped)}:")
    for name, reason in skipped[:most]:
        note(f"  {shown(name)}: {_bare(name, reason)}")
    if len(skipped) > most:
        note(f"  … and {len(skipped) - most} more.")


def skipped_facts(skipped: Sequence[SkippedFile]) -> list[dict[str, str]]:
    """Convert skipped files for `--json`."""
    return [{"path": name, "reason": _bare(name, reason)} for name, reason in skipped]


def _bare(name: str, reason: str) -> str:
    """Remove the file's name from the beginning of a reason, since it is printed before it anyway."""
    for start in (f"{name}: ", f"{Path(name).name}: "):
        reason = reason.removeprefix(start)
    return reason


def shown(path: str | Path) -> str:
    """Shorten a path to the part below the working folder, if it is in there."""
    working_folder = Path.cwd()
    return str(Path(path).relative_to(working_folder)) if Path(path).is_relative_to(working_folder) else str(path)


def counted(number: int, noun: str) -> str:
    """Format a number with its noun: "1 vector", "2 vectors"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


class ProgressLine:
    """Progress of a task: a bar in a terminal, elsewhere a line every PLAIN_EVERY_S seconds."""

    def __init__(self, task: str, bar: Progress) -> None:
        self._name, self._bar, self._task = task, bar, bar.add_task(task, total=None)
        self._noted_s, self._counts, self._seconds = time.monotonic(), "", 0.0

    def __call__(self, done: int, total: int) -> None:
        """Set the number of finished items and the total."""
        self._bar.update(self._task, completed=done, total=total)
        self._counts = f" {done}/{total}"
        self._note()

    def add_seconds(self, seconds: float) -> None:
        """Add seconds of embedded sound: a single recording of hours advances no count of files."""
        self._seconds += seconds
        self._bar.update(self._task, description=f"{self._name}, {self._sound()}")
        self._note()

    def _sound(self) -> str:
        return f"{timedelta(seconds=int(self._seconds))} of sound"

    def _note(self) -> None:
        if self._bar.disable and time.monotonic() - self._noted_s >= PLAIN_EVERY_S:
            self._noted_s = time.monotonic()
            note(f"{self._name}{self._counts}{f', {self._sound()}' if self._seconds else ''}")


@contextmanager
def progress(task: str) -> Iterator[ProgressLine]:
    """Show the progress of a task on stderr."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Transient: the bar disappears, so that the result stands alone.
    with Progress(*columns, console=notes, transient=True, disable=not notes.is_terminal) as bar:
        yield ProgressLine(task, bar)
