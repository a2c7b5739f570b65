from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from openclap.checkpoints import detect, openclap_folder
from openclap.checkpoints.checkpoint import Checkpoint
from openclap.cli import run
from support.errors import check_refusal
from support.tiny_models import (
    TINY_HTSAT,
    tiny_laion_model,
    tiny_laion_state,
    tiny_roberta_tokenizer,
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    torch.save({"epoch": 3, "state_dict": tiny_laion_state()}, tmp_path / "epoch_3.pt")
    return tmp_path / "epoch_3.pt"


def test_convert_from_laion_and_back(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["convert", str(source), str(tmp_path / "ours"), "--to", "openclap"]) == 0
    assert "roberta-base" in capsys.readouterr().err
    assert run(["convert", str(tmp_path / "ours"), str(tmp_path / "back.pt"), "--to", "laion"]) == 0
    back = torch.load(tmp_path / "back.pt", weights_only=True)["state_dict"]
    assert all(torch.equal(back[f"module.{name}"], tensor) for name, tensor in tiny_laion_state().items())


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A file of the kind that ClapModel has a place for."""
    state = tiny_laion_state(replace(TINY_HTSAT, n_mels=64, image=256)) | {"audio_branch.head.bias": torch.ones(5)}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "published.pt")
    return tmp_path / "published.pt"


def test_convert_names_left_out_tensors(
    source: Path, published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["convert", str(source), str(tmp_path / "hf"), "--to", "hf"]) == 2
    check_refusal(capsys.readouterr().err, "16 bins")
    assert not (tmp_path / "hf").exists()
    assert run(["convert", str(published), str(tmp_path / "hf"), "--to", "hf"]) == 0
    said = capsys.readouterr().err
    assert "11 tensors" in said
    assert [line.strip() for line in said.splitlines() if line.startswith("  ")] == [
        *("audio_tower.tagger (2)", "audio_transform.0 (2)", "audio_transform.3 (2)"),
        *("text_transform.0 (2)", "text_transform.3 (2)", "audio_branch.head (1)"),
    ]
    assert "This format cannot hold frontend.int16 True (it would read back as False)." in said
    expected, found = detect.read(published).weights, detect.read(tmp_path / "hf").weights
    assert len(expected) - len(found) == 10 and all(torch.equal(found[name], expected[name]) for name in found)
    assert run(["convert", str(tmp_path / "hf"), str(tmp_path / "back.pt"), "--to", "laion"]) == 0
    said = capsys.readouterr().err
    assert [line.strip() for line in said.splitlines() if line.startswith("  ")] == [
        *("audio_transform", "text_transform", "audio_branch.tscam_conv", "audio_branch.head")
    ]


def test_convert_leaves_out_only_the_objective(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["convert", str(published), str(tmp_path / "plain"), "--to", "openclap"]) == 0
    assert run(["convert", str(tmp_path / "plain"), str(tmp_path / "biased"), "--to", "openclap"]) == 0
    save_file({"bias": torch.tensor(-7.5)}, tmp_path / "biased" / openclap_folder.OBJECTIVE)
    assert run(["convert", str(tmp_path / "biased"), str(tmp_path / "again"), "--to", "openclap"]) == 0
    assert detect.read(tmp_path / "again").objective == {"bias": torch.tensor(-7.5)}
    for to, name in (("hf", "hf-{}"), ("laion", "{}.pt")):
        capsys.readouterr()
        for one in ("plain", "biased"):
            assert run(["convert", str(tmp_path / one), str(tmp_path / name.format(one)), "--to", to]) == 0
            assert ("objective.bias (1)" in capsys.readouterr().err) == (one == "biased")
        plain, biased = (detect.read(tmp_path / name.format(one)) for one in ("plain", "biased"))
        for theirs, ours in ((plain.weights, biased.weights), (plain.unused, biased.unused)):
            assert theirs.keys() == ours.keys() and all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_convert_refuses_a_model_that_the_format_cannot_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset, weights = tiny_laion_model()
    short = replace(preset, frontend=replace(preset.frontend, samples=240000))
    openclap_folder.write(Checkpoint("openclap", short, weights), tmp_path / "ours", None)
    assert run(["convert", str(tmp_path / "ours"), str(tmp_path / "a.pt"), "--to", "laion"]) == 2
    check_refusal(capsys.readouterr().err, "frontend.samples", 240000, 480000)
    assert not (tmp_path / "a.pt").exists()


@pytest.mark.parametrize("to", ["openclap", "hf", "laion", "onnx", "sentence-transformers"])
def test_convert_writes_nothing_inside_a_source(
    to: str, published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--tokenizer", str(tiny_roberta_tokenizer(tmp_path / "words.json"))]
    source = tmp_path / "source"
    assert run(["convert", str(published), str(source), "--to", "openclap", *words]) == 0
    (tmp_path / "link").symlink_to(source)
    before = {path: path.read_bytes() for path in source.iterdir()}
    for start, place in (("source", "source/sub"), ("link", "source/a/b"), ("source", "link/sub")):
        capsys.readouterr()
        assert run(["convert", str(tmp_path / start), str(tmp_path / place), "--to", to, *words]) == 2
        check_refusal(capsys.readouterr().err, source)
    nested = source / "nested"
    nested.mkdir()
    (nested / "epoch_3.pt").write_bytes(published.read_bytes())
    assert run(["convert", str(nested / "epoch_3.pt"), str(source), "--to", to, *words]) == 2  # the other way round
    assert {path: path.read_bytes() for path in source.iterdir() if path.is_file()} == before


def test_convert_replaces_no_foreign_files(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for to, mine in (("openclap", "README.md"), ("hf", "notes/thesis.txt")):
        place = tmp_path / to
        assert run(["convert", str(published), str(place), "--to", to]) == 0
        assert run(["convert", str(published), str(place), "--to", to]) == 0  # replaces what it wrote
        (place / mine).parent.mkdir(exist_ok=True)
        (place / mine).write_text("dear", encoding="utf-8")
        before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
        capsys.readouterr()
        assert run(["convert", str(published), str(place), "--to", to]) == 2
        check_refusal(capsys.readouterr().err, place, Path(mine).parts[0])
        assert before == {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "config.json").write_text('{"format_version": 2}', encoding="utf-8")
    for place in ("project", "published.pt"):
        for to in ("openclap", "hf", "laion"):
            assert run(["convert", str(tmp_path / "openclap"), str(tmp_path / place), "--to", to]) == 2
    source = Path(published.rename(tmp_path / "hf" / "model.pt"))
    assert run(["convert", str(source), str(tmp_path / "hf"), "--to", "hf"]) == 2
    assert source.exists() and (tmp_path / "project" / "config.json").exists()
    assert not list(tmp_path.rglob(".*"))


SLOW = """
import sys, time, torch, safetensors.torch
def slow(save):
    def run(*args, **options):
        save(*args, **options)
        print("saved", flush=True)
        time.sleep(60)
    return run
torch.save, safetensors.torch.save_file = slow(torch.save), slow(safetensors.torch.save_file)
from openclap.cli import main
main()
"""


@pytest.mark.parametrize("to", ["laion", pytest.param("hf", marks=pytest.mark.long)])
def test_interrupted_convert_leaves_nothing_behind(published: Path, tmp_path: Path, to: str) -> None:
    place = tmp_path / "out"
    words = [sys.executable, "-c", SLOW, "convert", str(published), str(place / "a"), "--to", to, "--offline"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "saved\n"
    assert [path.name.startswith(".a.partial-") for path in place.iterdir()] == [True]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM and list(place.iterdir()) == []


def test_convert_checks_options_before_writing(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "thesis.txt"
    mine.write_text("dear", encoding="utf-8")
    for words, value in (
        ([str(source), str(mine), "--to", "laion"], mine),
        ([str(source), str(source), "--to", "laion"], source),
        ([str(source), str(tmp_path), "--to", "openclap"], tmp_path),
        ([str(mine), str(tmp_path / "x"), "--to", "openclap"], mine),
    ):
        assert run(["convert", *words]) == 2
        check_refusal(capsys.readouterr().err, value)
    assert run(["convert", str(source), str(tmp_path / "x"), "--to", "tflite"]) == 2
    assert "openclap convert --help" in capsys.readouterr().err
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
    check_refusal(capsys.readouterr().err, "no-such-model", "openclap models")


def test_inspect_lists_what_does_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(tiny_laion_state() | {"audio_projection.0.weight": torch.zeros(3, 3)}, tmp_path / "a.pt")
    assert run(["inspect", str(tmp_path / "a.pt")]) == 0
    shown = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("of another shape"))
    assert "audio_head.0.weight is (3, 3), expected (24, 32)" in shown
