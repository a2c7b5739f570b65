"""Frozen towers compute each input once, and training gives the same model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import openclap
from openclap.audio.augment import AugmentConfig
from openclap.embedder import Embedder
from openclap.models.build import build_clap
from openclap.models.clap import CLAP
from openclap.models.config import ObjectiveConfig
from openclap.training.config import TrainConfig
from openclap.training.feature_cache import cache_frozen_towers
from openclap.training.logging import read_log
from openclap.training.lora import add_lora
from openclap.training.optimizer import freeze
from openclap.training.trainer import train
from support.runs import MakeConfig, assert_equal_runs, stopped_at, weights
from support.step_cases import TINY_NAFLEX, make_batch
from support.tiny_models import TINY_PRESET

TOWERS = ("audio_tower", "text_tower")
NEVER = 10**6
"""An `unfreeze_at` that no run here reaches: it switches the cache off and trains nothing."""


def score(embedder: Embedder) -> float:
    return float(embedder.embed_text(["a low tone"])[0, 0])


@pytest.mark.parametrize("tower", ["tiny_model", "tiny_swin"])
@pytest.mark.parametrize("more", [{"caption": "all"}, {"chunk": 1}, {"objective": ObjectiveConfig("siglip")}])
def test_cached_training_equals_uncached_training(
    make_config: MakeConfig, tmp_path: Path, tower: str, more: dict[str, object], request: pytest.FixtureRequest
) -> None:
    start = str(request.getfixturevalue(tower))
    config = make_config(start=start, frozen=TOWERS, epochs=4, trackers=(), **more)
    train(config, tmp_path / "cached", validate=score)
    train(replace(config, unfreeze_at=NEVER), tmp_path / "plain", validate=score)
    ours, theirs = (read_log(tmp_path / name / "log.jsonl") for name in ("cached", "plain"))
    for key in ("loss", "score", "grad_norm"):
        values = [[row[key] for row in rows if key in row] for rows in (ours, theirs)]
        np.testing.assert_allclose(*values, rtol=1e-5, atol=1e-6)
    plain = weights(tmp_path / "plain")
    for name, tensor in weights(tmp_path / "cached").items():
        torch.testing.assert_close(tensor, plain[name], rtol=1e-5, atol=1e-6, msg=name)


def test_resumed_run_with_cache_is_bit_equal(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(frozen=TOWERS, epochs=6, save_every=2, keep_checkpoints=9, trackers=())
    train(config, tmp_path / "whole")
    for step in (2, 8):
        resumed = stopped_at(tmp_path / "whole", step, tmp_path / f"from-{step}")
        train(config, resumed)
        assert_equal_runs(tmp_path / "whole", resumed)


def count_forwards(clap: CLAP) -> list[str]:
    """Record the towers' forward passes from now on, by name."""
    passes: list[str] = []
    for name, block in {"audio": clap.audio_tower.blocks[0], "text": clap.text_tower.encoder.embeddings}.items():
        block.register_forward_hook(lambda *_, name=name: passes.append(name))
    return passes


def test_no_input_is_computed_twice(make_config: MakeConfig, tiny_model: Path) -> None:
    model = openclap.load(tiny_model)
    passes = count_forwards(model.clap)
    rng = np.random.default_rng(0)
    sounds = [(rng.standard_normal(size).astype(np.float32), 16000) for size in (8000, 5000, 8000, 3000)]
    texts = ["a low tone", "noise", "a big dog howling in the rain", "noise"]
    plain = model.embed_audio(sounds), model.embed_text(texts)
    freeze(model.clap, TOWERS)
    assert cache_frozen_towers(model.clap, make_config(frozen=TOWERS)) == list(TOWERS)
    first = model.embed_audio(sounds), model.embed_text(texts)
    passes.clear()
    again = model.embed_audio(sounds[::-1])[::-1], model.embed_text(texts[::-1])[::-1]
    assert not passes
    for one, other, third in zip(plain, first, again, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
        np.testing.assert_array_equal(other, third)


@pytest.mark.parametrize(
    "more",
    [
        {"unfreeze_at": 3},
        {"epochs": 1},
        {"augment": AugmentConfig(time_stripes=1, mixup=0.5)},
        {"precision": "bf16"},
        {"compile": True},
        {"frozen": ("audio_tower.blocks", "text_tower.encoder")},
    ],
)
def test_changing_towers_are_not_cached(make_config: MakeConfig, tiny_model: Path, more: dict[str, object]) -> None:
    config: TrainConfig = make_config(**{"frozen": TOWERS} | more)
    clap = openclap.load(tiny_model).clap
    freeze(clap, config.frozen)
    assert cache_frozen_towers(clap, config) == []


def test_moments_of_clips_at_their_own_length_are_cached(make_config: MakeConfig) -> None:
    torch.manual_seed(0)
    clap = build_clap(replace(TINY_PRESET, audio=TINY_NAFLEX))
    batch = make_batch(own_length=True).audio
    batch = replace(batch, mel_BVTF=batch.mel_BVTF.float())
    assert batch.frames_B is not None
    columns_B = -(-batch.frames_B // TINY_NAFLEX.patch_time)
    inside_BM1 = (torch.arange(int(columns_B.max())) < columns_B[:, None])[..., None]
    embedded, moments = clap.audio_tower.with_moments(batch)
    freeze(clap, TOWERS[:1])
    config = make_config(frozen=TOWERS[:1], objective=ObjectiveConfig(frames=1.0))
    assert cache_frozen_towers(clap, config) == ["audio_tower"]
    passes: list[str] = []
    clap.audio_tower.blocks[0].register_forward_hook(lambda *_: passes.append("audio"))
    for _ in range(2):
        again, cached = clap.audio_tower.with_moments(batch)
        torch.testing.assert_close(again, embedded, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(cached * inside_BM1, moments * inside_BM1, rtol=1e-5, atol=1e-6)
    assert len(passes) == len(columns_B)


def test_changes_of_sounds_leave_the_captions_cached(make_config: MakeConfig, tiny_model: Path) -> None:
    clap = openclap.load(tiny_model).clap
    config: TrainConfig = make_config(frozen=TOWERS, augment=AugmentConfig(time_stripes=1))
    freeze(clap, config.frozen)
    assert cache_frozen_towers(clap, config) == ["text_tower"]


def test_towers_are_cached_independently(make_config: MakeConfig, tiny_swin: Path) -> None:
    clap = openclap.load(tiny_swin).clap
    freeze(clap, TOWERS[1:])
    assert cache_frozen_towers(clap, make_config(frozen=TOWERS[1:])) == ["text_tower"]
    adapted = openclap.load(tiny_swin).clap
    freeze(adapted, TOWERS)
    add_lora(adapted, 2)
    assert cache_frozen_towers(adapted, make_config(frozen=TOWERS, lora=2)) == []
