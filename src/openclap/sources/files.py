"""Read what collections consist of: tables row by row, and folders of audio files."""

from __future__ import annotations

import csv
import logging
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from openclap.errors import DataError, require
from openclap.sources.text_encoding import CP1252_ERRORS
from openclap.types import AUDIO_SUFFIXES

log = logging.getLogger("openclap.sources")
"""Logs what a source leaves out. Without any configuration, Python prints warnings to stderr."""

AUDIO_AND_VIDEO_SUFFIXES = AUDIO_SUFFIXES | {".mp4", ".mkv", ".webm"}
"""Suffixes of audio files; data sets of video clips are published as videos."""

_BATCH = 8192
"""Rows of a parquet file that are read at once."""


class DamagedTableError(DataError):
    """A table that cannot be read or lacks columns; others beside it may be intact."""


def csv_rows(
    path: Path, needed: Sequence[str], optional: Sequence[str] = (), *, header: Sequence[str] | None = None
) -> Iterator[tuple[str, ...]]:
    """Yield the cells of the named columns row by row: `needed`, then `optional` ("" for missing ones).

    The text is UTF-8; invalid bytes are read as cp1252, because some published tables mix the two. Rows whose first
    needed cell is empty are left out and logged. `header` names the columns of a file without a header.

    Raises DamagedTableError when the file cannot be read or a needed column is missing.
    """
    dropped = 0
    try:
        with path.open(encoding="utf-8-sig", errors=CP1252_ERRORS, newline="") as file:
            rows = csv.reader(file)
            header = header or [name.strip() for name in next(rows, [])]  # some published tables have spaces there
            _check_columns(path, header, needed)
            # A missing column is one beyond the header, where every row is padded with a blank.
            places = [header.index(name) if name in header else len(header) for name in (*needed, *optional)]
            blanks = [""] * (len(header) + 1)
            for row in rows:
                cells = row + blanks[len(row) :]
                if cells[places[0]].strip():
                    yield tuple([cells[place] for place in places])
                elif row:
                    dropped += 1
    except (OSError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise DamagedTableError(f"{path}: cannot be read as CSV ({why}). Fetch it again.") from error
    _log_dropped(path, dropped, needed[0])


def csv_header(path: Path) -> tuple[str, ...]:
    """Return the names of the columns in the first row; () for an empty file. Raises DamagedTableError."""
    try:
        with path.open(encoding="utf-8-sig", errors=CP1252_ERRORS, newline="") as file:
            return tuple(name.strip() for name in next(csv.reader(file), []))
    except (OSError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise DamagedTableError(f"{path}: cannot be read as CSV ({why}). Fetch it again.") from error


def parquet_rows(
    path: Path, needed: Sequence[str], optional: Sequence[str] = (), *, batch: int = _BATCH
) -> Iterator[tuple[Any, ...]]:
    """Yield the cells of the named columns row by row: `needed`, then `optional` (None for missing ones).

    Only a few batches of rows, or row groups, are in memory at a time. Rows whose first needed cell is null are left
    out and logged. Raises DamagedTableError when the file cannot be read or a needed column is missing.
    """
    polars = require("polars", "data")
    dropped = 0
    try:
        frame = polars.scan_parquet(path, glob=False)  # brackets in a file name are not a pattern
        header = frame.collect_schema().names()
        _check_columns(path, header, needed)
        columns = [
            polars.col(name) if name in header else polars.lit(None).alias(name) for name in (*needed, *optional)
        ]
        # Batches bound the memory: Freesound's table alone has half a million rows of long texts.
        for rows in frame.select(columns).collect_batches(chunk_size=batch, maintain_order=True):
            for cells in rows.iter_rows():
                if cells[0] is not None:
                    yield cells
                else:
                    dropped += 1
    except (OSError, polars.exceptions.PolarsError) as error:
        raise _damaged_parquet(path, error) from error
    _log_dropped(path, dropped, needed[0])


def parquet_columns(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a parquet file's columns with their types, and its key-value metadata. Raises DamagedTableError."""
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
    """Yield every file under a folder, in order of names.

    Hidden files and folders are skipped, and folders that openclap wrote among the user's files (`is_output`). Links to
    folders are followed, each folder once.
    """
    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        parent, status = Path(place), Path(place).stat()
        if (status.st_dev, status.st_ino) in seen:  # a link to a parent folder would never end
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        # Archives made on macOS hold a second, unreadable copy of every file under __MACOSX.
        visible = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        folders[:] = [name for name in visible if not is_output(parent / name)]
        yield from (parent / name for name in sorted(files) if not name.startswith("."))


def is_output(folder: Path) -> bool:
    """Return whether openclap wrote a folder: a data set, a run, or an index.

    Their tables and shards hold sounds of the collection again, which would be read twice.
    """
    return any(all((folder / name).exists() for name in names) for names in _OUTPUTS)


_OUTPUTS = (  # files that together identify a finished or unfinished data set, a run, an index
    ("dataset.json", "work"),
    ("dataset.json", "manifest.parquet"),
    ("config.json", "log.jsonl"),
    ("shards/dataset.json",),
    ("index.json", "files.lance"),
)


def audio_files(folder: Path) -> Iterator[Path]:
    """Yield every audio or video file among the `files_under` a folder."""
    return (path for path in files_under(folder) if path.suffix.lower() in AUDIO_AND_VIDEO_SUFFIXES)


def audio_files_by_stem(*folders: Path) -> dict[str, Path]:
    """Map the audio files under some folders by their names without suffix; the first of equal names counts."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in audio_files(folder):
            found.setdefault(path.stem, path)
    return found


def relative_name(root: Path, path: Path) -> str:
    """Return a path from the root, with "/" on every system."""
    return path.relative_to(root).as_posix()


def as_int(cell: Any) -> int | None:
    """Parse a cell as a whole number; None for any other cell."""
    try:
        return int(cell)
    except (TypeError, ValueError, OverflowError):
        return None


def as_float(cell: Any) -> float | None:
    """Parse a cell as a finite number; None for any other cell."""
    try:
        value = float(cell)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def split_text(cell: str | None, separator: str = ",") -> tuple[str, ...]:
    """Split a cell at separators into texts without surrounding space, blank ones left out."""
    return tuple([text for part in (cell or "").split(separator) if (text := part.strip())])


def unslug(label: str) -> str:
    """Turn underscores of a class label into spaces."""
    return label.replace("_", " ").strip()


class LeftOut:
    """Counts the entries of a file that share a fault, and names the first of them in the log.

    Args:
        fault: follows the count: "rows have no caption and were left out".
    """

    def __init__(self, path: Path, fault: str) -> None:
        self._path, self._fault = path, fault
        self._count, self._first = 0, ""

    def add(self, name: str) -> None:
        """Count one entry."""
        self._count += 1
        self._first = self._first or name

    def log(self) -> None:
        """Log the count and the first name, where there was any entry."""
        if self._count:
            log.warning("%s: %d %s. The first is %r.", self._path, self._count, self._fault, self._first)


def _log_dropped(path: Path, dropped: int, column: str) -> None:
    if dropped:
        log.warning("%s: %d rows have no %s and were left out.", path, dropped, column)
