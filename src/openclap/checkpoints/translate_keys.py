"""Translate tensor names between formats by literal tables, and read sizes from names and shapes.

Literal tables in place of transformers' own renaming keep our files stable: a new transformers release cannot rename
what an older one wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from openclap.errors import CheckpointError
from openclap.formatting import join_first

if TYPE_CHECKING:
    from torch import Tensor

KeyTable = Sequence[tuple[str, str]]
"""Pairs (foreign part, our part) of a tensor's name. The first pair that matches is applied; a leading "^" anchors the
part to the beginning of the name."""

WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.|trainable_module\.)+")
"""Prefixes that DistributedDataParallel, torch.compile and open_clip's training put before every name."""
T = TypeVar("T")


def translate_key(name: str, tables: Sequence[KeyTable], *, reverse: bool = False) -> str:
    """Translate a tensor's name to ours, or with `reverse` from ours: at most one replacement per table, in order."""
    for table in tables:
        for foreign, ours in table:
            part, replacement = (ours, foreign) if reverse else (foreign, ours)
            matches = name.startswith(part[1:]) if part.startswith("^") else part in name
            if matches:
                name = name.replace(part.lstrip("^"), replacement.lstrip("^"), 1)
                break
    return name


def strip_wrappers(state: Mapping[str, T], source: str) -> dict[str, T]:
    """Remove the prefixes of module wrappers from names. Raises CheckpointError where two names become one."""
    plain = {WRAPPERS.sub("", name): tensor for name, tensor in state.items()}
    if len(plain) < len(state):
        twice = sorted({WRAPPERS.sub("", name) for name in state if WRAPPERS.match(name)} & state.keys())
        raise CheckpointError(f"{source}: holds {join_first(twice)} twice, with and without a prefix such as module.")
    return plain


def count_numbered(names: Iterable[str], pattern: str) -> int:
    """Count the distinct numbers that group 1 of `pattern` matches, such as the layers of a tower.

    Counting distinct numbers, and not taking the largest, bounds the result by the number of names: a damaged name such
    as "layers.300000000." cannot make a reader loop for minutes.
    """
    return len({int(match[1]) for name in names if (match := re.match(pattern, name))})


def required_shape(state: Mapping[str, Tensor], name: str, source: str, dimensions: int) -> tuple[int, ...]:
    """Return the shape of a tensor that sizes are read from.

    Raises CheckpointError when the tensor is missing or has another number of dimensions.
    """
    if name not in state:
        raise CheckpointError(f"{source}: lacks {name}, which the model's sizes are read from. Is the file complete?")
    if state[name].ndim != dimensions:
        raise CheckpointError(
            f"{source}: {name} is {tuple(state[name].shape)}, expected {dimensions} dimensions. Is the file damaged?"
        )
    return tuple(state[name].shape)
