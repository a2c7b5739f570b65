"""The place of an index: a folder on this machine, or an address in object storage.

    place = place_of("~/sounds.index")        # LocalPlace
    place = place_of("s3://bucket/index")     # object_store.RemotePlace

A place gives tables, documents (`index.json` and other small files), and the right to write. What searches derive from
them lies in `folder`, which is always on this machine.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from openclap.errors import DataError
from openclap.locks import only_writer
from openclap.paths import is_url
from openclap.search.keywords import KEYWORDS_NAME
from openclap.storage import new_file

TABLES = ("windows", "files")
HEADER_NAME = "index.json"
FIT_NAME = "fit.npz"
"""The background of `fit.py`."""
LABELS_NAME = "labels.npz"
"""The labels of `labels.py`."""
SNAPSHOT_NAME = "snapshot"
"""The folder of `snapshot.py`."""
DAMAGED = "It is damaged or was removed. Delete the folder and index the sounds again."

_WRITE_LOCK, _CREATE_LOCK = "write.lock", "create.lock"
_SPACE_MARGIN = 32 << 20
"""Free bytes that writing leaves on a disk."""
_CREATING_TAKES_S = 30.0
"""Wait for another process that creates the same index."""
_TRIES = 5
"""Attempts to read a table's version that a writer replaces meanwhile."""

CheckLock = Callable[[], None]
"""Raises LockedError when the right to write was lost, which only a lease in object storage can be."""


@dataclass(frozen=True, slots=True)
class TableVersion:
    """A version of a LanceDB table: its number, and a digest that tells tables with equal numbers apart."""

    number: int
    digest: str


class IndexPlace(ABC):
    """Where an index is.

    Attributes:
        address: the folder or URL, as messages show it and `Index.open` takes it.
        folder: of files that are derived from the tables: snapshot and keywords.
        keep_versions: age from which on old versions are deleted: a reader may use the version that it opened for
            everything that it reads.
        advice: a sentence for errors of reading.
    """

    address: str
    folder: Path
    keep_versions: timedelta
    advice: str

    def __str__(self) -> str:
        return self.address

    @property
    @abstractmethod
    def own_folder(self) -> Path | None:
        """The folder of the index itself; None when it is not on this machine."""

    @property
    def is_local(self) -> bool:
        """Whether the index is on this machine. What is derived from one in object storage, each machine makes for
        itself when it searches."""
        return self.own_folder is not None

    @cached_property
    @abstractmethod
    def database(self) -> Any:
        """A LanceDB connection whose tables always show the latest commit of any process."""

    def open_table(self, name: str) -> Any:
        """A table at its newest version. Raises errors of LanceDB."""
        return self.database.open_table(name)

    @abstractmethod
    def newest_versions(self) -> dict[str, TableVersion]:
        """The newest version of each table. Raises DataError when a table is missing."""

    @abstractmethod
    def version(self, name: str, table: Any) -> TableVersion:
        """The version of an open table that was fixed at one."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """A document; None when there is none. Raises DataError when it cannot be read."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Replace a document in one step, under the write lock. Raises OSError and errors of LanceDB."""

    @abstractmethod
    def local_copy(self, name: str) -> Path | None:
        """A document as a file on this machine; None when there is none."""

    @abstractmethod
    def creating(self) -> AbstractContextManager[None]:
        """Check that nothing is in the way of a new index, and lock the place against another process that creates it.

        Raises DataError when it is used, or cannot be written.
        """

    @abstractmethod
    def create_table(self, name: str, schema: Any) -> None:
        """Create an empty table. Raises errors of LanceDB."""

    @abstractmethod
    def writing(self, timeout_s: float = 0.0) -> AbstractContextManager[CheckLock]:
        """The right to write, for one process and thread.

        Without it, two processes that add the same new file would both insert it: LanceDB's commits are atomic, but two
        inserts do not conflict. Raises LockedError when another one has it for longer than `timeout_s`, and DataError
        when the place cannot be written.
        """

    @abstractmethod
    def check_space(self, size: int) -> None:
        """Raise DataError unless there is room for `size` bytes more."""

    def reason(self, error: BaseException) -> str:
        """The cause in an error of LanceDB or the system, in a line. LanceDB lists every layer of its code."""
        if found := re.search(r"([A-Z][^:(]+) \(os error \d+\)", str(error)):
            return found[1]
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        # "lance error: LanceError(IO): the cause, /root/.cargo/registry/…/provider.rs:12:3"
        return re.sub(r",? /\S+\.rs\b\S*", "", re.sub(r"^.*LanceError\(\w+\): ", "", line))[:200]

    def exists(self) -> bool:
        """Whether there is the header of an index; it may still be damaged."""
        return self.read(HEADER_NAME) is not None


def place_of(address: str | os.PathLike[str]) -> IndexPlace:
    """The place of an index by its folder or URL, whose scheme may have lost a slash in a `Path`.

    Raises ConfigError for a URL of a store that LanceDB does not know.
    """
    if not is_url(address):
        return LocalPlace(Path(address).expanduser().absolute())
    scheme, _, rest = str(address).replace("\\", "/").partition(":")
    url = f"{scheme.lower()}://{rest.lstrip('/')}"
    if scheme.lower() == "file":
        from urllib.request import url2pathname

        return LocalPlace(Path(url2pathname(f"/{rest.lstrip('/')}")))
    from openclap.search.object_store import RemotePlace

    return RemotePlace(url.rstrip("/"))


