"""Train towers and heads of the bundled model together, on the demo's training split.

Command:   openclap demo, then: openclap train small --out RUN
Hardware:  two CPU cores, 2 GB of memory
Time:      two minutes, at 5.3 s a step
Expected:  not measured from this start. From the towers of the former demo (docs/benchmarks.md), text to audio R@10 was
           0.45 (0.38–0.53) on test groups; docs/curves/small.jsonl is the loss of every step of that run
"""

from __future__ import annotations

from openclap import paths
from openclap.training.config import OptimConfig, TrainConfig


def config() -> TrainConfig:
    """Return three epochs, with the towers at a hundredth of the heads' learning rate."""
    return TrainConfig(
        start="mini",
        data=str(paths.home() / "demo" / "shards" / "train"),
        epochs=3,
        batch_size=32,
        optim=OptimConfig(lr=1e-3, tower_lr=1e-5, warmup_steps=10),
        save_every=10,
    )
