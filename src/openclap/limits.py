"""Check numbers and paths that a caller passes: a mistake raises ConfigError, and not an overflow or a TypeError."""

from __future__ import annotations

import math
import operator
import os
from typing import Any

from openclap.errors import ConfigError

COUNT = 1_000_000_000
"""Upper bound of batch sizes, epochs and other counts: above any real one, far below the limit of array indices."""
PROCESSES = 1024
"""Upper bound of the number of processes on one machine."""


def check_count(name: str, number: Any, *, least: int = 1, most: int = COUNT) -> int:
    """Convert `number` to int. Raises ConfigError with `name` unless it is a whole number from `least` to `most`."""
    try:
        count = operator.index(number)
    except TypeError:
        raise ConfigError(f"{name} is {number!r}, expected {least} or more, a whole number.") from None
    if count < least:
        raise ConfigError(f"{name} is {_written(count)}, expected {least} or more.")
    if count > most:
        raise ConfigError(f"{name} is {_written(count)}, expected {most:,} or less.")
    return count


def check_path(name: str, value: Any, expected: str = "a path") -> str:
    """Convert a path to text. Raises ConfigError with `name` unless `value` is text or a path object."""
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str):  # None, numbers, loaded models; and bytes, which no part of openclap takes as a path
        raise ConfigError(f"{name} is of the type {type(value).__name__}, expected {expected}.")
    return text


def _written(number: int) -> str:
    """Format a number, shortened if it is long: Python refuses to print thousands of digits."""
    return str(number) if abs(number) < 10**18 else f"about {'-' * (number < 0)}10^{round(math.log10(abs(number)))}"
