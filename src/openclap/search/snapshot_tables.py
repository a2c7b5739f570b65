"""Read the rows of an index that its snapshot lacks, and compare the snapshot with the tables.

Conversions between Arrow columns and the arrays of a snapshot. N windows, C contents, F files, D embedding.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclap.arrays import Floats, Ints
from openclap.errors import DataError
from openclap.search.place import IndexPlace, TableVersion
from openclap.search.ranking import Numbers, View, Windows
from openclap.search.sketch import Halves
from openclap.search.snapshot import (
    CONTENT,
    FORMAT,
    HASH,
    ROW,
    Header,
    Snapshot,
    SnapshotError,
)

_TAKEN_AT_ONCE = 8192
"""Rows that are taken by their ids at once, which bounds the memory of a large change."""


@dataclass(frozen=True)
class Changes:
    """The differences of the tables from a snapshot.

    Attributes:
        windows, rows_N, hashes_C: of new windows; contents are numbered after those of the snapshot.
        newer, gone: replace those of the snapshot.
        keeps_facts: False when the columns of the files have changed, so that `newer` holds all files.
    """

    versions: dict[str, TableVersion]
    windows: Windows
    rows_N: Ints
    hashes_C: NDArray[np.bytes_]
    newer: Any
    gone: Ints
    keeps_facts: bool


def view(stored: Snapshot, changes: Changes | None = None) -> View:
    """A view of the snapshot, with the changes since."""
    import pyarrow as pa

    now = changes or Changes(
        stored.header.versions, no_windows(stored.header.dim), np.empty(0, np.int64), np.empty(0, HASH),
        stored.newer, stored.gone, True,
    )  # fmt: skip
    tables = [stored.facts, now.newer] if now.keeps_facts else [now.newer]
    content_F = np.concatenate([integers(table[CONTENT]) for table in tables])
    is_live_F = np.ones(len(content_F), bool)
    is_live_F[now.gone] = False
    facts = pa.concat_tables([table.drop_columns([ROW, CONTENT]) for table in tables])
    contents = stored.header.contents + len(now.hashes_C)
    return View(stored.windows, now.windows, stored.sketch, facts, content_F, is_live_F, contents)


def read_tables(place: IndexPlace, dim: int) -> View:
    """A view of the tables, read into memory, for an index without a useful snapshot."""
    import pyarrow as pa

    header = Header(FORMAT, "", dim, {}, 0, 0, 0, {}, {})
    none, nothing = np.empty(0, np.int64), pa.table({})
    empty = Snapshot(place.folder, header, no_windows(dim), none, np.empty(0, HASH), None, nothing, nothing, none)
    return view(empty, read_changes(place, empty, sys.maxsize))


def no_windows(dim: int) -> Windows:
    return Windows(np.empty((0, dim), np.float16), np.empty((0, 2)), np.empty(0, np.int32))


def read_changes(place: IndexPlace, stored: Snapshot, at_most: int) -> Changes:
    """Read the rows that `stored` lacks from the tables. Raises SnapshotError for more than `at_most` windows.

    Windows are read before files: a file that was removed in between is then seen as removed.
    """
    windows, window_version = at_one_version(place, "windows")
    ids = _row_ids(windows)
    new = ids[~np.isin(ids, stored.rows_N)]
    if len(new) > at_most:
        raise SnapshotError(
            f"{place}: the snapshot of the index lacks {len(new):,} windows. Wait until the process that adds them "
            "has finished, or run 'openclap index optimize'."
        )
    taken = _take(windows, new, ["hash", "start_s", "end_s", "vector"])
    numbers, hashes_C = number_contents(taken["hash"])
    added = _window_columns(taken, numbers + np.int32(stored.header.contents), stored.header.dim)
    files, file_version = at_one_version(place, "files")
    keeps_facts = stored.facts.schema.remove_metadata().names[:-2] == files.schema.names
    known = integers(stored.facts[ROW]) if keeps_facts else np.empty(0, np.int64)
    ids = _row_ids(files)
    newer = _take(files, ids[~np.isin(ids, known)], files.schema.names)
    hashes = np.concatenate([stored.hashes_C, hashes_C])
    return Changes(
        versions={"windows": window_version, "files": file_version},
        windows=added,
        rows_N=integers(taken[ROW]),
        hashes_C=hashes_C,
        newer=with_content(newer, hashes),
        gone=np.flatnonzero(~np.isin(known, ids)),
        keeps_facts=keeps_facts,
    )


def check_tables(place: IndexPlace, stored: Snapshot, versions: dict[str, TableVersion]) -> None:
    """Raise SnapshotError for a snapshot of other tables: an index in object storage may have been deleted and made
    again, while its snapshot stayed here."""
    made = stored.header.versions
    if not place.is_local and any(made[name].digest != versions[name].digest for name in versions):
        raise SnapshotError(f"{place}: the index was made again since this machine read it.")


def at_one_version(place: IndexPlace, name: str) -> tuple[Any, TableVersion]:
    """A table at its newest version, whatever a writer does meanwhile."""
    table = place.open_table(name)
    table.checkout(table.version)
    return table, place.version(name, table)


def _row_ids(table: Any) -> Ints:
    return integers(table.search().select([ROW]).to_arrow()[ROW])


def _take(table: Any, ids: Ints, columns: Sequence[str]) -> Any:
    """The rows with these ids, as an Arrow table that ends with the ids."""
    import pyarrow as pa

    names = [*columns, ROW]
    parts = [
        table.take_row_ids(ids[first : first + _TAKEN_AT_ONCE].tolist()).select(names).to_arrow().select(names)
        for first in range(0, len(ids), _TAKEN_AT_ONCE)
    ]
    if parts:
        return pa.concat_tables(parts)
    schema = pa.schema([*(table.schema.field(name) for name in columns), (ROW, pa.uint64())])
    return schema.empty_table()


def integers(column: Any) -> Ints:
    """A column of integers without nulls. Arrow's own conversion to numpy imports pandas where it is installed."""
    width = column.type.bit_width // 8
    parts = [
        np.frombuffer(chunk.buffers()[1], f"i{width}", len(chunk), chunk.offset * width)
        for chunk in column.chunks
        if len(chunk)
    ]
    return np.concatenate([np.empty(0, f"i{width}"), *parts])


