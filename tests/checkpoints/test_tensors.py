from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from openclap.checkpoints.damage import errors_as_checkpoint_errors
from openclap.checkpoints.tensors import read_safetensors, read_tensors
from openclap.errors import CheckpointError
from support.errors import raises_naming

STATE = {"a.weight": torch.arange(3.0), "b": torch.ones(1)}


def saved(content: Any, place: Path) -> Path:
    torch.save(content, place)
    return place


def test_format_is_detected_from_the_first_bytes(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "weights.bin")
    shutil.copy(saved(STATE, tmp_path / "a.pt"), tmp_path / "weights.safetensors")
    for name in ("weights.bin", "weights.safetensors"):
        found = read_tensors(tmp_path / name)
        assert found.keys() == STATE.keys() and torch.equal(found["a.weight"], STATE["a.weight"])
    assert read_safetensors(tmp_path / "weights.bin").keys() == STATE.keys()
    with raises_naming(CheckpointError, tmp_path / "weights.safetensors"):
        read_safetensors(tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", ["Git LFS", "git lfs pull"]),
        (b"<!DOCTYPE html><title>Sign in</title>", ["web page"]),
        (b"", ["no bytes"]),
        (bytes(5000), ["zeros"]),
        (b"hello", []),
        (b"\x10\0\0\0\0\0\0\0{not json", []),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff{}", []),
    ],
)
def test_other_content_is_named_in_the_error(tmp_path: Path, content: bytes, words: list[str]) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with raises_naming(CheckpointError, tmp_path / "a.pt", *words):
        read_tensors(tmp_path / "a.pt")


def test_path_that_is_not_utf_8_is_read(tmp_path: Path) -> None:
    tensors = {"a.weight": torch.arange(6.0).reshape(2, 3)}
    save_file(tensors, tmp_path / "model.safetensors")
    odd = (tmp_path / "model.safetensors").rename(tmp_path / "caf\udce9.safetensors")
    assert torch.equal(read_tensors(odd)["a.weight"], tensors["a.weight"])


def test_pipes_and_missing_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    for name in ("pipe.pt", "none.pt"):
        with raises_naming(CheckpointError, tmp_path / name):
            read_tensors(tmp_path / name)
    with raises_naming(CheckpointError, tmp_path / "none.safetensors"):
        read_safetensors(tmp_path / "none.safetensors")


@pytest.mark.parametrize("around", [(), ("state_dict",), ("model",), ("model_state_dict",), ("state_dict", "model")])
@pytest.mark.parametrize("before", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_nesting_and_wrapper_prefixes_are_removed(tmp_path: Path, around: tuple[str, ...], before: str) -> None:
    content: Any = {f"{before}{name}": tensor for name, tensor in STATE.items()} | {"step": 3, 7: torch.zeros(1)}
    for key in reversed(around):
        content = {key: content, "epoch": 4}
    assert read_tensors(saved(content, tmp_path / "a.pt")).keys() == STATE.keys()


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ({"ema": STATE, "epoch": 3}, "ema, epoch"),
        ({"net": STATE}, "net"),
        ([STATE], "list"),
        (torch.zeros(3), "Tensor"),
        ({}, "dict"),
        (STATE | {"module.b": torch.zeros(1)}, "b"),
    ],
)
def test_file_without_named_tensors_says_what_it_holds(tmp_path: Path, content: Any, value: str) -> None:
    with raises_naming(CheckpointError, "a.pt", value):
        read_tensors(saved(content, tmp_path / "a.pt"))


def test_any_exception_becomes_one_short_sentence() -> None:
    for error in (KeyError("x"), RuntimeError("many\nlines " * 100), ZeroDivisionError(), RecursionError("deep")):
        with (
            raises_naming(CheckpointError, "a.pt") as caught,
            errors_as_checkpoint_errors("a.pt"),
        ):
            raise error
        assert len(str(caught.value)) < 300
    with (
        raises_naming(CheckpointError, "/x", "Permission denied"),
        errors_as_checkpoint_errors("a.pt"),
    ):
        raise PermissionError(13, "Permission denied", "/x")
    with pytest.raises(CheckpointError, match=r"^mine$"), errors_as_checkpoint_errors("a.pt"):
        raise CheckpointError("mine")
