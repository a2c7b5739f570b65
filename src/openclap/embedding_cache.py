"""A cache of embeddings on disk: `openclap embed`, `eval` and the search for near-duplicates embed a sound once.

`$OPENCLAP_HOME/embeddings` holds one SQLite file for all models. An embedding is found by a hash of its input (the
SHA-256 of a sound's bytes, or a text) and of everything else that it depends on: model, runtime and precision,
channels, clip policy, decoders, and how the sound is cut. Names of files play no part.

The cache is never needed. Where its folder cannot be written, or the disk is full, it counts as empty and says so once.
Each entry has a checksum, and a damaged one counts as missing. A damaged file is set aside: the next one has a higher
number, and `clear` deletes the damaged one. It is not renamed, because SQLite may corrupt a file that is renamed while
another process uses it. Indexes own their vectors, and do not use this cache.

D embedding, W windows.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import sqlite3
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from openclap import paths
from openclap.arrays import Wave
from openclap.audio.inputs import Sound
from openclap.audio.io import decoder_version
from openclap.errors import AudioError, ConfigError
from openclap.types import Window

log = logging.getLogger(__name__)

Embedded = Wave | list[Window]
"""The embedding (D,) of a sound or text, or the windows of a sound."""
EmbedSounds = Callable[[Iterable[Sound]], Iterator[Any]]
"""Yields an `Embedded` or an AudioError for each sound, in order: `openclap.Embedder.embed_each` or `windows_each`."""
FileStamp = tuple[int, int, int]
"""Size in bytes, and the times of the last changes of content and of attributes in ns."""
T = TypeVar("T")

DEFAULT_SIZE = 10 * 10**9
"""Bytes: about four million embeddings of 512 numbers."""
SIZE_VARIABLE = "OPENCLAP_CACHE_SIZE"
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}

_FORMAT = 1
"""Part of the file's name: another layout of the tables starts another file."""
_TABLES = """
create table if not exists spaces (id integer primary key, identity text unique, model text);
create table if not exists entries (id integer primary key, key blob unique, space integer, used integer, size integer);
create table if not exists contents (
    id integer primary key references entries on delete cascade, content blob, checksum integer
);
"""
# `used` changes with each use, so it is in another table than the large contents.
_PAGE = 16_384  # bytes; in SQLite's default page of 4096, one embedding of 512 numbers would waste the other half
_OVERHEAD = 150  # bytes of an entry beside its content
_KEYS_PER_QUERY = 500  # below the limit on parameters of any build of SQLite (999)
_LOCK_TIMEOUT_S = 60.0
_LARGEST = 1 << 28  # bytes of one content, below the limit of SQLite
_WRITE_EVERY_S = 1.0
"""A commit waits for the disk, so the embeddings of a second share one. A killed process loses that second."""
_USED_EVERY_S = 3600
"""The time of use is stored to the hour, so that reading rarely writes."""
_GROUP = 32
"""Sounds that are looked up together."""
_AHEAD = 256
"""The most sounds that wait for one that is being embedded."""
_SETTLED_NS = 2 * 10**9
"""A file that changed more recently may change again without another time in the file system."""
_EVICTED = 10
"""When the cache is full, one part in this many is deleted: the entries that were not used for the longest time."""


def cache_folder() -> Path:
    """`$OPENCLAP_HOME/embeddings`."""
    return paths.home() / "embeddings"


def cache_size() -> int:
    """The limit of the cache in bytes: `$OPENCLAP_CACHE_SIZE`, such as "20 GB", or 10 GB; 0 turns the cache off.

    Raises ConfigError for anything else.
    """
    text = os.environ.get(SIZE_VARIABLE, "").strip()
    size = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?) *([KMGT]B|)", text.upper())
    if text and size is None:
        raise ConfigError(f"{SIZE_VARIABLE} is {text!r}, expected a size such as 20 GB, or 0 for no cache.")
    return int(float(size[1]) * UNITS[size[2]]) if size else DEFAULT_SIZE


@cache
def _note(sentence: str) -> None:
    """Log a sentence once per process."""
    log.warning(sentence)


