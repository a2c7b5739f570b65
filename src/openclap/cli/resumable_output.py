"""Finished rows of an output that is not complete yet, in `OUTPUT.part` beside it.

D embedding.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openclap.cli.console import counted, note

if TYPE_CHECKING:
    from openclap.embedder import Vectors
    from openclap.search.walk import Stamp
    from openclap.types import Window

ROWS = "rows.jsonl"


class ResumableRows:
    """Finished rows of an output, in `OUTPUT.part/rows.jsonl`: a line of options, then a line a file.

    Raises DataError when they were made by another model or with other options; they are not deleted.
    Each line reaches the system before the next file is read, so a kill costs no more than a torn last line, and
    that is cut off. A file counts as done while its size and its time are those it was read at.
    """

    def __init__(self, folder: Path, made_by: dict[str, Any]) -> None:
        from openclap.storage import write_bytes

        self.is_written = False
        self._known: dict[str, tuple[list[int], int, int]] = {}  # path -> stamp, windows, place in the file
        path, head = folder / ROWS, json.dumps(made_by).encode() + b"\n"
        if not path.is_file():
            write_bytes(path, head)
        self._file = path.open("r+b")
        if (other := self._file.readline()) != head:
            self._file.close()
            _check_empty(path, other, made_by)
            write_bytes(path, head)
            self._file = path.open("r+b")
            self._file.seek(len(head))
        end = len(head)
        for line in self._file:
            if not self._take(line, end):
                break
            end += len(line)
        self._file.truncate(end)

    def __len__(self) -> int:
        return len(self._known)

    def has(self, path: str, stamp: Stamp) -> bool:
        """Whether this file, unchanged, is done."""
        return path in self._known and self._known[path][0] == [stamp.size, stamp.mtime_ns]

    def count(self, paths: Iterable[str]) -> int:
        """Vectors of these files."""
        return sum(self._known[path][1] for path in paths)

    def add(self, path: str, stamp: Stamp, result: Vectors | list[Window]) -> None:
        """Note that a file is done: its vector (D,), or its windows."""
        place = self._file.seek(0, os.SEEK_END)
        if isinstance(result, list):
            times, vectors = [[each.start_s, each.end_s] for each in result], [each.vector for each in result]
        else:
            times, vectors = [[]], [result]
        fields = {
            "path": path,
            "stamp": [stamp.size, stamp.mtime_ns],
            "times": times,
            "vectors": base64.b64encode(np.stack(vectors).astype("<f4").tobytes()).decode(),
        }
        line = json.dumps(fields).encode() + b"\n"
        self._file.write(line)
        self._file.flush()
        self._take(line, place)

    def rows(self, paths: Iterable[str]) -> Iterator[tuple[Any, ...]]:
        """(path, start_s, end_s, vector (D,)) of each window of these files, or (path, vector) of each file."""
        for path in paths:
            self._file.seek(self._known[path][2])
            fields = json.loads(self._file.readline())
            vectors_WD = np.frombuffer(base64.b64decode(fields["vectors"]), "<f4").reshape(len(fields["times"]), -1)
            for times, vector_D in zip(fields["times"], vectors_WD, strict=True):
                yield path, *times, vector_D

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _take(self, line: bytes, place: int) -> bool:
        try:
            fields = json.loads(line) if line.endswith(b"\n") else {}
            self._known[fields["path"]] = (fields["stamp"], len(fields["times"]), place)
        except (ValueError, KeyError, TypeError):
            return False
        return True


def _check_empty(path: Path, head: bytes, made_by: dict[str, Any]) -> None:
    """Raises DataError for rows of files that were made by something else than `made_by`."""
    from openclap.errors import DataError

    with path.open("rb") as file:
        done = max(0, sum(line.endswith(b"\n") for line in file) - 1)
    if not done:
        return
    try:
        was = json.loads(head)
        other = [name for name, fact in made_by.items() if was.get(name) != fact]
    except (ValueError, AttributeError):
        other = ["its first line"]
    names = ", ".join("the model" if name == "digest" else name for name in other)
    raise DataError(
        f"{path.parent}: holds {counted(done, 'finished file')} of a run that differs in: {names}. Give the same "
        "options to go on, choose another --output, or delete that folder to start anew."
    )


@contextmanager
def resumable_rows(output: Path, made_by: dict[str, Any]) -> Iterator[ResumableRows]:
    """Open the rows that an earlier run finished of `output`; they stay for the next run unless the output is written.

    Raises DataError when another process is at it, or when OUTPUT.part is something else.
    """
    from openclap.errors import DataError
    from openclap.locks import LOCK, only_writer
    from openclap.storage import partial_of

    folder = output.with_name(output.name + ".part")
    ours = {ROWS, LOCK, partial_of(folder / ROWS).name}
    if folder.exists() and not (folder.is_dir() and all(path.name in ours for path in folder.iterdir())):
        raise DataError(f"{folder}: unfinished vectors need this name, and it is something else. Move it.")
    folder.mkdir(parents=True, exist_ok=True)
    rows: ResumableRows | None = None
    try:
        with only_writer(folder):
            try:
                with closing(ResumableRows(folder, made_by)) as rows:
                    yield rows
            finally:
                if rows is not None and (rows.is_written or not rows):
                    shutil.rmtree(folder, ignore_errors=True)  # while no other process may write there
    except KeyboardInterrupt:
        if rows:
            verb = "is" if len(rows) == 1 else "are"
            note(f"{counted(len(rows), 'file')} {verb} done and wait in {folder}. Run the same command to go on.")
        raise
