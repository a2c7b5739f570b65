from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from openclap.evals.dataset import Collection, EvalClips, load_clips
from openclap.evals.results import Results
from openclap.evals.runner import evaluate, run_suite
from openclap.evals.suites import PAPER
from support import miniatures
from support.evals_helpers import BandEmbedder, cached, facts, flac, make_wave, write_shard, write_split


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
    return BandEmbedder().fit(sounds, [caption for clip in train_clips.clips for caption in clip.captions])


@pytest.fixture(scope="session")
def quick(embedder: BandEmbedder, train_clips: EvalClips, test_clips: EvalClips) -> Results:
    """The suite "quick" for a trained embedder beside an untrained one."""
    return evaluate(embedder, Collection(test_clips, train_clips), baseline=BandEmbedder())


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published data sets in miniature."""
    return miniatures.all_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model like `tiny_model` with other weights."""
    import torch

    from openclap.checkpoints import openclap_folder
    from openclap.models.build import build_clap
    from support.tiny_models import TINY_PRESET, tiny_tokenizer

    place = tmp_path_factory.mktemp("other") / "model"
    torch.manual_seed(1)
    openclap_folder.save(place, build_clap(TINY_PRESET), TINY_PRESET, tiny_tokenizer())
    return place


@pytest.fixture(scope="session")
def paper(tiny_model: Path, other_model: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The suite "paper" for two small models, with few epochs."""
    home = tmp_path_factory.mktemp("cache")
    tasks = [replace(task, epochs=3) for task in PAPER]
    return run_suite("paper", tasks, [cached(tiny_model, home), cached(other_model, home, "other")], sets)


@pytest.fixture
def one_group(tmp_path: Path) -> Path:
    """A split of six clips that are all of one group."""
    samples = [
        (f"{number}", flac(make_wave(label, number)), facts(label, "tape", [f"the sound of {label}"]))
        for number, label in enumerate(["rain", "whistle"] * 3)
    ]
    return write_shard(tmp_path / "test", samples)
