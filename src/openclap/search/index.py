"""A search index: sound files, and the embeddings of their windows, in a folder or in object storage. D embedding.

    index = Index.open_or_create(folder, IndexIdentity(digest, "mini", dim=512, length_s=10, hop_s=10))
    index.search(query_D, k=5)

Any number of processes may search while one writes. Of an index in a folder nothing outside is written, and searching
writes nothing at all. Of one in object storage, a search keeps a snapshot under openclap's home.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any, Literal

import numpy as np

from openclap.errors import ConfigError, DataError
from openclap.locks import only_writer
from openclap.search import folder as _folder
from openclap.search import snapshot as _snapshot
from openclap.search import snapshot_tables as _tables
from openclap.search import snapshot_writer as _writer
from openclap.search.exact import Candidates, best_hits
from openclap.search.folder import IndexHeader, IndexIdentity
from openclap.search.hits import Hits, SearchInfo
from openclap.search.keywords import KeywordIndex, in_memory
from openclap.search.paths import absolute, is_storable, prefixes, relocated
from openclap.search.place import CheckLock, IndexPlace, TableVersion, place_of
from openclap.search.ranking import Bools, View, arrow_booleans
from openclap.search.rows import (
    FileRow,
    FloatArray,
    among,
    file_rows,
    files_schema,
    having,
    older_files_schemas,
    unit_vector,
    windows_schema,
    with_relocated_paths,
)
from openclap.search.writer import IndexWriter
from openclap.types import Hit, Window

__all__ = ["FileRow", "Hits", "Index", "IndexIdentity", "Mask", "SearchInfo"]

_WINDOW = ["hash", "start_s", "end_s", "vector"]
"""The columns of a window that a search reads."""
_LOOK_UP_AT_MOST = 4000
"""Contents whose files are looked up by hash; for more, reading the whole table is faster."""
_MIRRORING_TAKES_S = 60.0
"""Wait for another process of this machine that reads the same index from object storage."""
_TURN_TAKES_S = 600.0
"""Longest wait of a shared writer for its turn."""
_NEWER_AT_MOST = 65_536
"""Windows that a search reads from the tables because the snapshot lacks them; for more it searches the tables."""
_SAME_TIME_S = 1e-3

Mask = Bools | Callable[[Any], Bools]
"""Whether each file may be a hit: booleans in the order of `Index.facts()`, or a function of that table."""


def _every(_: FileRow) -> bool:
    return True


class Index:
    """An open index. Create one with `create`, `open` or `open_or_create`.

    Attributes:
        place: where it is stored.
        identity: the model and the options of its embeddings.
    """

    def __init__(self, place: IndexPlace, identity: IndexIdentity) -> None:
        self.place = place
        self.identity = identity
        self._storage = partial(_folder.storage, place)
        self._viewing = Lock()
        self._view: View | None = None
        self._viewed: tuple[dict[str, TableVersion], object] | None = None
        self._checked_s = -1.0
        self._note = ""
        if not self._has_snapshot():
            self._open_tables()

    @property
    def folder(self) -> Path:
        """The folder of snapshot and keywords: the index itself, or, of one in object storage, its cache here."""
        return self.place.folder

    @property
    def address(self) -> str:
        """The folder or URL with which the index is opened again."""
        return self.place.address

    def _has_snapshot(self) -> bool:
        """Whether a search may do without LanceDB, which takes most of a second to import."""
        try:
            header = _snapshot.read_header(self.folder)
            self.place.newest_versions()
        except DataError:
            return False
        return header is not None and header.dim == self.identity.dim

    def _open_tables(self) -> None:
        _ = self._files, self._windows

    @cached_property
    def _files(self) -> Any:
        return _folder.open_table(self.place, "files", files_schema(), *older_files_schemas())

    @cached_property
    def _windows(self) -> Any:
        return _folder.open_table(self.place, "windows", windows_schema(self.identity.dim))

    @classmethod
    def create(cls, address: str | Path, identity: IndexIdentity) -> Index:
        """Create an empty index in a folder, or at the URL of an object store.

        Raises DataError when there is an index already, or anything else, or it cannot be written.
        """
        place = place_of(address)
        _folder.create(place, identity)
        return cls(place, identity)

    @classmethod
    def open(cls, address: str | Path, identity: IndexIdentity | None = None) -> Index:
        """Open an index, and check that it was built with `identity`, if given.

        Raises DataError when it is missing, no index, damaged or of a newer format, and IndexMismatchError when the
        index was built with another model.
        """
        place = place_of(address)
        stored = _folder.read_header(place).identity
        if identity is not None:
            _folder.check_identity(place, stored, identity)
        return cls(place, stored)

    @classmethod
    def open_or_create(cls, address: str | Path, identity: IndexIdentity) -> Index:
        """Open the index, or create it if there is none. Raises as `open` and `create`."""
        if not cls.exists(address):
            try:
                return cls.create(address, identity)
            except DataError:
                if not cls.exists(address):  # otherwise another process created it in the meantime
                    raise
        return cls.open(address, identity)

    @staticmethod
    def exists(address: str | Path) -> bool:
        """Whether there is the header of an index; it may still be damaged."""
        return place_of(address).exists()

    def header(self) -> IndexHeader:
        """The content of `index.json` as it is now. Raises DataError when it cannot be read."""
        return _folder.read_header(self.place)

    def write_header(self, header: IndexHeader) -> None:
        """Replace `index.json`, under the write lock. Raises DataError when it cannot be written."""
        with self._storage("written"):
            _folder.write_header(self.place, header)

    def check(self, identity: IndexIdentity) -> None:
        """Raise IndexMismatchError when embeddings of `identity` cannot be compared with those stored."""
        _folder.check_identity(self.place, self.identity, identity)

    def count(self) -> tuple[int, int]:
        """The numbers of files and of windows."""
        with self._storage("read"):
            return self._files.count_rows(), self._windows.count_rows()

    @property
    def has_metadata(self) -> bool:
        """Whether the table of files has columns for metadata, which format 1 lacks."""
        with self._storage("read"):
            return "metadata_version" in self._files.schema.names

    def window_batches(self) -> Iterator[Any]:
        """All windows in Arrow batches of `rows.windows_schema`."""
        with self._storage("read"):
            yield from self._windows.search().to_batches()

    def find_by_keywords(self, query: str, limit: int, allowed: Collection[str] | None = None) -> list[str]:
        """Paths of files by the words of their names and facts, best first; see `KeywordIndex.search`.

        Raises ConfigError for limit < 1.
        """
        if limit < 1:
            raise ConfigError(f"limit is {limit}, expected 1 file or more.")
        keywords = self._keywords()
        if keywords.version() is not None:
            return keywords.search(query, limit, allowed)
        return in_memory(file_rows(self.facts()), query, limit, allowed)

    def _keywords(self) -> KeywordIndex:
        keywords = KeywordIndex(self.folder)
        if not self.place.is_local:
            self._mirror_keywords(keywords)
        return keywords

    def _mirror_keywords(self, keywords: KeywordIndex) -> None:
        """Make the keywords of an index in object storage on this machine, unless they are up to date."""
        self._current()
        with self._viewing:
            view, viewed = self._view, self._viewed
        if view is None or viewed is None or keywords.version() == viewed[0]["files"].number:
            return
        with suppress(OSError, DataError), only_writer(self.folder, timeout_s=_MIRRORING_TAKES_S):
            keywords.rebuild(file_rows(view.live_facts), viewed[0]["files"].number)

    def rare_words(self, query: str, share: float) -> list[str]:
        """The words of a query that are in names or facts of some files, and of no more than a share of all; none in an
        index without the database of keywords."""
        view = self._current()
        files = int(view.is_live_F.sum()) if view else self.count()[0]
        return self._keywords().rare_words(query, int(share * files))

    def files_by_path(self) -> dict[str, FileRow]:
        """The rows of all files, by the paths that they have now."""
        return {row.path: row for row in file_rows(self.with_present_paths(self.facts()))}

    def files(self, paths: Collection[str]) -> dict[str, FileRow]:
        """The rows of files by path, without those that the index does not have.

        Where a root moved together with the index, paths may be the present ones, and the rows then have those.
        """
        stored = self.stored_paths(paths)
        rows = {row.path: row for row in self._rows_having("path", stored.values())}
        return {path: replace(rows[old], path=path) for path, old in stored.items() if old in rows}

    def key_at_home(self) -> str:
        """The name of this index for data about it under openclap's home: the folder where it was made, so that one
        that moved, or was made again there, keeps them; of one in object storage, the folder of its cache."""
        return (self.place.is_local and self.header().first_folder) or str(self.folder)

    def present_files(self, hashes: Mapping[str, str | None]) -> dict[str, FileRow]:
        """The rows of files by former paths, with the paths that they have now.

        Args:
            hashes: the contents of the files, by path; None for an unknown one. A file that is at its path no more is
                found by its content; of several, the one that comes first.
        """
        moved = self.moved_roots()
        found = self.files(hashes)
        lost = {path: digest for path, digest in hashes.items() if path not in found and digest}
        copies = self._rows_having("hash", set(lost.values())) if lost else []
        first = {row.hash: row for row in sorted(copies, key=lambda row: row.path, reverse=True)}
        found |= {path: first[digest] for path, digest in lost.items() if digest in first}
        return {path: replace(row, path=relocated(row.path, moved)) for path, row in found.items()}

    def stored_paths(self, paths: Iterable[str]) -> dict[str, str]:
        """The paths that the index stores, by those that files may have now; others stay."""
        before = {new: old for old, new in self.moved_roots().items()}
        return {path: relocated(path, before) for path in paths}

    def with_present_paths(self, files: Any) -> Any:
        """An Arrow table of files with the paths that they have now: those below roots that moved are other ones."""
        return with_relocated_paths(files, self.moved_roots())

    def moved_roots(self) -> dict[str, str]:
        """The folders of roots that moved together with the index: where each is now, by its stored path."""
        if not self.place.is_local:
            return {}
        found = {root.path: root.found(self.place.own_folder) for root in self.header().roots}
        return {old: new for old, new in found.items() if old != new}

    def search(
        self,
        vector_D: Any,
        k: int,
        *,
        one_per_file: bool = True,
        include: Callable[[FileRow], bool] = _every,
        mask_F: Mask | None = None,
        offset: int = 0,
        exact: bool = False,
    ) -> Hits:
        """Find the k windows nearest to `vector_D` (D,) by cosine, best first, equal ones in the order of paths.

        Scores are exact for the stored float16 vectors. So are the hits of small indexes; in large ones, a sketch
        chooses the windows to score, and may miss one (`openclap index verify --recall` measures how many). The result
        is shorter than k only when there are no more windows. Its `info` says how it was found.

        Args:
            one_per_file: show each file once, with its best window. Files of equal content are separate hits.
            include: whether a file may be a hit; the fewer files it includes, the longer the search takes.
            mask_F: the same as booleans in the order of `facts()`, which takes no longer. As a function of that table,
                it is right even while another process writes.
            offset: hits to leave out at the beginning, for paging.
            exact: search the tables themselves, exactly.

        Raises ConfigError for k < 1, offset < 0 or a mask of another length, DataError for a query without a direction
        (NaN, infinity, zeros) or a damaged index, and IndexMismatchError for a query of another dimension.
        """
        if k < 1:
            raise ConfigError(f"k is {k}, expected 1 hit or more.")
        if offset < 0:
            raise ConfigError(f"offset is {offset}, expected 0 hits or more.")
        query_D = unit_vector(vector_D, self.identity.dim)
        view = None if exact else self._current()
        if view is None:
            return self._search_tables(query_D, k + offset, one_per_file, include, mask_F).from_offset(offset)
        ranked = view.best_hits(
            query_D,
            k + offset,
            one_per_file=one_per_file,
            include=None if include is _every else include,
            mask_F=None if mask_F is None else _mask(mask_F, view.live_facts),
        )
        method: Literal["sketch", "windows"] = "sketch" if view.sketch else "windows"
        return Hits(ranked.hits[offset:], SearchInfo(method, view.windows, ranked.scored, len(view.newer)))

    def _search_tables(
        self,
        query_D: FloatArray,
        k: int,
        one_per_file: bool,
        include: Callable[[FileRow], bool],
        mask_F: Mask | None,
    ) -> Hits:
        if mask_F is not None:
            facts = self.facts()
            mask = _mask(mask_F, facts)
            paths = set(facts["path"].filter(arrow_booleans(mask)).to_pylist())
            chosen = include
            include = lambda row: row.path in paths and chosen(row)  # noqa: E731
        total = self.count()[1]
        fetch = partial(self._nearest, query_D, total)
        hits = best_hits(query_D, k, total, fetch, self._files_of, one_per_file=one_per_file, include=include)
        return Hits(hits, SearchInfo("tables", total, total, note=self._note))

    def best_scores(self, vectors_BD: FloatArray) -> FloatArray | None:
        """The best cosine (B,) of each vector (B, D) in the snapshot; None without a useful snapshot, or windows."""
        view = self._current()
        if view is None or not view.windows:
            return None
        return view.best_scores(np.stack([unit_vector(vector_D, self.identity.dim) for vector_D in vectors_BD]))

    def facts(self) -> Any:
        """An Arrow table with the facts of all files: a row for each `FileRow`, in no particular order."""
        view = self._current()
        if view is not None:
            return view.live_facts
        with self._storage("read"):
            return self._files.search().to_arrow()

    def view(self) -> View:
        """All windows and files as they are now: mapped from the snapshot, or read into memory without a useful one."""
        if (view := self._current()) is not None:
            return view
        with self._storage("read"):
            return _tables.read_tables(self.place, self.identity.dim)

    def _current(self) -> View | None:
        """The view of the tables now, from the snapshot and the rows that are newer; None without a useful snapshot."""
        began_s = monotonic()
        with self._viewing, self._storage("read"):
            if self._checked_s >= began_s:  # by another thread, after this call began
                return self._view
            checked_s = monotonic()
            versions, stamp = self.place.newest_versions(), _snapshot.header_stamp(self.folder)
            if (versions, stamp) != self._viewed:
                self._view, self._viewed, self._note = None, None, ""
                try:
                    self._view, versions = self._read_view(versions)
                except _snapshot.SnapshotError as error:
                    self._note = str(error)
                self._viewed = versions, stamp
            self._checked_s = checked_s
            return self._view

    def _read_view(self, versions: dict[str, TableVersion]) -> tuple[View, dict[str, TableVersion]]:
        if not self.place.is_local:
            self._mirror()
        stored = _snapshot.open_snapshot(self.folder, self.identity.dim)
        if stored.header.versions == versions:
            return _tables.view(stored), versions
        _tables.check_tables(self.place, stored, versions)
        self._open_tables()
        changes = _tables.read_changes(self.place, stored, _NEWER_AT_MOST)
        return _tables.view(stored, changes), changes.versions

    def _mirror(self) -> None:
        """Bring this machine's snapshot of an index in object storage up to date; searches go on without it."""
        with suppress(OSError, DataError), self._storage("read"):
            self.folder.mkdir(parents=True, exist_ok=True)
            with only_writer(self.folder, timeout_s=_MIRRORING_TAKES_S):
                _writer.refresh(self.place, self.identity.dim)

    def similar_to(self, path: str | Path, k: int, *, one_per_file: bool = True) -> list[Hit]:
        """Find the k sounds nearest to an indexed file, without the file itself; copies of it are included.

        Raises as `vector_of` and `search`.
        """
        [own] = self.stored_paths([absolute(path)]).values()
        return self.search(self.vector_of(own), k, one_per_file=one_per_file, include=lambda row: row.path != own)

    def vector_of(self, path: str | Path) -> FloatArray:
        """The embedding (D,) of an indexed file: the normalised mean of its windows' embeddings.

        Raises DataError when the file is not in the index.
        """
        name = absolute(path)
        rows = self.files([name]).values() if is_storable(name) else []
        with self._storage("read"):
            of_file = [
                self._windows.search().where(condition) for condition in among("hash", [row.hash for row in rows])
            ]
            parts = [part.vectors for query in of_file for part in self._candidates(query.select(_WINDOW))]
        if not parts:
            raise DataError(f"{name!r} is not in the index {self.place}. Add it first, or check the path.")
        return unit_vector(np.concatenate(parts).astype(np.float32).mean(axis=0), self.identity.dim)

    def window_vector(self, path: str, start_s: float, end_s: float | None) -> FloatArray | None:
        """The unit vector (D,) of the window of an indexed file with these times (None: the file's end), up to a
        thousandth of a second; None when there is no such window."""
        row = self.files([path]).get(path)
        if row is None:
            return None
        end = row.duration_s if end_s is None else end_s
        with self._storage("read"):
            [condition] = among("hash", [row.hash])
            for part in self._candidates(self._windows.search().where(condition).select(_WINDOW)):
                for start, stop, vector_D in zip(part.start_s, part.end_s, part.vectors, strict=True):
                    if abs(start - start_s) < _SAME_TIME_S and abs(stop - end) < _SAME_TIME_S:
                        return unit_vector(vector_D, self.identity.dim)
        return None

    def add(self, files: Sequence[FileRow], windows: Mapping[str, Sequence[Window]]) -> None:
        """Store files, each replacing the row with its path, and the windows of their contents by hash.

        Windows of a content that is stored already are not written again. Vectors are normalised. Raises as
        `IndexWriter.put`, and DataError when another process is writing.
        """
        with self.writing() as writer:
            writer.put(files, windows)
            writer.prune()

    def remove(self, paths: Iterable[str | Path]) -> int:
        """Remove files, and all files under folders, from the index, and return their number.

        Where a root moved together with the index, paths may be the present ones or those stored. The sound files
        themselves are not changed. Raises DataError when another process is writing.
        """
        names = {absolute(path) for path in paths}
        under = prefixes(names)

        def is_named(path: str) -> bool:
            return path in names or path.startswith(under)

        with self.writing() as writer:
            moved = self.moved_roots()
            gone = [path for path in writer.known() if is_named(path) or is_named(relocated(path, moved))]
            roots = names | {old for old, new in moved.items() if is_named(new)}
            self.write_header(self.header().without_roots(roots))
            writer.drop(gone)
            writer.prune()
            writer.compact()
        return len(gone)

    @contextmanager
    def writing(self, *, shared: bool = False) -> Iterator[IndexWriter]:
        """Lock the index for a series of changes; or, `shared`, for each of them, so that processes take turns.

        Raises LockedError when another process or thread has the lock; of shared writers, when it has had it for
        several minutes.
        """
        if shared:
            writer = self._writer(partial(self.place.writing, _TURN_TAKES_S), shared=True)
            yield writer
            with writer.turn():
                self._finish(writer)
            return
        with self.place.writing() as check:
            writer = self._writer(lambda: nullcontext(check), shared=False)
            yield writer
            self._finish(writer)

    def _writer(self, lock: Callable[[], AbstractContextManager[CheckLock]], *, shared: bool) -> IndexWriter:
        with lock():
            _folder.upgrade(self.place, self._files)
        return IndexWriter(
            self._files,
            self._windows,
            self.identity.dim,
            self._storage,
            place=self.place,
            keywords=KeywordIndex(self.folder),
            refresh=self._refresh,
            lock=lock,
            shared=shared,
        )

    def _finish(self, writer: IndexWriter) -> None:
        """Bring keywords and snapshot up to date; of an index in object storage, searches do so on each machine."""
        if self.place.is_local:
            writer.finish()
            self._refresh()

    def _refresh(self) -> None:
        """Bring the snapshot up to date. Without one, searches read the tables: so a full disk fails no addition."""
        if not self.place.is_local:
            return  # as in `_finish`
        with suppress(OSError, DataError), self._storage("written"):
            _writer.refresh(self.place, self.identity.dim)

    def optimize(self) -> None:
        """Remove vectors that belong to no file, merge the fragments of both tables, and make the snapshot anew.

        Merging holds the vectors in memory. Raises DataError when another process is writing, or the disk is full.
        """
        with self.writing() as writer:
            writer.prune()
            writer.merge()
            if self.place.is_local:
                with self._storage("written"):
                    _writer.rebuild(self.place, self.identity.dim)

    def without_windows(self) -> list[str]:
        """Paths of files whose vectors are missing: the index is damaged."""

        def hashes() -> dict[str, str]:
            table = self._files.search().select(["path", "hash"]).to_arrow()
            return dict(zip(table["path"].to_pylist(), table["hash"].to_pylist(), strict=True))

        with self._storage("read"):
            before = hashes()
            batches = self._windows.search().select(["hash"]).to_batches()
            contents = {digest for batch in batches for digest in batch.column("hash").unique().to_pylist()}
            missing = {path: digest for path, digest in before.items() if digest not in contents}
            after = hashes() if missing else {}  # a file may have been removed in between, and then its vectors
        return sorted(path for path, digest in missing.items() if after.get(path) == digest)

    def compare_snapshot(self, progress: Callable[[int], None]) -> int:
        """Compare the snapshot with the tables of files and windows, and return the number of windows compared.

        Raises DataError when they differ or the snapshot is damaged.
        """
        with self._storage("read"):
            try:
                stored = _snapshot.open_snapshot(self.folder, self.identity.dim)
            except _snapshot.SnapshotError:
                if _snapshot.header_stamp(self.folder) is None:
                    return 0
                raise
            _tables.compare_files(stored, self._files)
            return _tables.compare(stored, self._windows, progress)

    def sample(self, count: int, rng: np.random.Generator) -> FloatArray:
        """Vectors (count, D) of random windows."""
        total = self.count()[1]
        chosen = np.sort(rng.integers(0, total, count)).tolist()
        with self._storage("read"):
            batches = self._windows.take_offsets(chosen).select(_WINDOW).to_arrow().to_batches()
        parts = [batch.column("vector").flatten().to_numpy(zero_copy_only=False) for batch in batches]
        return np.concatenate(parts).reshape(-1, self.identity.dim).astype(np.float32)

    def _nearest(self, query_D: FloatArray, total: int, n: int) -> list[Candidates]:
        search = self._windows.search
        with self._storage("read"):
            if n >= total:
                return list(self._candidates(search().select(_WINDOW)))
            nearest = search(query_D, vector_column_name="vector").distance_type("cosine").limit(n)
            return list(self._candidates(nearest.select([*_WINDOW, "_distance"])))

    def _candidates(self, query: Any) -> Iterator[Candidates]:
        for batch in query.to_batches():
            vector_ND = batch.column("vector").flatten().to_numpy(zero_copy_only=False)
            yield Candidates(
                hashes=batch.column("hash").to_pylist(),
                start_s=batch.column("start_s").to_pylist(),
                end_s=batch.column("end_s").to_pylist(),
                vectors=vector_ND.reshape(-1, self.identity.dim),
            )

    def _files_of(self, hashes: Sequence[str]) -> dict[str, list[FileRow]]:
        files: dict[str, list[FileRow]] = {}
        wanted = set(hashes)
        conditions = among("hash", wanted) if len(wanted) <= _LOOK_UP_AT_MOST else ["true"]
        for row in self._rows(conditions):
            if row.hash not in wanted:
                continue
            files.setdefault(row.hash, []).append(row)
        return files

    def _rows_having(self, column: str, values: Collection[str]) -> list[FileRow]:
        """The rows of files with one of these texts in a column."""
        view = self._current()
        return self._rows(among(column, values)) if view is None else file_rows(having(view.live_facts, column, values))

    def _rows(self, conditions: Iterable[str]) -> list[FileRow]:
        with self._storage("read"):
            found = [self._files.search().where(condition).to_arrow() for condition in conditions]
        return [row for table in found for row in file_rows(table)]


def _mask(mask_F: Mask, facts: Any) -> Bools:
    """The mask of files. Raises ConfigError when its length is not that of `facts`."""
    values_F = np.asarray(mask_F(facts) if callable(mask_F) else mask_F)
    if values_F.dtype != np.bool_ or values_F.shape != (len(facts),):
        raise ConfigError(
            f"The mask of files is {values_F.dtype} of shape {values_F.shape}, expected {len(facts)} booleans. "
            "Make it from the table that Index.facts() returns, or pass a function of that table."
        )
    return values_F
