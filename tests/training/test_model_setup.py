"""Options of the model and the accelerator: each on a real run, against a run without it or a computation by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

import openclap
from openclap.checkpoints import detect, openclap_folder
from openclap.data.loader import PairLoader
from openclap.data.shards import index_shards
from openclap.errors import ConfigError, DataError, TrainingError
from openclap.models.config import ObjectiveConfig
from openclap.models.loss import contrastive_loss
from openclap.training.config import OptimConfig
from openclap.training.logging import TrainingRow, read_log
from openclap.training.trainer import train
from support.errors import raises_naming
from support.runs import MakeConfig, assert_equal_runs, launch, stopped_at, weights


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_log(run / "log.jsonl")]


def test_accumulated_batches_make_one_step(make_config: MakeConfig, tmp_path: Path, tiny_swin: Path) -> None:
    config = make_config(start=str(tiny_swin), accumulate=3, epochs=2, frozen=("text_tower", "audio_tower"))
    outcome = train(config, tmp_path / "run")
    assert outcome.total_steps == outcome.step == 2
    model = openclap.load(tiny_swin)
    loader = PairLoader(index_shards(config.data), model.frontend, model.tokenizer, batch_size=2, seed=config.seed)
    with torch.no_grad():
        by_hand = [
            contrastive_loss(model.clap.encode_audio(b.audio), model.clap.encode_text(b.text), model.clap.scale).item()
            for b in loader.batches(0)
        ]
    assert losses(tmp_path / "run")[0] == pytest.approx(np.mean(by_hand), rel=1e-5)
    with raises_naming(DataError, "3 batches", 4):
        train(make_config(accumulate=4), tmp_path / "other")


@pytest.mark.parametrize("tower", ["tiny_model", "tiny_swin"])
def test_activation_checkpointing_changes_no_weights(
    make_config: MakeConfig, tmp_path: Path, tower: str, request: pytest.FixtureRequest
) -> None:
    start = str(request.getfixturevalue(tower))
    for name in ("plain", "again"):
        train(make_config(start=start, epochs=2, activation_checkpointing=name == "again"), tmp_path / name)
    theirs = weights(tmp_path / "again")
    for name, tensor in weights(tmp_path / "plain").items():  # running statistics too
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-5, atol=1e-6, msg=name)


def test_freeze_batch_norm_keeps_running_statistics(make_config: MakeConfig, tmp_path: Path, tiny_model: Path) -> None:
    train(make_config(epochs=2, freeze_batch_norm=True), tmp_path / "run")
    before, after = openclap.load(tiny_model).clap, weights(tmp_path / "run")
    norms = [name for name, module in before.named_modules() if isinstance(module, _BatchNorm)]
    assert norms
    for name in norms:
        assert torch.equal(before.state_dict()[f"{name}.running_mean"], after[f"{name}.running_mean"])
        assert not torch.equal(before.state_dict()[f"{name}.weight"], after[f"{name}.weight"])


def test_unfreeze_at_trains_frozen_parts_from_that_step(
    make_config: MakeConfig, tmp_path: Path, tiny_model: Path
) -> None:
    config = make_config(epochs=4, frozen=("audio_tower",), unfreeze_at=6, save_every=2, keep_checkpoints=9)
    train(config, tmp_path / "whole")
    before = openclap.load(tiny_model).clap.state_dict()
    name = "audio_tower.blocks.0.conv1.weight"
    assert not torch.equal(before[name], weights(tmp_path / "whole")[name])
    for step in (4, 6):
        resumed = stopped_at(tmp_path / "whole", step, tmp_path / f"from-{step}")
        train(config, resumed)
        assert_equal_runs(tmp_path / "whole", resumed)
    train(make_config(epochs=2, frozen=("audio_tower",), unfreeze_at=6), tmp_path / "short")
    assert torch.equal(before[name], weights(tmp_path / "short")[name])


@pytest.mark.parametrize("choice", [{"unfreeze_at": 6}, {"patience": 2}])
def test_options_without_effect_are_refused(make_config: MakeConfig, tmp_path: Path, choice: dict[str, int]) -> None:
    with raises_naming(ConfigError, *choice):
        train(make_config(**choice), tmp_path / "run")


def test_bf16_losses_are_close_to_fp32(make_config: MakeConfig, tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        train(make_config(epochs=3, precision=precision), tmp_path / precision)
    full, half = losses(tmp_path / "fp32"), losses(tmp_path / "bf16")
    assert full != half and np.allclose(full, half, rtol=0.05)
    if not torch.cuda.is_available():
        with raises_naming(ConfigError, "fp16"):
            train(make_config(precision="fp16"), tmp_path / "fp16")
    assert not (tmp_path / "fp16").exists()


@pytest.mark.long
def test_compiled_towers_train_the_same(make_config: MakeConfig, tmp_path: Path) -> None:
    """With eager random numbers, because compiled dropout draws other ones."""
    with torch._inductor.config.patch(fallback_random=True):
        for name in ("plain", "compiled"):
            train(make_config(epochs=2, compile=name == "compiled"), tmp_path / name)
    assert np.allclose(losses(tmp_path / "plain"), losses(tmp_path / "compiled"), rtol=1e-3)


def test_trackers_are_chosen_by_name(make_config: MakeConfig, tmp_path: Path) -> None:
    with raises_naming(ConfigError, "trackers", "'tensorbord'", "tensorboard"):
        train(make_config(trackers=("tensorbord",)), tmp_path / "run")
    with raises_naming(ConfigError, "trackers", "pip install comet_ml"):
        train(make_config(trackers=("comet_ml",)), tmp_path / "run")
    train(make_config(trackers=(), epochs=1), tmp_path / "run")
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_clips_of_a_non_finite_batch_are_written_to_a_file(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(epochs=4, save_every=50, optim=OptimConfig(lr=1e30, tower_lr=1e30, warmup_steps=1))
    with raises_naming(TrainingError, tmp_path / "run" / "non-finite.json"):
        train(config, tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "non-finite.json").read_text(encoding="utf-8"))
    assert facts["step"] == 2 and len(facts["keys"]) == 2 and "nan" in (facts["loss"], facts["grad_norm"])


def test_siglip_bias_is_restored_from_the_model_folder(make_config: MakeConfig, tmp_path: Path) -> None:
    siglip, still = ObjectiveConfig("siglip"), OptimConfig(lr=0.0, tower_lr=0.0, warmup_steps=1)
    train(make_config(epochs=2, objective=siglip, optim=OptimConfig(lr=1e-2, warmup_steps=1)), tmp_path / "first")
    first = tmp_path / "first" / "model"
    bias = detect.read(first).objective["bias"]
    assert bias.item() != pytest.approx(-10.0, abs=1e-3)
    nested = ObjectiveConfig("siglip", matryoshka=(4,))
    for name, objective in {"on": siglip, "nested": nested, "anew": replace(siglip, initial_scale=10.0)}.items():
        train(make_config(start=str(first), epochs=1, objective=objective, optim=still), tmp_path / name)
        expected = torch.tensor(-10.0) if name == "anew" else bias
        assert torch.equal(detect.read(tmp_path / name / "model").objective["bias"], expected), name
    train(make_config(start=str(first), epochs=1), tmp_path / "other")  # another objective has no use for it
    assert not (tmp_path / "other" / "model" / openclap_folder.OBJECTIVE).exists()
    model = openclap.load(first)
    model.save(tmp_path / "copy")
    assert torch.equal(detect.read(tmp_path / "copy").objective["bias"], bias)


def test_missing_shards_stop_the_run(make_config: MakeConfig, tmp_path: Path, shards: Path) -> None:
    config = make_config(epochs=4)
    train(config, tmp_path / "whole")
    away = tmp_path / "away"

    def take_away(row: TrainingRow) -> None:
        if row["step"] == 7:
            (shards / "1.tar").rename(away)

    with raises_naming(DataError, "1 of 3", "1.tar"):
        train(config, tmp_path / "run", progress=take_away)
    away.rename(shards / "1.tar")
    train(config, tmp_path / "run")
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


@pytest.mark.long
def test_two_processes_finish_and_resume(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(epochs=4, save_every=1, keep_checkpoints=9)  # one step of 2 x 2 pairs an epoch
    launch(config.to_dict(), tmp_path / "whole")
    rows = read_log(tmp_path / "whole" / "log.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert len(list((tmp_path / "whole" / "checkpoints" / "step-00000004").glob("random_states_*"))) == 2
    resumed = stopped_at(tmp_path / "whole", 2, tmp_path / "resumed")
    launch(config.to_dict(), resumed)
    assert_equal_runs(tmp_path / "whole", resumed)
    with raises_naming(ConfigError, "processes"):
        train(config, resumed)
