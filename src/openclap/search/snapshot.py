"""A snapshot of an index's tables, mapped into memory by searches. N windows, C contents, F files, D embedding.

    snapshot/current.json           versions of the tables, and the sizes of everything below
    snapshot/GENERATION/
        vectors, times, contents, rows   a row for each window: unit vector, start and end, content, row id in LanceDB
        hashes                           a row for each content
        codebook-…, sketch-…             of the first windows (`sketch.py`), when there are many
        facts-…, newer-…, gone-…         the files: most of them, those that came later, and which of the first are gone

All of it is derived from `files.lance` and `windows.lance` and may be deleted. Files of windows grow at their end;
others are never changed: a new one gets a new name. `current.json` is replaced last and atomically, so a kill at any
point leaves the snapshot before. A reader maps what it names; on POSIX a removed file stays readable while mapped.

A snapshot knows the row ids that it was made from. When the tables are newer, the rows that it lacks are read from
them.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from openclap.arrays import Floats, Ints
from openclap.errors import DataError
from openclap.search.place import Place, TableVersion
from openclap.search.ranking import Numbers, View, Windows, arrow_booleans
from openclap.search.sketch import BLOCK, Codebook, Halves, Sketch, write_codes
from openclap.storage import new_file, sync_folder

FORMAT = 1
SKETCH_FROM = 16_384
"""Windows without a sketch from which on one is made, or extended: below, exact scores of all are as fast."""

_FOLDER, _HEADER = "snapshot", "current.json"
_ROW, _CONTENT = "_rowid", "_content"
"""Columns of stored facts: LanceDB's row id, and the number of the content."""
_HASH = np.dtype("S64")
_RETRAIN = 4
"""Growth of an index after which the sketch's codebook is trained again."""
_MOST_CHANGED_FILES = 0.1
"""Part of the files that may have changed before all facts are written again; the first thousand count for nothing."""
_MOST_UNUSED = 0.3
"""Part of the windows that may belong to no file before all are written again."""
_FEW = 1000
_TAKEN_AT_ONCE = 8192
_TRIES = 5
"""Attempts to read a snapshot that a writer replaces meanwhile."""


class SnapshotError(DataError):
    """A snapshot that is missing, damaged or too old to be of use, so that the tables have to be searched."""


@dataclass(frozen=True, slots=True)
class Header:
    """Contents of `current.json`.

    Attributes:
        versions: of the tables, by name.
        windows, contents: rows of the growing files.
        sketched: windows in the sketch.
        sizes: bytes of the other files, by name; `names` gives the current one of each kind.
    """

    format: int
    generation: str
    dim: int
    versions: dict[str, TableVersion]
    windows: int
    contents: int
    sketched: int
    names: dict[str, str]
    sizes: dict[str, int]


@dataclass(frozen=True)
class Snapshot:
    """An open snapshot.

    Attributes:
        rows_N: row ids of the windows in LanceDB.
        facts, newer: Arrow tables of files, with their row ids and contents; `gone` numbers rows of `facts`.
    """

    place: Path
    header: Header
    windows: Windows
    rows_N: Ints
    hashes_C: NDArray[np.bytes_]
    sketch: Sketch | None
    facts: Any
    newer: Any
    gone: Ints


