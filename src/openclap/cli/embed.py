"""`openclap embed`: write the embeddings of sound files to a file.

W windows of a sound, D embedding.
"""

from __future__ import annotations

import json as jsons
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from cyclopts import Parameter

from openclap.cli.console import counted, list_skipped, note, print_json, progress, skipped_facts
from openclap.cli.model_options import ModelOptions
from openclap.cli.resumable_output import ResumableRows, resumable_rows

if TYPE_CHECKING:
    from openclap.embedder import Vectors
    from openclap.errors import AudioError
    from openclap.types import Window

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

    After a stop, the same command resumes. Until all files are done, finished embeddings are in the folder
    OUTPUT.part, and a command with another model or other options is refused.

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
    from openclap.errors import AudioError, ConfigError

    write = _writer(output)  # refuses an invalid output before hours of embedding
    if not windows and (length_s, hop_s) != (None, None):
        raise ConfigError("--length-s and --hop-s apply to windows. Give --windows with them.")
    sounds, skipped = find_sounds(files)
    embedder = model_options.load()
    facts_of_model = model_options.facts(embedder)
    name = facts_of_model.pop("model")
    made_by = {
        "digest": embedder.digest(),
        **facts_of_model,
        "dimension": embedder.preset.embedding_size,
        "windows": [length_s, hop_s] if windows else None,
    }
    with resumable_rows(output, made_by) as part, progress("Embedding") as advance:
        paths = [path for path, stamp in sounds.items() if not part.has(path, stamp)]
        before = len(sounds) - len(paths)
        if before:
            note(f"Resuming: {before} of {len(sounds)} files are done.")
        results: Iterator[Vectors | list[Window] | AudioError] = (
            embedder.windows_each(paths, length_s, hop_s, batch_size, progress=advance.add_seconds)
            if windows
            else embedder.embed_each(paths, batch_size, progress=advance.add_seconds)
        )
        for done, (path, result) in enumerate(zip(paths, results, strict=True), start=before + 1):
            if isinstance(result, AudioError):
                skipped.append((path, str(result)))
            else:
                part.add(path, sounds[path], result)
            advance(done, len(sounds))
        whole = [path for path, stamp in sounds.items() if part.has(path, stamp)]
        if whole:
            write(output, part, whole, {"model": name, **made_by})
            part.is_written = True
        rows = part.count(whole)
    list_skipped(skipped)
    if not whole:
        raise AudioError(f"None of the {len(sounds)} files could be embedded, so {output} was not written.")
    names = names_of(output) if output.suffix == ".npy" else None
    and_paths = f", their paths to {names}" if names else ""
    note(f"Wrote {counted(rows, 'vector')} of {made_by['dimension']} numbers to {output}{and_paths}")
    if json:
        facts = {"output": str(output), "names": str(names) if names else None, "rows": rows, "files": len(whole)}
        print_json(facts | {"model": name} | made_by | {"skipped": skipped_facts(skipped)})


def names_of(output: Path) -> Path:
    """The file with the paths of the rows of a `.npy`: "a.npy.json" beside "a.npy"."""
    return output.with_name(output.name + ".json")


RowsWriter = Callable[[Path, ResumableRows, Sequence[str], dict[str, Any]], None]
"""Writes (output file, finished rows, paths in order, model and options)."""


def _write_npy(output: Path, rows: ResumableRows, paths: Sequence[str], made_by: dict[str, Any]) -> None:
    from openclap.storage import new_file, write_bytes

    shape = (rows.count(paths), made_by["dimension"])
    names: list[Any] = []
    with new_file(output) as file:
        # Row by row behind a header, because the array of all rows may not fit into memory.
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        for path, *times, vector_D in rows.rows(paths):
            file.write(vector_D.tobytes())
            names.append(dict(zip(("path", *TIMES), (path, *times), strict=True)) if times else path)
    write_bytes(names_of(output), jsons.dumps(names, indent=0, ensure_ascii=False).encode() + b"\n")


def _write_parquet(output: Path, rows: ResumableRows, paths: Sequence[str], made_by: dict[str, Any]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    from openclap.storage import new_file

    dimension = made_by["dimension"]
    times = [(name, pa.float64()) for name in TIMES] if made_by["windows"] else []
    columns = [("path", pa.string()), *times, ("vector", pa.list_(pa.float32(), dimension))]
    facts = {f"openclap.{name}": fact if isinstance(fact, str) else jsons.dumps(fact) for name, fact in made_by.items()}
    schema = pa.schema(columns, metadata=facts)
    each_row = rows.rows(paths)
    with (
        new_file(output) as file,
        parquet.ParquetWriter(file, schema, compression="zstd", use_dictionary=["path"]) as writer,
    ):
        while group := list(islice(each_row, ROW_GROUP)):
            *plain, vectors = zip(*group, strict=True)
            vector = pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(vectors)), dimension)
            writer.write_table(pa.Table.from_arrays([*map(pa.array, plain), vector], schema=schema))


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
