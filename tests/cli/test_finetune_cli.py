"""`openclap finetune` on folders, tables and shards: results, resuming, and invalid input."""

from __future__ import annotations

import json
import shutil
import signal
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import openclap
from openclap.cli import run
from openclap.data.build import pack
from openclap.sources import Record, read_table
from support.errors import check_refusal
from support.runs import signal_at, start_command

KINDS = {"low tone": 150, "high tone": 3000, "noise": 0}


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """Eighteen short sounds with captions as file names."""
    folder = tmp_path / "named"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(18):
        kind, hz = list(KINDS.items())[number % 3]
        seconds = np.arange(int(16000 * (0.3 + 0.02 * number))) / 16000
        tone = np.sin(2 * np.pi * hz * seconds) if hz else rng.standard_normal(len(seconds))
        soundfile.write(folder / f"{'abcdefghijklmnopqr'[number]} {kind}.wav", 0.4 * tone / np.abs(tone).max(), 16000)
    return folder


def words(*given: object) -> list[str]:
    return [str(word) for word in given]


def finetune(*given: object) -> int:
    return run(words("finetune", *given, "--processes", 1))


FAST = ("--mode", "all", "--optim.lr", "1e-2", "--optim.tower-lr", "1e-2")


def test_folder_is_packed_once_and_improves_the_model(
    named: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    given = (named, "--from", tiny_model, "--out", out, "--epochs", "8", *FAST)
    assert finetune(*given, "--json") == 0
    printed = capsys.readouterr()
    facts = json.loads(printed.out)
    assert facts["best_score"] >= facts["start_score"] and not facts["stopped"] and facts["model"] == str(out / "model")
    figures = {(one["task"], one["metric"]): one for one in facts["validation"]}
    both = [figures[way, "mAP@10"] for way in ("text_to_audio", "audio_to_text")]
    for when, score in (("before", facts["start_score"]), ("after", facts["best_score"])):
        assert np.mean([one[when]["value"] for one in both]) == pytest.approx(score, abs=1e-4)
    assert "before: score" in printed.err and "epoch 1: score" in printed.err
    assert openclap.load(out / "model").embed_text(["a low tone"]).shape == (1, 16)
    packed = {path: path.stat().st_mtime_ns for path in (out / "shards").rglob("*.tar")}
    assert finetune(*given) == 0
    printed = capsys.readouterr()
    assert "text→audio" in printed.out and "score 0" not in printed.err
    assert packed == {path: path.stat().st_mtime_ns for path in (out / "shards").rglob("*.tar")}


@pytest.mark.long
def test_killed_finetuning_resumes_bit_equal(named: Path, tmp_path: Path, tiny_model: Path) -> None:
    def given(name: str) -> list[str]:
        options = ("--epochs", 20, "--patience", 0, "--save-every", 2, "--processes", 1)
        return words("finetune", named, "--from", tiny_model, "--out", tmp_path / name, *FAST, *options)

    assert run(given("whole")) == 0
    assert signal_at(start_command(given("killed"), 12), 7, signal.SIGKILL) == -signal.SIGKILL
    assert not (tmp_path / "killed" / "model").exists()
    assert run(given("killed")) == 0
    whole, killed = (openclap.load(tmp_path / name / "model").clap.state_dict() for name in ("whole", "killed"))
    assert all(torch.equal(tensor, killed[name]) for name, tensor in whole.items())
    told = [(tmp_path / name / "log.jsonl").read_text(encoding="utf-8").splitlines() for name in ("whole", "killed")]
    scores = [[(row["step"], row["loss"], row.get("score")) for row in map(json.loads, lines)] for lines in told]
    assert scores[0] == scores[1]


def test_laion_shards_are_used_in_place(
    sounds: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = read_table(sounds / "sounds.csv")
    pack(records, tmp_path / "split", splits={"train": 0.5, "test": 0.5})
    pack(records, tmp_path / "flat", splits={"all": 1.0}, shard_size=2)
    for name, place in (("split", tmp_path / "split"), ("flat", tmp_path / "flat" / "all")):
        out = tmp_path / f"run-{name}"
        more = ("--validation-fraction", "0.34") if name == "flat" else ()
        assert finetune(place, "--from", tiny_model, "--out", out, "--epochs", 1, *more) == 0, capsys.readouterr().err
        assert not (out / "shards").exists()
        config = json.loads((out / "config.json").read_text(encoding="utf-8"))
        assert config["data"] == str(place / "train" if name == "split" else place)
        assert config["frozen"] == ["audio_tower", "text_tower"] and config["freeze_batch_norm"]


def test_batch_larger_than_the_data_is_reduced(
    sounds: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (
        "--from",
        tiny_model,
        "--out",
        tmp_path / "run",
        "--epochs",
        1,
        "--batch-size",
        "64",
        "--validation-fraction",
        "0.34",
    )
    assert finetune(sounds / "sounds.csv", *given) == 0
    assert "4 training pairs" in capsys.readouterr().err


def test_other_webdataset_shards_are_packed_first(
    named: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "0.tar", "w") as tar:
        for sound in sorted(named.glob("*.wav")):
            tar.add(sound, f"{sound.stem[0]}.wav")
            (tmp_path / "caption.txt").write_text(f"This is {sound.stem}.", encoding="utf-8")
            tar.add(tmp_path / "caption.txt", f"{sound.stem[0]}.txt")
    for place in (tmp_path / "tars", tmp_path / "tars" / "0.tar"):
        given = (place, "--from", tiny_model, "--out", tmp_path / f"run-{place.name}", "--epochs", 1)
        assert finetune(*given) == 0, capsys.readouterr().err
        said = capsys.readouterr().err
        assert "WebDataset shards (1 tar: sound from .wav, caption from .txt)" in said
        assert "14 training pairs, 4 validation pairs" in said


def test_identifiers_as_file_names_are_refused(
    named: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ids").mkdir()
    rows = ["datei;beschreibung"]
    for number, sound in enumerate(sorted(named.glob("*.wav"))):
        shutil.copy(sound, tmp_path / "ids" / f"NHU05024{number:03d}.wav")
        rows.append(f"NHU05024{number:03d}.wav;{sound.stem}")
    (tmp_path / "ids" / "notes.csv").write_text("\n".join(rows), encoding="utf-8")
    given = ("--from", tiny_model, "--out", tmp_path / "run", "--epochs", 1)
    assert finetune(tmp_path / "ids", *given) == 2
    check_refusal(capsys.readouterr().err, "18 of 18", tmp_path / "ids" / "notes.csv", "'beschreibung'")
    assert not list((tmp_path / "run").rglob("*.tar"))
    columns = ("--caption-column", "beschreibung")
    assert finetune(tmp_path / "ids" / "notes.csv", *given, *columns) == 0
    assert "sound from 'datei', caption from 'beschreibung'" in " ".join(capsys.readouterr().err.split())


def test_identifiers_in_shards_are_refused(
    named: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        Record(str(number), sound, (f"a81f{number:02d}",), "mine")
        for number, sound in enumerate(sorted(named.glob("*.wav")))
    ]
    pack(rows, tmp_path / "set", splits={"train": 0.8, "test": 0.2})
    given = (tmp_path / "set", "--from", tiny_model, "--out", tmp_path / "run", "--epochs", 1)
    assert finetune(*given) == 2
    check_refusal(capsys.readouterr().err, "14 of 14", "--skip-caption-check")
    assert finetune(*given, "--skip-caption-check") == 0


def test_invalid_input_is_refused_in_one_sentence(
    named: Path, tmp_path: Path, tiny_model: Path, tiny_swin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silent, lonely, hollow = tmp_path / "silent", tmp_path / "lonely", tmp_path / "hollow.csv"
    for folder, names in ((silent, ("001", "002", "003")), (lonely, ("a low tone",))):
        folder.mkdir()
        for name in names:
            shutil.copy(next(named.glob("*.wav")), folder / f"{name}.wav")
    hollow.write_text("file,caption\nrain.wav,rain\nwind.wav,wind\n", encoding="utf-8")
    cases: list[tuple[tuple[object, ...], tuple[object, ...]]] = [
        ((tmp_path / "nowhere",), (tmp_path / "nowhere",)),
        ((silent,), (silent, "3 sounds")),
        ((hollow,), ("none of 2", "skipped.jsonl")),
        ((lonely,), (lonely, "1 usable pair", 4)),
        ((named, "--mode", "lora"), ("LoRA", "PANN")),
        ((named, "--epoch", "3"), ("--epoch", "--epochs")),
        ((named, "--note", "3"), ("--note",)),
        ((named, "--validation-fraction", "2"), ("validation_fraction", 2.0)),
        ((named, "--start", tiny_swin), ("--start", "--from")),
        ((named, "--data", tmp_path), ("--data", "SOUNDS")),
        (("--epochs", "3", named), ("openclap finetune SOUNDS",)),
        ((named, "--from", tmp_path / "no-model"), (tmp_path / "no-model",)),
    ]
    for number, (given, values) in enumerate(cases):
        start = () if "--from" in given else ("--from", tiny_model)
        assert finetune(*given, *start, "--out", tmp_path / f"out-{number}") == 2, given
        printed = capsys.readouterr()
        check_refusal(printed.err, *values)
        assert not printed.out
        assert given[0] in {silent, hollow, lonely} or not (tmp_path / f"out-{number}").exists(), "nothing is packed"
    assert finetune(named, "--from", tiny_model, "--out", named) == 2 and not (named / "shards").exists()
    check_refusal(capsys.readouterr().err, named)
    done = ("--out", tmp_path / "run", "--epochs", "1")
    assert finetune(named, "--from", tiny_model, *done) == 0
    assert finetune(named, "--from", tiny_swin, *done) == 2
    check_refusal(capsys.readouterr().err, tmp_path / "run", "start, start_digest")


def test_four_pairs_suffice(named: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for count, held in ((4, 2), (5, 2), (7, 2)):
        few = tmp_path / f"few-{count}"
        few.mkdir()
        for path in sorted(named.glob("*.wav"))[:count]:
            shutil.copy(path, few)
        out = tmp_path / f"out-{count}"
        assert finetune(few, "--from", tiny_model, "--out", out, "--epochs", 1) == 0, capsys.readouterr().err
        assert f"{count - held} training pairs, {held} validation pairs" in capsys.readouterr().err
    assert (
        finetune(tmp_path / "few-4", "--from", tiny_model, "--out", tmp_path / "most", "--validation-fraction", 0.9)
        == 0
    )


@pytest.mark.parametrize("lr", ["1e6", "1e30"])
def test_too_high_learning_rate_is_reported(
    named: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str], lr: str
) -> None:
    """With fourteen pairs in one batch, validation follows the first update and must not blame a sound."""
    out = tmp_path / "run"
    rates = ("--mode", "all", "--optim.lr", lr, "--optim.tower-lr", lr, "--batch-size", 14, "--save-every", 1)
    assert finetune(named, "--from", tiny_model, "--out", out, *rates) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("openclap: step ") and "training has diverged" in told and "sounds[" not in told
    assert f"optim.lr {float(lr) / 10:g} and optim.tower_lr" in told and f"{out / 'best'}" in told
    assert openclap.load(out / "best").digest() == openclap.load(tiny_model).digest()
