"""Train a small NaFlex model from scratch, on the demo's sounds.

Command:   openclap demo; openclap init naflexclap-nano --out START; openclap train naflex --start START --out RUN
Hardware:  two CPU cores, 2 GB of memory
Time:      about three minutes of processor time, estimated from its first epoch
Expected:  not measured on the demo's few sounds; docs/benchmarks.md has its tower after two minutes on 3,017
"""

from __future__ import annotations

from openclap import paths
from openclap.audio.augment import AugmentConfig
from openclap.data.lengths import LengthConfig
from openclap.training.config import OptimConfig, TrainConfig


def config() -> TrainConfig:
    """Return twenty epochs; the finished model is the moving average of the weights."""
    return TrainConfig(
        start=str(paths.home() / "starts" / "naflexclap-nano"),
        data=str(paths.home() / "demo" / "shards" / "train"),
        epochs=20,
        batch_size=32,
        # Another part of a long sound in each epoch, and a quarter of the patches less to compute.
        lengths=LengthConfig(part="random"),
        augment=AugmentConfig(patch_dropout=0.25),
        optim=OptimConfig(
            lr=1e-3, tower_lr=1e-3, weight_decay=0.05, warmup_steps=10, schedule="wsd", layer_decay=0.9, ema=0.98
        ),
        save_every=20,
    )
