"""Read the tensors of one file, safetensors or torch's; the first bytes decide which, not the name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openclap.checkpoints.translate_keys import strip_wrappers
from openclap.checkpoints.unpickle import read_pickled
from openclap.errors import CheckpointError
from openclap.formatting import describe_error, join_first

NESTED = ("state_dict", "model", "model_state_dict")
"""Keys under which trainers store the weights beside other things."""
WRITER, UNTRAINED = "openclap", "untrained"
"""A `.pt` file of openclap has "written_by", and lists under "untrained" the tensors that were initialised only because
LAION-CLAP's loader requires them. Files without this mark are never replaced."""
LONGEST_HEADER = 100_000_000
"""Bytes of JSON in a safetensors file, by the format's definition."""
ZIP = b"PK\x03\x04"
PICKLE_PROTOCOLS = (b"\x01", b"\x02", b"\x03", b"\x04", b"\x05")
IMPOSTORS = {
    b"version https://git-lfs": "is a pointer of Git LFS, not the file. Run 'git lfs pull' in its repository.",
    b"<!DOCTYPE": "is a web page, not the file. Download it again, by the link to the file itself.",
    b"<html": "is a web page, not the file. Download it again, by the link to the file itself.",
}
"""First bytes of files that a failed download leaves in place of a checkpoint."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file's tensors by name, wherever a trainer nested them.

    Raises CheckpointError for a file that is missing, damaged or no checkpoint.
    """
    return read_safetensors(path) if is_safetensors(path) else extract_state_dict(read_pickled(path), path.name)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file. Raises CheckpointError for any other file, pickles included."""
    from safetensors import SafetensorError

    if not path.exists():
        raise CheckpointError(f"{path}: no such file; the folder is not complete.")
    if not is_safetensors(path):
        raise CheckpointError(f"{path}: is damaged, or was not written by safetensors.")
    try:
        return strip_wrappers(_load_safetensors(path), path.name)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: is damaged ({describe_error(error)}).") from None


def metadata_of(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file; {} for any other file, and for one without."""
    from safetensors import safe_open

    if not path.is_file() or not is_safetensors(path):
        return {}
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load, load_file

    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:  # safetensors opens no path that is not valid UTF-8, so Python opens it
        return load(path.read_bytes())
    return load_file(path)


def extract_state_dict(content: Any, source: str) -> dict[str, Tensor]:
    """Find the named tensors in a file's content, without those that its writer lists as untrained.

    Raises CheckpointError, saying what was found, where there are none.
    """
    inner = content
    for key in NESTED:
        if isinstance(inner, dict) and isinstance(inner.get(key), dict):
            inner = inner[key]
    items = inner.items() if isinstance(inner, dict) else ()
    tensors = {name: value for name, value in items if isinstance(name, str) and isinstance(value, Tensor)}
    if not tensors:
        keys = join_first(content) if isinstance(content, dict) else ""
        found = f"the keys {keys}" if keys else f"{type(content).__name__} alone"
        raise CheckpointError(
            f"{source}: has no tensors by name, neither at its top nor under {', '.join(NESTED)}; found {found}. "
            "Save the model's state dict by itself."
        )
    untrained = set(content.get(UNTRAINED, ())) if content.get("written_by") == WRITER else set()
    return {name: tensor for name, tensor in strip_wrappers(tensors, source).items() if name not in untrained}


def check_equal(found: Mapping[str, Tensor], written: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError unless both hold the same tensors under the same names, bit for bit (NaN equals NaN)."""
    if unmatched := sorted(found.keys() ^ written.keys()):
        raise CheckpointError(f"{join_first(unmatched)} {'is' if len(unmatched) == 1 else 'are'} on one side only.")
    if different := [name for name, tensor in written.items() if not _bits_equal(found[name], tensor)]:
        raise CheckpointError(f"{join_first(different)} came back with other numbers. Is the disk damaged?")


def _bits_equal(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and first.dtype == second.dtype and torch.equal(_bits(first), _bits(second))


def _bits(tensor: Tensor) -> Tensor:
    """View a tensor as integers: NaNs compare equal to themselves, and much faster than bytes would."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(INTEGERS.get(flat.element_size(), torch.uint8))


INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def is_safetensors(path: Path) -> bool:
    """Return whether safetensors (True) or torch (False) wrote a file. Raises CheckpointError for neither."""
    if not path.is_file():
        raise CheckpointError(f"{path}: {'is not a regular file' if path.exists() else 'no such file'}.")
    with path.open("rb") as file:
        head = file.read(64)
    # The first eight bytes are the header's length and may begin like a pickle or a zip, so safetensors is tested
    # first. The limit makes their upper half zero, which holds for no pickle and no zip: theirs are version and flags.
    if int.from_bytes(head[:8], "little") <= LONGEST_HEADER and head[8:9] == b"{":
        return True
    if head.startswith(ZIP) or (head[:1] == b"\x80" and head[1:2] in PICKLE_PROTOCOLS):
        return False
    for beginning, reason in IMPOSTORS.items():
        if head.startswith(beginning):
            raise CheckpointError(f"{path}: {reason}")
    if not head.strip(b"\0"):
        raise CheckpointError(
            f"{path}: is damaged: it holds {'nothing but zeros' if head else 'no bytes'}. Is it truncated?"
        )
    raise CheckpointError(f"{path}: is damaged, or neither torch nor safetensors wrote it. Is it truncated?")