@dataclass(frozen=True)
class Changes:
    """What the tables hold and a snapshot lacks.

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


# --- reading


def open_snapshot(folder: Path, dim: int) -> Snapshot:
    """Open the snapshot of an index. Raises SnapshotError when there is none, or it is damaged."""
    for attempt in range(_TRIES):
        header = read_header(folder)
        if header is None:
            raise SnapshotError(
                f"{folder}: the index has no snapshot. Run 'openclap index optimize' to make one; searches are faster "
                "with it."
            )
        try:
            return _open(folder / _FOLDER / header.generation, header, dim)
        except (FileNotFoundError, RuntimeError) as error:  # replaced meanwhile; RuntimeError is FAISS's
            if attempt == _TRIES - 1:
                raise _damaged(folder) from error
        except (OSError, ValueError, KeyError, TypeError, DataError) as error:
            raise _damaged(folder) from error
    raise _damaged(folder)


def read_header(folder: Path) -> Header | None:
    """The header of a snapshot; None when there is none, or one of another format. Raises SnapshotError for damage."""
    try:
        stored = json.loads((folder / _FOLDER / _HEADER).read_bytes())
        if stored["format"] != FORMAT:
            return None
        stored["versions"] = {name: TableVersion(**version) for name, version in stored["versions"].items()}
        return Header(**stored)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder) from error


def header_stamp(folder: Path) -> tuple[int, int] | None:
    """Changes whenever the snapshot does; None when there is none."""
    try:
        facts = (folder / _FOLDER / _HEADER).stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns


def _damaged(folder: Path) -> SnapshotError:
    return SnapshotError(
        f"{folder / _FOLDER}: the snapshot of the index is damaged. Run 'openclap index optimize' to make a new one."
    )


def _open(place: Path, header: Header, dim: int) -> Snapshot:
    if header.dim != dim:
        raise ValueError(f"it has {header.dim} dimensions, expected {dim}")
    for name, size in header.sizes.items():
        if (place / name).stat().st_size != size:
            raise ValueError(f"{name} has another size")
    columns = {name: _mapped(place / name, dtype, shape) for name, dtype, shape in _columns(header)}
    windows = Windows(columns["vectors"], columns["times"], columns["contents"])
    if len(windows) and not 0 <= windows.content_N.min() <= windows.content_N.max() < header.contents:
        raise ValueError("the numbers of contents are wrong")
    names = header.names
    sketch = None
    if header.sketched:
        codebook = Codebook.load((place / names["codebook"]).read_bytes())
        sketch = Sketch(place / names["sketch"], codebook, header.sketched)
    return Snapshot(
        place,
        header,
        windows,
        columns["rows"],
        columns["hashes"],
        sketch,
        _mapped_table(place / names["facts"]),
        _mapped_table(place / names["newer"]),
        np.fromfile(place / names["gone"], np.int64),
    )


def _columns(header: Header) -> list[tuple[str, np.dtype[Any], tuple[int, ...]]]:
    n = header.windows
    return [
        ("vectors", np.dtype("<f2"), (n, header.dim)),
        ("times", np.dtype("<f8"), (n, 2)),
        ("contents", np.dtype("<i4"), (n,)),
        ("rows", np.dtype("<i8"), (n,)),
        ("hashes", _HASH, (header.contents,)),
    ]


def _mapped(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The first rows of a file, mapped. Raises ValueError when it is too short."""
    if path.stat().st_size < dtype.itemsize * int(np.prod(shape)):
        raise ValueError(f"{path.name} is too short")
    if not shape[0]:
        return np.empty(shape, dtype)
    return np.asarray(np.memmap(path, dtype, "r", shape=shape))


def _mapped_table(path: Path) -> Any:
    import pyarrow as pa

    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except pa.ArrowException as error:
        raise ValueError(f"{path.name} is no table") from error


def view(stored: Snapshot, changes: Changes | None = None) -> View:
    """What the snapshot holds, with the changes since."""
    import pyarrow as pa

    now = changes or Changes(
        stored.header.versions, _no_windows(stored.header.dim), np.empty(0, np.int64), np.empty(0, _HASH),
        stored.newer, stored.gone, True,
    )  # fmt: skip
    tables = [stored.facts, now.newer] if now.keeps_facts else [now.newer]
    content_F = np.concatenate([_integers(table[_CONTENT]) for table in tables])
    is_live_F = np.ones(len(content_F), bool)
    is_live_F[now.gone] = False
    facts = pa.concat_tables([table.drop_columns([_ROW, _CONTENT]) for table in tables])
    contents = stored.header.contents + len(now.hashes_C)
    return View(stored.windows, now.windows, stored.sketch, facts, content_F, is_live_F, contents)


