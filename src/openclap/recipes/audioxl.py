"""NaFlexCLAP on 366 million pairs, a row each: the size of LAION-Audio-XL, for planning on paper.

Command:   openclap init PRESET --out START
           torchrun --nnodes 8 --nproc-per-node 8 … --module openclap train ROW --start START --data SHARDS --out RUN
Hardware:  eight machines of eight GPUs, with 128 pairs on each; docs/howto/train-naflex.md has the plan, its numbers
           and its limits
Time:      not measured: these were never run here
Expected:  nothing is published of these sizes; the size of the set, the number of samples and the schedule are about
           those that the cards of LAION's CLAP2 state
"""

from __future__ import annotations

from dataclasses import dataclass

from openclap import paths
from openclap.data.lengths import LengthConfig
from openclap.models.config import ObjectiveConfig
from openclap.training.config import ExpectedInputs, OptimConfig, TrainConfig

PAIRS = 366_000_000
LONGEST_S = 10.0
"""Lengths of the set's clips are not published: this many seconds each are the most that a step can need."""


@dataclass(frozen=True, slots=True)
class LargeRun:
    """One training run, by the name of its preset."""

    preset: str

    def config(self) -> TrainConfig:
        """Return the run's configuration."""
        return TrainConfig(
            start=str(paths.home() / "starts" / self.preset),
            data=str(paths.home() / "sets" / "audioxl" / "train"),
            epochs=3,  # 1,098 million samples
            batch_size=128,
            objective=ObjectiveConfig("siglip", initial_scale=10.0),
            lengths=LengthConfig(longest_s=LONGEST_S, part="random"),
            optim=OptimConfig(lr=5e-4, tower_lr=5e-4, warmup_steps=2000, schedule="wsd", ema=0.9999),
            precision="bf16",
            save_every=1000,
            workers=14,
        )

    def expected_inputs(self) -> ExpectedInputs:
        """Return the preset and the pairs, for planning without start and data."""
        from openclap.presets import PRESETS  # here, since presets import the networks, and these torch

        return ExpectedInputs(PRESETS[self.preset], PAIRS, LONGEST_S)


RUNS = {f"audioxl-{size}": LargeRun(f"naflexclap-{size}") for size in ("little", "mediumd", "base")}
