"""Change an index, under its write lock (see `Index.writing`).

The order of steps protects readers, and the index if the process is killed: vectors are stored before the files that
need them, and files are removed before their vectors. Each step is one atomic commit of LanceDB.

A shared writer has the lock for each change only, so several processes that embed different files take turns. At each
turn it reads the contents that others have stored since its last one, and stores none twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from openclap.errors import DataError
from openclap.search.keywords import KeywordIndex
from openclap.search.paths import is_storable, prefixes
from openclap.search.place import CheckLock, IndexPlace
from openclap.search.rows import FileRow, among, file_rows, files_table, quoted, windows_table
from openclap.types import Window

_COMMITS_PER_CHECK = 16
"""Commits between two checks for small fragments."""
_WINDOWS_PER_REFRESH = 20_000
"""New windows after which the snapshot is brought up to date in the middle of a series of changes."""
_FRAGMENTS = 64
_ROWS_PER_FRAGMENT = 1000
"""Fragments are merged when there are more than _FRAGMENTS, plus one for each _ROWS_PER_FRAGMENT rows."""
_ROW = "_rowid"
"""LanceDB's number of a row, which grows with each commit: also rows that a compaction rewrites get higher ones."""


class IndexWriter:
    """Writes to an open index.

    `storage` turns errors of LanceDB into DataError; `keywords` follow the table of files; `refresh` updates the
    snapshot; `lock` is entered for each change.
    """

    def __init__(
        self,
        files: Any,
        windows: Any,
        dim: int,
        storage: Callable[[str], AbstractContextManager[None]],
        *,
        place: IndexPlace,
        keywords: KeywordIndex,
        refresh: Callable[[], None],
        lock: Callable[[], AbstractContextManager[CheckLock]],
        shared: bool,
    ) -> None:
        self._files = files
        self._windows = windows
        self._dim = dim
        self._storage = storage
        self._place, self._keywords = place, keywords
        self._refresh = refresh
        self._lock, self._shared = lock, shared
        self._commits = self._unrefreshed = 0
        self._contents, self._next_row, self._seen = set[str](), 0, -1
        self._read_contents()

    def _read_contents(self) -> None:
        """Read the hashes of the contents that were stored since the last call."""
        with self._storage("read"):
            version = self._windows.version
            if version == self._seen:
                return
            search = self._windows.search().select(["hash", _ROW])
            for batch in search.where(f"{_ROW} >= {self._next_row}").to_batches():
                self._contents.update(batch.column("hash").unique().to_pylist())
                if batch.num_rows:
                    self._next_row = max(self._next_row, int(batch.column(_ROW).to_numpy().max()) + 1)
            self._seen = version

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Have the lock for one change."""
        with self._lock() as check:
            check()
            if self._shared:
                self._read_contents()
            yield

    @property
    def contents(self) -> Collection[str]:
        """The hashes of contents with stored vectors."""
        return self._contents

    def known(
        self, within: Collection[str] | None = None, only: Callable[[str], bool] | None = None
    ) -> dict[str, FileRow]:
        """Every file of the index by path; or those that are among the paths `within`, or below one, and for which
        `only` returns true."""
        conditions = [None] if within is None else [*among("path", within), *map(_below, prefixes(within))]
        with self._storage("read"):
            searches = [self._files.search() for _ in conditions]
            found = [
                search.where(condition) if condition else search
                for search, condition in zip(searches, conditions, strict=True)
            ]
            batches = (batch for search in found for batch in search.to_batches())
            return {row.path: row for batch in batches for row in file_rows(_filtered(batch, only))}

    def put(self, files: Sequence[FileRow], windows: Mapping[str, Sequence[Window]]) -> None:
        """Store `files`, each replacing the row with its path, and the windows of new contents.

        Raises DataError when the disk is almost full, when a file has no vectors here or in the index or its path is
        not valid UTF-8, and as `rows.windows_table`; then nothing is written.
        """
        rows = list({row.path: row for row in files}.values())  # the last row of a path: the upsert needs unique keys
        for row in rows:
            if not is_storable(row.path):
                raise DataError(f"{row.path!r} is not valid UTF-8, so the index cannot hold it. Rename the file.")
        facts, known = files_table(rows), len(self._contents)
        vectors = self._new_windows(windows)
        with self.turn():
            if len(self._contents) != known:  # stored by another process meanwhile
                vectors = self._new_windows(windows)
            if missing := [row for row in rows if row.hash not in windows and row.hash not in self._contents]:
                raise DataError(f"{missing[0].path} has no windows, new or stored. Embed it before adding it.")
            self._place.check_space(vectors.nbytes + facts.nbytes)
            with self._storage("written"):
                if vectors.num_rows:
                    self._windows.add(vectors)
                    self._contents.update(windows)
                if rows:
                    before = self._files.version
                    upsert = self._files.merge_insert("path").when_matched_update_all().when_not_matched_insert_all()
                    upsert.execute(facts)
                    self._keywords.update(rows, [], before=before, after=self._files.version)
            self._commits += 1
            if self._commits % _COMMITS_PER_CHECK == 0:
                self._compact()
            self._unrefreshed += vectors.num_rows
            if self._unrefreshed >= _WINDOWS_PER_REFRESH:
                self._refresh()
                self._unrefreshed = 0

    def _new_windows(self, windows: Mapping[str, Sequence[Window]]) -> Any:
        """A table of the windows of contents that are not stored yet."""
        new = {digest: of_content for digest, of_content in windows.items() if digest not in self._contents}
        return windows_table(new, self._dim)

    def drop(self, paths: Collection[str]) -> None:
        """Remove files. Their vectors stay until `prune`, so that a moved file can use them."""
        if not paths:
            return
        with self.turn(), self._storage("written"):
            before = self._files.version
            for condition in among("path", paths):
                self._files.delete(condition)
            self._keywords.update([], paths, before=before, after=self._files.version)

    def relocate(self, old: str, new: str) -> None:
        """Replace the prefix `old` of paths by `new`, in one commit."""
        with self.turn(), self._storage("written"):
            before = self._files.version
            path = f"concat({quoted(new)}, substr(path, {len(old) + 1}))"
            self._files.update(where=_below(old), values_sql={"path": path})
            self._keywords.update([], [], before=before, after=self._files.version, moved=(old, new))

    def finish(self) -> None:
        """Make the keywords again if they are not those of the table of files."""
        with self._storage("read"):
            version = self._files.version
            if self._keywords.version() != version:
                batches = self._files.search().to_batches()
                self._keywords.rebuild((row for batch in batches for row in file_rows(batch)), version)

    def prune(self) -> None:
        """Remove the vectors that belong to no file."""
        with self.turn():
            orphans = self._contents - self._distinct(self._files)
            with self._storage("written"):
                for condition in among("hash", orphans):
                    self._windows.delete(condition)
            self._contents -= orphans

    def compact(self) -> None:
        """Merge the fragments of a table when there are too many: each commit adds one, and queries open them all."""
        with self.turn():
            self._compact()

    def _compact(self) -> None:
        with self._storage("written"):
            for table in (self._files, self._windows):
                fragments = table.stats()["fragment_stats"]["num_fragments"]
                if fragments > _FRAGMENTS + table.count_rows() // _ROWS_PER_FRAGMENT:
                    self._merge(table)

    def merge(self) -> None:
        """Merge the fragments of both tables."""
        with self.turn(), self._storage("written"):
            for table in (self._files, self._windows):
                self._merge(table)

    def _merge(self, table: Any) -> None:
        before = self._files.version
        table.optimize(cleanup_older_than=self._place.keep_versions)
        self._keywords.update([], [], before=before, after=self._files.version)

    def _distinct(self, table: Any) -> set[str]:
        with self._storage("read"):
            batches = table.search().select(["hash"]).to_batches()
            return {digest for batch in batches for digest in batch.column("hash").unique().to_pylist()}


def _filtered(files: Any, only: Callable[[str], bool] | None) -> Any:
    """The rows of an Arrow batch whose paths are wanted."""
    import pyarrow as pa

    return files.filter(pa.array(map(only, files["path"].to_pylist()), pa.bool_())) if only else files


def _below(prefix: str) -> str:
    """An SQL filter for paths with this prefix."""
    return f"starts_with(path, {quoted(prefix)})"
