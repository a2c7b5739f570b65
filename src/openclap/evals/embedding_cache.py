"""Embeddings on disk, so that a stopped evaluation resumes and the next one takes seconds.

One SQLite file per model in `$OPENCLAP_HOME/evals`, named after a digest of everything that embeddings depend on:
weights, preset, precision and windowing. Rows are keyed by their input (a SHA-256 of the sound's bytes, or of the text
and its tokenizer) and carry a checksum. A damaged row counts as missing; a damaged file, or one of another model, is
started over. The files may be deleted at any time.

D embedding.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclap.errors import DataError

log = logging.getLogger("openclap.evals")

Embedding = NDArray[np.float32]
"""(D,) float32."""

_TABLES = """
create table if not exists made_by (identity text primary key);
create table if not exists vectors (key text primary key, vector blob, checksum integer) without rowid;
create table if not exists files (path text primary key, size integer, mtime_ns integer, sha256 text)
    without rowid;
"""
_SHA256 = re.compile("[0-9a-f]{64}")
_KEYS_PER_QUERY = 500  # below the limit on parameters of any build of SQLite (999)
_LOCK_TIMEOUT_S = 60.0


class EmbeddingCache:
    """The embeddings of one model. Damage is logged and repaired; raises DataError where nothing can be written."""

    def __init__(self, folder: Path, identity: Mapping[str, str]) -> None:
        self.made_by = dict(identity)
        self.identity = json.dumps(self.made_by, sort_keys=True)
        self.path = folder / f"{hashlib.sha256(self.identity.encode()).hexdigest()[:24]}.sqlite"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{folder}: is no folder for cached embeddings ({error.strerror}).") from None
        self._with_repair(self._open)

    def get(self, keys: Sequence[str]) -> dict[str, Embedding]:
        """The embeddings that are stored and undamaged."""
        found: dict[str, Embedding] = {}
        damaged: list[str] = []
        for key, blob, checksum in self._rows("select key, vector, checksum from vectors where key in", keys):
            if isinstance(blob, bytes) and zlib.crc32(blob) == checksum and len(blob) % 4 == 0:
                found[key] = np.frombuffer(blob, "<f4")
            else:
                damaged.append(key)
        if damaged:
            log.warning("%s: %d damaged embeddings are computed again.", self.path, len(damaged))
        return found

    def add(self, embeddings: Iterable[tuple[str, Embedding]]) -> None:
        """Store embeddings in one transaction."""
        # Little-endian everywhere, so that a home folder can be shared between machines.
        blobs = [(key, np.ascontiguousarray(vector, "<f4").tobytes()) for key, vector in embeddings]
        rows = [(key, blob, zlib.crc32(blob)) for key, blob in blobs]
        self._with_repair(lambda: self._write("insert or replace into vectors values (?, ?, ?)", rows))

    def known_files(self, paths: Sequence[str]) -> dict[str, tuple[int, int, str]]:
        """(size, modification time in ns, SHA-256) of files that were hashed before."""
        rows = self._rows("select path, size, mtime_ns, sha256 from files where path in", paths)
        return {
            path: (size, mtime_ns, sha256)
            for path, size, mtime_ns, sha256 in rows
            if isinstance(sha256, str) and _SHA256.fullmatch(sha256)
        }

    def add_files(self, files: Iterable[tuple[str, int, int, str]]) -> None:
        """Store the sizes, times and hashes of files."""
        rows = list(files)
        self._with_repair(lambda: self._write("insert or replace into files values (?, ?, ?, ?)", rows))

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _rows(self, select: str, keys: Sequence[str]) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []

        def read() -> None:
            rows.clear()
            for start in range(0, len(keys), _KEYS_PER_QUERY):
                part = keys[start : start + _KEYS_PER_QUERY]
                marks = ",".join("?" * len(part))
                with closing(self._database.execute(f"{select} ({marks})", part)) as found:
                    rows.extend(found.fetchall())

        self._with_repair(read)
        return rows

    def _write(self, insert: str, rows: Sequence[tuple[Any, ...]]) -> None:
        with self._database as database:
            database.executemany(insert, rows)

    def _with_repair(self, work: Callable[[], None]) -> None:
        """Run `work`; if the file turns out to be damaged, start it over and run `work` again."""
        try:
            try:
                work()
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._start_over(f"is damaged ({error})")
                work()
        except sqlite3.Error as error:
            raise DataError(f"{self.path}: embeddings cannot be stored there ({error}). Check the disk.") from error

    def _open(self) -> None:
        self._database = sqlite3.connect(self.path, timeout=_LOCK_TIMEOUT_S)
        # Text that is no UTF-8 must reach the checks as damage, and not raise while rows are read.
        self._database.text_factory = lambda text: text.decode("utf-8", "replace")
        self._database.executescript(_TABLES)
        with self._database as database:
            # One statement, because two processes may open a new file at the same moment.
            database.execute(
                "insert into made_by select ? where not exists (select 1 from made_by)",
                (self.identity,),
            )
        if self._database.execute("select identity from made_by").fetchall() != [(self.identity,)]:
            self._start_over("holds embeddings of another model, which are never used")

    def _start_over(self, reason: str) -> None:
        log.warning("%s: %s; its embeddings are computed again.", self.path, reason)
        self._database.close()
        for path in (self.path, *self.path.parent.glob(f"{self.path.name}-*")):
            path.unlink(missing_ok=True)
        self._open()


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether an error means a damaged file or foreign tables in it, not a locked file or a full disk."""
    return (
        not isinstance(error, sqlite3.OperationalError)
        or getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
    )
