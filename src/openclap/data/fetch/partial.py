"""The unfinished file, and what is known of the whole one.

`.NAME.partial` stands beside `NAME` and is written by whoever holds it; `.NAME.partial.json` says which address it
is of, its length and its validator: an ETag or a date by which the server tells whether the file is still the same
(RFC 9110, 13.1.5). Without a validator it goes on only where a hash is known, which would show a mixture.

A kill leaves both in a state to go on from. After a power failure the last seconds of a partial may be missing
inside it: files whose hash is known are safe from that too.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from stat import S_ISDIR
from types import TracebackType
from typing import BinaryIO

from openclap.data.fetch.sniff import HEAD
from openclap.locks import open_alone
from openclap.storage import partial_of, sync_folder

PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Known:
    """Of a file on its server. `source` is a digest of the URL, which may hold a token."""

    source: str
    validator: str | None
    length: int | None


def digest_of(url: str) -> str:
    """What a URL is remembered by."""
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()


class Partial:
    """The bytes so far, held by this thread alone; leaving the `with` block keeps them if they can be gone on with.

    Attributes:
        size: bytes so far.
        head: the first of them.
        known: what an earlier answer said; None at the start.
    """

    def __init__(self, to: Path, file: BinaryIO, hash_known: bool) -> None:
        self._to, self._file, self._hash_known = to, file, hash_known
        self.known: Known | None = None
        self._reset()

    @classmethod
    def open(cls, to: Path, source: str, *, hash_known: bool) -> Partial | None:
        """What is there of `to`, as far as it can be gone on with; None while another thread or process has it."""
        to.parent.mkdir(parents=True, exist_ok=True)
        file = open_alone(partial_of(to))
        if file is None:
            return None
        partial = cls(to, file, hash_known)
        try:
            partial._take_up(source)
        except BaseException:
            file.close()
            raise
        return partial

    def __enter__(self) -> Partial:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._file.closed:
            if self.size == 0 or not self._of_use(self.known):
                self._remove()
            self._file.close()

    @property
    def sha256(self) -> str:
        """Of the bytes so far."""
        return self._digest.hexdigest()

    @property
    def whole(self) -> bool:
        """Is it known that nothing is missing?"""
        return self.size > 0 and self.known is not None and self.known.length == self.size

    def start_over(self, known: Known | None = None) -> None:
        """Drop the bytes so far. Without `known`, those to come cannot be gone on with after a stop."""
        self._file.truncate(0)  # first: what is known must never stand beside bytes of another file
        self._reset()
        self.known = known
        if known is None:
            state_of(self._to).unlink(missing_ok=True)
        else:
            state_of(self._to).write_bytes(json.dumps(asdict(known)).encode())

    def write(self, content: bytes) -> None:
        """Append."""
        self._file.write(content)
        self._count(content)

    def finish(self) -> None:
        """Give the file its name, when it is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        if sys.platform == "win32":
            self._file.close()  # an open file cannot be renamed there, nor one that another process has opened
        partial_of(self._to).replace(self._to)
        state_of(self._to).unlink(missing_ok=True)
        self._file.close()
        sync_folder(self._to.parent)

    def _of_use(self, known: Known | None) -> bool:
        """Can bytes of which this is known be gone on with?"""
        return known is not None and (known.validator is not None or self._hash_known)

    def _take_up(self, source: str) -> None:
        known = _read(state_of(self._to))
        size = os.fstat(self._file.fileno()).st_size
        fits = known is not None and known.source == source and size <= (size if known.length is None else known.length)
        if not fits or not self._of_use(known):
            if size:
                self.start_over()
            return
        self.known = known
        self._file.seek(0)
        while content := self._file.read(PIECE):
            self._count(content)

    def _remove(self) -> None:
        if sys.platform == "win32":
            self._file.close()
        partial_of(self._to).unlink(missing_ok=True)
        state_of(self._to).unlink(missing_ok=True)

    def _reset(self) -> None:
        self.size, self.head, self._digest = 0, b"", hashlib.sha256()

    def _count(self, content: bytes) -> None:
        if len(self.head) < HEAD:
            self.head += content[: HEAD - len(self.head)]
        self.size += len(content)
        self._digest.update(content)


def state_of(to: Path) -> Path:
    """Where what is known of the whole file is kept while it is unfinished."""
    partial = partial_of(to)
    return partial.with_name(partial.name + ".json")


def standing(to: Path, size: int | None, sha256: str | None) -> tuple[int, str] | None:
    """Size and hash of the file that stands complete under its name; None if there is none that fits.

    Raises OSError, or ValueError for a name with a null byte, where no such file can be.
    """
    try:
        found = to.stat()
    except FileNotFoundError:
        return None
    if S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    there = found.st_size
    if there == 0 or size not in (None, there):
        return None
    with to.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 is not None and digest != sha256.lower():
        return None
    state_of(to).unlink(missing_ok=True)  # of a run that was killed after the file had its name
    return there, digest


def _read(path: Path) -> Known | None:
    try:
        known = Known(**json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return known if isinstance(known.length, int | None) and isinstance(known.validator, str | None) else None
