"""Run the array job of docs/howto/scale-data.md with the environment that SLURM sets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from openclap.cli import run
from support.documents import ROOT, blocks


def test_array_job_runs_every_part(tmp_path: Path, sounds: Path) -> None:
    [(_, script)] = blocks(ROOT / "docs" / "howto" / "scale-data.md", "slurm")
    out = tmp_path / "set"
    assert run(["dataset", "plan", str(sounds / "sounds.csv"), str(out)]) == 0
    for step in ("fetch", "pack"):
        for task in ("1", "2"):
            environment = os.environ | {
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "OUT": str(out),
                "SLURM_ARRAY_TASK_ID": task,
                "SLURM_ARRAY_TASK_COUNT": "2",
                "SLURM_CPUS_PER_TASK": "1",
            }
            text = script.replace("dataset fetch", f"dataset {step}")
            subprocess.run(["bash", "-eu"], input=text, text=True, env=environment, check=True)
    assert run(["dataset", "merge", str(out)]) == 0
    assert len(list(out.glob("*/*.tar"))) == 2