def read_tables(place: Place, dim: int) -> View:
    """What the tables hold, read into memory, for an index without a useful snapshot."""
    import pyarrow as pa

    header = Header(FORMAT, "", dim, {}, 0, 0, 0, {}, {})
    none, nothing = np.empty(0, np.int64), pa.table({})
    empty = Snapshot(place.folder, header, _no_windows(dim), none, np.empty(0, _HASH), None, nothing, nothing, none)
    return view(empty, read_changes(place, empty, sys.maxsize))


def _no_windows(dim: int) -> Windows:
    return Windows(np.empty((0, dim), np.float16), np.empty((0, 2)), np.empty(0, np.int32))


# --- differences between a snapshot and the tables


def read_changes(place: Place, stored: Snapshot, at_most: int) -> Changes:
    """Read from the tables what `stored` lacks. Raises SnapshotError when that is more than `at_most` windows.

    Windows are read before files: a file that was removed in between is then seen as removed.
    """
    windows, window_version = _fixed(place, "windows")
    ids = _row_ids(windows)
    new = ids[~np.isin(ids, stored.rows_N)]
    if len(new) > at_most:
        raise SnapshotError(
            f"{place}: the snapshot of the index lacks {len(new):,} windows. Wait until the process that adds them "
            "has finished, or run 'openclap index optimize'."
        )
    taken = _take(windows, new, ["hash", "start_s", "end_s", "vector"])
    numbers, hashes_C = _number_contents(taken["hash"])
    added = _window_columns(taken, numbers + np.int32(stored.header.contents), stored.header.dim)
    files, file_version = _fixed(place, "files")
    keeps_facts = stored.facts.schema.remove_metadata().names[:-2] == files.schema.names
    known = _integers(stored.facts[_ROW]) if keeps_facts else np.empty(0, np.int64)
    ids = _row_ids(files)
    newer = _take(files, ids[~np.isin(ids, known)], files.schema.names)
    hashes = np.concatenate([stored.hashes_C, hashes_C])
    return Changes(
        versions={"windows": window_version, "files": file_version},
        windows=added,
        rows_N=_integers(taken[_ROW]),
        hashes_C=hashes_C,
        newer=_with_content(newer, hashes),
        gone=np.flatnonzero(~np.isin(known, ids)),
        keeps_facts=keeps_facts,
    )


def _fixed(place: Place, name: str) -> tuple[Any, TableVersion]:
    """A table at its newest version, whatever a writer does meanwhile."""
    table = place.open_table(name)
    table.checkout(table.version)
    return table, place.version(name, table)


def _row_ids(table: Any) -> Ints:
    return _integers(table.search().select([_ROW]).to_arrow()[_ROW])


def _take(table: Any, ids: Ints, columns: Sequence[str]) -> Any:
    """The rows with these ids, as an Arrow table that ends with the ids."""
    import pyarrow as pa

    names = [*columns, _ROW]
    parts = [
        table.take_row_ids(ids[first : first + _TAKEN_AT_ONCE].tolist()).select(names).to_arrow().select(names)
        for first in range(0, len(ids), _TAKEN_AT_ONCE)
    ]
    if parts:
        return pa.concat_tables(parts)
    schema = pa.schema([*(table.schema.field(name) for name in columns), (_ROW, pa.uint64())])
    return schema.empty_table()


def _integers(column: Any) -> Ints:
    """A column of integers without nulls. Arrow's own conversion to numpy imports pandas where it is installed."""
    width = column.type.bit_width // 8
    parts = [
        np.frombuffer(chunk.buffers()[1], f"i{width}", len(chunk), chunk.offset * width)
        for chunk in column.chunks
        if len(chunk)
    ]
    return np.concatenate([np.empty(0, f"i{width}"), *parts])


