"""Vectors that were made before, so that an evaluation goes on where it was stopped and the next one takes seconds.

One SQLite file a model in `$OPENCLAP_HOME/evals`, named after a digest of what vectors hang on: weights, preset,
precision and windowing. Rows are keyed by what was embedded (a SHA-256 of the sound's bytes, or of the text and its
tokenizer) and carry a checksum. A damaged row counts as missing; a damaged file, or one that another model wrote, is
begun anew. The files may be deleted at any time.

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

from openclap.errors import DataError
from openclap.evals.clips import Vector

log = logging.getLogger("openclap.evals")

_TABLES = """
create table if not exists made_by (identity text primary key);
create table if not exists vectors (key text primary key, vector blob, checksum integer) without rowid;
create table if not exists files (path text primary key, size integer, mtime_ns integer, sha256 text)
    without rowid;
"""
_SHA256 = re.compile("[0-9a-f]{64}")
_ASKED_AT_ONCE = 500
_WAIT_S = 60.0


class VectorCache:
    """The vectors of one model. Damage is logged and made good; raises DataError where nothing can be written."""

    def __init__(self, folder: Path, identity: Mapping[str, str]) -> None:
        self.made_by = dict(identity)
        self.identity = json.dumps(self.made_by, sort_keys=True)
        self.path = folder / f"{hashlib.sha256(self.identity.encode()).hexdigest()[:24]}.sqlite"
        folder.mkdir(parents=True, exist_ok=True)
        self._safely(self._open)

    def get(self, keys: Sequence[str]) -> dict[str, Vector]:
        """The vectors that are there and whole."""
        found: dict[str, Vector] = {}
        damaged: list[str] = []
        for key, blob, checksum in self._rows("select key, vector, checksum from vectors where key in", keys):
            if isinstance(blob, bytes) and zlib.crc32(blob) == checksum and len(blob) % 4 == 0:
                found[key] = np.frombuffer(blob, "<f4")
            else:
                damaged.append(key)
        if damaged:
            log.warning("%s: %d damaged vectors are made again.", self.path, len(damaged))
        return found

    def add(self, made: Iterable[tuple[str, Vector]]) -> None:
        """Keep vectors; when this returns they are on the disk, all of them."""
        blobs = [(key, np.ascontiguousarray(vector, "<f4").tobytes()) for key, vector in made]
        rows = [(key, blob, zlib.crc32(blob)) for key, blob in blobs]
        self._safely(lambda: self._write("insert or replace into vectors values (?, ?, ?)", rows))

    def known_files(self, paths: Sequence[str]) -> dict[str, tuple[int, int, str]]:
        """(size, time in ns, SHA-256) of files whose bytes were read before."""
        rows = self._rows("select path, size, mtime_ns, sha256 from files where path in", paths)
        return {
            path: (size, mtime_ns, sha256)
            for path, size, mtime_ns, sha256 in rows
            if isinstance(sha256, str) and _SHA256.fullmatch(sha256)
        }

    def add_files(self, files: Iterable[tuple[str, int, int, str]]) -> None:
        """Keep what was read of files."""
        rows = list(files)
        self._safely(lambda: self._write("insert or replace into files values (?, ?, ?, ?)", rows))

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def _rows(self, select: str, keys: Sequence[str]) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []

        def read() -> None:
            rows.clear()
            for start in range(0, len(keys), _ASKED_AT_ONCE):
                part = keys[start : start + _ASKED_AT_ONCE]
                marks = ",".join("?" * len(part))
                with closing(self._database.execute(f"{select} ({marks})", part)) as found:
                    rows.extend(found.fetchall())

        self._safely(read)
        return rows

    def _write(self, insert: str, rows: Sequence[tuple[Any, ...]]) -> None:
        with self._database as database:
            database.executemany(insert, rows)

    def _safely(self, work: Callable[[], None]) -> None:
        """Do it; where the file proves damaged, begin it anew and do it again."""
        try:
            try:
                work()
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._begin_anew(f"is damaged ({error})")
                work()
        except sqlite3.Error as error:
            raise DataError(f"{self.path}: vectors cannot be kept there ({error}). Check the disk.") from error

    def _open(self) -> None:
        self._database = sqlite3.connect(self.path, timeout=_WAIT_S)
        self._database.text_factory = lambda text: text.decode("utf-8", "replace")
        self._database.executescript(_TABLES)
        with self._database as database:
            database.execute(
                "insert into made_by select ? where not exists (select 1 from made_by)",
                (self.identity,),
            )
        if self._database.execute("select identity from made_by").fetchall() != [(self.identity,)]:
            self._begin_anew("holds vectors of another model, which are never taken")

    def _begin_anew(self, reason: str) -> None:
        log.warning("%s: %s; its vectors are made again.", self.path, reason)
        self._database.close()
        for path in (self.path, *self.path.parent.glob(f"{self.path.name}-*")):
            path.unlink(missing_ok=True)
        self._open()


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Of the file, or tables of another shape in it; not that it is locked, or the disk full."""
    return (
        not isinstance(error, sqlite3.OperationalError)
        or getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
    )
