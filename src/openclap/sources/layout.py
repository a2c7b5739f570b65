"""Reading what published collections consist of: tables row by row, and folders of sounds."""

from __future__ import annotations

import csv
import logging
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from openclap.errors import DataError, require
from openclap.sources.text import AS_CP1252
from openclap.types import AUDIO_SUFFIXES

log = logging.getLogger("openclap.sources")
"""Where a source says what it left out; without any configuration, Python prints it to stderr."""

SUFFIXES = AUDIO_SUFFIXES | {".mp4", ".mkv", ".webm"}
"""Of files that hold a sound: clips of videos are published as videos."""

_BATCH = 8192


class DamagedTableError(DataError):
    """A table that cannot be read, or is not the one that was expected; others beside it may be whole."""


def csv_rows(
    path: Path, needed: Sequence[str], optional: Sequence[str] = (), *, header: Sequence[str] | None = None
) -> Iterator[tuple[str, ...]]:
    """The cells of the named columns, row by row: `needed`, then `optional` ("" where a cell or column is not there).

    UTF-8; a byte that is none is read as cp1252, for some published tables mix the two. Rows in which the first
    needed cell is empty are left out and logged. `header` names the columns of a file without a header.

    Raises DamagedTableError when the file cannot be read or a needed column is missing.
    """
    lost = 0
    try:
        with path.open(encoding="utf-8-sig", errors=AS_CP1252, newline="") as file:
            rows = csv.reader(file)
            header = header or [name.strip() for name in next(rows, [])]
            _check_columns(path, header, needed)
            at = [header.index(name) if name in header else len(header) for name in (*needed, *optional)]
            blanks = [""] * (len(header) + 1)
            for row in rows:
                cells = row + blanks[len(row) :]
                if cells[at[0]].strip():
                    yield tuple([cells[place] for place in at])
                elif row:
                    lost += 1
    except (OSError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise DamagedTableError(f"{path}: cannot be read as CSV ({why}). Fetch it again.") from error
    _say_lost(path, lost, needed[0])


def parquet_rows(
    path: Path, needed: Sequence[str], optional: Sequence[str] = (), *, batch: int = _BATCH
) -> Iterator[tuple[Any, ...]]:
    """The cells of the named columns, row by row: `needed`, then `optional` (None where there is no such column).

    No more than a few batches of rows, or row groups, are held. Rows in which the first needed cell is null are left
    out and logged. Raises DamagedTableError when the file cannot be read or a needed column is missing.
    """
    polars = require("polars", "data")
    lost = 0
    try:
        frame = polars.scan_parquet(path, glob=False)
        header = frame.collect_schema().names()
        _check_columns(path, header, needed)
        columns = [
            polars.col(name) if name in header else polars.lit(None).alias(name) for name in (*needed, *optional)
        ]
        for rows in frame.select(columns).collect_batches(chunk_size=batch, maintain_order=True):
            for cells in rows.iter_rows():
                if cells[0] is not None:
                    yield cells
                else:
                    lost += 1
    except (OSError, polars.exceptions.PolarsError) as error:
        raise _damaged_parquet(path, error) from error
    _say_lost(path, lost, needed[0])


def parquet_columns(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """A parquet file's columns with their types, and the notes that its writer left. Raises DamagedTableError."""
    polars = require("polars", "data")
    try:
        return dict(polars.read_parquet_schema(path)), polars.read_parquet_metadata(path)
    except (OSError, polars.exceptions.PolarsError) as error:
        raise _damaged_parquet(path, error) from error


def _damaged_parquet(path: Path, error: Exception) -> DamagedTableError:
    why = next(iter(str(error).splitlines()), "no reason was given").rstrip(".")
    return DamagedTableError(f"{path}: cannot be read as parquet ({why}). Is it complete? Fetch or write it again.")


def _check_columns(path: Path, header: Sequence[str], needed: Sequence[str]) -> None:
    if missing := [name for name in needed if name not in header]:
        raise DamagedTableError(
            f"{path}: has no column {' and no column '.join(missing)}. Found: {', '.join(header) or 'nothing'}; "
            "expected the table as it is published."
        )


def files_under(folder: Path) -> Iterator[Path]:
    """Every file under a folder, in the order of names. Hidden files and folders are passed over, and folders that
    openclap wrote among the files of a user (`is_output`).

    Links to folders are followed, each folder once.
    """
    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        parent, status = Path(place), Path(place).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        visible = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        folders[:] = [name for name in visible if not is_output(parent / name)]
        yield from (parent / name for name in sorted(files) if not name.startswith("."))


def is_output(folder: Path) -> bool:
    """Whether openclap wrote a folder: a data set, a run, or an index. Their tables speak of sounds that are read
    already."""
    return any(all((folder / name).exists() for name in names) for names in _OUTPUTS)


_OUTPUTS = (
    ("dataset.json", "work"),
    ("dataset.json", "manifest.parquet"),
    ("config.json", "log.jsonl"),
    ("shards/dataset.json",),
    ("index.json", "files.lance"),
)


def sounds(folder: Path) -> Iterator[Path]:
    """Every sound file among the `files_under` a folder."""
    return (path for path in files_under(folder) if path.suffix.lower() in SUFFIXES)


def sounds_by_stem(*folders: Path) -> dict[str, Path]:
    """The sound files under some folders by their names without suffix; of equal names, the first."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sounds(folder):
            found.setdefault(path.stem, path)
    return found


def inside(root: Path, path: Path) -> str:
    """A path from the root, written the same on every system."""
    return path.relative_to(root).as_posix()


def whole(cell: Any) -> int | None:
    """A cell as a whole number; None where it holds none."""
    try:
        return int(cell)
    except (TypeError, ValueError, OverflowError):
        return None


def number(cell: Any) -> float | None:
    """A cell as a number; None where it holds none that is finite."""
    try:
        value = float(cell)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def split_text(cell: str | None, separator: str = ",") -> tuple[str, ...]:
    """The texts between separators, none blank."""
    return tuple([text for part in (cell or "").split(separator) if (text := part.strip())])


def readable(label: str) -> str:
    """A label of a vocabulary that writes "_" for a space."""
    return label.replace("_", " ").strip()


def _say_lost(path: Path, lost: int, column: str) -> None:
    if lost:
        log.warning("%s: %d rows have no %s and were left out.", path, lost, column)
