"""Open a path, bytes or an open file as a seekable file."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from openclap.errors import AudioError
from openclap.paths import is_url

AudioSource = str | os.PathLike[str] | bytes | BinaryIO
"""An encoded sound: a path, the bytes of a file, or an open binary file."""


def name_of(source: AudioSource) -> str:
    """The name of a source for messages."""
    if isinstance(source, (str, os.PathLike)):
        return Path(source).name
    return Path(str(getattr(source, "name", "sound in memory"))).name


@contextmanager
def opened(source: AudioSource) -> Iterator[BinaryIO]:
    """Open the bytes of a source as a seekable file. Raises AudioError when it is missing or cannot be read."""
    if isinstance(source, bytes):
        yield _Bytes(source)
        return
    if not isinstance(source, (str, os.PathLike)):
        yield _view(source)
        return
    if not os.fspath(source):
        raise AudioError("An empty file name was given, expected the path of a sound.")
    path = Path(source)
    try:
        # A named pipe or a device could block forever, or never end.
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise AudioError(f"{path}: is not a regular file, expected one sound file.")
        file = _File(io.FileIO(path))
    except FileNotFoundError:
        if is_url(source):
            raise AudioError(f"{source}: is a URL, expected a file. Download it first.") from None
        raise AudioError(f"{path}: no such file.") from None
    except IsADirectoryError:
        raise AudioError(f"{path}: is a folder, expected one sound file.") from None
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise AudioError(f"{path}: is not a valid file name ({error}).") from None
    with file:
        yield file


class _SeeksToStart:
    """Mixin that seeks to the start where a file would refuse to seek to a negative place. Damaged headers make
    libsndfile do that, and an exception in its callback would be printed to the terminal."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            place: int = super().seek(offset, whence)  # type: ignore[misc]
        except (OSError, ValueError):
            place = super().seek(0)  # type: ignore[misc]
        return place


class _Bytes(_SeeksToStart, io.BytesIO):
    pass


class _File(_SeeksToStart, io.BufferedReader):
    pass


_TURN = threading.Lock()
"""Held while a caller's open file is read: threads may share the file and its position."""


class _View(io.RawIOBase):
    """The rest of a caller's open file, with a position of its own; the file's position is restored after each read."""

    def __init__(self, file: BinaryIO) -> None:
        with _TURN:
            self._file, self._place, self._begin = file, 0, file.tell()
            self._end = max(file.seek(0, os.SEEK_END), self._begin) - self._begin
            file.seek(self._begin)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = max(0, offset + (0, self._place, self._end)[whence])
        return self._place

    def readinto(self, buffer: Any) -> int:
        with _TURN:
            position = self._file.tell()
            self._file.seek(self._begin + self._place)
            data = self._file.read(len(buffer))
            self._file.seek(position)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def _view(file: BinaryIO) -> BinaryIO:
    """View a caller's open file so that several threads can read it, repeatedly. A pipe is read into memory."""
    name = name_of(file)
    try:
        if isinstance(file.read(0), str):
            raise AudioError(f"{name}: is open as text, expected binary: open it with mode 'rb'.")
        if file.seekable():
            return io.BufferedReader(_View(file), 1 << 16)
        with _TURN:
            return _Bytes(file.read())
    except (ValueError, OSError) as error:
        raise AudioError(f"{name}: cannot be read ({error}).") from None


class FileSection(io.RawIOBase):
    """The bytes `begin` to `end` of an open file as a file of its own, with corrections.

    Attributes:
        patches: (place, bytes) that replace the file's bytes, counted from `begin`.
    """

    def __init__(self, file: BinaryIO, begin: int, end: int, patches: tuple[tuple[int, bytes], ...] = ()) -> None:
        self._file, self._begin, self._length, self._patches = file, begin, end - begin, patches
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = max(0, offset + (0, self._place, self._length)[whence])
        return self._place

    def readinto(self, buffer: Any) -> int:
        place = self._place
        self._file.seek(self._begin + place)
        data = bytearray(self._file.read(max(0, min(len(buffer), self._length - place))))
        for at, patch in self._patches:
            first, last = max(at, place), min(at + len(patch), place + len(data))
            if first < last:
                data[first - place : last - place] = patch[first - at : last - at]
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)
