"""Formatting that several packages share: Markdown tables, shortened lists of names and errors."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Sequence
from dataclasses import fields
from typing import Any


def markdown_table(rows: Sequence[Sequence[str]], *, right: Iterable[int] = ()) -> str:
    """Format rows of cells as a Markdown table, without a newline at its end.

    Args:
        rows: the first row is the heading. Runs of white space in a cell become one space and "|" is escaped.
        right: the numbers of the columns that are aligned to the right, from 0.
    """
    to_the_right = set(right)
    head, *body = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    rule = ["---:" if column in to_the_right else "---" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *body])


def join_first(names: Iterable[object], most: int = 3) -> str:
    """Join the first `most` names with commas and add "and N more" for the rest."""
    listed = [str(name) for name in names]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def describe_fields(config: Any, *, added: Collection[str]) -> str:
    """The text that `repr` gives for a dataclass, without those fields of `added` that have their default.

    Digests of this text stay as they were before the fields in `added` existed.
    """
    shown = (
        f"{field.name}={getattr(config, field.name)!r}"
        for field in fields(config)
        if field.name not in added or getattr(config, field.name) != field.default
    )
    return f"{type(config).__qualname__}({', '.join(shown)})"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def describe_error(error: BaseException) -> str:
    """Shorten a library's error to one line that fits into parentheses."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder=" …")
