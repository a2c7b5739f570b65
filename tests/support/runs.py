"""Helpers shared by the tests of training runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
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


HOLD = """
import sys
from contextlib import contextmanager
from openclap.training import trainer

most_rows, open_log = int(sys.argv.pop(1)), trainer.open_log

@contextmanager
def held_log(path, step):
    with open_log(path, step) as write:
        rows = 0
        def write_and_wait(row):
            nonlocal rows
            write(row)
            print("step", row["step"], flush=True)
            rows += 1
            if rows == most_rows:
                sys.stdin.read()
        yield write_and_wait

trainer.open_log = held_log
"""
"""The beginning of a program whose training prints each step, and after some of them waits until its input ends. So a
signal comes before the end of the run, however busy the machine is."""

COMMAND_LINE = """
from openclap.cli import main
main()
"""

RUN = """
import json, sys
from pathlib import Path
from openclap.audio.augment import AugmentConfig
from openclap.data.lengths import LengthConfig
from openclap.models.config import ObjectiveConfig
from openclap.training.config import OptimConfig, TrainConfig
from openclap.training.trainer import train
given = json.loads(sys.argv[1])
groups = {"optim": OptimConfig, "objective": ObjectiveConfig, "augment": AugmentConfig, "lengths": LengthConfig}
groups = {name: group(**given[name]) for name, group in groups.items()}
config = TrainConfig(**given | groups | {"frozen": tuple(given["frozen"]), "teacher": tuple(given["teacher"])})
outcome = train(config, Path(sys.argv[2]))
sys.exit(130 if outcome.stopped else 0)
"""


def start_run(config: TrainConfig, out: Path, most_rows: int) -> subprocess.Popen[str]:
    """Train in a process that waits after so many steps."""
    return _start(RUN, most_rows, json.dumps(config.to_dict()), str(out))


def start_command(words: Sequence[str], most_rows: int) -> subprocess.Popen[str]:
    """Run a command of openclap that trains; it waits after so many steps."""
    return _start(COMMAND_LINE, most_rows, *words)


def _start(program: str, most_rows: int, *words: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-c", HOLD + program, str(most_rows), *words]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def signal_at(run: subprocess.Popen[str], step: int, number: signal.Signals) -> int:
    """Send a signal at a step, and return the exit code."""
    assert run.stdout is not None
    for line in run.stdout:
        if line.startswith("step ") and int(line.split()[1]) >= step:
            run.send_signal(number)
            break
    run.communicate(timeout=300)
    return run.returncode


def launch(config: dict[str, object], out: Path) -> None:
    """Run training on two processes of this machine."""
    script = out.parent / "run.py"
    script.write_text(RUN, encoding="utf-8")
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*words, json.dumps(config), str(out)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
