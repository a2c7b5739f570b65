from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import openclap
from openclap.embedder import Embedder
from openclap.errors import ConfigError
from openclap.models.build import build_clap
from openclap.models.config import TextTowerConfig
from openclap.models.text_tower import encoder
from openclap.training.finetune_config import frozen_parts, last_blocks
from openclap.training.lora import attention_projections
from openclap.training.trainer import train
from support.errors import raises_naming
from support.runs import MakeConfig, assert_equal_runs, stopped_at, weights
from support.tiny_models import TINY_PRESET

TOWERS = ("audio_tower", "text_tower")


def test_lora_updates_have_low_rank_and_are_merged(make_config: MakeConfig, tmp_path: Path, tiny_swin: Path) -> None:
    embeddings: list[np.ndarray] = []
    words = ["a low tone", "rain on a roof"]

    def validate(embedder: Embedder) -> float:
        embeddings.append(embedder.embed_text(words))
        return float(len(embeddings))  # the last is the best

    config = make_config(start=str(tiny_swin), frozen=TOWERS, lora=2, epochs=4, save_every=2, keep_checkpoints=9)
    train(config, tmp_path / "run", validate=validate)
    before, model = openclap.load(tiny_swin), openclap.load(tmp_path / "run" / "model")
    changed = {}
    for name, tensor in model.clap.state_dict().items():
        if not torch.equal(tensor, before.clap.state_dict()[name]):
            changed[name] = tensor - before.clap.state_dict()[name]
    in_towers = {name: delta for name, delta in changed.items() if name.startswith(TOWERS)}
    adapted = {f"{name}.weight" for tower in TOWERS for name in attention_projections(before.clap, tower)}
    assert set(in_towers) == adapted and len(changed) > len(in_towers)
    for delta in in_towers.values():
        sizes = torch.linalg.svdvals(delta)
        assert sizes[0] > 0 and sizes[2] < 1e-4 * sizes[0]
    np.testing.assert_allclose(model.embed_text(words), embeddings[-1], atol=1e-5)
    assert not np.allclose(embeddings[0], embeddings[-1], atol=1e-3)
    train(config, tmp_path / "plain")
    resumed = stopped_at(tmp_path / "plain", 4, tmp_path / "resumed")
    train(config, resumed)
    assert_equal_runs(tmp_path / "plain", resumed)
    assert {name for name, tensor in weights(resumed).items() if not torch.isfinite(tensor).all()} == set()


def test_lora_refuses_a_tower_without_attention(make_config: MakeConfig, tmp_path: Path, tiny_model: Path) -> None:
    for attempt in (
        lambda: train(make_config(lora=2), tmp_path / "run"),
        lambda: frozen_parts(openclap.load(tiny_model).clap, "lora"),
    ):
        with raises_naming(ConfigError, "PANN", "lora", "heads"):
            attempt()


SIZES = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 30}


@pytest.mark.parametrize(
    ("kind", "sizes", "count"),
    [
        ("bert", SIZES, 3),  # query, key, value; the output layer is BertSelfOutput's own
        ("clip_text_model", SIZES, 4),
        ("distilbert", {"n_layers": 1, "n_heads": 2, "hidden_dim": 8, "vocab_size": 30, "dim": 8}, 4),
    ],
)
def test_attention_projections_of_text_encoders(kind: str, sizes: dict[str, int], count: int) -> None:
    clap = build_clap(TINY_PRESET)
    clap.text_tower = encoder(TextTowerConfig(kind, "cls", 8, 8, sizes))
    assert len(attention_projections(clap, "text_tower")) >= count


def test_last_blocks_of_towers(tiny_swin: Path, tiny_model: Path) -> None:
    swin, pann = openclap.load(tiny_swin).clap, openclap.load(tiny_model).clap
    assert last_blocks(swin, "audio_tower") == ["audio_tower.layers.1", "audio_tower.norm"]
    assert last_blocks(pann, "audio_tower") == ["audio_tower.blocks.1"]
    assert last_blocks(pann, "text_tower") == ["text_tower.encoder.encoder.layer.0"]
    for clap in (swin, pann):
        frozen = frozen_parts(clap, "last")
        trained = [n for n, _ in clap.named_parameters() if not any(n == p or n.startswith(p + ".") for p in frozen)]
        last = (*last_blocks(clap, "audio_tower"), *last_blocks(clap, "text_tower"))
        assert {n for n in trained if n.startswith(TOWERS)} == {
            n for n, _ in clap.named_parameters() if n.startswith(tuple(f"{one}." for one in last))
        }
