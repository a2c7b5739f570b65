"""The tensors of one file, whatever it is called: safetensors, or what torch saved. Its structure tells which."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from openclap.checkpoints.names import few, why
from openclap.checkpoints.unpickle import read_pickled
from openclap.errors import CheckpointError, OpenClapError

NESTED = ("state_dict", "model", "model_state_dict")
"""Where trainers put the weights beside other things."""
WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.)+")
"""What DistributedDataParallel and torch.compile put before every name."""


WRITER, UNTRAINED = "openclap", "untrained"
"""A `.pt` file that openclap wrote says so under "written_by", and under the second key names the tensors that no model
learned and another library's loader asks for. No other file says so: what else is there is never replaced."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A file's tensors by name, taken out of what a trainer saved around them.

    Raises CheckpointError for a file that is missing, damaged or something else.
    """
    return read_safetensors(path) if _is_safetensors(path) else state_dict(read_pickled(path), path.name)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, and of nothing else."""
    from safetensors import SafetensorError

    if not path.exists():
        raise CheckpointError(f"{path}: no such file; the folder is not complete.")
    if not _is_safetensors(path):
        raise CheckpointError(f"{path}: is damaged, or was not written by safetensors.")
    try:
        return unwrapped(_loaded(path), path.name)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: is damaged ({why(error)}).") from None


def _loaded(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load, load_file

    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:  # safetensors opens no such path
        return load(path.read_bytes())
    return load_file(path)


def state_dict(content: Any, source: str) -> dict[str, Tensor]:
    """The named tensors of what a file holds, without those that its writer names as untrained.

    Raises CheckpointError, saying what is there, where there are none.
    """
    found = content
    for key in NESTED:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    named = found.items() if isinstance(found, dict) else ()
    tensors = {name: value for name, value in named if isinstance(name, str) and isinstance(value, Tensor)}
    if not tensors:
        keys = few([str(key) for key in content]) if isinstance(content, dict) else ""
        what = f"the keys {keys}" if keys else f"{type(content).__name__} alone"
        raise CheckpointError(
            f"{source}: has no tensors by name, neither at its top nor under {', '.join(NESTED)}; found {what}. "
            "Save the model's state dict by itself."
        )
    untrained = set(content.get(UNTRAINED, ())) if content.get("written_by") == WRITER else set()
    return {name: tensor for name, tensor in unwrapped(tensors, source).items() if name not in untrained}


def unwrapped(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Names without what wrappers of modules put before them."""
    plain = {WRAPPERS.sub("", name): tensor for name, tensor in state.items()}
    if len(plain) < len(state):
        twice = sorted({WRAPPERS.sub("", name) for name in state if WRAPPERS.match(name)} & state.keys())
        raise CheckpointError(f"{source}: holds {few(twice)} twice, with and without a prefix such as module.")
    return plain


@contextmanager
def in_one_sentence(source: object) -> Iterator[None]:
    """Whatever goes wrong in understanding `source` comes out as one CheckpointError: a damaged file has as many ways
    to be wrong as there are bytes in it."""
    try:
        yield
    except OpenClapError:
        raise
    except OSError as error:
        raise CheckpointError(f"{error.filename or source}: cannot be read ({error.strerror or error}).") from error
    except Exception as error:
        raise CheckpointError(
            f"{source}: holds what no model of its kind can hold ({why(error)}). Is it damaged?"
        ) from error


def _is_safetensors(path: Path) -> bool:
    """Is it safetensors' (True) or torch's (False)? Raises CheckpointError for what is no file, or something else."""
    if not path.is_file():
        raise CheckpointError(f"{path}: {'is no file of bytes' if path.exists() else 'no such file'}.")
    with path.open("rb") as file:
        head = file.read(64)
    # A header's length may begin with any byte, those of a pickle and of a zip among them: it comes first.
    if int.from_bytes(head[:8], "little") <= LONGEST_HEADER and head[8:9] == b"{":
        return True
    if head.startswith(ZIP) or (head[:1] == b"\x80" and head[1:2] in PICKLE_PROTOCOLS):
        return False
    for beginning, what in BEGINNINGS.items():
        if head.startswith(beginning):
            raise CheckpointError(f"{path}: {what}")
    if not head.strip(b"\0"):
        raise CheckpointError(
            f"{path}: is damaged: it holds {'nothing but zeros' if head else 'no bytes'}. Is it truncated?"
        )
    raise CheckpointError(f"{path}: is damaged, or neither torch nor safetensors wrote it. Is it truncated?")


LONGEST_HEADER = 100_000_000
"""Bytes of JSON in a safetensors file, by the format's definition. It makes the upper half of the length that comes
before the "{" zero, which is so in no pickle that torch writes, and in no zip: those bytes are a version and flags."""
ZIP = b"PK\x03\x04"
PICKLE_PROTOCOLS = (b"\x01", b"\x02", b"\x03", b"\x04", b"\x05")


BEGINNINGS = {
    b"version https://git-lfs": "is a pointer of Git LFS, not the file. Run 'git lfs pull' in its repository.",
    b"<!DOCTYPE": "is a web page, not the file. Download it again, by the link to the file itself.",
    b"<html": "is a web page, not the file. Download it again, by the link to the file itself.",
}
"""What stands in place of a file that was not fetched rightly."""