def _number_contents(hashes: Any) -> tuple[Numbers, NDArray[np.bytes_]]:
    """Number the distinct hashes of a column in the order of their first window."""
    encoded = hashes.combine_chunks().dictionary_encode()
    if hasattr(encoded, "combine_chunks"):
        encoded = encoded.combine_chunks()
    return encoded.indices.to_numpy().astype(np.int32), _as_bytes(encoded.dictionary.to_pylist())


def _as_bytes(hashes: Sequence[str]) -> NDArray[np.bytes_]:
    if any(len(text) > _HASH.itemsize for text in hashes):
        raise DataError(f"A hash has more than {_HASH.itemsize} characters, expected SHA-256 in hexadecimal.")
    return np.array(hashes, _HASH)


def _window_columns(table: Any, content_N: Numbers, dim: int) -> Windows:
    return Windows(_vectors(table["vector"], dim), _times(table), content_N)


def _vectors(column: Any, dim: int) -> Halves:
    parts = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim) for chunk in column.chunks]
    return np.concatenate([np.empty((0, dim), np.float16), *parts])


def _times(table: Any) -> Floats:
    return np.stack([table["start_s"].to_numpy(), table["end_s"].to_numpy()], axis=1)


def _with_content(files: Any, hashes_C: NDArray[np.bytes_]) -> Any:
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
    return files.append_column(_CONTENT, pa.array(content_F, pa.int32()))


def _fixed_size(hashes: NDArray[np.bytes_]) -> Any:
    import pyarrow as pa

    buffer = pa.py_buffer(np.ascontiguousarray(hashes))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(_HASH.itemsize), len(hashes), [None, buffer])