class LocalPlace(IndexPlace):
    """An index in a folder on this machine. The system releases the lock of a process that dies."""

    keep_versions = timedelta(minutes=10)
    advice = DAMAGED

    def __init__(self, folder: Path) -> None:
        self.folder, self.address = folder, str(folder)

    @property
    def own_folder(self) -> Path:
        return self.folder

    @cached_property
    def database(self) -> Any:
        import lancedb

        return lancedb.connect(str(self.folder), read_consistency_interval=timedelta(0))

    def newest_versions(self) -> dict[str, TableVersion]:
        """The versions by the names and contents of the manifests, without LanceDB, whose import takes a second."""
        return {table: self._newest(table) for table in TABLES}

    def _newest(self, table: str) -> TableVersion:
        for _ in range(_TRIES):
            try:
                path = max(self._manifests(table), key=_number)
                return TableVersion(_number(path), hashlib.sha256(path.read_bytes()).hexdigest())
            except FileNotFoundError:  # removed by a writer that cleans up, so there is a newer one
                continue
            except (OSError, ValueError) as error:
                raise self._unreadable(table) from error
        raise self._unreadable(table)

    def version(self, name: str, table: Any) -> TableVersion:
        number = table.version
        for path in self._manifests(name):
            if _number(path) == number:
                return TableVersion(number, hashlib.sha256(path.read_bytes()).hexdigest())
        raise self._unreadable(name)

    def _manifests(self, table: str) -> Iterator[Path]:
        return (self.folder / f"{table}.lance" / "_versions").glob("*.manifest")

    def _unreadable(self, table: str) -> DataError:
        return DataError(f"{self}: the index cannot be read (the table '{table}' is missing). {DAMAGED}")

    def read(self, name: str) -> bytes | None:
        try:
            return (self.folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise DataError(f"{self}: its {name} cannot be read ({error.strerror}). {DAMAGED}") from error

    def write(self, name: str, content: bytes) -> None:
        with new_file(self.folder / name) as file:
            file.write(content)

    def local_copy(self, name: str) -> Path | None:
        path = self.folder / name
        return path if path.is_file() else None

    @contextmanager
    def creating(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{self}: cannot be created ({error.strerror}). Choose another place.") from error
        self._refuse_used()  # before a lock file is written to a folder of the user's
        with only_writer(self.folder, _CREATE_LOCK, timeout_s=_CREATING_TAKES_S):
            self._refuse_used()  # again, since another process may have created it before we got the lock
            for name in TABLES:
                if (table := self.folder / f"{name}.lance").exists():
                    shutil.rmtree(table)
            yield

    def _refuse_used(self) -> None:
        if self.exists():
            raise DataError(f"{self} is an index already. Open it, or choose another folder.")
        if foreign := sorted(entry.name for entry in self.folder.iterdir() if entry.name not in _OWN_NAMES):
            raise DataError(f"{self} contains other files ({foreign[0]}). Choose an empty or a new folder.")
        for name in TABLES:
            # A creation that was killed leaves empty tables; full ones are an index that lost its index.json.
            if (self.folder / f"{name}.lance").exists() and self._holds_rows(name):
                raise DataError(f"{self} holds an index without its index.json. {DAMAGED}")

    def _holds_rows(self, name: str) -> bool:
        try:
            return bool(self.open_table(name).count_rows())
        except (RuntimeError, ValueError, OSError):
            return any((self.folder / f"{name}.lance" / "data").glob("*"))

    def create_table(self, name: str, schema: Any) -> None:
        self.database.create_table(name, schema=schema)

    @contextmanager
    def writing(self, timeout_s: float = 0.0) -> Iterator[CheckLock]:
        with only_writer(self.folder, _WRITE_LOCK, timeout_s=timeout_s):
            yield lambda: None

    def check_space(self, size: int) -> None:
        # LanceDB can commit half a manifest to a full disk, which makes a table unreadable: the disk must not become
        # full.
        free = shutil.disk_usage(self.folder).free
        if free < 2 * size + _SPACE_MARGIN:
            raise DataError(
                f"{self}: the index cannot be written ({free / 1e6:.0f} MB of free space are left). Make room, then "
                "run it again: it resumes."
            )


_OWN_NAMES = {
    KEYWORDS_NAME,
    _WRITE_LOCK,
    _CREATE_LOCK,
    HEADER_NAME,
    f".{HEADER_NAME}.partial",  # left by a kill, and the next one by older versions
    f"{HEADER_NAME}.part",
    SNAPSHOT_NAME,
    FIT_NAME,
    LABELS_NAME,
    *(f"{name}.lance" for name in TABLES),
}
"""Entries of a folder that may become an index; any other belongs to the user."""


def _number(manifest: Path) -> int:
    """The version of a manifest. LanceDB names it 2^64 - 1 - version, in 20 digits; older releases: the version."""
    name = manifest.stem
    if not name.isdecimal():
        return -1  # a version apart from the main line
    return 2**64 - 1 - int(name) if len(name) == 20 else int(name)
