"""Helpers shared by the tests of training runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch

import openclap
from openclap.training.config import TrainConfig
from openclap.training.logging import read_log

MakeConfig = Callable[..., TrainConfig]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return openclap.load(run / "model").clap.state_dict()


def assert_equal_runs(one: Path, other: Path) -> None:
    theirs = weights(other)
    for name, tensor in weights(one).items():
        assert torch.equal(tensor, theirs[name]), name
    ours = [(row["step"], row["loss"], row["lr"], row.get("score")) for row in read_log(one / "log.jsonl")]
    assert ours == [(r["step"], r["loss"], r["lr"], r.get("score")) for r in read_log(other / "log.jsonl")]


def stopped_at(run: Path, step: int, copy: Path) -> Path:
    """Copy a finished run as a kill just after the checkpoint of `step` would have left it."""
    later = [
        checkpoint.name
        for checkpoint in (run / "checkpoints").iterdir()
        if int(checkpoint.name.removeprefix("step-")) > step
    ]
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("model", *later))
    assert (copy / "checkpoints" / f"step-{step:08d}").is_dir()
    return copy