# The file -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CachedSpace:
    """The cached embeddings of one model with one set of options.

    Attributes:
        number: identifies it in the file.
        made_by: what the embeddings depend on: see `identity_of`.
        model: the name by which the model was last loaded, if it is known.
        entries, size_bytes: their number and size.
        last_used: seconds since the epoch, to the hour.
    """

    number: int
    made_by: Mapping[str, str]
    model: str
    entries: int
    size_bytes: int
    last_used: int


class CacheFile:
    """Contents by key in a bounded SQLite file, shared by processes. An error turns it off, and is logged once.

    Attributes:
        folder: holds the file, and those that were set aside.
        limit: bytes; when the file exceeds them, the entries that were not used for the longest time are deleted.
    """

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self.folder, self.limit = folder, cache_size() if limit is None else limit
        self._path = folder
        self._database: sqlite3.Connection | None = None
        self._is_second = False
        self._pending: dict[bytes, tuple[str, str, bytes]] = {}  # key -> identity, model, content
        self._written_s = time.monotonic()
        if self.limit:
            self._open()

    @property
    def is_open(self) -> bool:
        """Whether contents are stored."""
        return self._database is not None

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The contents that are stored and undamaged."""
        found = {key: self._pending[key][2] for key in keys if key in self._pending}
        rows = self._select("id, key, used, content, checksum from entries join contents using (id) where key in", keys)
        rarely_used = []
        now = int(time.time())
        for entry, key, used, content, checksum in rows:
            if isinstance(content, bytes) and _checksum(key, content) == checksum:
                found.setdefault(key, content)
                if not isinstance(used, int) or abs(now - used) >= _USED_EVERY_S:
                    rarely_used.append((now, entry))
        if rarely_used:
            self._run(lambda database: database.executemany("update entries set used = ? where id = ?", rarely_used))
        return found

    def add(self, identity: str, model: str, contents: Mapping[bytes, bytes]) -> None:
        """Store contents in the space of this identity, within a second or when `write` is called."""
        fitting = {key: content for key, content in contents.items() if len(content) <= _LARGEST}
        if self.is_open:
            self._pending |= {key: (identity, model, content) for key, content in fitting.items()}
        if time.monotonic() - self._written_s >= _WRITE_EVERY_S:
            self.write()

    def write(self) -> None:
        """Store the new contents in one transaction, and delete old ones if there is no room for them."""
        if self._pending:
            self._run(self._insert)
        self._pending.clear()
        self._written_s = time.monotonic()

    def spaces(self) -> list[CachedSpace]:
        """What the file holds, the most recently used first."""
        select = (
            "select spaces.id, identity, model, count(*), sum(cast(size as integer)), "
            "max(cast(used as integer)) as last from spaces join entries on space = spaces.id "
            "group by spaces.id order by last desc, spaces.id"
        )
        rows = self._run(lambda database: database.execute(select).fetchall()) or []
        return [CachedSpace(number, _facts(identity), *facts) for number, identity, *facts in rows]

    def clear(self, is_chosen: Callable[[CachedSpace], bool] = lambda space: True) -> int:
        """Delete the entries of these spaces, and files that were set aside; return the number of entries."""
        chosen = [space for space in self.spaces() if is_chosen(space)]
        numbers = [(space.number,) for space in chosen]
        self._run(lambda database: database.executemany("delete from entries where space = ?", numbers))
        # Not `execute`, which stops after one page.
        self._run(lambda database: database.executescript("pragma incremental_vacuum"))
        if self.is_open:
            for path in self._paths()[:-1]:
                for file in (path, path.with_name(f"{path.name}-journal")):
                    file.unlink(missing_ok=True)
        return sum(space.entries for space in chosen)

    def close(self) -> None:
        """Store the new contents and close the file."""
        self.write()
        if self._database is not None:
            self._database.close()
        self._database = None

    def _select(self, columns: str, keys: Sequence[bytes]) -> list[tuple[Any, ...]]:
        def read(database: sqlite3.Connection) -> list[tuple[Any, ...]]:
            rows: list[tuple[Any, ...]] = []
            for start in range(0, len(keys), _KEYS_PER_QUERY):
                part = keys[start : start + _KEYS_PER_QUERY]
                rows += database.execute(f"select {columns} ({','.join('?' * len(part))})", part).fetchall()
            return rows

        return self._run(read) or []

    def _insert(self, database: sqlite3.Connection) -> None:
        now = int(time.time())
        spaces = {
            identity: _space(database, identity, model)
            for identity, model in dict.fromkeys((identity, model) for identity, model, _ in self._pending.values())
        }
        database.executemany("delete from entries where key = ?", [(key,) for key in self._pending])  # damaged ones
        for key, (identity, _, content) in self._pending.items():
            insert = "insert into entries (key, space, used, size) values (?, ?, ?, ?)"
            entry = database.execute(insert, (key, spaces[identity], now, len(content) + _OVERHEAD)).lastrowid
            database.execute("insert into contents values (?, ?, ?)", (entry, content, _checksum(key, content)))
        pages, free = (database.execute(f"pragma {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
        if (excess := (pages - free) * _PAGE - self.limit) > 0:
            older = "select id, sum(size) over (order by used, id) - size as before from entries"
            delete = f"delete from entries where id in (select id from ({older}) where before < ?)"
            database.execute(delete, (excess + self.limit // _EVICTED,))

    def _paths(self) -> list[Path]:
        """The files, the one in use last."""
        numbered = re.compile(rf"v{_FORMAT}-(\d+)\.sqlite")
        found = {int(match[1]): path for path in self.folder.iterdir() if (match := numbered.fullmatch(path.name))}
        return [found[number] for number in sorted(found)]

    def _open(self, *, damaged: Path | None = None) -> None:
        """Open the file with the highest number, or the next one if that file is damaged."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            existing = self._paths()
            number = int(existing[-1].stem.partition("-")[2]) if existing else 0
            number += bool(existing and existing[-1] == damaged)
            self._path = self.folder / f"v{_FORMAT}-{number}.sqlite"
            self._database = sqlite3.connect(self._path, timeout=_LOCK_TIMEOUT_S)
            self._run(_prepare)
        except OSError as error:
            self._turn_off(error.strerror or str(error))
        except sqlite3.Error as error:
            self._turn_off(str(error))

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """Run `work` in a transaction; again on a new file if this one is damaged. None without a usable file."""
        for _ in range(2):
            if self._database is None:
                return None
            try:
                with self._database as database:
                    return work(database)
            except sqlite3.Error as error:
                if _is_damage(error):
                    self._set_aside(str(error))
                else:
                    self._turn_off(str(error))
        return None

    def _set_aside(self, reason: str) -> None:
        if self._is_second:  # a new file is not damaged, so the cause is another one
            self._turn_off(reason)
            return
        self._is_second = True
        _note(f"{self._path}: this cache of embeddings is damaged ({reason}). A new one is used in its place.")
        if self._database is not None:
            self._database.close()
        self._open(damaged=self._path)

    def _turn_off(self, reason: str) -> None:
        _note(f"{self.folder}: embeddings cannot be cached there ({reason}). openclap works without the cache.")
        self._pending.clear()
        if self._database is not None:
            self._database.close()
        self._database = None


