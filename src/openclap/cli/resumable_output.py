"""Store the finished rows of an incomplete output in a folder `OUTPUT.part`, so that `openclap embed` can resume.

W windows, D embedding.
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
    """Finished rows of an output, in `OUTPUT.part/rows.jsonl`: a line of options, then a line for each file.

    Each line is flushed before the next file is read, so a killed process leaves at most a torn last line, which is cut
    off here. A file counts as done while its size and mtime are unchanged.

    Attributes:
        is_written: set by the caller once the output is complete; the folder is then deleted.

    Raises DataError when the rows were made by another model or with other options; they are not deleted.
    """

    def __init__(self, folder: Path, made_by: dict[str, Any]) -> None:
        from openclap.storage import write_bytes

        self.is_written = False
        self._known: dict[str, tuple[list[int], int, int]] = {}  # path -> stamp, windows, place in the file
        path, head = folder / ROWS, json.dumps(made_by).encode() + b"\n"
        if not path.is_file():
            write_bytes(path, head)
        self._file = path.open("r+b")
        if (stored_head := self._file.readline()) != head:
            self._file.close()
            _check_empty(path, stored_head, made_by)
            write_bytes(path, head)  # other options, but no file was finished with them
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
        """Whether this file is done and unchanged."""
        return path in self._known and self._known[path][0] == [stamp.size, stamp.mtime_ns]

    def count(self, paths: Iterable[str]) -> int:
        """The number of vectors of these files."""
        return sum(self._known[path][1] for path in paths)

    def add(self, path: str, stamp: Stamp, result: Vectors | list[Window]) -> None:
        """Append the result of a file: its embedding (D,), or its windows."""
        place = self._file.seek(0, os.SEEK_END)
        if isinstance(result, list):
            times, vectors = [[window.start_s, window.end_s] for window in result], [window.vector for window in result]
        else:
            times, vectors = [[]], [result]  # one row without times
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
        """Close the file."""
        self._file.close()

    def _take(self, line: bytes, place: int) -> bool:
        try:
            fields = json.loads(line) if line.endswith(b"\n") else {}
            self._known[fields["path"]] = (fields["stamp"], len(fields["times"]), place)
        except (ValueError, KeyError, TypeError):
            return False
        return True


def _check_empty(path: Path, head: bytes, made_by: dict[str, Any]) -> None:
    """Raise DataError when a file was finished under the options in `head`, and name those that differ."""
    from openclap.errors import DataError

    with path.open("rb") as file:
        done = max(0, sum(line.endswith(b"\n") for line in file) - 1)
    if not done:
        return
    try:
        stored = json.loads(head)
        different = [name for name, fact in made_by.items() if stored.get(name) != fact]
    except (ValueError, AttributeError):
        different = ["its first line"]
    names = ", ".join("the model" if name == "digest" else name for name in different)
    raise DataError(
        f"{path.parent}: holds {counted(done, 'finished file')} of a run that differs in: {names}. Give the same "
        "options to resume, choose another --output, or delete that folder to start again."
    )


@contextmanager
def resumable_rows(output: Path, made_by: dict[str, Any]) -> Iterator[ResumableRows]:
    """Open the finished rows of `output`, and delete them at the end if the output is written or there are none.

    Raises DataError when another process is writing them, when OUTPUT.part is something else, and as `ResumableRows`.
    """
    from openclap.errors import DataError
    from openclap.locks import LOCK, only_writer
    from openclap.storage import partial_of

    folder = output.with_name(output.name + ".part")
    ours = {ROWS, LOCK, partial_of(folder / ROWS).name}
    if folder.exists() and not (folder.is_dir() and all(path.name in ours for path in folder.iterdir())):
        raise DataError(f"{folder}: exists, and this name is needed for unfinished embeddings. Move it away.")
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
            note(f"{counted(len(rows), 'file')} {verb} done and saved in {folder}. Run the same command to resume.")
        raise
