from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from openclap.cli import run as command
from openclap.errors import CheckpointError, ConfigError, DataError
from openclap.models.build import build_clap
from openclap.recipes import RECIPES, expected_inputs, laion
from openclap.training.config import ExpectedInputs, OptimConfig
from openclap.training.logging import UtilisationMeter
from openclap.training.optimizer import freeze
from openclap.training.profiling import (
    PROBE_PAIRS,
    FlopCount,
    count_flops,
    matmul_peak,
    measure_activations,
    peak_memory,
    plan_training,
)
from openclap.types import AudioBatch, PairBatch, TextBatch
from support.errors import raises_naming
from support.runs import MakeConfig
from support.tiny_models import TINY_PRESET


def test_plan_of_a_small_run_by_hand(make_config: MakeConfig) -> None:
    made = plan_training(make_config())
    model = build_clap(TINY_PRESET)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert made.counted and (made.pairs, made.steps_per_epoch, made.steps, made.batch) == (6, 3, 30, 2)
    assert sum(part.parameters for part in made.parts) == parameters - 1  # the temperature belongs to no part
    assert made.memory.gradients == 4 * parameters and made.memory.optimizer == 8 * parameters
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    assert made.memory.weights == 4 * parameters + buffers
    assert made.seconds == pytest.approx(30 * (made.compute_s + made.data_s)) and not made.warnings
    assert made.compute_s == pytest.approx(made.flops / made.peak / made.utilisation)


def test_averages_of_weights_need_memory(make_config: MakeConfig) -> None:
    plain = plan_training(make_config()).memory
    average = plan_training(make_config(optim=OptimConfig(ema=0.9))).memory
    assert average.weights == plain.weights + plain.gradients
    start = plan_training(make_config(start_share=0.5)).memory
    assert start.weights == 2 * plain.weights


def test_frozen_towers_need_less_memory_and_compute(make_config: MakeConfig) -> None:
    whole, heads = plan_training(make_config()), plan_training(make_config(frozen=("audio_tower", "text_tower")))
    assert {part.name for part in heads.parts if part.trainable} == {"audio_head", "text_head"}
    assert heads.memory.gradients < whole.memory.gradients / 2 and heads.flops < whole.flops / 2.5
    assert heads.memory.activations < whole.memory.activations / 10
    assert not whole.notes and ["clips of up to 0.5 s need no audio tower again" in note for note in heads.notes] == [
        True
    ]


def test_processes_share_a_batch(make_config: MakeConfig) -> None:
    one, three = plan_training(make_config()), plan_training(make_config(), processes=3)
    assert (three.batch, three.steps_per_epoch) == (6, 1)
    assert three.flops == pytest.approx(3 * one.flops) and three.memory.activations == one.memory.activations


