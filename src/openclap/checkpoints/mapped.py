"""Read model folders without torch: weights as arrays that are mapped from their safetensors files.

Both openclap's folders and those of transformers' ClapModel are read. Tensors have openclap's names, whatever the
folder's are, and are equal to those that `detect.read` gives.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclap.checkpoints import clap_model, openclap_config
from openclap.checkpoints.damage import errors_as_checkpoint_errors
from openclap.checkpoints.translate_keys import strip_wrappers
from openclap.errors import CheckpointError
from openclap.presets import Preset

MappedWeights = dict[str, NDArray[Any]]
"""Arrays by openclap's names of tensors: float32, and int64 counters."""

DTYPES = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "BF16": "<u2", "I64": "<i8"}
"""Types of stored tensors; numpy has none for bfloat16, whose bits are read instead."""
STATISTICS, COUNTER = ".running_var", ".num_batches_tracked"
"""Ends of names: every batch norm has both, and many files lack the counters."""


@dataclass(frozen=True, slots=True)
class MappedCheckpoint:
    """A model folder whose weights are read from the disk when they are used.

    Attributes:
        weights: all tensors of the folder's weights file, under openclap's names.
    """

    preset: Preset
    weights: MappedWeights

    @property
    def scale(self) -> float:
        """The factor of cosines, as `CLAP.scale`: exp(logit_scale), between 1 and 100."""
        logarithm = np.clip(self.weights["logit_scale"].astype(np.float32), 0.0, np.float32(math.log(100.0)))
        return float(np.exp(logarithm))

    def digest(self) -> str:
        """A SHA-256 of weights and preset, as `checkpoints.checkpoint.weights_digest`; it reads all of the weights."""
        counters = {
            f"{name.removesuffix(STATISTICS)}{COUNTER}": np.zeros((), np.int64)
            for name in self.weights
            if name.endswith(STATISTICS)
        }
        sha = hashlib.sha256(repr(self.preset).encode())
        for name, array in sorted((counters | self.weights).items()):
            sha.update(name.encode())
            sha.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return sha.hexdigest()


def read_preset(folder: Path) -> Preset:
    """The preset of a model folder. Raises CheckpointError for one of another format, and a damaged one."""
    with errors_as_checkpoint_errors(folder):
        if openclap_config.is_openclap_folder(folder):
            return openclap_config.read_preset(folder)
        if clap_model.is_clap_folder(folder):
            return clap_model.read_config(folder)
    raise CheckpointError(f"{folder}: is no model folder of openclap or of transformers' ClapModel.")


def weight_files(folder: Path) -> list[Path]:
    """The files with the weights of a model folder. Raises CheckpointError where one is missing."""
    if openclap_config.is_openclap_folder(folder):
        return [folder / openclap_config.WEIGHTS]
    return clap_model.weight_files(folder)


def read(folder: Path) -> MappedCheckpoint:
    """Map a model folder whose weights are safetensors.

    Raises CheckpointError for a damaged or incomplete folder, and for weights in another form.
    """
    preset = read_preset(folder)
    with errors_as_checkpoint_errors(folder):
        stored = {name: array for file in weight_files(folder) for name, array in map_safetensors(file).items()}
        weights = strip_wrappers(stored, folder.name)
        if clap_model.has_clap_model_names(weights):
            weights = clap_model.from_state(weights, folder.name, np.concatenate)
        if "logit_scale" not in weights:
            raise CheckpointError(f"{folder}: lacks logit_scale. Is it complete?")
    return MappedCheckpoint(preset, weights)


def check_safetensors(file: Path) -> None:
    """Raise CheckpointError for a missing safetensors file, a damaged header, and tensors that do not fill the file."""
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise CheckpointError(f"{file}: no such file; the folder is not complete.")
    try:
        with safe_open(file, "numpy"):
            pass
    except SafetensorError as error:
        raise CheckpointError(f"{file}: is damaged ({error}).") from None


def map_safetensors(file: Path) -> MappedWeights:
    """The tensors of a safetensors file by name, mapped into memory; those of other floating-point types than float32
    are converted.

    Raises CheckpointError for a missing or damaged file, and for tensors of other types.
    """
    check_safetensors(file)
    content = np.memmap(file, np.uint8, "r")
    return {name: _array(content, name, entry) for name, entry in read_header(file).items()}


def read_header(file: Path) -> dict[str, Any]:
    """The entries of a safetensors file, by name: dtype, shape, and offsets from the start of the file."""
    with file.open("rb") as stream:
        start = 8 + int.from_bytes(stream.read(8), "little")
        entries: dict[str, Any] = json.loads(stream.read(start - 8))
    entries.pop("__metadata__", None)
    for entry in entries.values():
        entry["data_offsets"] = [start + offset for offset in entry["data_offsets"]]
    return entries


def _array(content: NDArray[np.uint8], name: str, entry: Mapping[str, Any]) -> NDArray[Any]:
    if entry["dtype"] not in DTYPES:
        raise CheckpointError(f"{name} is of type {entry['dtype']}, expected one of: {', '.join(DTYPES)}.")
    first, end = entry["data_offsets"]
    stored = content[first:end].view(np.ndarray)  # without memmap's cost at every operation
    if entry["dtype"] == "BF16":  # the upper half of a float32
        return (stored.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])
    array = stored.view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return array if entry["dtype"] in ("F32", "I64") else array.astype(np.float32)
