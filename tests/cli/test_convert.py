from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from openclap.cli import run
from small_laion import small_state


@pytest.fixture
def source(tmp_path: Path) -> Path:
    torch.save({"epoch": 3, "state_dict": small_state()}, tmp_path / "epoch_3.pt")
    return tmp_path / "epoch_3.pt"


def test_from_laion_to_ours_and_back(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["convert", str(source), str(tmp_path / "ours"), "--to", "openclap"]) == 0
    assert "No tokenizer lies beside it: roberta-base" in capsys.readouterr().err
    assert run(["convert", str(tmp_path / "ours"), str(tmp_path / "back.pt"), "--to", "laion"]) == 0
    back = torch.load(tmp_path / "back.pt", weights_only=True)["state_dict"]
    assert all(torch.equal(back[f"module.{name}"], tensor) for name, tensor in small_state().items())


def test_what_is_left_out_is_named(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["convert", str(source), str(tmp_path / "hf"), "--to", "hf"]) == 2
    assert "a log-mel of another kind" in capsys.readouterr().err and not (tmp_path / "hf").exists()


def test_mistakes_cost_nothing(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "thesis.txt"
    mine.write_text("dear", encoding="utf-8")
    for words, said in (
        ([str(source), str(mine), "--to", "laion"], "is no checkpoint"),
        ([str(source), str(source), "--to", "laion"], "is the source itself"),
        ([str(source), str(tmp_path), "--to", "openclap"], "is no openclap model"),
        ([str(mine), str(tmp_path / "x"), "--to", "openclap"], "is not a checkpoint"),
        ([str(source), str(tmp_path / "x"), "--to", "onnx"], "openclap convert --help"),
    ):
        assert run(["convert", *words]) == 2
        assert said in capsys.readouterr().err
    assert mine.read_text(encoding="utf-8") == "dear"


def test_inspect(source: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(source)]) == 0
    said = capsys.readouterr().out
    assert "htsat-16" in said and "roberta, 1 layers of 64" in said and "to be fetched: roberta-base" in said
    assert run(["inspect", str(tiny_model), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    weights = load_file(tiny_model / "model.safetensors")
    assert facts["format"] == "openclap" and facts["tensors"] == len(weights) and facts["missing"] == []
    (tmp_path / "empty").mkdir()
    assert run(["inspect", str(tmp_path / "empty")]) == 2
    assert run(["inspect", "no-such-model"]) == 2
    assert "openclap models" in capsys.readouterr().err