def _prepare(database: sqlite3.Connection) -> None:
    # Text that is no UTF-8 must be read as damage, and not raise while rows are read.
    database.text_factory = lambda text: text.decode("utf-8", "replace")
    # A rollback journal: WAL mode needs shared memory, so hosts that share a home would damage the file.
    for setting in (f"page_size={_PAGE}", "auto_vacuum=incremental", "journal_mode=truncate", "foreign_keys=on"):
        database.execute(f"pragma {setting}").fetchall()
    database.executescript(_TABLES)


def _space(database: sqlite3.Connection, identity: str, model: str) -> int:
    """The number of a space, which is created if it is new."""
    database.execute(
        "insert into spaces (identity, model) values (?, ?) on conflict (identity) "
        "do update set model = excluded.model where excluded.model <> ''",
        (identity, model),
    )
    [(number,)] = database.execute("select id from spaces where identity = ?", (identity,))
    return int(number)


def _facts(identity: str) -> dict[str, str]:
    try:
        return dict(json.loads(identity))
    except (ValueError, TypeError):
        return {}  # damaged


def _is_damage(error: sqlite3.Error) -> bool:
    """Whether an error means a damaged file or foreign tables in it, not a locked file or a full disk."""
    is_operational = isinstance(error, sqlite3.OperationalError)
    return not is_operational or getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR


def _checksum(key: bytes, content: bytes) -> int:
    """Covers the key as well, so that a damaged table cannot give an entry another one's content."""
    return zlib.crc32(content, zlib.crc32(key))


