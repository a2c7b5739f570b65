"""Runs that diverge or collapse stop with their last good checkpoint; healthy runs raise no error."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import openclap
from openclap.data.shards import index_shards
from openclap.errors import AudioError, CheckpointError, TrainingError
from openclap.evals.validation import RetrievalValidation
from openclap.models.config import ObjectiveConfig
from openclap.training.checkpointing import list_checkpoints
from openclap.training.classifier import single_label_loss, train_classifier
from openclap.training.config import OptimConfig, TrainConfig
from openclap.training.divergence import RunPosition, check_symptom, find_symptom
from openclap.training.logging import read_log
from openclap.training.trainer import train
from support.errors import raises_naming
from support.runs import MakeConfig

TOWERS = ("audio_tower", "text_tower")


def checkpoint_steps(run: Path) -> list[int]:
    return [int(state.name.removeprefix("step-")) for state in list_checkpoints(run / "checkpoints")]


def assert_checkpoints_are_good(run: Path, model: Path) -> None:
    """Check that the model of each checkpoint gives finite embeddings."""
    for state in list_checkpoints(run / "checkpoints"):
        embedder = openclap.load(model)
        embedder.clap.load_state_dict(load_file(state / "model.safetensors"))
        noise = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
        assert np.isfinite(embedder.embed_audio([(0.1 * noise, 16000)])).all(), state
        assert np.isfinite(embedder.embed_text(["a low tone"])).all(), state


@pytest.mark.parametrize("lr", [1e3, 1e6, 1e30])
@pytest.mark.parametrize("frozen", [(), TOWERS])
def test_divergence_names_the_step_and_leaves_good_checkpoints(
    make_config: MakeConfig, tmp_path: Path, tiny_model: Path, lr: float, frozen: tuple[str, ...]
) -> None:
    optim = OptimConfig(lr=lr, tower_lr=lr, warmup_steps=3)
    config = make_config(epochs=40, batch_size=6, save_every=1, optim=optim, frozen=frozen)
    with raises_naming(TrainingError, "diverged", f"optim.lr {lr / 10:g}") as error:
        train(config, tmp_path / "run")
    assert re.match(r"step \d+: ", str(error.value)) and "sound" not in str(error.value)
    assert not (tmp_path / "run" / "model").exists()
    assert_checkpoints_are_good(tmp_path / "run", tiny_model)
    assert "checkpoints/step-" not in str(error.value)  # none is good: the first update ruined it


def test_diverged_model_is_reported_before_validation_blames_a_sound(
    make_config: MakeConfig, tmp_path: Path, shards: Path
) -> None:
    validation = RetrievalValidation(index_shards(shards))
    optim = OptimConfig(lr=1e30, tower_lr=1e30, warmup_steps=1)
    config = make_config(epochs=5, batch_size=6, optim=optim)  # one step an epoch: validated right after it
    with raises_naming(TrainingError, "step 1", tmp_path / "run" / "best"):
        train(config, tmp_path / "run", validate=validation.score)
    assert np.isfinite(openclap.load(tmp_path / "run" / "best").embed_text(["a low tone"])).all()


def test_collapse_is_reported_and_leaves_the_last_good_checkpoint(make_config: MakeConfig, tmp_path: Path) -> None:
    optim = OptimConfig(lr=1e-2, tower_lr=1e-2, weight_decay=100.0, warmup_steps=3)
    config = make_config(epochs=40, batch_size=6, save_every=1, keep_checkpoints=1, optim=optim)
    with raises_naming(TrainingError, "collapsed", "10 steps", "weight_decay 0.1", 100) as error:
        train(config, tmp_path / "run")
    rows = read_log(tmp_path / "run" / "log.jsonl")
    first = min(row["step"] for row in rows if row["grad_norm"] <= 1e-3)
    good, ruined = checkpoint_steps(tmp_path / "run")  # the loss of step `first` shows the update of step first - 1
    assert (good, ruined) == (first - 2, first - 1) and f"checkpoints/step-{good:08d}." in str(error.value)
    shutil.rmtree(tmp_path / "run" / "tensorboard")
    with raises_naming(TrainingError, str(error.value).split(":", maxsplit=1)[0]):  # the same step
        train(config, tmp_path / "run")


def test_siglip_collapse_is_detected_though_its_bias_moves(make_config: MakeConfig, tmp_path: Path) -> None:
    optim = OptimConfig(lr=10.0, tower_lr=10.0, warmup_steps=3)
    config = make_config(epochs=80, batch_size=6, optim=optim, objective=ObjectiveConfig("siglip"))
    with raises_naming(TrainingError, "collapsed", "optim.lr 1", "optim.tower_lr 1"):
        train(config, tmp_path / "run")
    last = read_log(tmp_path / "run" / "log.jsonl")[-1]
    assert last["grad_norm"] > 1e-3 and last["loss"] == pytest.approx(6 * math.log(6) - 5 * math.log(5), rel=0.01)


def test_healthy_runs_raise_no_error(make_config: MakeConfig, tmp_path: Path) -> None:
    """The first steps, batches of two, rates near 0, frozen towers, and overfitting."""
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


def test_chance_is_the_loss_of_equal_embeddings(make_config: MakeConfig, tmp_path: Path) -> None:
    """ln of the batch size for one caption a clip; for two captions a clip, the mean of ln 6 and ln 12."""
    train(make_config(epochs=1, batch_size=6), tmp_path / "one")
    train(make_config(epochs=1, batch_size=6, caption="all"), tmp_path / "all")
    train(make_config(epochs=1, accumulate=3), tmp_path / "thrice")
    chances = [read_log(tmp_path / name / "log.jsonl")[0]["chance"] for name in ("one", "all", "thrice")]
    wanted = [math.log(6), (math.log(6) + math.log(12)) / 2, math.log(2)]
    assert chances == pytest.approx(wanted, abs=1e-5)


def test_find_symptom_by_hand() -> None:
    chance = math.log(8)

    def symptom(loss: float, grad_norm: float, first: float = 3.0, chance: float = chance) -> str | None:
        return find_symptom({"loss": loss, "chance": chance, "grad_norm": grad_norm, "scale": 10.0}, first_loss=first)

    assert "collapsed" in str(symptom(chance, 1e-5))
    assert not symptom(chance, 0.1)
    assert not symptom(1e-4, 1e-6)  # overfitted
    assert not symptom(0.0, 0.0, chance=0.0)  # equal captions, all spared
    assert not symptom(9.9, 9.0)  # below 3 * 3 + 0.1 * 10
    assert "diverged" in str(symptom(10.1, 9.0))
    assert not symptom(7.0, 9.0, first=0.1)  # 3 * ln 8 + 1 = 7.2


def test_initial_model_with_equal_embeddings_is_not_called_a_collapse(make_config: MakeConfig, tmp_path: Path) -> None:
    """Unhealthy from the first step on, before any update: captions of unknown words, or a dead model."""
    config = make_config(epochs=1, optim=OptimConfig(warmup_steps=0))
    why = "collapsed: the loss is 1.946"
    check_symptom(why, config, 4, RunPosition(tmp_path, 4, 4))  # a short run ends by itself
    with raises_naming(TrainingError, "step 10", "tokenizer") as error:
        check_symptom(why, config, 100, RunPosition(tmp_path, 10, 10))
    assert "optim.lr" not in str(error.value)
    with raises_naming(TrainingError, "step 14", "optim.lr"):
        check_symptom(why, config, 100, RunPosition(tmp_path, 14, 10))


def test_broken_input_and_broken_weights_raise_different_errors(tiny_model: Path) -> None:
    """Samples whose squares overflow float32 are an AudioError; non-finite weights are a CheckpointError."""
    model = openclap.load(tiny_model)
    good, loud = np.full(8000, 0.1, np.float32), np.full(8000, 1e30, np.float32)
    found = list(model.embed_each([(good, 16000), (loud, 16000), (good, 16000)]))
    assert isinstance(found[1], AudioError) and "-1..1" in str(found[1])
    assert np.isfinite(found[0]).all() and np.array_equal(found[0], found[2])
    with torch.no_grad():
        next(model.clap.audio_head.parameters()).fill_(torch.nan)
        next(model.clap.text_head.parameters()).fill_(torch.inf)
    for embed in (lambda: model.embed_audio([(good, 16000)]), lambda: model.embed_text(["a low tone"])):
        with raises_naming(CheckpointError):
            embed()


def test_classifier_with_overflowed_weights_is_not_scored(tmp_path: Path) -> None:
    """The loss before the update is finite; a score after it would be NaN."""
    network, scored = torch.nn.Linear(3, 2), []
    batch = torch.eye(3), torch.tensor([[1, 0], [0, 1], [1, 0]])
    config = TrainConfig(
        "none", "labels", epochs=3, batch_size=3, trackers=(), optim=OptimConfig(lr=1e39, clip_norm=1e9)
    )
    with raises_naming(TrainingError, "epoch 1", "weights"):
        train_classifier(
            network,
            lambda epoch: [batch],
            replace(config, optim=replace(config.optim, warmup_steps=0)),
            per_epoch=1,
            loss=single_label_loss,
            score=lambda: float(len(scored.append(1) or scored)),
        )
    assert len(scored) == 1  # of the start
