"""Tensor names of other people's files and ours, translated both ways by literal tables; and how they are told."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from openclap.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

Table = Sequence[tuple[str, str]]
"""Pairs (theirs, ours). The first pair whose part stands in a name replaces it; "^" ties a part to the beginning."""


def translate(name: str, tables: Sequence[Table], *, back: bool = False) -> str:
    """One replacement from each table, in order; `back` from our names to theirs."""
    for table in tables:
        for theirs, ours in table:
            part, other = (ours, theirs) if back else (theirs, ours)
            found = name.startswith(part[1:]) if part.startswith("^") else part in name
            if found:
                name = name.replace(part.lstrip("^"), other.lstrip("^"), 1)
                break
    return name


def count(names: Iterable[str], pattern: str) -> int:
    """How many there are of what `pattern`'s group numbers from 0: no more than there are names, whatever number a
    damaged one bears."""
    return len({int(found[1]) for name in names if (found := re.match(pattern, name))})


def shape(state: Mapping[str, Tensor], name: str, source: str, dimensions: int) -> tuple[int, ...]:
    """The shape of a tensor that must be there. Raises CheckpointError when it is not, or has other dimensions."""
    if name not in state:
        raise CheckpointError(f"{source}: lacks {name}, which tells how large the model is. Is the file whole?")
    if state[name].ndim != dimensions:
        raise CheckpointError(
            f"{source}: {name} is {tuple(state[name].shape)}, expected {dimensions} dimensions. Is the file damaged?"
        )
    return tuple(state[name].shape)


def why(error: BaseException) -> str:
    """An error of a library's as a short part of a sentence."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder=" …")


def few(names: Sequence[str]) -> str:
    """Up to three names and how many more."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"
