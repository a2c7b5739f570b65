from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from openclap.checkpoints import huggingface, model_card
from openclap.checkpoints.checkpoint import Checkpoint
from openclap.cli import run
from openclap.errors import CheckpointError
from support.errors import check_refusal, raises_naming
from support.hub_server import TOKEN, Hub
from support.tiny_models import TINY_HTSAT, tiny_laion_model

QUICK = {"model": "m", "task": "retrieval", "kind": "retrieval", "dataset": "split test", "direction": "text_to_audio"}
SHOWN = {"shown": True, "published": [], "incomplete": None, "n": 228, "protocol": "retrieval, split test"}
FIGURES = {
    "suite": "quick",
    "figures": [
        QUICK
        | SHOWN
        | {"metric": "R@1", "is_rank": False, "value": 0.25, "low": 0.2, "high": None}
        | {"chance": {"value": 0.01, "low": 0.0, "high": 0.02}},
        QUICK
        | SHOWN
        | {"metric": "median_rank", "is_rank": True, "value": 11, "low": 7, "high": 15}
        | {"chance": {"value": 57.7, "low": 50.0, "high": 65.0}},
    ],
    "data": [{"name": "test", "clips": 114, "captions": 228}],
}


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def script(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("openclap")), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


def test_push_writes_a_card_uploads_and_prints_the_url(model: Path, tmp_path: Path) -> None:
    (model / "evaluation.json").write_text(json.dumps(FIGURES), encoding="utf-8")
    with Hub() as hub:
        online = hub.environment(tmp_path / "hf") | {"HF_TOKEN": TOKEN}
        done = script("push", model, "me/tiny", "--private", "--message", "a tiny one", **online)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{hub.url}/me/tiny\n"
        assert "Wrote" in done.stderr and "states no licence yet" in done.stderr
        repo = hub.repos["me/tiny"]
        assert repo.private and "a tiny one" in repo.messages
        arrived = repo.commits[repo.refs["main"]]
        names = {"README.md", "config.json", "evaluation.json", "model.safetensors", "tokenizer.json"}
        assert {name: arrived[name] for name in names} == {name: (model / name).read_bytes() for name in names}


def test_card_describes_the_model_and_how_to_load_it(model: Path) -> None:
    text = model_card.card_text(model, "me/tiny")
    _, head, body = text.split("---\n", 2)
    assert head.splitlines()[:3] == ["library_name: openclap", "pipeline_tag: zero-shot-audio-classification", "tags:"]
    assert "license:" not in head and "Not stated yet" in body
    for fact in (
        'openclap.load("me/tiny")',
        "unit vectors of\n16 dimensions",
        "| audio tower | convolutional (PANN), widths 4-8 |",
        "0.5 s of mono audio at 16 kHz",
        "24 log-mel bins of 50–8000 Hz",
        "bert, 16 tokens at most",
    ):
        assert fact in body
    assert "## Evaluation" not in body
    (model / "evaluation.json").write_text(json.dumps(FIGURES), encoding="utf-8")
    measured = model_card.card_text(model, "me/tiny")
    assert "| retrieval | text to audio R@1 | 0.250 | 0.200 to – | 0.010 | 228 |" in measured
    assert "| retrieval | text to audio median rank | 11.0 | 7.0 to 15.0 | 57.7 | 228 |" in measured
    assert "metric_type" not in measured and "type: text-to-audio-retrieval" in measured.split("---\n")[1]
    assert (
        "On 114 clips with 228 captions, split 'test'." in measured
        and "- retrieval: retrieval, split test." in measured
    )


def suite_of(*models: object) -> dict[str, object]:
    """The JSON of a suite for some models."""
    figure = {
        "task": "ESC-50",
        "kind": "zero_shot",
        "dataset": "ESC-50",
        "direction": None,
        "metric": "accuracy",
        "is_rank": False,
        "shown": True,
        "value": 0.875,
        "low": 0.8,
        "high": 0.9,
        "chance": None,
        "published": [{"value": 0.91, "system": "LAION-CLAP"}],
        "n": 2000,
        "protocol": "zero-shot, 5 folds averaged",
    }
    found = figure | {
        "task": "Clotho",
        "dataset": "Clotho",
        "kind": "retrieval",
        "direction": "text_to_audio",
        "metric": "R@1",
        "published": [],
    }
    rows = [figure, found, figure | {"metric": "balanced_accuracy", "shown": False}]
    return {"suite": "paper", "figures": [row | {"model": str(model)} for model in models for row in rows]}


def test_card_shows_scores_of_a_suite_as_the_hub_reads_them(model: Path, tmp_path: Path) -> None:
    (model / "evaluation.json").write_text(json.dumps(suite_of(tmp_path / "other", model)), encoding="utf-8")
    text = model_card.card_text(model, "me/tiny")
    assert "| ESC-50 | accuracy | 0.875 | 0.800 to 0.900 | 0.910 (LAION-CLAP) | 2,000 |" in text
    assert "- ESC-50: zero-shot, 5 folds averaged." in text and "balanced" not in text
    assert text.count("| Clotho |") == 1
    (model / "README.md").write_text(text, encoding="utf-8")
    data = ModelCard.load(model / "README.md").data
    assert data.model_name == "tiny" and data.library_name == "openclap"
    found = {(each.dataset_type, each.task_type): each.metric_value for each in data.eval_results}
    assert found == {
        ("esc-50", "zero-shot-audio-classification"): 0.875,
        ("clotho", "text-to-audio-retrieval"): 0.875,
    }


