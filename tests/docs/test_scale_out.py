"""Run the job of docs/howto/scale-out.md with the environment that SLURM sets, and the real torchrun on one node."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from openclap.cli import run
from openclap.search.index import Index
from support.documents import ROOT, blocks

RECIPE = """
from openclap.training.config import TrainConfig
def config():
    return TrainConfig(start="x", data="y", epochs=2, batch_size=2)
"""


@pytest.mark.long
def test_job_trains_a_model(tmp_path: Path, sounds: Path, tiny_model: Path) -> None:
    [(_, script)] = blocks(ROOT / "docs" / "howto" / "scale-out.md", "slurm")
    assert run(["dataset", "build", str(sounds / "sounds.csv"), str(tmp_path / "set")]) == 0
    (tmp_path / "recipe.py").write_text(RECIPE, encoding="utf-8")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, script_line in (("srun", 'exec "$@"'), ("scontrol", "echo localhost")):
        (programs / name).write_text(f"#!/bin/sh\n{script_line}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_NNODES": "1",
        "SLURM_JOB_ID": "7",
        "GPUS": "1",
        "RECIPE": str(tmp_path / "recipe.py"),
        "START": str(tiny_model),
        "DATA": str(tmp_path / "set" / "train"),
        "RUN": str(tmp_path / "run"),
    }
    done = subprocess.run(
        ["bash", "-eu"],
        input=script.replace("29500", str(port)),
        text=True,
        env=environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "model" / "config.json").is_file() and (tmp_path / "run" / "report.html").is_file()


@pytest.mark.long
def test_parts_on_ray(tmp_path: Path, sounds: Path, tiny_model: Path) -> None:
    """The example on a real Ray of this machine, with other paths."""
    [(_, program)] = blocks(ROOT / "docs" / "howto" / "scale-out.md", "py")
    for shown, real in (("s3://bucket/index", tmp_path / "index"), ("mini", tiny_model), ("/mnt/sounds", sounds)):
        assert shown in program
        program = program.replace(f'"{shown}"', repr(str(real)))
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "6"
    assert Index.open(tmp_path / "index").count()[0] == 6