# The embeddings of one model ------------------------------------------------------------------------------------------


def identity_of(embedder: Any, vectors: str = "whole sounds") -> dict[str, str] | None:
    """Everything beside the input that embeddings depend on. None where the embedder does not state it.

    Args:
        vectors: which part of a sound a vector stands for, and whether it is normalised.
    """
    try:
        # The digest covers weights, preset, version of the clip policy, channel and silent ends.
        digest, runtime, policy = embedder.digest(), embedder.runtime.name, embedder.clip_policy
    except AttributeError:
        return None
    stated = {"digest": digest, "runtime": runtime, "clip policy": policy}
    return stated | {"decoders": decoder_version(), "vectors": vectors}


@dataclass(frozen=True, slots=True)
class _Lookup:
    """A sound, its name in the cache ("" without one), its stamp if it is a file, and its cached embedding."""

    sound: Sound
    name: str
    stamp: FileStamp | None
    found: Any


class EmbeddingCache:
    """The cached embeddings of one model with one set of options.

    Attributes:
        made_by: what the embeddings depend on: see `identity_of`.
        identity: the same as JSON.
        file: the file for all models.
        hits: the number of sounds that `embed_each` found.
    """

    def __init__(self, made_by: Mapping[str, str], model: str = "", folder: Path | None = None) -> None:
        self.made_by, self.model = dict(made_by), model
        self.identity = json.dumps(self.made_by, sort_keys=True)
        self.file = CacheFile(cache_folder() if folder is None else folder)
        self.hits = 0

    def get(self, names: Sequence[str]) -> dict[str, Any]:
        """The `Embedded` of inputs that are cached. A name stands for an input, such as the SHA-256 of a sound."""
        keys = {_key(self.identity, name): name for name in names}
        return {keys[key]: _decode(content) for key, content in self.file.get(list(keys)).items()}

    def add(self, embeddings: Iterable[tuple[str, Embedded]]) -> None:
        """Store the embeddings of inputs in one transaction."""
        self._add_soon(embeddings)
        self.file.write()

    def embed_texts(
        self, texts: Sequence[str], embed: Callable[[list[str]], NDArray[np.float32]], tokenizer: Any
    ) -> NDArray[np.float32]:
        """(N, D) embeddings of texts; `embed` gets those that are not cached, each once.

        Args:
            tokenizer: what the model reads text with. The identity of the cache does not cover it.
        """
        by = hashlib.sha256(f"{getattr(tokenizer, 'context', '')}{getattr(tokenizer, 'definition', '')}".encode())
        names = [hashlib.sha256(by.digest() + b"text:" + text.encode()).hexdigest() for text in texts]
        embeddings = self.get(names)
        missing = {name: text for name, text in zip(names, texts, strict=True) if name not in embeddings}
        if missing:
            # Sorted, so that a text's batch does not depend on the order of the others.
            in_order = sorted(missing, key=missing.__getitem__)
            new = dict(zip(in_order, embed([missing[name] for name in in_order]), strict=True))
            self.add(new.items())
            embeddings |= new
        return np.stack([embeddings[name] for name in names])

    def hash_file(self, path: str | os.PathLike[str]) -> str:
        """The SHA-256 of a file, which is read only if it changed since the last call. Raises OSError."""
        return self._hash_file(path)[0]

    def embed_each(self, sounds: Iterable[Sound], embed: EmbedSounds) -> Iterator[Any]:
        """Yield what `embed` yields for each sound, in order; sounds that are cached do not reach it.

        A cached embedding is bit for bit the one that was computed. Those of other sounds may differ from a run without
        the cache as far as `embed` depends on batches (within 1e-5 in fp32). Errors are not cached.
        """
        rest = self._look_up(sounds)
        try:
            for first in rest:
                if first.found is None:
                    yield from self._embed(chain([first], rest), embed)
                else:
                    yield first.found
        finally:
            self.file.write()

    def _embed(self, rest: Iterator[_Lookup], embed: EmbedSounds) -> Iterator[Any]:
        """Embed sounds in one stream, in which cached ones wait for their turn, until too many wait."""
        waiting: deque[_Lookup] = deque()

        def missing() -> Iterator[Sound]:
            for lookup in rest:
                waiting.append(lookup)
                if lookup.found is None:
                    yield lookup.sound
                elif len(waiting) >= _AHEAD:
                    return

        for result in embed(missing()):
            while waiting[0].found is not None:
                yield waiting.popleft().found
            lookup = waiting.popleft()
            # A file that was changed after it was hashed may not have been embedded as it was hashed.
            if lookup.name and not isinstance(result, AudioError) and _is_unchanged(lookup):
                self._add_soon([(lookup.name, result)])
            yield result
        yield from (lookup.found for lookup in waiting)

    def _look_up(self, sounds: Iterable[Sound]) -> Iterator[_Lookup]:
        rest = iter(sounds)
        while group := list(islice(rest, _GROUP)):
            named = [(sound, *self._name(sound)) for sound in group]
            found = self.get([name for _, name, _ in named if name])
            self.hits += sum(name in found for _, name, _ in named)
            yield from (_Lookup(sound, name, stamp, found.get(name)) for sound, name, stamp in named)

    def _name(self, sound: Any) -> tuple[str, FileStamp | None]:
        """The SHA-256 of a sound, and the stamp of a file; "" for a sound that cannot be read, or only once."""
        try:
            if isinstance(sound, str | os.PathLike):
                return self._hash_file(sound)
            if isinstance(sound, io.BytesIO):
                sound = sound.getvalue()
            if isinstance(sound, tuple):
                wave, rate = np.ascontiguousarray(sound[0]), sound[1]
                sound = f"{wave.dtype.str} {wave.shape} {rate}\n".encode() + wave.tobytes()
            if isinstance(sound, bytes | bytearray | memoryview):
                return hashlib.sha256(sound).hexdigest(), None
        except (OSError, ValueError, TypeError):
            pass  # embedding it raises the error
        return "", None

    def _hash_file(self, path: str | os.PathLike[str]) -> tuple[str, FileStamp]:
        stamp = _stamp(path)
        key = _key(_HASHES, f"{os.path.abspath(path)}\n{stamp}")  # noqa: PTH100 (resolve() reads the disk)
        if known := self.file.get([key]):
            return known[key].hex(), stamp
        with Path(path).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256")
        if time.time_ns() - max(stamp[1:]) > _SETTLED_NS and _stamp(path) == stamp:
            self.file.add(_HASHES, "", {key: sha256.digest()})
        return sha256.hexdigest(), stamp

    def _add_soon(self, embeddings: Iterable[tuple[str, Embedded]]) -> None:
        contents = {_key(self.identity, name): _encode(embedding) for name, embedding in embeddings}
        self.file.add(self.identity, self.model, contents)


