"""Paths as the index stores them: absolute, as text, with links not resolved."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path


def absolute(path: str | Path) -> str:
    """`path` from the root of the file system, without `.` and `..`."""
    return os.path.abspath(path)  # noqa: PTH100 (resolve() would replace links)


def prefixes(folders: Iterable[str]) -> tuple[str, ...]:
    """Prefixes of all paths under these absolute folders."""
    return tuple(folder.rstrip(os.sep) + os.sep for folder in folders)


def relocated(path: str, folders: Mapping[str, str]) -> str:
    """The new path of a file that is one of these folders or files, or below one; any other path stays."""
    for old, new in folders.items():
        if path == old:
            return new
        [below] = prefixes([old])
        if path.startswith(below):
            return prefixes([new])[0] + path[len(below) :]
    return path


def is_gone(path: str) -> bool:
    """Whether `path` certainly does not exist; a path in an unreadable folder may exist."""
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def is_storable(path: str) -> bool:
    """Whether `path` is text that UTF-8 can write: file names on Linux are bytes, and can be anything."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def printable(path: str) -> str:
    """`path` as text that can be written anywhere: bytes that are not UTF-8 become backslash escapes."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")