def test_activations_by_hand() -> None:
    """Two linear layers: autograd saves the input of each, and ReLU's output once; the first maps 24 numbers to 10."""

    class Heads(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Linear(24, 10), torch.nn.Linear(10, 3)
            self.logit_scale = torch.nn.Parameter(torch.zeros(()))

        def encode_audio(self, audio):  # type: ignore[no-untyped-def]
            return self.second(self.first(audio.mel_BVTF[:, 0, 0]).relu())

        def encode_text(self, text):  # type: ignore[no-untyped-def]
            return self.logit_scale

    # the whole log-mel's storage, input of the first layer; ReLU's ten outputs
    frontend = TINY_PRESET.frontend
    mel = frontend.frames * frontend.mel.n_mels * 4
    assert measure_activations(Heads(), frontend) == (mel + 10 * 4, 24 * 4 + 10 * 4)  # type: ignore[arg-type]
    assert PROBE_PAIRS == 2


def test_plan_warns_of_impossible_runs(make_config: MakeConfig, tmp_path: Path) -> None:
    [few] = plan_training(make_config(batch_size=7)).warnings
    assert "6 pairs are fewer than one batch of 7" in few
    [late] = plan_training(make_config(optim=OptimConfig(warmup_steps=30))).warnings
    assert "30 steps of warm-up" in late
    assert any("GB are more than the" in line for line in plan_training(make_config(batch_size=10**8)).warnings)
    assert any("workers are more than" in line for line in plan_training(make_config(workers=1000)).warnings)
    with raises_naming(ConfigError, "'audio_towel'"):
        plan_training(make_config(frozen=("audio_towel",)))
    with raises_naming(CheckpointError, tmp_path / "nothing"):
        plan_training(make_config(start=str(tmp_path / "nothing")))
    with pytest.raises(DataError):
        plan_training(make_config(data=str(tmp_path / "nothing")))


def test_plan_without_start_and_data_uses_the_recipe(make_config: MakeConfig, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nothing")
    made = plan_training(make_config(start=nowhere, data=nowhere), ExpectedInputs(TINY_PRESET, 1000))
    assert (made.pairs, made.counted, made.steps_per_epoch) == (1000, False, 500) and len(made.notes) == 2
    assert made.flops == pytest.approx(plan_training(make_config()).flops)


def test_paper_runs_match_the_paper() -> None:
    for name, row in laion.RUNS.items():
        known, config = expected_inputs(name), RECIPES[name].config()
        assert known is not None and known.preset.name == row.preset == Path(config.start).name
        assert (row.gpus * config.batch_size) == {"audiocaps-clotho": 768, "audiocaps-clotho-630k": 2304}.get(
            row.data, 4608
        )
        assert ("fusion" in name) == (known.preset.audio.fusion is not None)
    assert expected_inputs("demo") is None
    assert list(laion.PAIRS.values()) == [53_113, 573_390, 2_480_539]  # sums of the published numbers, by hand


def test_dry_run_command(make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_config()
    own = ["--start", config.start, "--data", config.data, "--batch-size", "2", "--workers", "0"]
    assert command(["train", "htsat-roberta", *own, "--dry-run", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["pairs"] == 6 and printed["memory"]["total"] == sum(
        size for name, size in printed["memory"].items() if name != "total"
    )
    assert command(["train", "htsat-roberta", *own, "--dry-run"]) == 0
    captured = capsys.readouterr()
    assert "135 = 3 an epoch" in captured.out and "Warning: 3,200 steps of warm-up" in captured.err
    assert command(["train", "demo"]) == 2
    assert "--out RUN" in capsys.readouterr().err


def test_plan_without_a_step_has_no_time(make_config: MakeConfig, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_config()
    words = ["train", "demo", "--start", config.start, "--data", config.data, "--batch-size", "7", "--dry-run"]
    assert command(words) == 0
    printed = capsys.readouterr()
    assert "time    –, the run has no steps" in printed.out and "0:00:00" not in printed.out
    assert "6 pairs are fewer than one batch of 7" in printed.err
    assert command([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seconds"] is None


def test_flop_count_by_hand() -> None:
    """A text tower of one BERT layer of width 16 and inner width 32, and a head of 16 to 16 to 16."""
    clap = build_clap(TINY_PRESET)
    tokens, width, inner = 24, 16, 32
    linear = 2 * (4 * width * width + 2 * width * inner)  # per token: q, k, v, out; up and down
    attention = 2 * 2 * tokens * width  # per token: scores and mixing
    head = 2 * 2 * width * width / tokens  # once a caption
    forward = linear + attention + head
    flops = count_flops(clap, TINY_PRESET.frontend)
    assert forward * 2.9 < flops.token <= forward * 3.0  # the backward pass has twice the products
    freeze(clap, ("text_tower",))
    frozen = count_flops(clap, TINY_PRESET.frontend)
    assert frozen.token == pytest.approx(
        linear + attention + head * 2.5, rel=1e-3
    )  # the first layer's input needs none
    assert frozen.clip == flops.clip


def test_counting_flops_changes_no_state() -> None:
    clap = build_clap(TINY_PRESET).train()
    freeze(clap, ("audio_tower",))
    before = {name: tensor.clone() for name, tensor in clap.state_dict().items()}
    modes, random = [module.training for module in clap.modules()], torch.get_rng_state()
    count_flops(clap, TINY_PRESET.frontend)
    assert all(torch.equal(tensor, before[name]) for name, tensor in clap.state_dict().items())
    assert [module.training for module in clap.modules()] == modes and torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in clap.parameters())


def test_utilisation_includes_padding_and_waiting() -> None:
    meter = UtilisationMeter(build_clap(TINY_PRESET), TINY_PRESET.frontend)
    meter.flops, meter.peak = FlopCount(clip=100.0, token=10.0, frames=50), 1000.0
    batch = PairBatch(
        audio=AudioBatch(torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.bool)),
        text=TextBatch(torch.zeros(2, 5, dtype=torch.long), torch.zeros(2, 5, dtype=torch.long)),
        owner_T=torch.arange(2),
        caption_id_T=torch.arange(2),
        keys=("a", "b"),
    )
    row = meter.measure([batch], seconds=2.0)
    assert row["mfu"] == pytest.approx((2 * 100 + 10 * 10) / 2.0 / 1000)
    assert 50 < row["memory_mb"] < 100_000


def test_matmul_and_memory_peaks_are_plausible() -> None:
    assert 1e8 < matmul_peak(torch.device("cpu")) < 1e15
    block = torch.ones(1 << 26)
    assert 2**28 == block.nbytes < peak_memory(torch.device("cpu")) < 1e12
