from __future__ import annotations

from pathlib import Path

import pytest

from openclap.data.build import pack
from openclap.sources import read_table
from openclap.training.config import OptimConfig, TrainConfig
from support.runs import MakeConfig


@pytest.fixture
def shards(sounds: Path, tmp_path: Path) -> Path:
    """The six sounds as one split of shards, two to a tar."""
    pack(read_table(sounds / "sounds.csv"), tmp_path / "shards", splits={"train": 1.0}, shard_size=2)
    return tmp_path / "shards" / "train"


@pytest.fixture
def make_config(tiny_model: Path, shards: Path) -> MakeConfig:
    """Build the configuration of a run of ten epochs with three steps each; values can be overridden."""

    def make(**values: object) -> TrainConfig:
        given = {"start": str(tiny_model), "data": str(shards), "epochs": 10, "batch_size": 2, "save_every": 4}
        return TrainConfig(**given | {"optim": OptimConfig(warmup_steps=3)} | values)  # type: ignore[arg-type]

    return make
