"""Read `.pt` and `.pth` files without running the code that a pickle can hold.

A pickle can name any function, call it, and change what it named. This reader resolves only a literal table of names
(`KNOWN`): those that rebuild tensors, numpy values and plain containers, which is all that weights are made of. Each
stands for an inert value or for a `Rebuild`, which only this file can call, so that a file never holds a function.
Everything else is refused: other names, state set on anything but containers and arrays, persistent ids other than
storages, TorchScript archives (torch would run their code) and the tars of torch before 0.1.10.

torch's own `weights_only=True` does not serve: it refuses the numpy scalars and the pickle protocol 4 of LAION's files.
See docs/decisions/0007-a-restricted-unpickler.md.
"""

from __future__ import annotations

import os
import pickle
import sys
import tarfile
import types
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from openclap.errors import CheckpointError
from openclap.formatting import describe_error

TRUSTED_FILE_HINT = (
    "If you trust the file, load it with torch yourself and save its weights alone: "
    "torch.save(content['state_dict'], 'weights.pt')."
)


class RefusedError(CheckpointError):
    """A pickle holds an instruction that rebuilds no data.

    Args:
        action: the effect of the instruction, as a verb phrase.
    """

    def __init__(self, action: str) -> None:
        super().__init__(f"refused: reading the file would {action}. Nothing was executed. {TRUSTED_FILE_HINT}")


@dataclass(frozen=True, slots=True)
class Rebuild:
    """A function that a pickle may call by its name, without ever holding the function itself."""

    make: Callable[..., Any]


def _tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: Any) -> Tensor:
    """Replace `torch._utils._rebuild_tensor_v2`; hooks and gradients are left out."""
    return torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage, offset, size, stride)


def _typed_tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: Any) -> Tensor:
    """Replace `torch._utils._rebuild_tensor_v3`, for types that have no storage class: uint16, float8."""
    return torch.empty(0, dtype=rest[2]).set_(storage._untyped_storage, offset, size, stride)


def _parameter(value: Any, *rest: Any) -> Any:
    """Rebuild a parameter as its tensor."""
    return value


def _numpy_type(name: str, *rest: Any) -> np.dtype[Any]:
    """Allow types of numbers, text, bytes and objects; no structured ones, whose layout a file could forge."""
    kind = np.dtype(name)
    if kind.kind not in "?biufcSUO" or kind.fields or kind.subdtype:
        raise RefusedError(f"make a numpy type {name!r}")
    return kind


def _numpy_scalar(kind: np.dtype[Any], content: Any = None) -> Any:
    if kind.hasobject:
        return content  # pickled by itself, and so restricted itself
    return np.frombuffer(_latin(content), kind)[0] if kind.itemsize else kind.type()


def _numpy_array(content: Any, kind: np.dtype[Any], shape: tuple[int, ...], order: Any, axes: Any = None) -> Any:
    flat = np.frombuffer(content, kind)
    return flat.reshape(shape, order=order) if axes is None else flat.reshape(shape).transpose(axes)


def _latin(text: Any, encoding: str = "latin1") -> bytes:
    """Return bytes, which protocol 2 writes as text."""
    return text if isinstance(text, bytes) else bytes(text.encode("latin1"))


_ARRAYS: dict[str, Any] = {"scalar": Rebuild(_numpy_scalar), "_reconstruct": Rebuild(lambda *_: np.empty(0))}
_BUFFERS: dict[str, Any] = {"_frombuffer": Rebuild(_numpy_array)}
_PATHS: dict[str, Any] = {
    **dict.fromkeys(("Path", "PosixPath", "PurePath", "PurePosixPath"), Rebuild(PurePosixPath)),
    **dict.fromkeys(("WindowsPath", "PureWindowsPath"), Rebuild(PureWindowsPath)),
}
_BUILTINS: dict[str, Any] = {
    **{kind.__name__: Rebuild(kind) for kind in (set, frozenset, complex, slice)},
    "bytes": Rebuild(lambda content=b"", *_: _latin(content)),
    "bytearray": Rebuild(lambda content=b"", *_: bytearray(_latin(content))),
    "range": Rebuild(lambda *bounds: bounds),
    **{name: name for name in ("dict", "list", "tuple", "int", "float", "str", "bool")},
}
# numpy and pathlib each have two names here, because their modules were renamed between versions.
KNOWN: Mapping[str, Mapping[str, Any]] = {
    "collections": {
        "OrderedDict": Rebuild(OrderedDict),
        "defaultdict": Rebuild(lambda *_: {}),
        "Counter": Rebuild(dict),
    },
    "builtins": _BUILTINS,
    "argparse": {"Namespace": Rebuild(dict)},
    "types": {"SimpleNamespace": Rebuild(dict)},
    "pathlib": _PATHS,
    "pathlib._local": _PATHS,
    "torch._utils": {
        "_rebuild_tensor_v2": Rebuild(_tensor),
        "_rebuild_tensor_v3": Rebuild(_typed_tensor),
        "_rebuild_parameter": Rebuild(_parameter),
        "_rebuild_parameter_with_state": Rebuild(_parameter),
    },
    "torch": {
        # every dtype of the installed torch: constants
        **{name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)},
        "Size": Rebuild(torch.Size),
        "device": Rebuild(torch.device),
    },
    "torch.storage": {"UntypedStorage": torch.UntypedStorage},
    "numpy": {"dtype": Rebuild(_numpy_type), "ndarray": np.ndarray},
    "numpy.core.multiarray": _ARRAYS,
    "numpy._core.multiarray": _ARRAYS,
    "numpy.core.numeric": _BUFFERS,
    "numpy._core.numeric": _BUFFERS,
    "_codecs": {"encode": Rebuild(_latin)},
}
"""Modules and names that a file may use; containers of other types are rebuilt as plain dicts. Storage classes
("FloatStorage", …) are missing because torch resolves them itself."""


