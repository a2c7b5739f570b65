"""The moving average of the weights, and rates that decay by layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import openclap
from openclap.models.build import build_audio_tower, build_clap, build_text_tower
from openclap.models.config import HTSATConfig, NaFlexConfig, PANNConfig
from openclap.training.checkpointing import CHECKPOINTS
from openclap.training.config import OptimConfig
from openclap.training.optimizer import build_optimizer, layer_numbers, learning_rates, parameter_groups
from openclap.training.trainer import train
from openclap.training.weight_average import WeightAverage
from support.runs import MakeConfig, assert_equal_runs, stopped_at, weights
from support.tiny_models import TINY_PRESET, TINY_SWIN_PRESET


def test_the_average_is_that_of_its_definition_and_leaves_the_weights_alone() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).double()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    average = WeightAverage(network, optimizer, decay=0.25)
    tensors = [*network.parameters(), network[1].running_mean, network[1].running_var]
    expected = [tensor.detach().clone() for tensor in tensors]
    for step in range(1, 9):
        optimizer.zero_grad()
        network(torch.randn(8, 3, dtype=torch.float64)).square().sum().backward()
        optimizer.step()
        average.update()
        decay = min(0.25, (1 + step) / (10 + step))
        expected = [decay * mean + (1 - decay) * w.detach() for mean, w in zip(expected, tensors, strict=True)]
    trained = [tensor.detach().clone() for tensor in tensors]
    with average.in_use():
        for tensor, value in zip(tensors, expected, strict=True):
            torch.testing.assert_close(tensor.detach(), value, rtol=1e-12, atol=1e-14)
    assert all(map(torch.equal, tensors, trained)) and not torch.equal(tensors[0], expected[0])
    other = WeightAverage(network, optimizer, decay=0.25)
    other.load_state_dict(average.state_dict())
    assert other.steps == 8 and all(map(torch.equal, other.averages, average.averages))


def test_the_average_is_validated_saved_and_resumed_bit_for_bit(make_config: MakeConfig, tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []

    def validate(model: openclap.Embedder) -> float:
        seen.append(model.clap.audio_head[0].weight.detach().clone())
        return float(len(seen))

    config = make_config(
        epochs=4, save_every=2, keep_checkpoints=9, optim=OptimConfig(lr=1e-2, warmup_steps=1, ema=0.5)
    )
    train(config, tmp_path / "whole", validate=validate)
    model = weights(tmp_path / "whole")
    assert torch.equal(model["audio_head.0.weight"], seen[-1])
    raw = train(replace(config, optim=replace(config.optim, ema=0.0)), tmp_path / "raw")
    assert not torch.equal(weights(tmp_path / "raw")["audio_head.0.weight"], seen[-1]) and raw.step == 12
    # The steps themselves are the same: the average is beside them.
    plain = train(config, tmp_path / "plain")
    checkpoints = [tmp_path / run / CHECKPOINTS / "step-00000012" / "model.safetensors" for run in ("plain", "raw")]
    assert checkpoints[0].read_bytes() == checkpoints[1].read_bytes() and plain.step == 12
    stopped = stopped_at(tmp_path / "plain", 6, tmp_path / "stopped")
    train(config, stopped)
    assert_equal_runs(tmp_path / "plain", stopped)


TOWERS = {
    "naflex": (NaFlexConfig(16, 3, 2, 8, 4, n_mels=16, registers=1, pre_norm=True), 3),
    "htsat": (TINY_SWIN_PRESET.audio, 4),
    "pann": (PANNConfig(widths=(4, 8, 16), pool="max"), 3),
    "pann with categories": (PANNConfig(widths=(4, 8, 16), pool="max", categories=(5, 6)), 3),
}


@pytest.mark.parametrize("name", TOWERS)
def test_layers_are_numbered_from_the_embedding_to_the_top(name: str) -> None:
    config, blocks = TOWERS[name]
    numbers = layer_numbers(build_audio_tower(config))
    if name == "naflex":
        assert {numbers[key] for key in ("registers", "embed.weight", "norm_pre.weight")} == {0}
        assert [numbers[f"blocks.{n}.attn.qkv.weight"] for n in range(3)] == [1, 2, 3]
        assert {numbers[key] for key in ("norm.weight", "pool.latent", "pool.mlp.fc1.weight")} == {4}
    if name == "htsat":
        assert isinstance(config, HTSATConfig)
        assert numbers["layers.0.blocks.1.attn.qkv.weight"] == numbers["layers.0.downsample.reduction.weight"] == 2
        assert numbers["layers.1.blocks.0.attn.qkv.weight"] == 3 and numbers["norm.weight"] == 5
    if name == "pann with categories":
        assert {number for key, number in numbers.items() if key.startswith("categories.")} == {4}
    assert max(numbers.values()) in (blocks, blocks + 1) and set(range(1, blocks + 1)) <= set(numbers.values())


def test_bert_has_its_layers_between_embeddings_and_the_top() -> None:
    text = replace(TINY_PRESET.text, sizes={**TINY_PRESET.text.sizes, "num_hidden_layers": 3})
    numbers = layer_numbers(build_text_tower(text))
    assert numbers["encoder.embeddings.word_embeddings.weight"] == 0
    assert [numbers[f"encoder.encoder.layer.{n}.attention.self.query.weight"] for n in range(3)] == [1, 2, 3]


def test_rates_decay_from_the_top_to_the_embedding_and_groups_keep_them() -> None:
    clap = build_clap(replace(TINY_PRESET, audio=TOWERS["naflex"][0]))
    config = OptimConfig(lr=1.0, tower_lr=0.1, layer_decay=0.5)
    rates = learning_rates(clap, config)
    assert rates["audio_head.0.weight"] == rates["logit_scale"] == 1.0
    assert rates["audio_tower.pool.latent"] == pytest.approx(0.1)
    assert rates["audio_tower.blocks.2.mlp.fc1.bias"] == pytest.approx(0.05)
    assert rates["audio_tower.embed.weight"] == pytest.approx(0.1 * 0.5**4)
    named = {id(parameter): name for name, parameter in clap.named_parameters()}
    for group in build_optimizer(clap, config).param_groups:
        for parameter in group["params"]:
            name = named[id(parameter)]
            assert group["base_lr"] == rates[name]
            # Tokens are vectors in all but shape; the latent of the pooling is decayed, as in open_clip.
            assert bool(group["weight_decay"]) == (parameter.ndim > 1 and not name.endswith("registers"))
    assert sum(len(group["params"]) for group in parameter_groups(clap, config)) == len(named)  # type: ignore[arg-type]
