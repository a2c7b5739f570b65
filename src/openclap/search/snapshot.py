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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclap.arrays import Ints
from openclap.errors import DataError
from openclap.search.place import SNAPSHOT_NAME, TableVersion
from openclap.search.ranking import Windows
from openclap.search.sketch import Codebook, Sketch

FORMAT = 1

HEADER = "current.json"
ROW, CONTENT = "_rowid", "_content"
"""Columns of stored facts: LanceDB's row id, and the number of the content."""
HASH = np.dtype("S64")
"""SHA-256 in hexadecimal, of a fixed size so that it can be mapped."""
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
            return _open(folder / SNAPSHOT_NAME / header.generation, header, dim)
        except (FileNotFoundError, RuntimeError) as error:  # replaced meanwhile; RuntimeError is FAISS's
            if attempt == _TRIES - 1:
                raise _damaged(folder) from error
        except (OSError, ValueError, KeyError, TypeError, DataError) as error:
            raise _damaged(folder) from error
    raise _damaged(folder)


def read_header(folder: Path) -> Header | None:
    """The header of a snapshot; None when there is none, or one of another format. Raises SnapshotError for damage."""
    try:
        stored = json.loads((folder / SNAPSHOT_NAME / HEADER).read_bytes())
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
        facts = (folder / SNAPSHOT_NAME / HEADER).stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns


def _damaged(folder: Path) -> SnapshotError:
    return SnapshotError(
        f"{folder / SNAPSHOT_NAME}: the snapshot of the index is damaged. Run 'openclap index optimize' to make a new "
        "one."
    )


def _open(place: Path, header: Header, dim: int) -> Snapshot:
    if header.dim != dim:
        raise ValueError(f"it has {header.dim} dimensions, expected {dim}")
    for name, size in header.sizes.items():
        if (place / name).stat().st_size != size:
            raise ValueError(f"{name} has another size")
    columns = {name: map_rows(place / name, dtype, shape) for name, dtype, shape in columns_of(header)}
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


def columns_of(header: Header) -> list[tuple[str, np.dtype[Any], tuple[int, ...]]]:
    n = header.windows
    return [
        ("vectors", np.dtype("<f2"), (n, header.dim)),
        ("times", np.dtype("<f8"), (n, 2)),
        ("contents", np.dtype("<i4"), (n,)),
        ("rows", np.dtype("<i8"), (n,)),
        ("hashes", HASH, (header.contents,)),
    ]


def map_rows(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
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
