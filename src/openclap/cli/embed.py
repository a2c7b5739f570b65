"""`openclap embed`: sound files to vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
from cyclopts import Parameter

from openclap.cli.console import list_skipped, note, progress
from openclap.cli.defaults import default_model


def embed(
    files: list[Path],
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    model: str | None = None,
    batch_size: int = 16,
) -> None:
    """Turn sound files into unit vectors.

    Writes a float32 array (files, D) to OUTPUT and, beside it, the paths in the same order as a JSON array to
    OUTPUT.json. Files that cannot be decoded are listed and left out of both.

    Parameters
    ----------
    files
        Sound files, or folders of them.
    output
        The `.npy` file to write.
    model
        A model folder or name; the demo's model without it.
    batch_size
        Windows in one forward pass.
    """
    import openclap
    from openclap.data.files import new_file, write_bytes
    from openclap.errors import AudioError, ConfigError
    from openclap.search.walk import walk

    if output.suffix != ".npy":
        raise ConfigError(f"{output}: vectors are written as .npy; give a name that ends so.")
    if output.is_dir():
        raise ConfigError(f"{output}: is a folder, expected the name of a file to write.")
    output.parent.mkdir(parents=True, exist_ok=True)
    found = walk(files)
    sounds, skipped = list(found.files), [*found.skipped, *((name, "no such file") for name in found.missing)]
    if not sounds:
        list_skipped(skipped)
        raise AudioError(f"No sound was found in {', '.join(map(str, files))}.")
    embedder = openclap.load(model or default_model())
    vectors, names = [], []
    with progress("Embedding") as advance:
        for done, path in enumerate(sounds, start=1):
            try:
                vectors.append(embedder.embed_audio([path], batch_size=batch_size))
                names.append(path)
            except AudioError as error:
                skipped.append((path, str(error)))
            advance(done, len(sounds))
    list_skipped(skipped)
    if not vectors:
        raise AudioError(f"None of the {len(sounds)} files could be embedded, so {output} was not written.")
    array = np.concatenate(vectors)
    with new_file(output) as file:
        np.save(file, array)
    write_bytes(names_of(output), json.dumps(names, indent=0, ensure_ascii=False).encode() + b"\n")
    note(f"Wrote {array.shape[0]} vectors of {array.shape[1]} numbers to {output}, their paths to {names_of(output)}")


def names_of(output: Path) -> Path:
    """Where the paths of the vectors in `output` stand: "a.npy" has "a.npy.json"."""
    return output.with_name(output.name + ".json")
