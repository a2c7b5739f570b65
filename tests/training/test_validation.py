"""Validation during training: the best model is saved, patience ends a run, and both survive an interruption."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import openclap
from openclap.data.shards import index_shards
from openclap.embedder import Embedder
from openclap.errors import CheckpointError
from openclap.evals.metrics import Metric
from openclap.evals.ranks import TIE
from openclap.evals.validation import RetrievalValidation
from openclap.training.logging import TrainingRow, read_log
from openclap.training.trainer import train
from support.errors import raises_naming
from support.runs import MakeConfig, assert_equal_runs, stopped_at, weights

SCORES = [0.5, 0.4, 0.6, 0.5, 0.5, 0.9, 0.9]
"""Of the initial model, then of each epoch."""


def scripted(scores: list[float]) -> Callable[[Embedder], float]:
    """Build a validation with these scores, for models in the order of their first validation."""
    seen: dict[str, float] = {}

    def validate(embedder: Embedder) -> float:
        assert not embedder.clap.training
        digest = embedder.digest()
        if digest not in seen:
            seen[digest] = scores[len(seen)]
        return seen[digest]

    return validate


def test_best_model_is_finished_model_and_patience_ends_the_run(
    make_config: MakeConfig, tmp_path: Path, tiny_model: Path
) -> None:
    validate = scripted(SCORES)
    rows: list[TrainingRow] = []
    config = make_config(patience=2, save_every=100, keep_checkpoints=9)
    outcome = train(config, tmp_path / "run", validate=validate, progress=rows.append)
    assert (outcome.step, outcome.total_steps, outcome.stopped) == (12, 30, False)
    assert (outcome.start_score, outcome.best_score, outcome.best_step) == (0.5, 0.6, 6)
    assert [(row["step"], row["score"]) for row in rows if "score" in row] == [
        (0, 0.5),
        (3, 0.4),
        (6, 0.6),
        (9, 0.5),
        (12, 0.5),
    ]
    train(make_config(epochs=10), tmp_path / "plain", progress=rows.append)
    plain = [row["loss"] for row in read_log(tmp_path / "plain" / "log.jsonl")][:12]
    assert [row["loss"] for row in read_log(tmp_path / "run" / "log.jsonl")] == plain  # validation changes no step
    assert train(config, tmp_path / "run", validate=validate) == outcome
    for step in (3, 6, 9):
        resumed = stopped_at(tmp_path / "run", step, tmp_path / f"from-{step}")
        if step >= 6:  # as after a kill
            (tmp_path / "run" / "model").rename(resumed / "best")
        assert train(config, resumed, validate=validate) == outcome.__class__(
            resumed / "model", 12, 30, False, (), 0.5, 0.6, 6
        )
        if step >= 6:
            openclap.load(resumed / "model").save(tmp_path / "run" / "model")
        assert_equal_runs(tmp_path / "run", resumed)


def test_initial_model_is_finished_model_if_nothing_is_better(
    make_config: MakeConfig, tmp_path: Path, tiny_model: Path
) -> None:
    outcome = train(make_config(patience=1), tmp_path / "run", validate=scripted([0.5, 0.5, 0.4]))
    assert (outcome.step, outcome.best_step, outcome.best_score) == (3, 0, 0.5)
    start = openclap.load(tiny_model).clap.state_dict()
    assert all(torch.equal(tensor, start[name]) for name, tensor in weights(tmp_path / "run").items())


def test_full_disk_leaves_the_best_model_before(
    make_config: MakeConfig, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(epochs=3)
    validate = scripted([0.1, 0.2, 0.3, 0.4])
    train(config, tmp_path / "whole", validate=validate)
    import safetensors.torch

    real, calls = safetensors.torch.save_file, []

    def full(tensors: dict[str, torch.Tensor], path: Path, *args: object, **kwargs: object) -> None:
        if Path(path).parent.name == "best":
            calls.append(path)
            if len(calls) == 3:
                Path(path).write_bytes(b"half")
                raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")
        real(tensors, path, *args, **kwargs)

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with raises_naming(CheckpointError, tmp_path / "run" / "best", "No space left on device"):
        train(config, tmp_path / "run", validate=validate)
    best_model = openclap.load(tmp_path / "run" / "best")
    assert validate(best_model) == 0.2
    train(config, tmp_path / "run", validate=validate)
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def test_score_is_the_mean_map_of_both_directions(tiny_model: Path, shards: Path) -> None:
    index, model = index_shards(shards), openclap.load(tiny_model)
    validation = RetrievalValidation(index)
    samples = [index.read_sample(i) for i in range(len(index))]
    captions = [(owner, text) for owner, sample in enumerate(samples) for text in sample.captions]
    similarity = (
        model.embed_audio([io.BytesIO(s.audio) for s in samples]) @ model.embed_text([t for _, t in captions]).T
    )
    found = [similarity[owner, caption] for caption, (owner, _) in enumerate(captions)]
    ranks = (similarity >= np.array(found) - TIE).sum(axis=0)  # ties rank before the right clip
    by_hand = np.where(ranks <= 10, 1 / ranks, 0).mean()
    assert validation.measures(model)[Metric("mAP@10", "text_to_audio")].value == pytest.approx(by_hand)
    both = [validation.measures(model)[Metric("mAP@10", way)].value for way in ("text_to_audio", "audio_to_text")]
    assert validation.score(model) == pytest.approx(np.mean(both))
    for change in validation.compare(model, model):
        assert change.before == change.after
        assert (change.difference.value, change.difference.low, change.difference.high) == (0, 0, 0)