def number_contents(hashes: Any) -> tuple[Numbers, NDArray[np.bytes_]]:
    """Number the distinct hashes of a column in the order of their first window."""
    encoded = hashes.combine_chunks().dictionary_encode()
    if hasattr(encoded, "combine_chunks"):
        encoded = encoded.combine_chunks()
    return encoded.indices.to_numpy().astype(np.int32), _as_bytes(encoded.dictionary.to_pylist())


def _as_bytes(hashes: Sequence[str]) -> NDArray[np.bytes_]:
    if any(len(text) > HASH.itemsize for text in hashes):
        raise DataError(f"A hash has more than {HASH.itemsize} characters, expected SHA-256 in hexadecimal.")
    return np.array(hashes, HASH)


def _window_columns(table: Any, content_N: Numbers, dim: int) -> Windows:
    return Windows(vectors_of(table["vector"], dim), times_of(table), content_N)


def vectors_of(column: Any, dim: int) -> Halves:
    parts = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim) for chunk in column.chunks]
    return np.concatenate([np.empty((0, dim), np.float16), *parts])


def times_of(table: Any) -> Floats:
    return np.stack([table["start_s"].to_numpy(), table["end_s"].to_numpy()], axis=1)


def with_content(files: Any, hashes_C: NDArray[np.bytes_]) -> Any:
    """Add the number of the content to each file: the last one with its hash, or -1."""
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = pc.unique(files["hash"].combine_chunks())
    keys = _fixed_size(_as_bytes(wanted.to_pylist()))
    found = pc.index_in(_fixed_size(hashes_C), value_set=keys)
    places = np.flatnonzero(found.is_valid().to_numpy(zero_copy_only=False))
    content_of = np.full(len(wanted), -1, np.int32)
    np.maximum.at(content_of, found.drop_null().to_numpy(), places.astype(np.int32))
    numbers = pc.index_in(files["hash"].combine_chunks(), value_set=wanted).to_numpy(zero_copy_only=False)
    content_F = content_of[numbers.astype(np.int64)] if len(wanted) else np.empty(0, np.int32)
    return files.append_column(CONTENT, pa.array(content_F, pa.int32()))


def _fixed_size(hashes: NDArray[np.bytes_]) -> Any:
    import pyarrow as pa

    buffer = pa.py_buffer(np.ascontiguousarray(hashes))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(HASH.itemsize), len(hashes), [None, buffer])


def compare(stored: Snapshot, table: Any, progress: Callable[[int], None]) -> int:
    """Compare all windows that the snapshot and the table share, and return their number.

    Raises DataError when one of them has another vector, time or content.
    """
    import pyarrow as pa

    order = np.argsort(stored.rows_N)
    done = compared = 0
    for batch in table.search().select(["hash", "start_s", "end_s", "vector"]).with_row_id(True).to_batches():
        part = pa.Table.from_batches([batch])
        rows = integers(part[ROW])
        place = order[np.minimum(np.searchsorted(stored.rows_N, rows, sorter=order), max(0, len(order) - 1))]
        is_shared = stored.rows_N[place] == rows if len(order) else np.zeros(len(rows), bool)
        place = place[is_shared] if len(order) else place[:0]
        content_N = stored.windows.content_N[place]
        equal = [
            np.array_equal(stored.windows.vectors_ND[place], vectors_of(part["vector"], stored.header.dim)[is_shared]),
            np.array_equal(stored.windows.times_N2[place], times_of(part)[is_shared]),
            np.array_equal(stored.hashes_C[content_N], _as_bytes(part["hash"].to_pylist())[is_shared]),
        ]
        if not all(equal):
            raise _differs(stored)
        done, compared = done + len(rows), compared + len(place)
        progress(done)
    return compared


def compare_files(stored: Snapshot, table: Any) -> None:
    """Compare the facts of all files that the snapshot and the table share.

    Raises DataError when they differ, or a file of the snapshot has the windows of another content.
    """
    import pyarrow.compute as pc

    rows = table.search().with_row_id(True).to_arrow()
    for part in (stored.facts, stored.newer):
        place = pc.index_in(part[ROW], value_set=rows[ROW].combine_chunks())
        ours, theirs = part.filter(place.is_valid()), rows.take(place.drop_null())
        columns = [name for name in rows.schema.names if name in part.schema.names]
        content_F = integers(ours[CONTENT])
        has_windows_F = content_F >= 0
        hashes = _as_bytes(theirs["hash"].to_pylist())
        is_same = np.array_equal(stored.hashes_C[content_F[has_windows_F]], hashes[has_windows_F])
        if not (is_same and ours.select(columns).equals(theirs.select(columns))):
            raise _differs(stored)


def _differs(stored: Snapshot) -> DataError:
    return DataError(
        f"{stored.place}: the snapshot differs from the tables. Run 'openclap index optimize' to make a new one."
    )
