"""`openclap embed`: write the embeddings of sound files to a file.

W windows of a sound, D embedding.
"""

from __future__ import annotations

import json as jsons
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import numpy as np
from cyclopts import Parameter

from openclap.cli.console import (
    ProgressLine,
    SkippedFile,
    counted,
    list_skipped,
    note,
    print_json,
    progress,
    skipped_facts,
)
from openclap.cli.model_options import ModelOptions

ROW_GROUP = 4096
"""Rows of one row group of a parquet file: about 8 MB of 512 float32 numbers each."""
TIMES = ("start_s", "end_s")
"""Names of the columns of a window."""


def embed(
    files: list[Path],
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    windows: bool = False,
    length_s: float | None = None,
    hop_s: float | None = None,
    model_options: ModelOptions = ModelOptions(),
    batch_size: int = 16,
    json: bool = False,
) -> None:
    """Write the embeddings of sound files to a parquet file or a numpy array.

    OUTPUT.parquet has a row for each file with its `path` and `vector`, or, with --windows, a row for each window
    with `start_s` and `end_s` as well. OUTPUT.npy is a float32 array (rows, D); OUTPUT.npy.json beside it lists the
    path of each row. The vectors have length 1. Files that cannot be decoded are listed and left out.

    Embeddings are cached (`openclap cache`): after a stop, the same command resumes, and sounds that were embedded with
    this model and these options before are not embedded again, whatever their names.

    Parameters
    ----------
    files
        Sound files, or folders of them. A file that is named twice is read once.
    output
        The `.parquet` or `.npy` file to write.
    windows
        Embed each sound window by window instead of as a whole.
    length_s
        The length of a window in seconds. Default: the length of the model's input.
    hop_s
        Seconds from the start of a window to the start of the next. Default: the length of a window.
    batch_size
        The number of sounds or windows per forward pass.
    json
        Print the result and the skipped files as one JSON object.
    """
    from openclap.cli.classify import find_sounds
    from openclap.embedding_cache import EmbeddingCache, identity_of
    from openclap.errors import ConfigError
    from openclap.limits import check_count

    check_count("--batch-size", batch_size)
    write = _writer(output)  # refuses an invalid output before hours of embedding
    if not windows and (length_s, hop_s) != (None, None):
        raise ConfigError("--length-s and --hop-s apply to windows. Give --windows with them.")
    sounds, skipped = find_sounds(files)
    embedder = model_options.load()
    facts_of_model = model_options.facts(embedder)
    name = str(facts_of_model.pop("model"))
    length = embedder.window_s if length_s is None else length_s
    part = f"windows of {length} s every {length if hop_s is None else hop_s} s" if windows else "whole sounds"
    identity = identity_of(embedder, part)
    assert identity is not None
    made_by = {
        "digest": identity["digest"],
        **facts_of_model,
        "dimension": embedder.embedding_size,
        "windows": [length_s, hop_s] if windows else None,
    }
    with progress("Embedding") as advance:
        options: dict[str, Any] = {"batch_size": batch_size, "progress": advance.add_seconds}
        cut = partial(embedder.windows_each, length_s=length_s, hop_s=hop_s)
        cache = EmbeddingCache(identity, name)
        results = cache.embed_each(sounds, partial(cut if windows else embedder.embed_each, **options))
        embedded = _Embedded(output, sounds, results, skipped, advance)
        try:
            write(output, embedded, {"model": name, **made_by})
        except KeyboardInterrupt:
            if embedded.files and cache.file.is_open:
                are = "file is" if embedded.files == 1 else "files are"
                note(f"{embedded.files} {are} done and cached. Run the same command to resume.")
            raise
        finally:
            cache.file.close()
    list_skipped(skipped)
    if cache.hits:
        note(f"{counted(cache.hits, 'file')} of {len(sounds)} came from the cache.")
    names = names_of(output) if output.suffix == ".npy" else None
    and_paths = f", their paths to {names}" if names else ""
    note(f"Wrote {counted(embedded.rows, 'vector')} of {made_by['dimension']} numbers to {output}{and_paths}")
    if json:
        facts: dict[str, Any] = {"output": str(output), "names": str(names) if names else None, "rows": embedded.rows}
        facts |= {"files": embedded.files, "cached": cache.hits}
        print_json(facts | {"model": name} | made_by | {"skipped": skipped_facts(skipped)})


class _Embedded:
    """Iterates over (path, start_s, end_s, vector (D,)) of each window of the sounds, or (path, vector) of each sound.

    Attributes:
        files, rows: the numbers of embedded sounds and of rows so far.

    Raises AudioError at the end where no sound could be embedded.
    """

    def __init__(
        self,
        output: Path,
        paths: Collection[str],
        results: Iterator[Any],
        skipped: list[SkippedFile],
        advance: ProgressLine,
    ) -> None:
        self.files = self.rows = 0
        self._output, self._paths, self._results, self._skipped, self._advance = (
            output,
            paths,
            results,
            skipped,
            advance,
        )

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        from openclap.errors import AudioError

        for done, (path, result) in enumerate(zip(self._paths, self._results, strict=True), start=1):
            if isinstance(result, AudioError):
                self._skipped.append((path, str(result)))
            else:
                windows = isinstance(result, list)
                rows = [(each.start_s, each.end_s, each.vector) for each in result] if windows else [(result,)]
                self.files, self.rows = self.files + 1, self.rows + len(rows)
                yield from ((path, *row) for row in rows)
            self._advance(done, len(self._paths))
        if not self.files:
            list_skipped(self._skipped)
            raise AudioError(
                f"None of the {len(self._paths)} files could be embedded, so {self._output} was not written."
            )


