"""The public functions `train` and `finetune`."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import openclap
from openclap import runs
from openclap.data.build import pack
from openclap.errors import ConfigError, DataError
from openclap.evals.validation import RetrievalValidation
from openclap.sources import read_table
from openclap.training.config import parse_caption_fields
from openclap.training.finetune_config import FinetuneMode, finetune_config, split_pairs
from openclap.training.logging import TrainingRow
from support.errors import raises_naming
from support.runs import MakeConfig


def test_train_takes_a_recipe_with_options(shards: Path, tiny_model: Path, tmp_path: Path) -> None:
    rows: list[TrainingRow] = []
    options = {"epochs": 2, "batch_size": 2, "optim.lr": 1e-2}
    result = runs.train(
        "demo", out=tmp_path / "run", data=shards, start=str(tiny_model), progress=rows.append, **options
    )
    assert (result.step, result.stopped, len(rows)) == (6, False, 6)
    assert result.model == tmp_path / "run" / "model" and (tmp_path / "run" / "report.html").is_file()
    assert openclap.load(result.model).embed_text(["a low tone"]).shape == (1, 16)
    with raises_naming(ConfigError, "--epoch", "--epochs"):
        runs.train("demo", out=tmp_path / "other", epoch=2)
    assert not (tmp_path / "other").exists()


def test_train_takes_a_configuration_and_resumes(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(epochs=1)
    first = runs.train(config, out=tmp_path / "run")
    assert runs.train(config, out=tmp_path / "run") == first
    with raises_naming(ConfigError, tmp_path / "run", "seed"):
        runs.train(replace(config, seed=1), out=tmp_path / "run")


def test_finetune_splits_trains_and_compares(sounds: Path, tiny_model: Path, tmp_path: Path) -> None:
    sentences: list[str] = []
    packed: list[tuple[int, int]] = []
    result = runs.finetune(
        sounds / "sounds.csv",
        tiny_model,
        tmp_path / "run",
        validation_fraction=0.34,
        processes=1,
        packing=lambda done, total: packed.append((done, total)),
        note=sentences.append,
        epochs=1,
    )
    assert (len(result.split.train), len(result.split.validation)) == (4, 2) and packed[-1][0] == packed[-1][1]
    assert result.model == tmp_path / "run" / "model" and not result.training.stopped
    assert [change.metric.key for change in result.changes][:2] == ["text_to_audio_R@1", "text_to_audio_R@10"]
    assert result.report == tmp_path / "run" / "report.html" and result.report.is_file()
    (plan,) = (sentence for sentence in sentences if "4 training pairs, 2 validation pairs" in sentence)
    assert plan.endswith("Training the heads: 1 epoch, 2 pairs a batch, learning rate 0.0005.")


@pytest.mark.parametrize(
    ("weight", "mode", "rate"),
    [(0.03, "heads", 3e-4), (0.0146, "last", 1e-4), (0.03, "all", 2e-4), (2.0, "lora", 5e-4), (0.0, "heads", 5e-4)],
)
def test_the_rate_of_the_heads_is_a_hundredth_of_their_smallest_weights(
    tiny_swin: Path, tmp_path: Path, weight: float, mode: FinetuneMode, rate: float
) -> None:
    model = openclap.load(tiny_swin)
    with torch.no_grad():
        for head in (model.clap.audio_head, model.clap.text_head):
            for parameter in head.parameters():
                parameter.fill_(1.0)
        matrix = next(parameter for parameter in model.clap.text_head.parameters() if parameter.ndim > 1)
        matrix.fill_(weight)
        matrix[::2] *= -1
    model.save(tmp_path / "start")
    start = str(tmp_path / "start")
    assert finetune_config(start, "", 100, mode=mode).optim.lr == rate
    assert finetune_config(start, "", 100, mode=mode, options={"optim.lr": "7e-3"}).optim.lr == 7e-3


def test_the_rate_for_the_bundled_model_is_the_documented_one() -> None:
    assert finetune_config("mini", "", 100).optim.lr == 8e-5


def test_captions_of_other_fields_are_recognised_and_validated(sounds: Path, tiny_model: Path, tmp_path: Path) -> None:
    records = [replace(record, title=f"take {record.id}") for record in read_table(sounds / "sounds.csv")]
    pack(records, tmp_path / "set", splits={"all": 1.0})
    shards = tmp_path / "set" / "all"
    for tar in shards.glob("*.tar"):  # shards of others, with their captions under another key
        content = tar.read_bytes().replace(b'"text": ', b'"note": ')
        tar.write_bytes(content)
    fields = parse_caption_fields(["note=1", "original_data.title=0"])
    split = split_pairs(shards, tmp_path / "run", validation_fraction=0.34, fields=fields)
    assert split.train.folder == shards and (len(split.train), len(split.validation)) == (4, 2)
    captions = {record.id: record.captions for record in records}
    clips = RetrievalValidation(split.validation, fields=fields).clips.clips
    assert sorted(clip.captions for clip in clips) == sorted(captions[clip.title.split()[1]] for clip in clips)
    title = RetrievalValidation(split.validation, fields={"original_data.title": 1.0}).clips.clips
    assert all(clip.captions == (clip.title,) for clip in title)
    with raises_naming(DataError, "original_data.titel"):
        options = {"caption_fields": "original_data.titel=1", "epochs": 1}
        runs.finetune(tmp_path / "set" / "all", tiny_model, tmp_path / "other", validation_fraction=0.34, **options)


def test_finetune_refuses_identifiers_by_default(sounds: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "ids").mkdir()
    for number, sound in enumerate(sorted(sounds.glob("*.wav"))):
        shutil.copy(sound, tmp_path / "ids" / f"{'abcdef'[number]}81f0{number}.wav")
    with raises_naming(DataError, "--skip-caption-check"):
        runs.finetune(tmp_path / "ids", tiny_model, tmp_path / "run", epochs=1, processes=1)
    notes: list[str] = []
    result = runs.finetune(
        tmp_path / "ids",
        tiny_model,
        tmp_path / "run",
        validation_fraction=0.34,
        skip_caption_check=True,
        processes=1,
        note=notes.append,
        epochs=1,
    )
    assert result.model.is_dir() and any("look like identifiers" in note for note in notes)


def test_wrong_arguments_of_finetune_are_one_sentence(sounds: Path, tiny_model: Path, tmp_path: Path) -> None:
    wrong: tuple[dict[str, object], ...] = (
        {"start": openclap.load(tiny_model)},
        {"validation_fraction": "0.2"},
        {"validation_fraction": 1.0},
        {"processes": 0},
    )
    for options in wrong:
        arguments: dict[str, Any] = {"start": tiny_model} | options
        with raises_naming(ConfigError, *options):
            runs.finetune(sounds, out=tmp_path / "run", **arguments)
    assert not (tmp_path / "run").exists()
