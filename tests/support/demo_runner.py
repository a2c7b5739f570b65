"""The demo in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def run_demo(home: Path, name: str, stop_at: int | None = None, number: signal.Signals = signal.SIGKILL) -> int:
    """Run `openclap demo` in `home`, its output in NAME.out and NAME.err; signal it when training is at a step."""
    command = [sys.executable, "-m", "openclap", "demo"]
    environment = os.environ | {"OPENCLAP_HOME": str(home)}
    out, err, log = home / f"{name}.out", home / f"{name}.err", home / "demo" / "run" / "log.jsonl"
    with out.open("w") as stdout, err.open("w") as stderr:
        run = subprocess.Popen(command, env=environment, stdout=stdout, stderr=stderr)
        try:
            while stop_at and run.poll() is None:
                if log.is_file() and len(log.read_text(encoding="utf-8").splitlines()) >= stop_at:
                    run.send_signal(number)
                    break
                time.sleep(0.05)
            return run.wait(timeout=900)
        finally:
            run.kill()
