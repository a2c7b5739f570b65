"""One writer at a time: what only one process may do in a folder, or with a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

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


def open_alone(path: Path) -> BinaryIO | None:
    """Open `path` to read and append, made if it is not there; None while another thread or process has it so.

    The system takes it back from a process that dies. Whoever has it may rename or delete it. Raises OSError where it
    cannot be opened.
    """
    while True:
        file = path.open("a+b")
        try:
            held = _hold(file)
            if held and _is_at(file, path):
                return file
        except BaseException:
            file.close()
            raise
        file.close()
        if not held:
            return None


def _hold(file: BinaryIO) -> bool:
    if sys.platform == "win32":
        import msvcrt

        file.seek(1 << 40)  # a byte that no file has: locked ones cannot be read
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Is it still the file of that name? It may have been renamed between opening and holding it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
