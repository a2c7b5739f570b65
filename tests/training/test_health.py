"""Runs that diverge or collapse: named while they run, with the last good state left; healthy ones are left alone."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import MakeConfig
from safetensors.torch import load_file

import openclap
from openclap.data.shards import index_shards
from openclap.errors import AudioError, CheckpointError, TrainingError
from openclap.evals.validation import RetrievalValidation
from openclap.models.objectives import ObjectiveConfig
from openclap.training.classifier import of_one, teach
from openclap.training.config import OptimConfig, TrainConfig
from openclap.training.health import Place, check_going, doubt
from openclap.training.state import saved
from openclap.training.trainer import read_log, train

TOWERS = ("audio_tower", "text_tower")


def steps(run: Path) -> list[int]:
    return [int(state.name.removeprefix("step-")) for state in saved(run / "states")]


def assert_states_are_good(run: Path, model: Path) -> None:
    """Each saved state is a model that gives finite embeddings."""
    for state in saved(run / "states"):
        embedder = openclap.load(model)
        embedder.clap.load_state_dict(load_file(state / "model.safetensors"))
        noise = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
        assert np.isfinite(embedder.embed_audio([(0.1 * noise, 16000)])).all(), state
        assert np.isfinite(embedder.embed_text(["a low tone"])).all(), state


@pytest.mark.parametrize("lr", [1e3, 1e6, 1e30])
@pytest.mark.parametrize("frozen", [(), TOWERS])
def test_divergence_names_the_step_and_leaves_good_states(
    make_config: MakeConfig, tmp_path: Path, tiny_model: Path, lr: float, frozen: tuple[str, ...]
) -> None:
    optim = OptimConfig(lr=lr, tower_lr=lr, warmup_steps=3)
    config = make_config(epochs=40, batch_size=6, save_every=1, optim=optim, frozen=frozen)
    with pytest.raises(TrainingError, match=r"^step \d+: .*diverged") as told:
        train(config, tmp_path / "run")
    assert f"optim.lr {lr / 10:g} and" in str(told.value) and "sound" not in str(told.value)
    assert not (tmp_path / "run" / "model").exists()
    assert_states_are_good(tmp_path / "run", tiny_model)
    assert "o good state was saved, and the start is as it was" in str(told.value)  # the first update ruined it


def test_a_diverged_model_is_not_blamed_on_a_sound(make_config: MakeConfig, tmp_path: Path, shards: Path) -> None:
    held = RetrievalValidation(index_shards(shards))
    optim = OptimConfig(lr=1e30, tower_lr=1e30, warmup_steps=1)
    config = make_config(epochs=5, batch_size=6, optim=optim)  # a step an epoch: validation sees the update first
    with pytest.raises(TrainingError, match=r"^step 1: training has diverged.*best model so far is in .*best"):
        train(config, tmp_path / "run", validate=held.score)
    assert np.isfinite(openclap.load(tmp_path / "run" / "best").embed_text(["a low tone"])).all()


def test_collapse_is_named_and_leaves_the_state_before_it(make_config: MakeConfig, tmp_path: Path) -> None:
    optim = OptimConfig(lr=1e-2, tower_lr=1e-2, weight_decay=100.0, warmup_steps=3)
    config = make_config(epochs=40, batch_size=6, save_every=1, keep=1, optim=optim)
    wanted = (
        r"^step (\d+): training has collapsed: the loss is 1\.79.*10 steps in a row.*weight_decay 0\.1 in place of 100"
    )
    with pytest.raises(TrainingError, match=wanted) as told:
        train(config, tmp_path / "run")
    rows = read_log(tmp_path / "run" / "log.jsonl")
    first = min(row["step"] for row in rows if row["grad_norm"] <= 1e-3)
    good, ruined = steps(tmp_path / "run")  # the update after step first - 1 is what the next loss shows
    assert (good, ruined) == (first - 2, first - 1) and f"states/step-{good:08d}." in str(told.value)
    shutil.rmtree(tmp_path / "run" / "tensorboard")
    with pytest.raises(TrainingError, match=str(told.value).split(":", maxsplit=1)[0]):  # the same step again
        train(config, tmp_path / "run")


def test_siglips_collapse_is_named_though_its_bias_still_moves(make_config: MakeConfig, tmp_path: Path) -> None:
    optim = OptimConfig(lr=10.0, tower_lr=10.0, warmup_steps=3)
    config = make_config(epochs=80, batch_size=6, optim=optim, objective=ObjectiveConfig("siglip"))
    with pytest.raises(TrainingError, match=r"collapsed: the loss is 2\.7.*optim\.lr 1 and optim\.tower_lr 1"):
        train(config, tmp_path / "run")
    last = read_log(tmp_path / "run" / "log.jsonl")[-1]
    assert last["grad_norm"] > 1e-3 and last["loss"] == pytest.approx(6 * math.log(6) - 5 * math.log(5), rel=0.01)


def test_healthy_runs_raise_no_alarm(make_config: MakeConfig, tmp_path: Path) -> None:
    """The first steps, batches of two, rates near 0, frozen towers, and learning by heart."""
    slow = OptimConfig(lr=1e-8, tower_lr=1e-8, warmup_steps=0)
    fast = OptimConfig(lr=1e-2, tower_lr=1e-2, warmup_steps=3)
    cases = [
        make_config(epochs=1, batch_size=6),
        make_config(epochs=8, optim=slow),
        make_config(epochs=8, frozen=TOWERS),
        make_config(epochs=8, optim=replace(slow, lr=0.0, tower_lr=0.0)),
        make_config(epochs=50, batch_size=6, optim=fast),
        make_config(epochs=10, batch_size=6, optim=fast, objective=ObjectiveConfig("siglip")),
    ]
    for number, config in enumerate(cases):
        assert not train(config, tmp_path / str(number)).stopped


def test_chance_is_what_equal_embeddings_score(make_config: MakeConfig, tmp_path: Path) -> None:
    """ln of the batch for one caption a clip; of two captions a clip, the mean of ln 6 and ln 12."""
    train(make_config(epochs=1, batch_size=6), tmp_path / "one")
    train(make_config(epochs=1, batch_size=6, caption="all"), tmp_path / "all")
    train(make_config(epochs=1, accumulate=3), tmp_path / "thrice")
    chances = [read_log(tmp_path / name / "log.jsonl")[0]["chance"] for name in ("one", "all", "thrice")]
    wanted = [math.log(6), (math.log(6) + math.log(12)) / 2, math.log(2)]
    assert chances == pytest.approx(wanted, abs=1e-5)


def test_doubt_by_hand() -> None:
    chance = math.log(8)

    def doubted(loss: float, grad_norm: float, first: float = 3.0, chance: float = chance) -> str | None:
        return doubt({"loss": loss, "chance": chance, "grad_norm": grad_norm, "scale": 10.0}, first_loss=first)

    assert "collapsed" in str(doubted(chance, 1e-5))
    assert not doubted(chance, 0.1)
    assert not doubted(1e-4, 1e-6)  # learnt by heart
    assert not doubted(0.0, 0.0, chance=0.0)  # equal captions, all spared
    assert not doubted(9.9, 9.0)  # below 3 * 3 + 0.1 * 10
    assert "diverged" in str(doubted(10.1, 9.0))
    assert not doubted(7.0, 9.0, first=0.1)  # 3 * ln 8 + 1 = 7.2


def test_a_start_that_tells_nothing_apart_is_not_called_a_collapse(make_config: MakeConfig, tmp_path: Path) -> None:
    """Doubtful from the first step on, before any update: captions of unknown words, or a dead model."""
    config = make_config(epochs=1, optim=OptimConfig(warmup_steps=0))
    why = "collapsed: the loss is 1.946"
    check_going(why, config, 4, Place(tmp_path, 4, 4))  # a short run ends by itself
    with pytest.raises(TrainingError, match=r"^step 10: training moves nothing\..*tokenizer") as told:
        check_going(why, config, 100, Place(tmp_path, 10, 10))
    assert "optim.lr" not in str(told.value)
    with pytest.raises(TrainingError, match=r"^step 14: training has collapsed.*optim\.lr"):
        check_going(why, config, 100, Place(tmp_path, 14, 10))


def test_input_is_told_from_weights(tiny_model: Path) -> None:
    """Samples beyond float32's squares are the sound's fault; weights that are not finite are the model's."""
    model = openclap.load(tiny_model)
    good, loud = np.full(8000, 0.1, np.float32), np.full(8000, 1e30, np.float32)
    found = list(model.embed_each([(good, 16000), (loud, 16000), (good, 16000)]))
    assert isinstance(found[1], AudioError) and "-1..1" in str(found[1])
    assert np.isfinite(found[0]).all() and np.array_equal(found[0], found[2])
    with torch.no_grad():
        next(model.clap.audio_head.parameters()).fill_(torch.nan)
        next(model.clap.text_head.parameters()).fill_(torch.inf)
    for embed in (lambda: model.embed_audio([(good, 16000)]), lambda: model.embed_text(["a low tone"])):
        with pytest.raises(CheckpointError, match="weights are damaged, or its training diverged"):
            embed()


def test_a_head_whose_weights_overflow_is_not_scored(tmp_path: Path) -> None:
    """The loss before the update is finite; a score after it would find NaN in every answer."""
    network, scored = torch.nn.Linear(3, 2), []
    batch = torch.eye(3), torch.tensor([[1, 0], [0, 1], [1, 0]])
    config = TrainConfig(
        "none", "labels", epochs=3, batch_size=3, trackers=(), optim=OptimConfig(lr=1e39, clip_norm=1e9)
    )
    with pytest.raises(TrainingError, match="in epoch 1 the weights have become infinite or NaN"):
        teach(
            network,
            lambda epoch: [batch],
            replace(config, optim=replace(config.optim, warmup_steps=0)),
            per_epoch=1,
            loss=of_one,
            score=lambda: float(len(scored.append(1) or scored)),
        )
    assert len(scored) == 1  # of the start
