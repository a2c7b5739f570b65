"""Models that are averaged with their start."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor

import openclap
from openclap.embedder import Embedder
from openclap.errors import ConfigError
from openclap.models.config import ObjectiveConfig
from openclap.training.logging import TrainingRow
from openclap.training.trainer import train
from support.errors import raises_naming
from support.runs import MakeConfig, assert_equal_runs, weights


class Scores:
    """A validation that finds each model better than the one before, and keeps its weights."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Tensor]] = []

    def __call__(self, embedder: Embedder) -> float:
        state = embedder.clap.state_dict()
        self.seen.append({name: tensor.clone() for name, tensor in state.items() if tensor.is_floating_point()})
        return float(len(self.seen))


def test_the_finished_model_is_the_mean_of_start_and_trained(
    make_config: MakeConfig, tiny_model: Path, tmp_path: Path
) -> None:
    train(make_config(), tmp_path / "plain")
    train(make_config(start_share=0.75), tmp_path / "mean")
    start, trained = openclap.load(tiny_model).clap.state_dict(), weights(tmp_path / "plain")
    assert any(not torch.equal(start[name], trained[name]) for name in trained)
    for name, tensor in weights(tmp_path / "mean").items():
        if tensor.is_floating_point():
            expected = 0.75 * start[name] + 0.25 * trained[name]
            torch.testing.assert_close(tensor, expected, rtol=1e-5, atol=1e-6)


def test_the_mean_is_validated_and_training_goes_on_from_the_trained_weights(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    plain, mean = Scores(), Scores()
    train(make_config(epochs=3), tmp_path / "plain", validate=plain)
    train(make_config(epochs=3, start_share=0.5), tmp_path / "mean", validate=mean)
    assert len(mean.seen) == 4
    for averaged, trained in zip(mean.seen, plain.seen, strict=True):
        for name, tensor in averaged.items():
            expected = (plain.seen[0][name] + trained[name]) / 2
            torch.testing.assert_close(tensor, expected, rtol=1e-5, atol=1e-6)
    finished = weights(tmp_path / "mean")
    assert all(torch.equal(finished[name], tensor) for name, tensor in mean.seen[-1].items())


def test_what_the_objective_learned_is_averaged_too(make_config: MakeConfig, tmp_path: Path) -> None:
    """SigLIP's bias: −10 at the start, since the model has none, and the trained one in a run without averaging."""
    siglip = ObjectiveConfig("siglip")
    train(make_config(objective=siglip), tmp_path / "plain")
    train(make_config(objective=siglip, start_share=0.75), tmp_path / "mean")
    trained, mean = (float(openclap.load(tmp_path / name / "model").objective["bias"]) for name in ("plain", "mean"))
    assert trained != -10.0
    assert mean == pytest.approx(0.75 * -10.0 + 0.25 * trained, abs=1e-5)


@pytest.mark.long
def test_a_resumed_run_ends_with_the_same_mean(make_config: MakeConfig, tmp_path: Path) -> None:
    def stop(row: TrainingRow) -> None:
        if row["step"] == 7:
            os.kill(os.getpid(), signal.SIGINT)

    config = make_config(start_share=0.5)
    train(config, tmp_path / "whole")
    assert train(config, tmp_path / "parts", progress=stop).stopped
    train(config, tmp_path / "parts")
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("values", [{"start_share": 1.0}, {"start_share": -0.1}, {"start_share": 0.5, "lora": 4}])
def test_impossible_shares_are_refused(values: dict[str, float], make_config: MakeConfig) -> None:
    with raises_naming(ConfigError, "start_share"):
        make_config(**values)
