from __future__ import annotations

import argparse
import io
import os
import pickle
import tarfile
import types
import zipfile
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import pytest
import torch

from openclap.checkpoints.unpickle import read_pickled
from openclap.errors import CheckpointError
from support.errors import raises_naming


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_training_state_is_read_at_every_protocol(tmp_path: Path, protocol: int, zipped: bool) -> None:
    module = torch.nn.Linear(2, 3)
    adam = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 2)).sum().backward()
    adam.step()
    content = {
        "state_dict": OrderedDict(weight=torch.arange(6.0).view(2, 3), half=torch.ones(2, dtype=torch.float16)),
        "view": torch.arange(10.0)[3:9:2],
        "module": module.state_dict(),  # has an attribute, _metadata
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "optimizer": adam.state_dict(),
        "loss": np.float64(0.5),
        "counts": np.arange(3),
        "again": [np.ones((2, 3), np.float32, order="F")] * 2,
        "text": np.str_("é"),
        "objects": np.array([{"a": 1}], dtype=object),
        "random": (np.random.RandomState(1).get_state(), torch.get_rng_state()),
        "epoch": 7,
    }
    path = tmp_path / "a.pt"
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    found = read_pickled(path)
    assert torch.equal(found["state_dict"]["weight"], content["state_dict"]["weight"])  # type: ignore[index]
    assert found["state_dict"]["half"].dtype == torch.float16
    assert found["view"].tolist() == [3, 5, 7] and found["parameter"].tolist() == [1, 1]
    assert all(torch.equal(found["module"][name], tensor) for name, tensor in module.state_dict().items())
    assert torch.equal(found["optimizer"]["state"][0]["exp_avg"], adam.state_dict()["state"][0]["exp_avg"])
    assert found["loss"] == 0.5 and found["counts"].tolist() == [0, 1, 2] and found["epoch"] == 7
    assert all(array.shape == (2, 3) and array.all() for array in found["again"])
    assert found["text"] == "é" and found["objects"][0] == {"a": 1}
    assert (found["random"][0][1] == np.random.RandomState(1).get_state()[1]).all()


HARMLESS: dict[str, tuple[Any, Any]] = {
    "dtype": (torch.bfloat16, torch.bfloat16),
    "set": ({1, 2}, {1, 2}),
    "frozenset": (frozenset("a"), frozenset("a")),
    "namespace": (argparse.Namespace(lr=0.1), {"lr": 0.1}),
    "simple": (types.SimpleNamespace(lr=0.1), {"lr": 0.1}),
    "defaultdict": (defaultdict(list, a=[1]), {"a": [1]}),
    "counter": (Counter("aab"), {"a": 2, "b": 1}),
    "path": (PosixPath("a/b"), Path("a/b")),
    "bytes": ((b"", b"\xff", bytearray(b"\xfe")), (b"", b"\xff", bytearray(b"\xfe"))),
    "numbers": ((1j, np.bool_(True), np.float32(2)), (1j, True, 2.0)),
    "slice": (slice(1, 2), slice(1, 2)),
    "device": (torch.device("cuda:1"), torch.device("cuda:1")),
    "size": (torch.Size([1, 2]), (1, 2)),
}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("what", HARMLESS)
def test_harmless_values_beside_the_weights_are_read(tmp_path: Path, what: str, protocol: int) -> None:
    given, expected = HARMLESS[what]
    torch.save({"beside": given, "w": torch.ones(1)}, tmp_path / "a.pt", pickle_protocol=protocol)
    found = read_pickled(tmp_path / "a.pt")
    assert found["w"].item() == 1 and found["beside"] == expected


@pytest.mark.parametrize("dtype", [torch.uint16, torch.float8_e4m3fn, torch.complex64, torch.bfloat16, torch.bool])
def test_tensors_of_every_dtype_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    given = torch.tensor([0, 1, 1]).to(dtype)
    torch.save(given, tmp_path / "a.pt")
    found = read_pickled(tmp_path / "a.pt")
    assert found.dtype == dtype and found.float().tolist() == [0, 1, 1] if dtype != torch.complex64 else found[1] == 1


class Trap:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_file_that_would_run_code_is_refused(tmp_path: Path, zipped: bool) -> None:
    target = tmp_path / "touched"
    path = tmp_path / "trap.pt"
    torch.save({"weights": Trap(target)}, path, _use_new_zipfile_serialization=zipped)
    with raises_naming(CheckpointError, "trap.pt", "refused", "system", "torch.save"):
        read_pickled(path)
    path.write_bytes(pickle.dumps(Trap(target)))
    with raises_naming(CheckpointError, "trap.pt", "refused", "system"):
        read_pickled(path)
    assert not target.exists()


def container(path: Path, body: bytes, zipped: bool) -> Path:
    """A file that torch reads up to `body`, the opcodes of its pickle."""
    if zipped:
        torch.save({}, path)
        with zipfile.ZipFile(path) as archive:
            records = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, data in records.items():
                archive.writestr(name, b"\x80\x02" + body + b"." if name.endswith("data.pkl") else data)
        return path
    head = io.BytesIO()
    sizes = {"short": 2, "int": 4, "long": 4}
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": sizes}
    for part in (torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, system):
        pickle.dump(part, head, protocol=2)
    path.write_bytes(head.getvalue() + b"\x80\x02" + body + b"." + pickle.dumps([], protocol=2))
    return path


