"""Tune memory: glibc's allocator for large arrays (nothing is changed elsewhere), and Python's collector of cycles."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
"""Numbers of the parameters in glibc's malloc.h."""
RETAIN_SOME = {M_MMAP_THRESHOLD: 32 << 20, M_TRIM_THRESHOLD: 256 << 20}
"""Arrays up to 32 MB come from the heap, and up to 256 MB at its top stay allocated when they are freed."""
RETAIN_ALL = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1}
"""All arrays come from the heap, which never shrinks."""
DEFAULT = {M_MMAP_MAX: 1 << 16}


def retain_some_freed_memory() -> None:
    """Retain up to 256 MB of freed memory for the next sound.

    Without it, returning the arrays of each sound to the system and requesting them again takes a fifth of the time of
    packing.
    """
    _set_options(RETAIN_SOME)


@contextmanager
def retain_freed_memory() -> Iterator[None]:
    """Retain all freed memory within the context, and return it to the system afterwards.

    Each training step needs the memory that the previous step has freed; requesting it again takes a tenth of a step.
    """
    _set_options(RETAIN_ALL)
    try:
        yield
    finally:
        _set_options(DEFAULT | RETAIN_SOME)
        with suppress(OSError, TypeError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Pause the search for reference cycles, for code that makes many objects and no cycles.

    Among hundreds of thousands of records, searching all of them again and again takes a fifth of the time of a scan or
    of planning a data set.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _set_options(options: Mapping[int, int]) -> None:
    with suppress(OSError, TypeError, AttributeError):  # not glibc
        for name, value in options.items():
            ctypes.CDLL(None).mallopt(name, value)
