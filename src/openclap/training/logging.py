"""The log of a run: one row a step in `log.jsonl`, the speed and time left, and how well the device is used."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from openclap.audio.config import FrontEndConfig
from openclap.models.clap import CLAP
from openclap.storage import write_bytes
from openclap.training.profiling import count_flops, matmul_peak, peak_memory
from openclap.types import PairBatch

TrainingRow = dict[str, Any]
"""A row of the log: step, total_steps, epoch, loss, chance, scale, grad_norm, lr, speed, and scores after an epoch."""
LOG = "log.jsonl"
SMOOTHING = 0.9
"""Weight of the past in the smoothed step time, so that one slow step does not change the time left much."""


class StepTimer:
    """Measures pairs per second, the share of time spent waiting for data, and the time left."""

    def __init__(self, pairs: int, total_steps: int) -> None:
        self.pairs, self.total_steps = pairs, total_steps
        self.last = self.ready = time.monotonic()
        self.smooth_s: float | None = None

    def data_ready(self) -> None:
        """Mark the end of waiting for data."""
        self.ready = time.monotonic()

    def step_done(self, step: int) -> TrainingRow:
        """Mark the end of a step and return its speed for the log."""
        now = time.monotonic()
        seconds = max(now - self.last, 1e-9)
        # From the end of the last step to the arrival of the data: 0 where workers keep up.
        waiting = (self.ready - self.last) / seconds
        self.smooth_s = seconds if self.smooth_s is None else SMOOTHING * self.smooth_s + (1 - SMOOTHING) * seconds
        self.last = now
        return {
            "pairs_per_s": self.pairs / seconds,
            "data_wait": waiting,
            "seconds_left": self.smooth_s * (self.total_steps - step),
        }

    def skip(self) -> None:
        """Leave out the time since the last step, such as a validation."""
        self.last = time.monotonic()


class UtilisationMeter:
    """Measures model FLOP utilisation and peak memory for the log.

    Creating one takes a second or two: the model's operations are counted and the device's peak is measured.
    """

    def __init__(self, clap: CLAP, frontend: FrontEndConfig, dtype: torch.dtype = torch.float32) -> None:
        self.device = clap.logit_scale.device
        self.flops = count_flops(clap, frontend)
        self.peak = matmul_peak(self.device, dtype)

    def measure(self, batches: Sequence[PairBatch], seconds: float) -> TrainingRow:
        """Compute the columns of one step.

        Returns:
            `mfu`: the step's FLOP/s, waiting included, as a share of the device's largest matrix product (Chowdhery et
            al. 2022, appendix B, with a measured peak). `memory_mb`: the peak memory so far.
        """
        return {
            "mfu": sum(map(self.flops.of_batch, batches)) / max(seconds, 1e-9) / self.peak,
            "memory_mb": peak_memory(self.device) / 1e6,
        }


@contextmanager
def open_log(path: Path, step: int) -> Iterator[Callable[[TrainingRow], None]]:
    """Append rows to the log.

    Rows after `step` are removed first: a killed run took these steps after its last checkpoint, and takes them again.
    """
    # Written as a whole before appending, so that a kill in between leaves the old log.
    rows = read_log(path) if path.exists() else []
    write_bytes(path, "".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step).encode())
    with path.open("a", encoding="utf-8") as file:

        def write(row: TrainingRow) -> None:
            file.write(json.dumps(row) + "\n")
            file.flush()  # readers follow a run while it goes on

        yield write


def read_log(path: Path) -> list[TrainingRow]:
    """Read the rows of a run's `log.jsonl`; lines that are no rows, such as one that a kill cut short, are ignored."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "step" in row:
            rows.append(row)
    return rows
