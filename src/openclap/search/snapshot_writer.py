"""Write the snapshot of an index, under its write lock: append what is new, or make it anew. N windows, F files.

A snapshot is large and derived, so a change appends to its files where it can. When much has changed, a new generation
is written beside the old one, which readers keep mapped, and `current.json` switches to it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from openclap.arrays import Ints
from openclap.search.place import SNAPSHOT_NAME, IndexPlace
from openclap.search.ranking import View, arrow_booleans
from openclap.search.sketch import BLOCK, Codebook, Halves, Sketch, write_codes
from openclap.search.snapshot import (
    FORMAT,
    HEADER,
    ROW,
    Header,
    Snapshot,
    SnapshotError,
    columns_of,
    map_rows,
    open_snapshot,
)
from openclap.search.snapshot_tables import (
    Changes,
    at_one_version,
    check_tables,
    integers,
    number_contents,
    read_changes,
    times_of,
    vectors_of,
    view,
    with_content,
)
from openclap.storage import new_file, sync_folder

SKETCH_FROM = 16_384
"""Windows without a sketch from which on one is made, or extended: below, exact scores of all are as fast."""
_RETRAIN = 4
"""Growth of an index after which the sketch's codebook is trained again."""
_MOST_CHANGED_FILES = 0.1
"""Part of the files that may have changed before all facts are written again; the first thousand count for nothing."""
_MOST_UNUSED = 0.3
"""Part of the windows that may belong to no file before all are written again."""
_FEW = 1000
"""Files, or windows, that are too few for these shares to matter."""


def refresh(place: IndexPlace, dim: int) -> None:
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


def rebuild(place: IndexPlace, dim: int) -> None:
    """Make the snapshot from the tables, whatever there is. Raises as `refresh`."""
    generation = uuid4().hex[:16]
    folder = place.folder / SNAPSHOT_NAME / generation
    folder.mkdir(parents=True)
    windows, window_version = at_one_version(place, "windows")
    files, file_version = at_one_version(place, "files")
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
    columns = {name: map_rows(folder / name, dtype, shape) for name, dtype, shape in columns_of(header)}
    facts = files.search().with_row_id(True).to_arrow().select([*files.schema.names, ROW])
    facts = with_content(facts, columns["hashes"])
    header = _with_facts(folder, header, facts)
    header = _with_sketch(folder, header, columns["vectors"], None)
    _switch(place.folder, header)


def _unused(now: View) -> float:
    """The part of the windows that belong to no file."""
    total = len(now.stored) + len(now.newer)
    return 0.0 if total <= _FEW else 1 - now.windows / total


def _write_windows(folder: Path, table: Any, dim: int) -> tuple[int, int]:
    """Write the columns of all windows, and return their number and that of contents."""
    import pyarrow as pa

    names = ["hash", "start_s", "end_s", "vector"]
    hashes, count = [], 0
    with ExitStack() as stack:
        vectors, times, rows = (
            stack.enter_context((folder / name).open("wb")) for name in ("vectors", "times", "rows")
        )
        for batch in table.search().select(names).with_row_id(True).to_batches():
            part = pa.Table.from_batches([batch])
            vectors.write(vectors_of(part["vector"], dim).data)
            times.write(np.ascontiguousarray(times_of(part)).data)
            rows.write(integers(part[ROW]).data)
            hashes.append(part["hash"].combine_chunks())
            count += len(part)
        _sync(vectors, times, rows)
    numbers, hashes_C = number_contents(pa.chunked_array(hashes, pa.string()))
    for name, values in (("contents", numbers), ("hashes", hashes_C)):
        with (folder / name).open("wb") as file:
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
    for name, dtype, shape in columns_of(stored.header):
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
    vectors_ND = map_rows(stored.place / "vectors", np.dtype("<f2"), (header.windows, header.dim))
    _switch(folder, _with_sketch(stored.place, header, vectors_ND, stored.sketch))


def _all_facts(stored: Snapshot, changes: Changes) -> Any:
    import pyarrow as pa

    is_live_F = np.ones(len(stored.facts), bool)
    is_live_F[changes.gone] = False
    return pa.concat_tables([stored.facts.filter(arrow_booleans(is_live_F)), changes.newer])


def _with_facts(folder: Path, header: Header, facts: Any) -> Header:
    header = _named(folder, header, "facts", _arrow_file(folder, "facts", facts))
    return _with_newer(folder, header, facts.schema.empty_table(), np.empty(0, np.int64))


def _with_newer(folder: Path, header: Header, newer: Any, gone: Ints) -> Header:
    header = _named(folder, header, "newer", _arrow_file(folder, "newer", newer))
    path = _new_path(folder, "gone")
    with new_file(path) as file:
        file.write(gone.astype(np.int64).data)
    return _named(folder, header, "gone", path)


def _arrow_file(folder: Path, kind: str, table: Any) -> Path:
    import pyarrow as pa

    path = _new_path(folder, kind)
    with new_file(path) as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return path


def _with_sketch(folder: Path, header: Header, vectors_ND: Halves, old: Sketch | None) -> Header:
    """Make or extend the sketch when many windows are not in it."""
    if header.windows - header.sketched < SKETCH_FROM or not Codebook.is_possible(header.dim):
        return header
    if old is not None and header.windows >= _RETRAIN * old.codebook.trained_on:
        old = None
    codebook = old.codebook if old else Codebook.train(vectors_ND)
    count = header.windows // BLOCK * BLOCK
    path = _new_path(folder, "sketch")
    with new_file(path) as file:
        write_codes(file, _codes(codebook, vectors_ND[:count], old), count)
    header = replace(_named(folder, header, "sketch", path), sketched=count)
    if old is None:
        path = _new_path(folder, "codebook")
        with new_file(path) as file:
            codebook.save(file)
        header = _named(folder, header, "codebook", path)
    return header


def _codes(codebook: Codebook, vectors_ND: Halves, old: Sketch | None) -> Iterator[NDArray[np.uint8]]:
    if old is not None:
        yield old.codes()
    yield from codebook.encode(vectors_ND[old.count if old else 0 :])


def _new_path(folder: Path, kind: str) -> Path:
    return folder / f"{kind}-{uuid4().hex[:16]}"


def _named(folder: Path, header: Header, kind: str, path: Path) -> Header:
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
    snapshots = folder / SNAPSHOT_NAME
    sync_folder(snapshots / header.generation)
    with new_file(snapshots / HEADER) as file:
        file.write(json.dumps(asdict(header), indent=1).encode())
    for entry in snapshots.iterdir():
        if entry.is_dir() and entry.name != header.generation:
            shutil.rmtree(entry, ignore_errors=True)
    current = {name for name, *_ in columns_of(header)} | set(header.names.values())
    for entry in (snapshots / header.generation).iterdir():
        if entry.name not in current:
            with suppress(OSError):  # Windows removes no file that is mapped
                entry.unlink()
