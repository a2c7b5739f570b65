"""Export an index to files that other software reads: Parquet and NumPy. N windows, D embedding."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from openclap.errors import DataError
from openclap.search.index import Index

_README = """files.parquet    a row for each file, with its facts; `hash` is the SHA-256 of its content
windows.parquet  a row for each window: the hash of its content, start_s and end_s in seconds
vectors.npy      float16 unit vectors, one for each row of windows.parquet, in the same order
"""


def export(index: Index, place: Path) -> tuple[int, int]:
    """Write files.parquet, windows.parquet and vectors.npy (N, D) to the new folder `place`; return the numbers of
    files and of windows. The folder gets its name when it is complete.

    Raises DataError when `place` exists, or cannot be written.
    """
    if place.exists():
        raise DataError(f"{place} exists already. Give the name of a new folder.")
    from pyarrow import parquet

    scratch: str | None = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.mkdtemp(prefix=f".{place.name}.partial-", dir=place.parent)
        part = Path(scratch, place.name)
        part.mkdir()
        windows = _write_windows(index, part)  # first: a file that is added meanwhile lacks windows, and not a row
        files = index.with_present_paths(index.facts())
        files = files.drop_columns(["metadata_version"] if index.has_metadata else [])
        parquet.write_table(files, part / "files.parquet")
        (part / "README.txt").write_text(_README, encoding="utf-8")
        part.rename(place)
    except OSError as error:
        raise DataError(
            f"{place} cannot be written ({error.strerror or error}). Check the free space and the permissions."
        ) from error
    finally:
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)
    return len(files), windows


def _write_windows(index: Index, folder: Path) -> int:
    import pyarrow as pa
    from pyarrow import parquet

    dim, total = index.identity.dim, 0
    schema = pa.schema([("hash", pa.string()), ("start_s", pa.float64()), ("end_s", pa.float64())])
    with (
        (folder / "vectors.npy").open("wb") as file,
        parquet.ParquetWriter(folder / "windows.parquet", schema) as table,
    ):
        _write_header(file, 0, dim)
        for batch in index.window_batches():
            vector_N = batch.column("vector").flatten().to_numpy(zero_copy_only=False)
            file.write(np.ascontiguousarray(vector_N, np.float16).tobytes())
            table.write_batch(batch.select(schema.names))
            total += batch.num_rows
        file.seek(0)
        _write_header(file, total, dim)
    return total


def _write_header(file: BinaryIO, rows: int, dim: int) -> None:
    """The header of an array of `rows` rows. NumPy pads it, so that it can be replaced when the array has grown."""
    facts: dict[str, Any] = {"descr": np.dtype(np.float16).str, "fortran_order": False, "shape": (rows, dim)}
    np.lib.format.write_array_header_1_0(file, facts)
