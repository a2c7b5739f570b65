"""A search index in a folder: sound files, and the embeddings of their windows. D embedding.

    index = Index.open_or_create(folder, IndexIdentity(digest, "mini", dim=512, length_s=10, hop_s=10))
    index.search(query_D, k=5)

Any number of processes may search while one writes. Nothing outside the folder is written.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from openclap.errors import ConfigError, DataError
from openclap.search import folder as _folder
from openclap.search.exact import Candidates, best_hits
from openclap.search.folder import IndexHeader, IndexIdentity
from openclap.search.keywords import KeywordIndex, in_memory
from openclap.search.paths import absolute, is_storable, prefixes
from openclap.search.rows import (
    FileRow,
    FloatArray,
    among,
    file_rows,
    files_schema,
    files_schema_1,
    unit_vector,
    windows_schema,
)
from openclap.search.writer import IndexWriter
from openclap.types import Hit, Window

__all__ = ["FileRow", "Index", "IndexIdentity"]

_WINDOW = ["hash", "start_s", "end_s", "vector"]
"""The columns of a window that a search reads."""
_LOOK_UP_AT_MOST = 4000
"""Contents whose files are looked up by hash; for more, reading the whole table is faster."""


def _every(_: FileRow) -> bool:
    return True


class Index:
    """An open index. Create one with `create`, `open` or `open_or_create`.

    Attributes:
        folder: where it is stored.
        identity: the model and the options of its embeddings.
    """

    def __init__(self, folder: Path, identity: IndexIdentity) -> None:
        self.folder = folder
        self.identity = identity
        self._storage = partial(_folder.storage, folder)
        database = _folder.connect(folder)
        self._files = _folder.open_table(folder, database, "files", files_schema(), files_schema_1())
        self._windows = _folder.open_table(folder, database, "windows", windows_schema(identity.dim))

    @classmethod
    def create(cls, folder: str | Path, identity: IndexIdentity) -> Index:
        """Create an empty index.

        Raises DataError when `folder` is an index already, contains anything else, or cannot be written.
        """
        place = _place(folder)
        _folder.create(place, identity)
        return cls(place, identity)

    @classmethod
    def open(cls, folder: str | Path, identity: IndexIdentity | None = None) -> Index:
        """Open an index, and check that it was built with `identity`, if given.

        Raises DataError when `folder` is missing, no index, damaged or of a newer format, and IndexMismatchError when
        the index was built with another model.
        """
        place = _place(folder)
        stored = _folder.read_header(place).identity
        if identity is not None:
            _folder.check_identity(place, stored, identity)
        return cls(place, stored)

    @classmethod
    def open_or_create(cls, folder: str | Path, identity: IndexIdentity) -> Index:
        """Open the index, or create it if there is none. Raises as `open` and `create`."""
        place = _place(folder)
        if not _folder.exists(place):
            try:
                return cls.create(place, identity)
            except DataError:
                if not _folder.exists(place):  # otherwise another process created it in the meantime
                    raise
        return cls.open(place, identity)

    @staticmethod
    def exists(folder: str | Path) -> bool:
        """Whether `folder` has the header of an index; it may still be damaged."""
        return _folder.exists(_place(folder))

    def header(self) -> IndexHeader:
        """The content of `index.json` as it is now. Raises DataError when it cannot be read."""
        return _folder.read_header(self.folder)

    def write_header(self, header: IndexHeader) -> None:
        """Replace `index.json`, under the write lock. Raises DataError when it cannot be written."""
        with self._storage("written"):
            _folder.write_header(self.folder, header)

    def check(self, identity: IndexIdentity) -> None:
        """Raise IndexMismatchError when embeddings of `identity` cannot be compared with those stored."""
        _folder.check_identity(self.folder, self.identity, identity)

    def count(self) -> tuple[int, int]:
        """The numbers of files and of windows."""
        with self._storage("read"):
            return self._files.count_rows(), self._windows.count_rows()

    def facts(self) -> Any:
        """The files as an Arrow table of `rows.files_schema`; an index of format 1 lacks the later columns."""
        with self._storage("read"):
            return self._files.search().to_arrow()

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
        keywords = KeywordIndex(self.folder)
        if keywords.version() is not None:
            return keywords.search(query, limit, allowed)
        return in_memory(file_rows(self.facts()), query, limit, allowed)

    def files_by_path(self) -> dict[str, FileRow]:
        """The rows of all files."""
        return {row.path: row for row in file_rows(self.facts())}

    def files(self, paths: Collection[str]) -> dict[str, FileRow]:
        """The rows of files by path, without those that the index does not have."""
        return {row.path: row for row in self._rows(among("path", paths))}

    def search(
        self,
        vector_D: Any,
        k: int,
        *,
        one_per_file: bool = True,
        include: Callable[[FileRow], bool] = _every,
    ) -> list[Hit]:
        """Find the k windows nearest to `vector_D` (D,) by cosine, best first, equal ones in the order of paths.

        The result is exact for the stored float16 vectors, and shorter than k only when there are no more windows.

        Args:
            one_per_file: show each file once, with its best window. Files of equal content are separate hits.
            include: whether a file may be a hit; the fewer files it includes, the longer the search takes.

        Raises ConfigError for k < 1, DataError for a query without a direction (NaN, infinity, zeros) or a damaged
        index, and IndexMismatchError for a query of another dimension.
        """
        if k < 1:
            raise ConfigError(f"k is {k}, expected 1 hit or more.")
        query_D = unit_vector(vector_D, self.identity.dim)
        total = self.count()[1]
        fetch = partial(self._nearest, query_D, total)
        return best_hits(query_D, k, total, fetch, self._files_of, one_per_file=one_per_file, include=include)

    def similar_to(self, path: str | Path, k: int, *, one_per_file: bool = True) -> list[Hit]:
        """Find the k sounds nearest to an indexed file, without the file itself; copies of it are included.

        Raises as `vector_of` and `search`.
        """
        own = absolute(path)
        return self.search(self.vector_of(own), k, one_per_file=one_per_file, include=lambda row: row.path != own)

    def vector_of(self, path: str | Path) -> FloatArray:
        """The embedding (D,) of an indexed file: the normalised mean of its windows' embeddings.

        Raises DataError when the file is not in the index.
        """
        name = absolute(path)
        rows = self._rows(among("path", [name])) if is_storable(name) else []
        with self._storage("read"):
            of_file = [
                self._windows.search().where(condition) for condition in among("hash", [row.hash for row in rows])
            ]
            parts = [part.vectors for query in of_file for part in self._candidates(query.select(_WINDOW))]
        if not parts:
            raise DataError(f"{name!r} is not in the index {self.folder}. Add it first, or check the path.")
        return unit_vector(np.concatenate(parts).astype(np.float32).mean(axis=0), self.identity.dim)

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

        The sound files themselves are not changed. Raises DataError when another process is writing.
        """
        names = {absolute(path) for path in paths}
        under = prefixes(names)
        with self.writing() as writer:
            gone = [path for path in writer.known() if path in names or path.startswith(under)]
            self.write_header(self.header().without_roots(names))
            writer.drop(gone)
            writer.prune()
            writer.compact()
        return len(gone)

    @contextmanager
    def writing(self) -> Iterator[IndexWriter]:
        """Lock the index for a series of changes.

        Raises DataError when another process or thread has the lock.
        """
        with _folder.write_lock(self.folder):
            _folder.upgrade(self.folder, self._files)
            writer = IndexWriter(
                self._files, self._windows, self.identity.dim, self._storage, KeywordIndex(self.folder)
            )
            yield writer
            writer.finish()

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

    def _rows(self, conditions: Iterable[str]) -> list[FileRow]:
        with self._storage("read"):
            found = [self._files.search().where(condition).to_arrow() for condition in conditions]
        return [row for table in found for row in file_rows(table)]


def _place(folder: str | Path) -> Path:
    return Path(folder).expanduser().absolute()