_HASHES = json.dumps({"vectors": "hashes of files"})
"""The identity of the space of file hashes: a path and its stamp to the SHA-256 of its content."""


def _stamp(path: str | os.PathLike[str]) -> FileStamp:
    status = os.stat(path)  # noqa: PTH116 (the path may be a string)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _is_unchanged(lookup: _Lookup) -> bool:
    try:
        return lookup.stamp is None or _stamp(lookup.sound) == lookup.stamp  # type: ignore[arg-type]
    except OSError:
        return False


def _key(identity: str, name: str) -> bytes:
    return hashlib.sha256(f"{identity}\n{name}".encode("utf-8", "surrogateescape")).digest()


def _encode(embedding: Embedded) -> bytes:
    """The number of windows (0 for a whole sound), the times in seconds, and the vectors; little-endian."""
    if isinstance(embedding, list):
        times = np.array([(window.start_s, window.end_s) for window in embedding], "<f8")
        vectors = np.array([window.vector for window in embedding], "<f4")
        return np.array(len(embedding), "<u4").tobytes() + times.tobytes() + vectors.tobytes()
    return bytes(4) + np.ascontiguousarray(embedding, "<f4").tobytes()


def _decode(content: bytes) -> Embedded:
    count = int(np.frombuffer(content, "<u4", 1)[0])
    if not count:
        return np.frombuffer(content, "<f4", offset=4)
    times = np.frombuffer(content, "<f8", 2 * count, 4).reshape(count, 2)
    vectors = np.frombuffer(content, "<f4", offset=4 + times.nbytes).reshape(count, -1)
    return [Window(start, end, vector) for (start, end), vector in zip(times.tolist(), vectors, strict=True)]