def compare(stored: Snapshot, table: Any, progress: Callable[[int], None]) -> int:
    """Compare all windows that the snapshot and the table share, and return their number.

    Raises DataError when one of them has another vector, time or content.
    """
    import pyarrow as pa

    order = np.argsort(stored.rows_N)
    done = compared = 0
    for batch in table.search().select(["hash", "start_s", "end_s", "vector"]).with_row_id(True).to_batches():
        part = pa.Table.from_batches([batch])
        rows = _integers(part[_ROW])
        place = order[np.minimum(np.searchsorted(stored.rows_N, rows, sorter=order), max(0, len(order) - 1))]
        is_shared = stored.rows_N[place] == rows if len(order) else np.zeros(len(rows), bool)
        place = place[is_shared] if len(order) else place[:0]
        content_N = stored.windows.content_N[place]
        equal = [
            np.array_equal(stored.windows.vectors_ND[place], _vectors(part["vector"], stored.header.dim)[is_shared]),
            np.array_equal(stored.windows.times_N2[place], _times(part)[is_shared]),
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
        place = pc.index_in(part[_ROW], value_set=rows[_ROW].combine_chunks())
        ours, theirs = part.filter(place.is_valid()), rows.take(place.drop_null())
        columns = [name for name in rows.schema.names if name in part.schema.names]
        content_F = _integers(ours[_CONTENT])
        has_windows_F = content_F >= 0
        hashes = _as_bytes(theirs["hash"].to_pylist())
        is_same = np.array_equal(stored.hashes_C[content_F[has_windows_F]], hashes[has_windows_F])
        if not (is_same and ours.select(columns).equals(theirs.select(columns))):
            raise _differs(stored)


def _differs(stored: Snapshot) -> DataError:
    return DataError(
        f"{stored.place}: the snapshot differs from the tables. Run 'openclap index optimize' to make a new one."
    )


# --- writing, under the index's write lock


def refresh(place: Place, dim: int) -> None:
    """Bring the snapshot up to date with the tables: append what is new, or make it anew when too much has changed.

    The caller has the write lock, or that of the place's folder. Raises OSError when it cannot be written, and errors
    of LanceDB.
    """
    try:
        stored = open_snapshot(place.folder, dim)
        versions = place.newest_versions()
        if stored.header.versions == versions:
            return
        check_tables(place, stored, versions)
        changes = read_changes(place, stored, max(SKETCH_FROM, len(stored.windows) // 2))
    except SnapshotError:
        rebuild(place, dim)
        return
    if changes.keeps_facts and _unused(view(stored, changes)) <= _MOST_UNUSED:
        _append(place.folder, stored, changes)
    else:
        rebuild(place, dim)


def check_tables(place: Place, stored: Snapshot, versions: dict[str, TableVersion]) -> None:
    """Raise SnapshotError for a snapshot of other tables: an index in object storage may have been deleted and made
    again, while its snapshot stayed here."""
    made = stored.header.versions
    if place.own_folder is None and any(made[name].digest != versions[name].digest for name in versions):
        raise SnapshotError(f"{place}: the index was made again since this machine read it.")


def rebuild(place: Place, dim: int) -> None:
    """Make the snapshot from the tables, whatever there is. Raises as `refresh`."""
    generation = uuid4().hex[:16]
    folder = place.folder / _FOLDER / generation
    folder.mkdir(parents=True)
    windows, window_version = _fixed(place, "windows")
    files, file_version = _fixed(place, "files")
    count, contents = _write_windows(folder, windows, dim)
    header = Header(
        FORMAT,
        generation,
        dim,
        {"windows": window_version, "files": file_version},
        count,
        contents,
        sketched=0,
        names={},
        sizes={},
    )
    columns = {name: _mapped(folder / name, dtype, shape) for name, dtype, shape in _columns(header)}
    facts = files.search().with_row_id(True).to_arrow().select([*files.schema.names, _ROW])
    facts = _with_content(facts, columns["hashes"])
    header = _with_facts(folder, header, facts)
    header = _with_sketch(folder, header, columns["vectors"], None)
    _switch(place.folder, header)


def _unused(now: View) -> float:
    """The part of the windows that belong to no file."""
    total = len(now.stored) + len(now.newer)
    return 0.0 if total <= _FEW else 1 - now.windows / total


def _write_windows(place: Path, table: Any, dim: int) -> tuple[int, int]:
    """Write the columns of all windows, and return their number and that of contents."""
    import pyarrow as pa

    names = ["hash", "start_s", "end_s", "vector"]
    hashes, count = [], 0
    with ExitStack() as stack:
        vectors, times, rows = (stack.enter_context((place / name).open("wb")) for name in ("vectors", "times", "rows"))
        for batch in table.search().select(names).with_row_id(True).to_batches():
            part = pa.Table.from_batches([batch])
            vectors.write(_vectors(part["vector"], dim).data)
            times.write(np.ascontiguousarray(_times(part)).data)
            rows.write(_integers(part[_ROW]).data)
            hashes.append(part["hash"].combine_chunks())
            count += len(part)
        _sync(vectors, times, rows)
    numbers, hashes_C = _number_contents(pa.chunked_array(hashes, pa.string()))
    for name, values in (("contents", numbers), ("hashes", hashes_C)):
        with (place / name).open("wb") as file:
            file.write(values.data)
            _sync(file)
    return count, len(hashes_C)


def _append(folder: Path, stored: Snapshot, changes: Changes) -> None:
    header = replace(
        stored.header,
        versions=changes.versions,
        windows=stored.header.windows + len(changes.windows),
        contents=stored.header.contents + len(changes.hashes_C),
    )
    added = {
        "vectors": changes.windows.vectors_ND,
        "times": changes.windows.times_N2,
        "contents": changes.windows.content_N,
        "rows": changes.rows_N,
        "hashes": changes.hashes_C,
    }
    for name, dtype, shape in _columns(stored.header):
        with (stored.place / name).open("r+b") as file:
            # A kill may have left rows behind the last ones that the header counts.
            file.truncate(dtype.itemsize * int(np.prod(shape)))
            file.seek(0, os.SEEK_END)
            file.write(np.ascontiguousarray(added[name], dtype).data)
            _sync(file)
    if len(changes.newer) + len(changes.gone) > max(_FEW, _MOST_CHANGED_FILES * len(stored.facts)):
        header = _with_facts(stored.place, header, _all_facts(stored, changes))
    else:
        header = _with_newer(stored.place, header, changes.newer, changes.gone)
    vectors_ND = _mapped(stored.place / "vectors", np.dtype("<f2"), (header.windows, header.dim))
    _switch(folder, _with_sketch(stored.place, header, vectors_ND, stored.sketch))


def _all_facts(stored: Snapshot, changes: Changes) -> Any:
    import pyarrow as pa

    is_live_F = np.ones(len(stored.facts), bool)
    is_live_F[changes.gone] = False
    return pa.concat_tables([stored.facts.filter(arrow_booleans(is_live_F)), changes.newer])


def _with_facts(place: Path, header: Header, facts: Any) -> Header:
    header = _named(place, header, "facts", _arrow_file(place, "facts", facts))
    return _with_newer(place, header, facts.schema.empty_table(), np.empty(0, np.int64))


def _with_newer(place: Path, header: Header, newer: Any, gone: Ints) -> Header:
    header = _named(place, header, "newer", _arrow_file(place, "newer", newer))
    path = _new_path(place, "gone")
    with new_file(path) as file:
        file.write(gone.astype(np.int64).data)
    return _named(place, header, "gone", path)


def _arrow_file(place: Path, kind: str, table: Any) -> Path:
    import pyarrow as pa

    path = _new_path(place, kind)
    with new_file(path) as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return path


def _with_sketch(place: Path, header: Header, vectors_ND: Halves, old: Sketch | None) -> Header:
    """Make or extend the sketch when many windows are not in it."""
    if header.windows - header.sketched < SKETCH_FROM or not Codebook.is_possible(header.dim):
        return header
    if old is not None and header.windows >= _RETRAIN * old.codebook.trained_on:
        old = None
    codebook = old.codebook if old else Codebook.train(vectors_ND)
    count = header.windows // BLOCK * BLOCK
    path = _new_path(place, "sketch")
    with new_file(path) as file:
        write_codes(file, _codes(codebook, vectors_ND[:count], old), count)
    header = replace(_named(place, header, "sketch", path), sketched=count)
    if old is None:
        path = _new_path(place, "codebook")
        with new_file(path) as file:
            codebook.save(file)
        header = _named(place, header, "codebook", path)
    return header


def _codes(codebook: Codebook, vectors_ND: Halves, old: Sketch | None) -> Iterator[NDArray[np.uint8]]:
    if old is not None:
        yield old.codes()
    yield from codebook.encode(vectors_ND[old.count if old else 0 :])


def _new_path(place: Path, kind: str) -> Path:
    return place / f"{kind}-{uuid4().hex[:16]}"


def _named(place: Path, header: Header, kind: str, path: Path) -> Header:
    """The header with `path` as the current file of its kind."""
    names = {**header.names, kind: path.name}
    sizes = {name: size for name, size in header.sizes.items() if name in names.values()}
    return replace(header, names=names, sizes={**sizes, path.name: path.stat().st_size})


def _sync(*files: Any) -> None:
    for file in files:
        file.flush()
        os.fsync(file.fileno())


def _switch(folder: Path, header: Header) -> None:
    """Make `header` the current one, and remove the files that only older ones name."""
    place = folder / _FOLDER
    sync_folder(place / header.generation)
    with new_file(place / _HEADER) as file:
        file.write(json.dumps(asdict(header), indent=1).encode())
    for entry in place.iterdir():
        if entry.is_dir() and entry.name != header.generation:
            shutil.rmtree(entry, ignore_errors=True)
    current = {name for name, *_ in _columns(header)} | set(header.names.values())
    for entry in (place / header.generation).iterdir():
        if entry.name not in current:
            with suppress(OSError):  # Windows removes no file that is mapped
                entry.unlink()
