"""Paths as the index holds them: absolute text, links as they are named and not where they lead."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def absolute(path: str | Path) -> str:
    """`path` from the root of the file system, without `.` and `..`."""
    return os.path.abspath(path)  # noqa: PTH100 (resolve() would replace links)


def prefixes(folders: Iterable[str]) -> tuple[str, ...]:
    """What the paths of everything under these absolute folders begin with."""
    return tuple(folder.rstrip(os.sep) + os.sep for folder in folders)


def is_gone(path: str) -> bool:
    """Whether nothing is at `path` for certain; what is in a folder that cannot be read may be there."""
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
