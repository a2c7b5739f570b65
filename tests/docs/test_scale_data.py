"""The array job of docs/howto/scale-data.md, as SLURM would start it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from documents import ROOT, blocks

from openclap.cli import run


def test_the_array_job_does_its_parts(tmp_path: Path, sounds: Path) -> None:
    [(_, script)] = blocks(ROOT / "docs" / "howto" / "scale-data.md", "slurm")
    out = tmp_path / "set"
    assert run(["dataset", "plan", str(sounds / "sounds.csv"), str(out)]) == 0
    for verb in ("fetch", "pack"):
        for task in ("1", "2"):
            environment = os.environ | {
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "OUT": str(out),
                "SLURM_ARRAY_TASK_ID": task,
                "SLURM_ARRAY_TASK_COUNT": "2",
                "SLURM_CPUS_PER_TASK": "1",
            }
            text = script.replace("dataset fetch", f"dataset {verb}")
            subprocess.run(["bash", "-eu"], input=text, text=True, env=environment, check=True)
    assert run(["dataset", "merge", str(out)]) == 0
    assert len(list(out.glob("*/*.tar"))) == 2
