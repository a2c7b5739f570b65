"""How the command line speaks: results to stdout, progress and notes to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

Advance = Callable[[int, int], None]
"""Told (done, total) as work goes on."""

results = Console(highlight=False, soft_wrap=True)
notes = Console(stderr=True, highlight=False, soft_wrap=True)


def complain(sentence: str) -> None:
    """One sentence about what went wrong, to stderr."""
    notes.print(Text("openclap: ", style="bold red").append(" ".join(sentence.split()), style="not bold default"))


def note(line: str) -> None:
    """A line about what is going on, to stderr."""
    notes.print(line, markup=False)


def print_json(value: Any) -> None:
    """A result as JSON, to stdout, whatever the terminal's width."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """A result as aligned columns, to stdout; columns in `right` are aligned right. No cell is cut or padded
    behind its end, so long lines fold in a terminal and stay whole in a pipe."""
    rows = [[" ".join(cell.split()) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [(heads, "bold"), *((row, "") for row in rows)]
    for line, style in lines if any(heads) else lines[1:]:
        cells = [
            " " * (width - cell_len(cell)) + cell if number in right else set_cell_size(cell, width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        results.print("  ".join(cells).rstrip(), style=style, markup=False)


def list_skipped(skipped: Sequence[tuple[str, str]], most: int = 20) -> None:
    """The files that were left out and why, to stderr."""
    if skipped:
        note(f"Skipped {len(skipped)}:")
    for name, reason in skipped[:most]:
        note(f"  {reason if Path(name).name in reason else f'{name}: {reason}'}")
    if len(skipped) > most:
        note(f"  … and {len(skipped) - most} more.")


@contextmanager
def progress(what: str) -> Iterator[Advance]:
    """A bar on stderr while work goes on; nothing where stderr is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=notes, transient=True, disable=not notes.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
