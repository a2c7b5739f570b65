"""Bounds of numbers that a caller chooses, so that a slip of the keyboard is a sentence and not an overflow."""

from __future__ import annotations

import math
import operator
from typing import Any

from openclap.errors import ConfigError

COUNT = 1_000_000_000
"""The most that a batch, an epoch or another count can be: more than any, and far below what arrays can index."""
PROCESSES = 1024
"""The most processes of one machine."""


def check_count(name: str, number: Any, *, least: int = 1, most: int = COUNT) -> int:
    """`number` as an int. Raises ConfigError that names it for what is no whole number from `least` to `most`."""
    try:
        count = operator.index(number)
    except TypeError:
        raise ConfigError(f"{name} is {number!r}, expected {least} or more, a whole number.") from None
    if count < least:
        raise ConfigError(f"{name} is {_written(count)}, expected {least} or more.")
    if count > most:
        raise ConfigError(f"{name} is {_written(count)}, expected {most:,} or less.")
    return count


def _written(number: int) -> str:
    """Long numbers in short: those of thousands of digits cannot even be printed."""
    return str(number) if abs(number) < 10**18 else f"{'-' * (number < 0)}10^{round(math.log10(abs(number)))} or so"
