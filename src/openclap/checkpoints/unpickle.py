"""Reading other people's `.pt` and `.pth` files without running their code.

A pickle can name any function and call it. This reader resolves what tensors are rebuilt from, and nothing
else: torch's rebuilding functions and storages, OrderedDict, numpy scalars, dtypes and arrays. Real LAION files
hold numpy scalars and protocol 4, which torch's own `weights_only=True` refuses.
"""

from __future__ import annotations

import pickle
import types
from pathlib import Path
from typing import Any

import torch

from openclap.errors import CheckpointError

ALLOWED: dict[str, frozenset[str]] = {
    "collections": frozenset({"OrderedDict"}),
    "torch._utils": frozenset({"_rebuild_tensor_v2", "_rebuild_parameter"}),
    "torch": frozenset(
        {
            *("FloatStorage", "DoubleStorage", "HalfStorage", "BFloat16Storage", "LongStorage", "IntStorage"),
            *("ShortStorage", "CharStorage", "ByteStorage", "BoolStorage", "Size", "device"),
        }
    ),
    "torch.storage": frozenset({"UntypedStorage", "TypedStorage"}),
    "numpy": frozenset({"dtype", "ndarray"}),
    "numpy.core.multiarray": frozenset({"scalar", "_reconstruct"}),
    "numpy._core.multiarray": frozenset({"scalar", "_reconstruct"}),
    "numpy.core.numeric": frozenset({"_frombuffer"}),
    "numpy._core.numeric": frozenset({"_frombuffer"}),
    "_codecs": frozenset({"encode"}),
}


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that refuses every name outside ALLOWED."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in ALLOWED.get(module, ()):
            raise CheckpointError(
                f"refused: the file wants to run {module}.{name}, which holds no weights. Nothing was executed."
            )
        return super().find_class(module, name)


def _load(file: Any, **options: Any) -> Any:
    return RestrictedUnpickler(file, **options).load()


_MODULE = types.ModuleType("openclap_restricted_pickle")
_MODULE.__dict__.update(Unpickler=RestrictedUnpickler, load=_load)


def read_pickled(path: Path) -> Any:
    """What a `.pt` file holds, its tensors on the CPU.

    Raises CheckpointError for a missing or damaged file and for one that would run code.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file.")
    try:
        return torch.load(path, map_location="cpu", pickle_module=_MODULE, weights_only=False)
    except CheckpointError as error:
        raise CheckpointError(f"{path.name}: {error}") from None
    except Exception as error:  # a damaged file fails in as many ways as there are bytes
        raise CheckpointError(
            f"{path.name}: is not a checkpoint that torch can read ({type(error).__name__}: {error}). Is it truncated?"
        ) from None
