"""One writer at a time: what only one process may do in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openclap.errors import DataError

LOCK = ".lock"


@contextmanager
def only_writer(folder: Path, name: str = LOCK, *, timeout_s: float = 0.0) -> Iterator[None]:
    """Hold the right to change what is in `folder`; the system takes it back from a process that dies.

    Raises DataError when another process or thread holds it for longer than `timeout_s`, or the folder cannot be
    written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(str(folder / name))
    try:
        lock.acquire(timeout=timeout_s)
    except Timeout as error:
        raise DataError(
            f"{folder}: another process is writing here. Wait until it ends, or choose another folder."
        ) from error
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}). Check its permissions.") from error
    try:
        yield
    finally:
        lock.release()
