"""`openclap embed`: sound files to vectors in a file.

W windows of a sound, D embedding.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from cyclopts import Parameter

from openclap.cli.console import list_skipped, note, progress
from openclap.cli.using import Using

if TYPE_CHECKING:
    from openclap.embedder import Vectors
    from openclap.errors import AudioError
    from openclap.search.walk import Stamp
    from openclap.types import Window

ROWS = "rows.jsonl"
ROW_GROUP = 4096
TIMES = ("start_s", "end_s")


def embed(
    files: Annotated[list[Path], Parameter(negative="")],
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    windows: Annotated[bool, Parameter(negative="")] = False,
    length_s: float | None = None,
    hop_s: float | None = None,
    using: Using = Using(),
    batch_size: int = 16,
) -> None:
    """Turn sound files into unit vectors.

    OUTPUT.parquet has a row for each file with its `path` and `vector`, or, with --windows, a row for each window
    with `start_s` and `end_s` as well. OUTPUT.npy is a float32 array (rows, D), and OUTPUT.npy.json beside it names
    the rows. Files that cannot be decoded are listed and left out.

    Stopped half-way, the same command goes on. What is done waits in the folder OUTPUT.part until all is.

    Parameters
    ----------
    files
        Sound files, or folders of them.
    output
        The `.parquet` or `.npy` file to write.
    windows
        Embed stretches of each sound instead of the sound as a whole.
    length_s
        Seconds of a window; what the model reads at once without it.
    hop_s
        Seconds from one window's start to the next one's; a window's length without it.
    batch_size
        Sounds, or windows, in one forward pass.
    """
    from openclap.cli.classify import find_sounds
    from openclap.errors import AudioError, ConfigError

    write = _writer(output)
    if not windows and (length_s, hop_s) != (None, None):
        raise ConfigError("--length-s and --hop-s say how windows are cut: give --windows with them.")
    sounds, skipped = find_sounds(files)
    embedder = using.load()
    made_by = {
        "digest": embedder.digest(),
        "precision": embedder.engine.precision,
        "dimension": embedder.preset.embedding_size,
        "windows": [length_s, hop_s] if windows else None,
    }
    with unfinished(output, made_by) as part, progress("Embedding") as advance:
        paths = [path for path, stamp in sounds.items() if not part.has(path, stamp)]
        before = len(sounds) - len(paths)
        if before:
            note(f"Going on: {before} of {len(sounds)} files are done.")
        results: Iterator[Vectors | list[Window] | AudioError] = (
            embedder.windows_each(paths, length_s, hop_s, batch_size)
            if windows
            else embedder.embed_each(paths, batch_size=batch_size)
        )
        for done, (path, result) in enumerate(zip(paths, results, strict=True), start=before + 1):
            if isinstance(result, AudioError):
                skipped.append((path, str(result)))
            else:
                part.add(path, sounds[path], result)
            advance(done, len(sounds))
        whole = [path for path, stamp in sounds.items() if part.has(path, stamp)]
        if whole:
            write(output, part, whole, {"model": using.name, **made_by})
            part.is_written = True
    list_skipped(skipped)
    if not whole:
        raise AudioError(f"None of the {len(sounds)} files could be embedded, so {output} was not written.")
    names = f", their paths to {names_of(output)}" if output.suffix == ".npy" else ""
    note(f"Wrote {part.count(whole)} vectors of {made_by['dimension']} numbers to {output}{names}")


def names_of(output: Path) -> Path:
    """Where the rows of a `.npy` are named: "a.npy" has "a.npy.json"."""
    return output.with_name(output.name + ".json")


class Part:
    """What is done of an output, in `OUTPUT.part/rows.jsonl`: what it is made by, then a line a file as they come.

    Each line reaches the system before the next file is read, so a kill costs no more than a torn last line, and
    that is cut off. A file counts as done while its size and its time are those it was read at.
    """

    def __init__(self, folder: Path, made_by: dict[str, Any]) -> None:
        from openclap.data.files import write_bytes

        self.is_written = False
        self._known: dict[str, tuple[list[int], int, int]] = {}  # path -> stamp, windows, place in the file
        path, head = folder / ROWS, json.dumps(made_by).encode() + b"\n"
        if not path.is_file():
            write_bytes(path, head)
        self._file = path.open("r+b")
        if self._file.read(len(head)) != head:
            note(f"{folder} was made by another model or with other options: starting anew.")
            self._file.close()
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


@contextmanager
def unfinished(output: Path, made_by: dict[str, Any]) -> Iterator[Part]:
    """What an earlier run has done of `output`; kept for the next run unless the output is written.

    Raises DataError when another process is at it, or when OUTPUT.part is something else.
    """
    from openclap.data.files import partial_of
    from openclap.errors import DataError
    from openclap.locks import LOCK, only_writer

    folder = output.with_name(output.name + ".part")
    ours = {ROWS, LOCK, partial_of(folder / ROWS).name}
    if folder.exists() and not (folder.is_dir() and all(path.name in ours for path in folder.iterdir())):
        raise DataError(f"{folder}: unfinished vectors are kept there, and it is something else. Move it away.")
    folder.mkdir(parents=True, exist_ok=True)
    part: Part | None = None
    try:
        with only_writer(folder), closing(Part(folder, made_by)) as part:
            yield part
    except KeyboardInterrupt:
        if part:
            note(f"{len(part)} files are done and wait in {folder}. Run the same command to go on.")
        raise
    finally:
        if part is not None and (part.is_written or not part):
            shutil.rmtree(folder)


Writer = Callable[[Path, Part, Sequence[str], dict[str, Any]], None]


def _write_npy(output: Path, part: Part, paths: Sequence[str], made_by: dict[str, Any]) -> None:
    from openclap.data.files import new_file, write_bytes

    shape = (part.count(paths), made_by["dimension"])
    names: list[Any] = []
    with new_file(output) as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        for path, *times, vector_D in part.rows(paths):
            file.write(vector_D.tobytes())
            names.append(dict(zip(("path", *TIMES), (path, *times), strict=True)) if times else path)
    write_bytes(names_of(output), json.dumps(names, indent=0, ensure_ascii=False).encode() + b"\n")


def _write_parquet(output: Path, part: Part, paths: Sequence[str], made_by: dict[str, Any]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    from openclap.data.files import new_file

    dimension = made_by["dimension"]
    times = [(name, pa.float64()) for name in TIMES] if made_by["windows"] else []
    columns = [("path", pa.string()), *times, ("vector", pa.list_(pa.float32(), dimension))]
    facts = {f"openclap.{name}": fact if isinstance(fact, str) else json.dumps(fact) for name, fact in made_by.items()}
    schema = pa.schema(columns, metadata=facts)
    rows = part.rows(paths)
    with (
        new_file(output) as file,
        parquet.ParquetWriter(file, schema, compression="zstd", use_dictionary=["path"]) as writer,
    ):
        while group := list(islice(rows, ROW_GROUP)):
            *plain, vectors = zip(*group, strict=True)
            vector = pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(vectors)), dimension)
            writer.write_table(pa.Table.from_arrays([*map(pa.array, plain), vector], schema=schema))


WRITERS: dict[str, tuple[bytes, Writer]] = {".npy": (b"\x93NUMPY", _write_npy), ".parquet": (b"PAR1", _write_parquet)}
"""By suffix: how such a file begins, and what writes it."""


def _writer(output: Path) -> Writer:
    """What writes such an output. Raises ConfigError where it cannot be written, or is a file of another kind."""
    from openclap.errors import ConfigError, require

    if output.is_dir():
        raise ConfigError(f"{output}: is a folder, expected the name of a file to write.")
    if output.suffix not in WRITERS:
        raise ConfigError(f"{output}: vectors are written as {' or '.join(WRITERS)}; give a name that ends so.")
    beginning, writer = WRITERS[output.suffix]
    if output.suffix == ".parquet":
        require("pyarrow.parquet", "search")
    if output.is_file() and output.stat().st_size:
        with output.open("rb") as file:
            if file.read(len(beginning)) != beginning:
                raise ConfigError(f"{output}: is there, and holds no {output.suffix} data. Choose another name.")
    return writer
