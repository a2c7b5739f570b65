"""Batches without a readable sample: on one process, on all, for one step, and throughout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import openclap
from openclap.data.loader import PairLoader
from openclap.data.order import epoch_order, rank_batches
from openclap.data.shards import ShardIndex, index_shards
from openclap.errors import DataError
from openclap.models.loss import contrastive_loss
from openclap.training.config import OptimConfig
from openclap.training.logging import TrainingRow, read_log
from openclap.training.trainer import train
from support.errors import is_named, raises_naming
from support.runs import MakeConfig, launch

FROZEN = ("audio_tower", "text_tower")


def damage(shards: ShardIndex, number: int) -> None:
    """Overwrite the beginning of a sample's sound in its tar."""
    with (shards.folder / shards.tars[shards.tar_S[number]]).open("r+b") as file:
        file.seek(int(shards.spans_S4[number, 0]))
        file.write(b"zzzz")


def batches_of(shards: ShardIndex, seed: int, epoch: int, rank: int, world: int) -> list[list[int]]:
    found: list[list[int]] = rank_batches(epoch_order(shards.tar_S, seed, epoch), 2, rank, world).tolist()
    return found


@pytest.mark.long
def test_process_with_an_empty_batch_takes_part(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(epochs=3, trackers=(), frozen=FROZEN, optim=OptimConfig(warmup_steps=1))
    shards = index_shards(config.data)
    [lost] = batches_of(shards, config.seed, 0, rank=1, world=2)
    for number in lost:
        damage(shards, number)
    launch(config.to_dict(), tmp_path / "run")
    rows = read_log(tmp_path / "run" / "log.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3]
    model = openclap.load(config.start)
    loader = PairLoader(shards, model.frontend, model.tokenizer, batch_size=2, seed=config.seed, world=2)
    batch = next(loader.batches(0))  # the other process's
    assert len(batch.keys) == 2
    with torch.no_grad():
        audio, text = model.clap.encode_audio(batch.audio), model.clap.encode_text(batch.text)
        assert rows[0]["loss"] == pytest.approx(contrastive_loss(audio, text, model.clap.scale).item(), rel=1e-5)


def test_step_without_readable_samples_is_skipped(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(epochs=4, trackers=(), accumulate=1)
    shards = index_shards(config.data)
    for number in batches_of(shards, config.seed, 1, rank=0, world=1)[1]:
        damage(shards, number)
    seen: list[TrainingRow] = []
    outcome = train(config, tmp_path / "run", progress=seen.append)
    assert (outcome.step, len(outcome.skipped)) == (12, 2)
    assert 5 not in {row["step"] for row in seen} and {4, 6} <= {row["step"] for row in seen}


def test_empty_batches_do_not_count_in_accumulation(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(epochs=1, trackers=(), accumulate=3, frozen=FROZEN)
    shards = index_shards(config.data)
    for number in batches_of(shards, config.seed, 0, rank=0, world=1)[1]:
        damage(shards, number)
    train(config, tmp_path / "run")
    model = openclap.load(config.start)
    loader = PairLoader(shards, model.frontend, model.tokenizer, batch_size=2, seed=config.seed)
    with torch.no_grad():
        by_hand = [
            contrastive_loss(model.clap.encode_audio(b.audio), model.clap.encode_text(b.text), model.clap.scale)
            for b in loader.batches(0)
            if b.keys
        ]
    [row] = read_log(tmp_path / "run" / "log.jsonl")
    assert len(by_hand) == 2 and row["loss"] == pytest.approx(torch.stack(by_hand).mean().item(), rel=1e-5)


def test_unreadable_data_stops_the_run(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(trackers=())
    shards = index_shards(config.data)
    for number in range(len(shards)):
        damage(shards, number)
    with raises_naming(DataError, "3 consecutive steps", "openclap dataset check") as caught:
        train(config, tmp_path / "run")
    assert any(is_named(shards.where(number), str(caught.value)) for number in range(len(shards)))
    assert not (tmp_path / "run" / "model").exists()
