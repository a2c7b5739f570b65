"""Write files and folders atomically, on this machine and in object stores."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from openclap.errors import ConfigError, DataError, MissingExtraError, OpenClapError, require
from openclap.formatting import first_line
from openclap.locks import open_alone

Place = Path
"""A local path, or the UPath of universal_pathlib for an address such as "s3://bucket/set".

The alias of Path is for type checkers: universal_pathlib is optional, and UPath has Path's methods.
"""


def place_of(text: str | os.PathLike[str]) -> Place:
    """Convert text to a path on this machine, or in any store that fsspec supports.

    Raises MissingExtraError when the package for that store is not installed, ConfigError for an invalid address.
    """
    if not isinstance(text, str | os.PathLike):
        return text  # a UPath already, which is no os.PathLike
    if "://" not in os.fspath(text):
        return Path(text)
    upath = require("upath", "scale")
    try:
        return _connected(upath.UPath(text))
    except ImportError as error:
        module = getattr(error.__cause__ or error, "name", None) or "the package that it names"
        raise MissingExtraError(
            f"{text}: cannot be opened ({first_line(error)}). Run pip install {module} to install it."
        ) from None
    except Exception as error:  # each store has errors of its own
        raise ConfigError(f"{text}: is not a valid address of a store ({first_line(error)}).") from None


def _connected(place: Any) -> Place:
    """Create the connection now, so that errors of a missing package or a bad address are raised here."""
    _ = place.fs
    return place  # type: ignore[no-any-return]


def unconnected(place: Place) -> Place:
    """Copy a place without its connection, for a forked process, which cannot use the parent's."""
    return place if isinstance(place, Path) else pickle.loads(pickle.dumps(place))


@contextmanager
def within_reach(place: Place) -> Iterator[None]:
    """Convert errors of a store or disk within the block to DataError."""
    try:
        yield
    except OpenClapError:
        raise
    except Exception as error:
        if isinstance(place, Path) and not isinstance(error, OSError):
            raise
        raise DataError(
            f"{place}: cannot be read ({first_line(error)}). Check the address and your permissions there."
        ) from error


def partial_of(path: Path) -> Path:
    """The hidden path where `path` is written before it is complete."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a binary file for writing that appears at `path` complete and synced to the disk, or not at all.

    A second process or thread that writes the same path waits until the first has finished, and then replaces it.
    """
    if not isinstance(path, Path):
        with _stored(path) as file:
            yield file
        return
    partial = partial_of(path)
    # The partial file itself is locked, so the lock ends with the process that holds it.
    while (lock := open_alone(partial)) is None:
        time.sleep(_BUSY_S)
    with lock:
        try:
            # Opening it again with "wb" truncates the remains of a killed process.
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if sys.platform == "win32":
                lock.close()  # an open file cannot be renamed there
            partial.replace(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


_BUSY_S = 0.05
"""Wait between two attempts to lock a file that another process is writing."""


@contextmanager
def _stored(path: Place) -> Iterator[BinaryIO]:
    """Write a file of an object store: to a local temporary file, which is uploaded when it is complete."""
    with tempfile.TemporaryFile() as file:
        yield file
        file.seek(0)
        with path.open("wb") as remote:
            shutil.copyfileobj(file, remote)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically; a file that has this content already keeps its mtime."""
    if path.is_file() and path.read_bytes() == content:
        return
    with new_file(path) as file:
        file.write(content)


def append_line(path: Path, line: bytes) -> None:
    """Append one line and wait until it is on the disk.

    A power failure leaves at most one unterminated line; the next call terminates it.
    """
    with path.open("a+b") as file:
        if file.tell():  # not empty
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else b"\n" + line
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())


def remove_folder(folder: Place) -> None:
    """Remove a folder with all its files, if it exists."""
    if isinstance(folder, Path):
        shutil.rmtree(folder, ignore_errors=True)
    elif folder.exists():
        folder.fs.rm(folder.path, recursive=True)


def move_files(source: Place, target: Place) -> None:
    """Rename a folder of files; in an object store, which has no folders, file by file."""
    if isinstance(source, Path):
        source.rename(target)
        return
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        write_bytes(target / path.name, path.read_bytes())
    remove_folder(source)


def sync_tree(folder: Path) -> None:
    """Wait until every file under `folder` is on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Wait until the directory entries of `folder` are on the disk, where the system supports it."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
