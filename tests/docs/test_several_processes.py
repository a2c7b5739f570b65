"""Run the script of "Several processes" in docs/howto/use-elsewhere.md, unchanged, in its own process."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "use-elsewhere.md"


@pytest.mark.long  # four processes each import torch
def test_spawned_processes_embed_after_a_model_was_loaded(tiny_model: Path, sounds: Path, tmp_path: Path) -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## Several processes\n")[2]
    found = re.search(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert found is not None
    (tmp_path / "script.py").write_text(found[1], encoding="utf-8")
    shutil.copytree(tiny_model, tmp_path / "FOLDER")
    shutil.copy(sounds / "low-0.wav", tmp_path / "dog.wav")
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "2"},  # a single thread would have no pool that a fork loses
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [float(line) for line in done.stdout.split()] == pytest.approx([1.0, 1.0], abs=1e-5)