def test_evaluation_of_other_models_is_refused(model: Path) -> None:
    (model / "evaluation.json").write_text(json.dumps(suite_of("one", "two")), encoding="utf-8")
    with raises_naming(CheckpointError, "one", "two", model.name):
        model_card.card_text(model, "me/tiny")
    (model / "evaluation.json").write_text(json.dumps(suite_of("mine")), encoding="utf-8")
    assert "| ESC-50 |" in model_card.card_text(model, "me/tiny")


def test_names_with_pipes_do_not_break_the_table(model: Path) -> None:
    told = json.dumps(suite_of("mine")).replace("ESC-50", "dogs | cats\\n and more")
    (model / "evaluation.json").write_text(told, encoding="utf-8")
    assert r"| dogs \| cats and more | accuracy |" in model_card.card_text(model, "me/tiny")


def test_existing_card_is_not_overwritten(model: Path) -> None:
    (model / "README.md").write_text("mine", encoding="utf-8")
    assert model_card.write(model, "me/tiny") is None
    assert (model / "README.md").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("evaluation.json", "{}"),
        ("evaluation.json", '{"suite": "paper"}'),
        ("evaluation.json", '{"suite": "paper", "figures": []}'),
        ("evaluation.json", json.dumps(suite_of("m")).replace("0.8,", '"0.8",')),
        ("evaluation.json", json.dumps(suite_of("m")).replace("0.8,", f"1{'0' * 400},")),
        ("evaluation.json", json.dumps(suite_of("m\0"))),
        ("evaluation.json", "{"),
        ("evaluation.json", "[" * 100_000),
        ("config.json", "[]"),
    ],
)
def test_damaged_folder_gets_no_card(model: Path, file: str, content: str) -> None:
    (model / file).write_text(content, encoding="utf-8")
    with raises_naming(CheckpointError, file):
        model_card.write(model, "me/tiny")
    assert not (model / "README.md").exists()


def test_push_refuses_other_folders_before_writing(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    junk = Path(shutil.copytree(model, tmp_path / "junk"))
    (junk / "model.safetensors").write_bytes(b"junk")
    partial = Path(shutil.copytree(model, tmp_path / "partial"))
    weights = load_file(partial / "model.safetensors")
    del weights["logit_scale"]
    save_file(weights, partial / "model.safetensors")
    preset, state = tiny_laion_model(replace(TINY_HTSAT, n_mels=64, image=256))
    huggingface.write(Checkpoint("laion", preset, state), tmp_path / "hf")
    for name, value in (
        ("empty", tmp_path / "empty"),
        ("nothing", tmp_path / "nothing"),
        ("junk", junk / "model.safetensors"),
        ("partial", "logit_scale"),
        ("hf", "openclap convert"),
    ):
        before = sorted(path.name for path in (tmp_path / name).glob("*"))
        assert run(["push", str(tmp_path / name), "me/tiny"]) == 2
        check_refusal(capsys.readouterr().err, value)
        assert sorted(path.name for path in (tmp_path / name).glob("*")) == before


def test_no_card_is_written_when_upload_is_impossible(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    for offline, name, value in (
        (True, "me/tiny", "HF_HUB_OFFLINE"),
        (False, "me/tiny", "token"),
        (False, "bad name", "USER/NAME"),
    ):
        monkeypatch.setattr("openclap.checkpoints.hub.is_offline", lambda offline=offline: offline)
        assert run(["push", str(model), name]) == 2
        check_refusal(capsys.readouterr().err, value)
    assert not (model / "README.md").exists()


def test_data_set_is_uploaded_without_work_files(sounds: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(["dataset", "build", str(sounds / "sounds.csv"), str(out)]) == 0
    with Hub(lfs_from=1 << 12) as hub:
        online = hub.environment(tmp_path / "hf") | {"HF_TOKEN": TOKEN}
        done = script("dataset", "push", out, "me/set", **online)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{hub.url}/datasets/me/set\n"
        repo = hub.repos["me/set"]
        assert repo.private
        files = repo.commits[repo.refs["main"]]
        assert {"README.md", "manifest.parquet", "train/0.tar", "train/sizes.json", "card/lengths.svg"} <= set(files)
        assert not [name for name in files if name.startswith(("work/", ".lock"))]
        assert files["train/0.tar"] == (out / "train" / "0.tar").read_bytes()
        refused = script("dataset", "push", out, "me/set", **(online | {"HF_TOKEN": "hf_other"}))
        assert refused.returncode == 2 and "Traceback" not in refused.stderr
