from __future__ import annotations

from pathlib import Path

import pytest
from evals_helpers import BandEmbedder, write_split

from openclap.evals.clips import EvalClips, load_clips
from openclap.evals.evaluation import Evaluation
from openclap.evals.suite import evaluate


@pytest.fixture(scope="session")
def train_clips(tmp_path_factory: pytest.TempPathFactory) -> EvalClips:
    return load_clips(write_split(tmp_path_factory.mktemp("shards") / "train", 6, 0))


@pytest.fixture(scope="session")
def test_clips(tmp_path_factory: pytest.TempPathFactory) -> EvalClips:
    return load_clips(write_split(tmp_path_factory.mktemp("shards") / "test", 5, 100))


@pytest.fixture(scope="session")
def shard_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_split(tmp_path_factory.mktemp("shards") / "valid", 2, 50)


@pytest.fixture(scope="session")
def embedder(train_clips: EvalClips) -> BandEmbedder:
    sounds = [train_clips.audio(i) for i in range(len(train_clips)) for _ in train_clips.clips[i].captions]
    return BandEmbedder().fit(sounds, [said for clip in train_clips.clips for said in clip.captions])


@pytest.fixture(scope="session")
def evaluation(embedder: BandEmbedder, train_clips: EvalClips, test_clips: EvalClips) -> Evaluation:
    return evaluate(embedder, test_clips, train_clips, untrained=BandEmbedder())