def names_of(output: Path) -> Path:
    """The file with the paths of the rows of a `.npy`: "a.npy.json" beside "a.npy"."""
    return output.with_name(output.name + ".json")


RowsWriter = Callable[[Path, Iterable[tuple[Any, ...]], dict[str, Any]], None]
"""Writes (output file, rows, model and options)."""


def _write_npy(output: Path, rows: Iterable[tuple[Any, ...]], made_by: dict[str, Any]) -> None:
    from openclap.storage import write_bytes

    names: list[Any] = []
    with _new_output(output) as file:
        # Row by row behind a header, because the array of all rows may not fit into memory.
        _write_header(file, (0, made_by["dimension"]))
        for path, *times, vector_D in rows:
            file.write(vector_D.astype("<f4").tobytes())
            names.append(dict(zip(("path", *TIMES), (path, *times), strict=True)) if times else path)
        file.seek(0)
        _write_header(file, (len(names), made_by["dimension"]))  # numpy leaves room for a longer number
    write_bytes(names_of(output), jsons.dumps(names, indent=0, ensure_ascii=False).encode() + b"\n")


def _write_header(file: BinaryIO, shape: tuple[int, int]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})


def _write_parquet(output: Path, rows: Iterable[tuple[Any, ...]], made_by: dict[str, Any]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    dimension = made_by["dimension"]
    times = [(name, pa.float64()) for name in TIMES] if made_by["windows"] else []
    columns = [("path", pa.string()), *times, ("vector", pa.list_(pa.float32(), dimension))]
    facts = {f"openclap.{name}": fact if isinstance(fact, str) else jsons.dumps(fact) for name, fact in made_by.items()}
    schema = pa.schema(columns, metadata=facts)
    each_row = iter(rows)
    with (
        _new_output(output) as file,
        parquet.ParquetWriter(file, schema, compression="zstd", use_dictionary=["path"]) as writer,
    ):
        while group := list(islice(each_row, ROW_GROUP)):
            *plain, vectors = zip(*group, strict=True)
            vector = pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(vectors)), dimension)
            writer.write_table(pa.Table.from_arrays([*map(pa.array, plain), vector], schema=schema))


@contextmanager
def _new_output(output: Path) -> Iterator[BinaryIO]:
    """As `new_file`, and create the folder. Raises DataError when another process is writing this file."""
    from openclap.errors import DataError
    from openclap.locks import open_alone
    from openclap.storage import new_file, partial_of

    output.parent.mkdir(parents=True, exist_ok=True)
    if (lock := open_alone(partial_of(output))) is None:
        raise DataError(f"{output}: another process is writing it. Wait until it has finished, or choose another name.")
    lock.close()
    with new_file(output) as file:
        yield file


def _is_our_npy(output: Path) -> bool:
    """Whether a file beside an array lists its rows; any other array is not ours to replace."""
    return _begins(output, b"\x93NUMPY") and names_of(output).is_file()


def _is_our_parquet(output: Path) -> bool:
    """Whether a table's metadata name the model of its vectors."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return b"openclap.digest" in (parquet.read_schema(output).metadata or {})
    except (OSError, pa.ArrowException):
        return False


WRITERS: dict[str, tuple[Callable[[Path], bool], RowsWriter]] = {
    ".npy": (_is_our_npy, _write_npy),
    ".parquet": (_is_our_parquet, _write_parquet),
}
"""By suffix: a function that recognises a file written by `embed`, and one that writes it."""


def _writer(output: Path) -> RowsWriter:
    """The writer for the suffix of `output`.

    Raises ConfigError for another suffix, a folder, and a file that `embed` did not write.
    """
    from openclap.errors import ConfigError

    if output.is_dir():
        raise ConfigError(f"{output}: is a folder, expected the name of a file to write.")
    if output.suffix not in WRITERS:
        raise ConfigError(f"{output}: the name must end with {' or '.join(WRITERS)}.")
    is_ours, writer = WRITERS[output.suffix]
    is_empty = output.is_file() and not output.stat().st_size
    if output.exists() and not is_empty and not is_ours(output):
        raise ConfigError(f"{output}: exists, and 'openclap embed' did not write it. Choose another name.")
    names = names_of(output)
    if output.suffix == ".npy" and names.exists() and not (output.is_file() and _begins(names, b"[\n")):
        raise ConfigError(
            f"{names}: exists, and the paths of the rows would be written to it. Choose another name, or move it."
        )
    return writer


def _begins(path: Path, beginning: bytes) -> bool:
    """Whether this is a file with these first bytes, or an empty one."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(beginning)) in (beginning, b"")
