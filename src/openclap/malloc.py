"""What glibc does with memory that is freed; other C libraries are left as they are."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
"""As glibc's malloc.h numbers them."""
SOME = {M_MMAP_THRESHOLD: 32 << 20, M_TRIM_THRESHOLD: 256 << 20}
ALL = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1}
DEFAULT = {M_MMAP_MAX: 1 << 16}


def keep_freed_memory() -> None:
    """Keep 256 MB that are free for the next sound: to give its arrays back and ask for others was a fifth of
    packing."""
    _choose(SOME)


@contextmanager
def all_memory_kept() -> Iterator[None]:
    """Give nothing back meanwhile: what a training step frees, the next one needs, and to ask for it again was a tenth
    of a step."""
    _choose(ALL)
    try:
        yield
    finally:
        _choose(DEFAULT | SOME)
        with suppress(OSError, TypeError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def _choose(settings: Mapping[int, int]) -> None:
    with suppress(OSError, TypeError, AttributeError):
        for name, value in settings.items():
            ctypes.CDLL(None).mallopt(name, value)
