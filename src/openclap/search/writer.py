"""Every change of an index, under its write lock. See `Index.writing`.

The order makes readers and killed processes safe: vectors are stored before the files that need them, and files are
removed before their vectors. Each step is one atomic commit of LanceDB.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

from openclap.errors import DataError
from openclap.search.paths import is_storable
from openclap.search.rows import FileRow, among, file_rows, files_table, windows_table
from openclap.types import Window

# A reader uses a version for one query; data of older versions alone can be deleted after this time.
_KEEP_VERSIONS = timedelta(minutes=10)
_COMMITS_PER_CHECK = 16
_FRAGMENTS = 64
_ROWS_PER_FRAGMENT = 1000


class IndexWriter:
    """Writes to an open index. `storage` turns errors of LanceDB into DataError."""

    def __init__(
        self, files: Any, windows: Any, dim: int, storage: Callable[[str], AbstractContextManager[None]]
    ) -> None:
        self._files = files
        self._windows = windows
        self._dim = dim
        self._storage = storage
        self._commits = 0
        self._contents = self._distinct(windows)

    @property
    def contents(self) -> Collection[str]:
        """The hashes of contents with stored vectors."""
        return self._contents

    def known(self) -> dict[str, FileRow]:
        """Every file of the index by path."""
        with self._storage("read"):
            return {row.path: row for row in file_rows(self._files.search().to_arrow())}

    def put(self, files: Sequence[FileRow], windows: Mapping[str, Sequence[Window]]) -> None:
        """Store `files`, each in place of the row with its path, and the windows of contents that are new.

        Raises DataError when a file has no vectors here or in the index, or its path is not text, and what
        `rows.windows_table` raises; then nothing is written.
        """
        rows = list({row.path: row for row in files}.values())
        new = {digest: found for digest, found in windows.items() if digest not in self._contents}
        for row in rows:
            if not is_storable(row.path):
                raise DataError(f"{row.path!r} is not valid UTF-8, so the index cannot hold it. Rename the file.")
            if row.hash not in new and row.hash not in self._contents:
                raise DataError(f"{row.path} has no windows, new or stored. Embed it before adding it.")
        vectors, facts = windows_table(new, self._dim), files_table(rows)
        with self._storage("written"):
            if vectors.num_rows:
                self._windows.add(vectors)
                self._contents.update(new)
            if rows:
                upsert = self._files.merge_insert("path").when_matched_update_all().when_not_matched_insert_all()
                upsert.execute(facts)
        self._commits += 1
        if self._commits % _COMMITS_PER_CHECK == 0:
            self.compact()

    def drop(self, paths: Collection[str]) -> None:
        """Take files out of the index. Their vectors stay until `prune`, so a moved file can find them."""
        with self._storage("written"):
            for condition in among("path", paths):
                self._files.delete(condition)

    def prune(self) -> None:
        """Remove the vectors that no file uses any more."""
        orphans = self._contents - self._distinct(self._files)
        with self._storage("written"):
            for condition in among("hash", orphans):
                self._windows.delete(condition)
        self._contents -= orphans

    def compact(self) -> None:
        """Merge the small pieces that commits leave, where there are many for their number of rows."""
        with self._storage("written"):
            for table in (self._files, self._windows):
                pieces = table.stats()["fragment_stats"]["num_fragments"]
                if pieces > _FRAGMENTS + table.count_rows() // _ROWS_PER_FRAGMENT:
                    table.optimize(cleanup_older_than=_KEEP_VERSIONS)

    def _distinct(self, table: Any) -> set[str]:
        with self._storage("read"):
            batches = table.search().select(["hash"]).to_batches()
            return {digest for batch in batches for digest in batch.column("hash").unique().to_pylist()}
