"""The partial file of a download, and the metadata for resuming it.

`.NAME.partial` is beside `NAME` and locked by the thread or process that writes it. `.NAME.partial.json` holds a digest
of its URL, its length and its validator: an ETag or a date that shows whether the server still has the same file
(RFC 9110, 13.1.5). Without a validator, a download resumes only where a hash is known, which would reveal a mixture of
two files.

A kill leaves both in a state to resume from. After a power failure, bytes of the last seconds may be missing inside a
partial file; files with a known hash are safe from that too.
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

from openclap.download.content import HEAD
from openclap.locks import open_alone
from openclap.storage import partial_of, sync_folder

PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """Metadata of a file on its server. `source` is a digest of the URL, which may contain a token."""

    source: str
    validator: str | None
    length: int | None


def digest_of(url: str) -> str:
    """Hash a URL."""
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()


class Partial:
    """A locked partial file. Leaving the `with` block removes it unless the download can be resumed from it.

    Attributes:
        size: number of bytes so far.
        head: the first of them.
        remote: metadata from an earlier response; None at the start.
    """

    def __init__(self, to: Path, file: BinaryIO, hash_known: bool) -> None:
        self._to, self._file, self._hash_known = to, file, hash_known
        self.remote: RemoteFile | None = None
        self._reset()

    @classmethod
    def open(cls, to: Path, source: str, *, hash_known: bool) -> Partial | None:
        """Lock and open the partial file of `to`; None while another thread or process has it.

        Bytes of an earlier run are read for their hash where the download can be resumed, and dropped otherwise.
        """
        to.parent.mkdir(parents=True, exist_ok=True)
        # The lock is on the partial file itself: it ends with the process, and no lock file is left over.
        file = open_alone(partial_of(to))
        if file is None:
            return None
        partial = cls(to, file, hash_known)
        try:
            partial._resume(source)
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
            if self.size == 0 or not self._is_resumable(self.remote):
                self._remove()
            self._file.close()

    @property
    def sha256(self) -> str:
        """Hash of the bytes so far."""
        return self._digest.hexdigest()

    @property
    def complete(self) -> bool:
        """Whether all bytes are there, by the length that the server declared."""
        return self.size > 0 and self.remote is not None and self.remote.length == self.size

    def start_over(self, remote: RemoteFile | None = None) -> None:
        """Drop the bytes so far. Without `remote`, the bytes to come cannot be resumed after a stop."""
        self._file.truncate(0)  # first: metadata must never be beside bytes of another file
        self._reset()
        self.remote = remote
        if remote is None:
            metadata_of(self._to).unlink(missing_ok=True)
        else:
            metadata_of(self._to).write_bytes(json.dumps(asdict(remote)).encode())

    def write(self, content: bytes) -> None:
        """Append."""
        self._file.write(content)
        self._count(content)

    def finish(self) -> None:
        """Rename the file to its final path once its bytes are on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        if sys.platform == "win32":
            self._file.close()  # an open file cannot be renamed there, nor one that another process has opened
        partial_of(self._to).replace(self._to)
        metadata_of(self._to).unlink(missing_ok=True)
        self._file.close()
        sync_folder(self._to.parent)

    def _is_resumable(self, remote: RemoteFile | None) -> bool:
        return remote is not None and (remote.validator is not None or self._hash_known)

    def _resume(self, source: str) -> None:
        remote = _read(metadata_of(self._to))
        size = os.fstat(self._file.fileno()).st_size
        matches = remote is not None and remote.source == source and (remote.length is None or size <= remote.length)
        if not matches or not self._is_resumable(remote):
            if size:
                self.start_over()
            return
        self.remote = remote
        # A resumed hash needs the bytes so far; reading them again is cheaper than downloading them.
        self._file.seek(0)
        while content := self._file.read(PIECE):
            self._count(content)

    def _remove(self) -> None:
        if sys.platform == "win32":
            self._file.close()
        partial_of(self._to).unlink(missing_ok=True)
        metadata_of(self._to).unlink(missing_ok=True)

    def _reset(self) -> None:
        self.size, self.head, self._digest = 0, b"", hashlib.sha256()

    def _count(self, content: bytes) -> None:
        if len(self.head) < HEAD:
            self.head += content[: HEAD - len(self.head)]
        self.size += len(content)
        self._digest.update(content)


def metadata_of(to: Path) -> Path:
    """Path of the metadata for resuming."""
    partial = partial_of(to)
    return partial.with_name(partial.name + ".json")


def existing_file(to: Path, size: int | None, sha256: str | None) -> tuple[int, str] | None:
    """Size and hash of a complete file at `to`; None without one that matches.

    Raises OSError, or ValueError for a name with a null byte, where no such file can exist.
    """
    try:
        status = to.stat()
    except FileNotFoundError:
        return None
    if S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    actual = status.st_size
    if actual == 0 or size not in (None, actual):
        return None
    with to.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 is not None and digest != sha256.lower():
        return None
    metadata_of(to).unlink(missing_ok=True)  # left by a kill right after the rename
    return actual, digest


def _read(path: Path) -> RemoteFile | None:
    try:
        remote = RemoteFile(**json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return remote if isinstance(remote.length, int | None) and isinstance(remote.validator, str | None) else None
