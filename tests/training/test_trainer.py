from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import openclap
from openclap.data.shards import index_shards
from openclap.errors import ConfigError, DataError, LockedError, TrainingError
from openclap.locks import only_writer
from openclap.training.config import OptimConfig
from openclap.training.logging import TrainingRow, read_log
from openclap.training.trainer import train
from support.errors import raises_naming
from support.runs import MakeConfig, assert_equal_runs, weights


def test_run_writes_model_log_and_checkpoints(make_config: MakeConfig, tmp_path: Path) -> None:
    seen: list[TrainingRow] = []
    outcome = train(make_config(), tmp_path / "run", progress=seen.append)
    assert (outcome.step, outcome.total_steps, outcome.stopped, outcome.skipped) == (30, 30, False, ())
    rows = read_log(tmp_path / "run" / "log.jsonl")
    assert rows == seen and [row["step"] for row in rows] == list(range(1, 31))
    assert {"loss", "scale", "grad_norm", "lr", "pairs_per_s", "data_wait", "seconds_left", "epoch"} <= rows[0].keys()
    assert np.mean([row["loss"] for row in rows[-6:]]) < np.mean([row["loss"] for row in rows[:6]])
    assert list((tmp_path / "run" / "tensorboard").rglob("events*"))
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == [
        "step-00000028",
        "step-00000030",
    ]
    again = train(make_config(), tmp_path / "run", progress=seen.append)
    assert again == outcome and len(seen) == 30


def test_two_equal_runs_are_bit_equal(make_config: MakeConfig, tmp_path: Path) -> None:
    for name in ("one", "two"):
        train(make_config(), tmp_path / name)
    assert_equal_runs(tmp_path / "one", tmp_path / "two")


def test_run_memorises_a_small_set(make_config: MakeConfig, tmp_path: Path, shards: Path) -> None:
    config = make_config(epochs=60, batch_size=6, optim=OptimConfig(lr=1e-2, tower_lr=1e-2, warmup_steps=3))
    train(config, tmp_path / "run")
    model, index = openclap.load(tmp_path / "run" / "model"), index_shards(shards)
    samples = [index.read_sample(number) for number in range(len(index))]
    kinds = ["low", "high", "noise"]
    chosen = model.classify([sample.audio for sample in samples], kinds, template="a {} tone").argmax(axis=1)
    assert [kinds[choice] for choice in chosen] == [sample.original["label"] for sample in samples]


def test_frozen_parts_are_unchanged(make_config: MakeConfig, tmp_path: Path, tiny_model: Path) -> None:
    train(make_config(frozen=("audio_tower", "text_tower")), tmp_path / "run")
    before, after = openclap.load(tiny_model).clap.state_dict(), weights(tmp_path / "run")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith(("audio_head", "text_head", "logit_scale")) for name in changed)


def test_foreign_run_folder_is_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    train(make_config(epochs=1), tmp_path / "run")
    with raises_naming(ConfigError, tmp_path / "run", "epochs, seed"):
        train(make_config(epochs=2, seed=1), tmp_path / "run")
    with pytest.raises(DataError):  # a run that fails at once leaves nothing behind
        train(make_config(data=str(tmp_path / "typo")), tmp_path / "fresh")
    train(make_config(epochs=1), tmp_path / "fresh")
    (tmp_path / "early").mkdir()  # killed before its configuration was written
    for name in (".lock", ".config.json.partial"):
        (tmp_path / "early" / name).touch()
    train(make_config(epochs=1), tmp_path / "early")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x", encoding="utf-8")
    with raises_naming(ConfigError, tmp_path / "mine"):
        train(make_config(), tmp_path / "mine")
    model = Path(shutil.copytree(make_config().start, tmp_path / "model"))  # with a config.json of its own
    with raises_naming(ConfigError, model):
        train(make_config(), model)
    assert not (model / ".lock").exists()
    with raises_naming(ConfigError, "remote_checkpoints"):
        train(make_config(), Path("s3://bucket/run"))
    with only_writer(tmp_path / "run"), pytest.raises(LockedError):
        train(make_config(epochs=1), tmp_path / "run")


def test_changed_data_is_refused(make_config: MakeConfig, tmp_path: Path, shards: Path) -> None:
    train(make_config(epochs=1), tmp_path / "run")
    (shards / "2.tar").unlink()
    with raises_naming(ConfigError, tmp_path / "run", "data_digest"):
        train(make_config(epochs=1), tmp_path / "run")


def test_diverged_run_writes_no_model_and_a_finite_log(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(epochs=4, save_every=1, optim=OptimConfig(lr=1e30, tower_lr=1e30, warmup_steps=1))
    with raises_naming(TrainingError, "diverged", "optim.lr 1e+29"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()
    assert all(np.isfinite(row["loss"]) for row in read_log(tmp_path / "run" / "log.jsonl"))


def test_truncated_tar_is_listed_as_skipped(make_config: MakeConfig, tmp_path: Path, shards: Path) -> None:
    whole = (shards / "0.tar").read_bytes()
    (shards / "0.tar").write_bytes(whole[: len(whole) // 2])
    outcome = train(make_config(epochs=1), tmp_path / "run")
    assert any(line.startswith("0.tar: ") for line in outcome.skipped)


def test_damaged_samples_are_skipped_and_listed(make_config: MakeConfig, tmp_path: Path, shards: Path) -> None:
    tar = bytearray((shards / "0.tar").read_bytes())
    at = tar.index(b"fLaC")
    tar[at : at + 4] = b"zzzz"
    (shards / "0.tar").write_bytes(bytes(tar))
    outcome = train(make_config(epochs=4), tmp_path / "run")
    assert outcome.step == outcome.total_steps == 12
    assert outcome.skipped and all("cannot" in line or "audio" in line for line in outcome.skipped)
    resumed = tmp_path / "resumed"
    shutil.copytree(tmp_path / "run", resumed, ignore=shutil.ignore_patterns("model", "step-00000012"))
    train(make_config(epochs=4), resumed)
    assert_equal_runs(tmp_path / "run", resumed)


def test_missing_or_too_little_data_is_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    with raises_naming(DataError, "6 samples", 7):
        train(make_config(batch_size=7), tmp_path / "run")
    with pytest.raises(DataError):
        train(make_config(data=str(tmp_path / "nowhere")), tmp_path / "other")
