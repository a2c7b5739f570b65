"""Sounds that lie inside other files, in a table or a tar: each is written out once, as a file of its own.

A record names a file, so that everything after it (decoding, fetching, packing) knows one kind of sound. The file's
name is the SHA-256 of what it holds: reading the same table again, or another copy of it, writes nothing.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path, PurePosixPath

from openclap.errors import DataError
from openclap.paths import home
from openclap.sources.layout import SUFFIXES


def default_folder() -> Path:
    """Where sounds are written out without a choice of another folder; it may be deleted at any time."""
    return home() / "sounds"


def group_of(path: Path) -> str:
    """A group of one for a sound that was written out; the same on every machine, wherever the folder is."""
    return f"sha256:{path.stem}"


def write_out(content: bytes, name: str, folder: Path) -> Path:
    """The file under `folder` that holds `content`; its suffix is that of `name` where it is one of sounds.

    Raises DataError when it cannot be written.
    """
    digest = hashlib.sha256(content).hexdigest()
    suffix = PurePosixPath(name).suffix.lower()
    path = folder / digest[:2] / f"{digest}{suffix if suffix in SUFFIXES else ''}"
    try:
        if not (path.is_file() and path.stat().st_size == len(content)):
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, content)
    except OSError as error:
        raise DataError(
            f"{folder}: a sound cannot be written out ({error.strerror}). Make room, or choose another folder as cache."
        ) from error
    return path


def _write(path: Path, content: bytes) -> None:
    """Write beside and rename: several processes may do this at once, and none sees half a file."""
    handle, partial = tempfile.mkstemp(prefix=".", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(partial).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(partial).unlink()
        raise
