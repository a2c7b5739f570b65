"""`openclap score`: plain cosines, one or a table of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import openclap
from openclap.cli import run

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def score(capsys: pytest.CaptureFixture[str], tiny_model: Path) -> Call:
    """Run `openclap score` with the tiny model: (exit code, output, notes)."""

    def call(*words: object) -> tuple[int, str, str]:
        model = [] if "--model" in words else ["--model", str(tiny_model)]
        code = run(["score", *map(str, words), *model])
        return code, *capsys.readouterr()

    return call


def cosine(model: Path, path: Path, text: str) -> float:
    """By hand, in float64."""
    embedder = openclap.load(model)
    audio, words = (array[0].astype(float) for array in (embedder.embed_audio([path]), embedder.embed_text([text])))
    return float(audio @ words / np.linalg.norm(audio) / np.linalg.norm(words))


def test_one_pair(score: Call, tiny_model: Path, sounds: Path) -> None:
    sound, text = sounds / "low-0.wav", "a low tone"
    wanted = cosine(tiny_model, sound, text)
    code, out, err = score(sound, text, "--json")
    said = json.loads(out)
    assert code == 0 and not err and said.pop("score") == pytest.approx(wanted, abs=1e-5)
    read = {"channels": "mean", "trim_silence": False}
    assert said == {"path": str(sound), "text": text, "model": str(tiny_model), "precision": "fp32"} | read
    assert score(sound, text)[1].splitlines() == [
        f"{'score':>{len(f'{wanted:.3f}')}}  {'file':{len(str(sound))}}  text",
        f"{wanted:>5.3f}  {sound}  {text}",
    ]


def test_negative_scores_stay_negative(score: Call, tiny_model: Path, sounds: Path, tmp_path: Path) -> None:
    turned = openclap.load(tiny_model)
    for tensor in turned.clap.text_head[2].parameters():
        tensor.data *= -1  # turns every sentence's vector round
    turned.save(tmp_path / "turned")
    pair = (sounds / "low-0.wav", "a low tone", "--json")
    there, back = (json.loads(score(*pair, *words)[1])["score"] for words in ([], ["--model", tmp_path / "turned"]))
    assert back == pytest.approx(-there, abs=1e-6) and min(there, back) < -0.01


def test_a_table(score: Call, tiny_model: Path, sounds: Path) -> None:
    (sounds / "broken.wav").write_bytes(b"")
    table = sounds / "pairs.csv"
    rows = ["low-0.wav,a low tone", "high-1.wav,a high tone", "low-0.wav,noise", "broken.wav,a dog", "high-4.wav,"]
    table.write_text("path,caption\n" + "\n".join(rows) + "\n", encoding="utf-8")
    code, out, err = score("--pairs", table, "--json")
    said = json.loads(out)
    assert code == 0 and "Skipped 2:" in err and "high-4.wav: no caption" in err and "broken.wav" in err
    wanted = [("low-0.wav", "a low tone"), ("high-1.wav", "a high tone"), ("low-0.wav", "noise")]
    assert [(Path(pair["path"]).name, pair["text"]) for pair in said["pairs"]] == wanted
    scores = [cosine(tiny_model, sounds / name, text) for name, text in wanted]
    np.testing.assert_allclose([pair["score"] for pair in said["pairs"]], scores, atol=1e-5)
    assert [(Path(each["path"]).name, each["reason"][:10]) for each in said["skipped"]] == [
        ("high-4.wav", "no caption"),
        ("broken.wav", "the file i"),
    ]
    assert said["n"] == 3 and said["mean"] == pytest.approx(np.mean(scores), abs=1e-5)
    head, *lines, last = score("--pairs", table)[1].splitlines()
    assert head.split() == ["score", "file", "text"] and len(lines) == 3
    assert last.split() == [f"{said['mean']:.3f}", "mean", "of", "3"]


def test_mistakes_are_one_sentence(score: Call, sounds: Path, tmp_path: Path) -> None:
    sound, table = sounds / "low-0.wav", sounds / "sounds.csv"
    (tmp_path / "broken.wav").write_bytes(b"")
    (tmp_path / "silent.csv").write_text("path,caption\nlow.wav,\n", encoding="utf-8")
    (tmp_path / "gone.csv").write_text("path,caption\ngone.wav,a dog\n", encoding="utf-8")
    for words, what in [
        ([], "Give a sound and a sentence"),
        ([sound], "Give a sound and a sentence"),
        ([sound, " "], "sentence is empty"),
        ([sound, "a dog", "--pairs", table], "one of the two"),
        (["--pairs", tmp_path / "none.csv"], "no such file"),
        (["--pairs", tmp_path / "silent.csv"], "caption"),
        (["--pairs", tmp_path / "gone.csv"], "no such file"),
        ([tmp_path / "none.wav", "a dog"], "no such file"),
        ([tmp_path / "broken.wav", "a dog"], "empty"),
        ([sounds, "a dog"], "is a folder"),
        (["https://example.com/a.wav", "a dog"], "is a URL"),
        ([sound, "a dog", "--precision", "fp7"], "precision"),
        ([sound, "a dog", "--batch-size", "0"], "--batch-size"),
    ]:
        code, out, err = score(*words)
        assert code == 2 and what in err, (words, err)
        [said] = [line for line in err.splitlines() if not line.startswith("Read ")]  # what was recognised
        assert not out and said.startswith("openclap: "), err