def _call(reader: Any) -> None:
    """REDUCE and NEWOBJ: call the name below the arguments."""
    arguments, target = reader.stack.pop(), reader.stack.pop()
    if not isinstance(target, Rebuild):
        raise RefusedError(f"call a {type(target).__name__}")
    reader.append(target.make(*arguments))


def _build(reader: Any) -> None:
    """BUILD: set the state of the object on top of the stack.

    Namespaces are dicts here and get their attributes; those of other objects (hooks of an OrderedDict, attributes of a
    parameter) are dropped.
    """
    state, target = reader.stack.pop(), reader.stack[-1]
    if type(target) is np.ndarray:
        target.__setstate__(state)  # numpy checks sizes; objects in it were restricted when they were read
    elif isinstance(target, np.dtype):
        if state[1] not in ("|", "=", "<" if sys.byteorder == "little" else ">"):
            raise RefusedError("read numbers of the other byte order")
    elif type(target) is dict:
        target.update(state)
    elif type(target) is not OrderedDict and not isinstance(target, Tensor):
        raise RefusedError(f"set the state of a {type(target).__name__}")


def _storage(reader: Any) -> None:
    """BINPERSID: load a storage through torch.

    torch has a second kind, "module", for which it would compare source files, and write one.
    """
    saved = reader.stack.pop()
    if not (type(saved) is tuple and saved and saved[0] in ("storage", b"storage")):
        raise RefusedError("load a persistent object other than a storage")
    reader.append(reader.persistent_load(saved))


def _refuse(reader: Any) -> None:
    raise RefusedError("use an instruction of pickle that no checkpoint needs")


_UNUSED = (pickle.PERSID, pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4)


class RestrictedUnpickler(pickle._Unpickler):
    """The unpickler that Python has in Python, with every instruction replaced that could run code or set state.

    The one in C cannot be restricted like this: only its `find_class` can be overridden, not its calls.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch,
        pickle.REDUCE[0]: _call,
        pickle.NEWOBJ[0]: _call,
        pickle.BUILD[0]: _build,
        pickle.BINPERSID[0]: _storage,
        **{code[0]: _refuse for code in _UNUSED},
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of a name. Raises RefusedError for a name that is not in `KNOWN`."""
        module = "builtins" if module == "__builtin__" else module  # Python 2's name, which protocol 2 writes
        try:
            return KNOWN[module][name]
        except KeyError:
            raise RefusedError(f"use {module}.{name}, which holds no weights") from None


def _load(file: Any, **options: Any) -> Any:
    return RestrictedUnpickler(file, **options).load()


# torch.load takes a module in place of pickle and uses these two names of it.
_MODULE = types.ModuleType("openclap_restricted_pickle")
_MODULE.__dict__.update(Unpickler=RestrictedUnpickler, load=_load)


def read_pickled(path: Path) -> Any:
    """Read a `.pt` file as plain data, its tensors on the CPU and without gradients.

    Raises CheckpointError for a missing or damaged file, and for one that would run code.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file.")
    try:
        with path.open("rb") as file:
            _check_container(file)
            return torch.load(file, map_location="cpu", pickle_module=_MODULE, weights_only=False)
    except CheckpointError as error:
        raise CheckpointError(f"{path.name}: {error}") from None
    except Exception as error:  # a damaged file fails in as many ways as it has bytes
        raise CheckpointError(
            f"{path.name}: is not a checkpoint that torch can read ({describe_error(error)}). Is it truncated?"
        ) from None


def _check_container(file: IO[bytes]) -> None:
    """Raise CheckpointError for a file that torch would not hand to this unpickler.

    Leaves the file at its beginning.
    """
    if os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "").lower() in ("1", "y", "yes", "true"):
        raise CheckpointError(
            "cannot be read while TORCH_FORCE_WEIGHTS_ONLY_LOAD is set, for torch then uses no unpickler but its own. "
            "Unset it; openclap's unpickler runs no code either."
        )
    if file.read(4) == b"PK\x03\x04":
        file.seek(0)
        if "constants.pkl" in torch._C.PyTorchFileReader(file).get_all_records():  # the test that torch.load makes
            raise CheckpointError(
                "is a TorchScript program, which would run while it is read. Expected a state dict: "
                "torch.save(model.state_dict(), path)."
            )
    else:
        file.seek(0)
        if tarfile.is_tarfile(file):
            raise CheckpointError("is a tar, expected a file that torch 0.1.10 or newer has saved.")
    file.seek(0)
