"""Kills, signals, a full disk and damaged files: the same call resumes, and ends as an uninterrupted run does."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError

from openclap.errors import CheckpointError
from openclap.training.logging import read_log
from openclap.training.trainer import train
from support.errors import raises_naming
from support.runs import MakeConfig, assert_equal_runs, signal_at, start_run


@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, *(pytest.param(each, marks=pytest.mark.long) for each in (signal.SIGINT, signal.SIGTERM))],
)
def test_resumed_run_is_bit_equal_after_any_signal(
    make_config: MakeConfig, tmp_path: Path, number: signal.Signals
) -> None:
    config = make_config(epochs=40)  # long enough to be interrupted
    train(config, tmp_path / "whole")
    code = signal_at(start_run(config, tmp_path / "stopped", 60), 10, number)
    assert code == (-number if number == signal.SIGKILL else 130)
    assert not (tmp_path / "stopped" / "model").exists()
    assert train(config, tmp_path / "stopped").step == 120
    assert_equal_runs(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.long
def test_fifty_kills_end_bit_equal(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(epochs=120)  # of three steps: 50 runs of up to six do not reach the end
    train(config, tmp_path / "whole")
    rng = np.random.default_rng(0)
    for _ in range(50):
        with start_run(config, tmp_path / "killed", 6) as run:
            assert run.stdout is not None
            steps = int(rng.integers(6))
            for _ in range(steps):
                assert run.stdout.readline().startswith("step ")
            # While the next step is taken or saved; without any, at the start of the process or while it resumes.
            time.sleep(float(rng.uniform(0, 0.1 if steps else 5)))
            run.kill()
        assert run.returncode == -signal.SIGKILL
    steps = []
    train(config, tmp_path / "killed", progress=lambda row: steps.append(row["step"]))
    assert 10 < steps[0] < 300
    assert_equal_runs(tmp_path / "whole", tmp_path / "killed")


def test_full_disk_leaves_the_earlier_checkpoint(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate import Accelerator

    config, real, calls = make_config(), Accelerator.save_state, []

    def full(self: Accelerator, folder: str) -> str:
        calls.append(folder)
        if len(calls) == 2:
            (Path(folder) / "model.safetensors").write_bytes(b"half")
            raise SafetensorError("I/O error: No space left on device (os error 28)")  # the error of a full tmpfs
        return str(real(self, folder))

    monkeypatch.setattr(Accelerator, "save_state", full)
    with raises_naming(CheckpointError, "step 8", "No space left on device"):
        train(config, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000004"]
    train(config, tmp_path / "whole")
    train(config, tmp_path / "run")
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def test_damaged_checkpoint_is_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    train(make_config(epochs=2), tmp_path / "run")
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    (newest / "model.safetensors").write_bytes(b"junk")
    with raises_naming(CheckpointError, tmp_path / "run" / "checkpoints" / "step-00000006"):
        train(make_config(epochs=2), tmp_path / "run")
    shutil.rmtree(newest)
    train(make_config(epochs=2), tmp_path / "run")


def test_damaged_log_lines_are_ignored(make_config: MakeConfig, tmp_path: Path) -> None:
    train(make_config(epochs=2), tmp_path / "run")
    log = tmp_path / "run" / "log.jsonl"
    rows = read_log(log)
    lines = log.read_bytes().splitlines()
    log.write_bytes(b"\n".join([*lines[:3], b'{"step": 3, "lo', b"[1]", b'{"loss": 1}', b"\xff\x00", *lines[3:]]))
    assert read_log(log) == rows
    shutil.rmtree(max((tmp_path / "run" / "checkpoints").iterdir()))
    train(make_config(epochs=2), tmp_path / "run")
    assert [row["step"] for row in read_log(log)] == [1, 2, 3, 4, 5, 6]