def code(value: object) -> bytes:
    """The opcodes that make a value."""
    return pickle.dumps(value, protocol=2)[2:-1]


REBUILD, STORAGE = b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch.storage\nUntypedStorage\n"
ATTACKS = {  # the opcodes, and what the error names
    "eval": (b"cbuiltins\neval\n", "builtins.eval"),
    "getattr": (b"cbuiltins\ngetattr\n", "builtins.getattr"),
    "python 2": (b"c__builtin__\neval\n", "builtins.eval"),
    "load": (b"ctorch\nload\n", "torch.load"),
    "wrapper": (b"ctorch._utils\n_rebuild_wrapper\n", "torch._utils._rebuild_wrapper"),
    "from bytes": (b"ctorch.storage\n_load_from_bytes\n", "torch.storage._load_from_bytes"),
    "dotted": (code("builtins") + code("set.__init__") + b"\x93", "builtins.set.__init__"),
    "a class": (STORAGE + b")R", "type"),
    "numpy's class": (b"cnumpy\nndarray\n)\x81", "type"),
    "an instance": (code([]) + b")R", "list"),
    "a function's state": (REBUILD + b"N" + code({"__name__": "x"}) + b"\x86b", "Rebuild"),
    "a class's state": (STORAGE + b"N" + code({"__len__": 3}) + b"\x86b", "type"),
    "a list's state": (code([]) + code({"a": 1}) + b"b", "list"),
    "a storage type's state": (
        b"ctorch\nFloatStorage\n" + code({"_dtype": 3}) + b"b",
        "StorageType",
    ),
    "a persistent module": (
        b"(" + code("module") + REBUILD + code("a") + code("b") + b"tQ",
        "persistent",
    ),
    "a persistent name": (b"Pmodule\n", "instruction"),
    "an old instance": (b"(ios\nsystem\n", "instruction"),
    "structured numpy": (b"cnumpy\ndtype\n" + code(("i4,i4", False, True)) + b"R", "numpy"),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_on_the_unpickler_is_refused(tmp_path: Path, attack: str, zipped: bool) -> None:
    body, value = ATTACKS[attack]
    path = container(tmp_path / "a.pt", body, zipped)
    with raises_naming(CheckpointError, "a.pt", "refused", value):
        read_pickled(path)


def test_container_of_the_attacks_is_readable_without_them(tmp_path: Path) -> None:
    for zipped in (True, False):
        assert read_pickled(container(tmp_path / "a.pt", code({"a": [1]}), zipped)) == {"a": [1]}


def test_attacks_write_no_file_and_change_nothing_of_torch(tmp_path: Path) -> None:
    """Two real attacks: torch writes a source file that "has changed"; a class that all tensors use is altered."""
    place = tmp_path / "written"
    renamed = REBUILD + b"N" + code({"dump_patches": True, "__name__": str(place)}) + b"\x86b"
    patch = b"(" + code("module") + renamed + code("file.py") + code("line 1\nline 2") + b"tQ"
    poison = STORAGE + b"N" + code({"__len__": 3, "__init__": 3}) + b"\x86b"
    for body in (patch, poison):
        with raises_naming(CheckpointError, "a.pt", "refused"):
            read_pickled(container(tmp_path / "a.pt", body, False))
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]
    assert torch._utils._rebuild_tensor_v2.__name__ == "_rebuild_tensor_v2"
    assert callable(torch.UntypedStorage.__len__)


def test_torchscript_program_is_not_run(tmp_path: Path) -> None:
    class Program(torch.nn.Module):
        def __init__(self, place: str) -> None:
            super().__init__()
            self.place = place

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

        @torch.jit.export
        def __getstate__(self) -> tuple[str, bool]:
            return (self.place, self.training)

        @torch.jit.export
        def __setstate__(self, state: tuple[str, bool]) -> None:
            self.place = state[0]
            self.training = state[1]
            torch.save(torch.zeros(1), self.place)

    place = tmp_path / "written"
    torch.jit.script(Program(str(place))).save(str(tmp_path / "a.pt"))
    with raises_naming(CheckpointError, "a.pt", "TorchScript"):
        read_pickled(tmp_path / "a.pt")
    assert not place.exists()
    torch.jit.load(str(tmp_path / "a.pt"))
    assert place.exists()  # the attack works where torch is given the file


def test_tars_and_forced_weights_only_loading_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("storages", "tensors", "pickle"):
            tar.addfile(tarfile.TarInfo(name))
    with raises_naming(CheckpointError, "a.tar", "0.1.10"):
        read_pickled(tmp_path / "a.tar")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "a.pt")
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    with raises_naming(CheckpointError, "a.pt", "TORCH_FORCE_WEIGHTS_ONLY_LOAD"):
        read_pickled(tmp_path / "a.pt")


def test_damaged_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"weight": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:300])
    with raises_naming(CheckpointError, "a.pt"):
        read_pickled(path)
    with raises_naming(CheckpointError, tmp_path / "b.pt"):
        read_pickled(tmp_path / "b.pt")
    tensor = REBUILD + b"((" + code("storage") + b"ctorch\nFloatStorage\n" + code("0") + code("cpu") + code(4) + b"tQ"
    outside = tensor + code(2) + code((4,)) + code((1,)) + code(False) + b"NtR"
    for zipped in (True, False):
        with raises_naming(CheckpointError, "a.pt"):
            read_pickled(container(path, outside, zipped))
