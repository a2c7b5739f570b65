"""How the command line speaks: results to stdout, progress and notes to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

Advance = Callable[[int, int], None]
"""Told (done, total) as work goes on."""

WIDE = 1_000

results = Console(highlight=False, soft_wrap=True)
notes = Console(stderr=True, highlight=False, soft_wrap=True)


def complain(sentence: str) -> None:
    """One sentence about what went wrong, to stderr."""
    notes.print(f"[bold red]openclap:[/] {_plain(sentence)}")


def note(line: str) -> None:
    """A line about what is going on, to stderr."""
    notes.print(_plain(line))


def print_json(value: Any) -> None:
    """A result as JSON, to stdout, whatever the terminal's width."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """A result as a table, to stdout; columns in `right` are aligned right."""
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number in right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(_plain(cell) for cell in row))
    Console(width=WIDE, highlight=False).print(table, crop=False)  # no cell is cut: a terminal folds long lines


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


def _plain(text: str) -> str:
    return text.replace("[", "\\[")
