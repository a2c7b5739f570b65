"""Run a program with disks of its own: full ones and read-only ones, in a namespace of Linux that ends with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

_UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")
TESTS = Path(__file__).parents[1]


def run_with_mounts(mounts: Sequence[str], program: str, *arguments: object) -> str:
    """Run a Python program after some `mount` commands, and return its output. Skips the test where none can mount."""
    if (
        shutil.which("unshare") is None
        or subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no namespace for mounts can be made here")
    steps = [*mounts, 'exec "$@"']
    start = f"import sys; sys.path.insert(0, {str(TESTS)!r})\n"
    command = [*_UNSHARE, "sh", "-ec", "\n".join(steps), "sh", sys.executable, "-c", start + program]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
