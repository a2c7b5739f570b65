from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from openclap.checkpoints.starts import read_aisfx
from openclap.checkpoints.unpickle import read_pickled
from openclap.errors import CheckpointError


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_real_contents_are_read_at_every_protocol(tmp_path: Path, protocol: int, zipped: bool) -> None:
    content = {
        "state_dict": OrderedDict(weight=torch.arange(6.0).view(2, 3), half=torch.ones(2, dtype=torch.float16)),
        "optimizer": {"step": torch.tensor(3)},
        "loss": np.float64(0.5),
        "counts": np.arange(3),
        "epoch": 7,
    }
    path = tmp_path / "a.pt"
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    found = read_pickled(path)
    assert torch.equal(found["state_dict"]["weight"], content["state_dict"]["weight"])  # type: ignore[index]
    assert found["state_dict"]["half"].dtype == torch.float16
    assert found["loss"] == 0.5 and found["counts"].tolist() == [0, 1, 2] and found["epoch"] == 7


class Trap:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_would_run_code_is_refused(tmp_path: Path, zipped: bool) -> None:
    target = tmp_path / "touched"
    path = tmp_path / "trap.pt"
    torch.save({"weights": Trap(target)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"trap\.pt: refused: .*system.* Nothing was executed"):
        read_pickled(path)
    path.write_bytes(pickle.dumps(Trap(target)))
    with pytest.raises(CheckpointError):
        read_pickled(path)
    assert not target.exists()


@pytest.mark.parametrize("name", ["builtins.eval", "builtins.getattr", "torch.load", "torch._utils._rebuild_wrapper"])
def test_only_named_rebuilders_are_found(tmp_path: Path, name: str) -> None:
    module, _, attribute = name.rpartition(".")
    path = tmp_path / "a.pt"
    path.write_bytes(f"c{module}\n{attribute}\n.".encode())
    with pytest.raises(CheckpointError):
        read_pickled(path)


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"weight": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(CheckpointError, match=r"a\.pt: is not a checkpoint"):
        read_pickled(path)
    with pytest.raises(CheckpointError, match="no such file"):
        read_pickled(tmp_path / "b.pt")


def test_another_checkpoint_is_no_aisfx(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="holds dict, expected aiSFX"):
        read_aisfx(path)
