"""Locks between processes: one writer of a folder, or of a file.

Folders are locked by `filelock`. It cannot lock a file that is renamed while it is locked, such as a finished download
(docs/decisions/0015-locking-a-file-that-is-renamed.md), so `open_alone` is our own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from openclap.errors import DataError, LockedError

LOCK = ".lock"


@contextmanager
def only_writer(folder: Path, name: str = LOCK, *, timeout_s: float = 0.0) -> Iterator[None]:
    """Lock `folder` for writing; the system releases the lock of a process that dies.

    Raises LockedError when another process or thread has the lock for longer than `timeout_s`, and DataError when the
    folder cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(str(folder / name))
    try:
        lock.acquire(timeout=timeout_s)
    except Timeout as error:
        raise LockedError(
            f"{folder}: another process is writing here. Wait until it has finished, or choose another folder."
        ) from error
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}). Check its permissions.") from error
    try:
        yield
    finally:
        lock.release()


def open_alone(path: Path) -> BinaryIO | None:
    """Open and lock `path` for reading and appending, created if missing; None if another thread or process has it.

    Closing the file releases the lock, and so does the end of the process. The holder may rename or delete the file.
    Raises OSError where it cannot be opened.
    """
    while True:
        file = path.open("a+b")
        try:
            is_locked = _lock(file)
            # Another process may have renamed the file between our `open` and `_lock`. Then we have locked its finished
            # file under the new name, and must try the old name again.
            if is_locked and _has_name(file, path):
                return file
        except BaseException:
            file.close()
            raise
        file.close()
        if not is_locked:
            return None


def _lock(file: BinaryIO) -> bool:
    """Try to lock an open file, without waiting."""
    if sys.platform == "win32":
        import msvcrt

        file.seek(1 << 40)  # a byte beyond the end of any file, since locked bytes cannot be read
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


def _has_name(file: BinaryIO, path: Path) -> bool:
    """Check that the open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
