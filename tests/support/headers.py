"""safetensors files of any header length. A file begins with that length, a multiple of 8, its low byte first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

LOW_BYTES = range(0, 256, 8)
"""All that a file can begin with."""


def begin(place: Path, low: int) -> None:
    """Make a safetensors file begin with the byte `low`: its header is filled up with spaces, as the format allows."""
    content = place.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header, tensors = content[8:end].rstrip(b" "), content[end:]
    length = next(size for size in range(len(header), len(header) + 263) if size % 8 == 0 and size % 256 == low)
    place.write_bytes(length.to_bytes(8, "little") + header.ljust(length) + tensors)


def save_beginning(tensors: Mapping[str, Tensor], place: Path, low: int) -> None:
    """Write such a file."""
    save_file(dict(tensors), place, metadata={"format": "pt"})
    begin(place, low)
