"""`openclap classify` against `Embedder.classify`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import openclap
from openclap.cli import run

Call = Callable[..., tuple[int, str, str]]
LABELS = ["low tone", "noise", "dog", "bell"]


@pytest.fixture
def classify(capsys: pytest.CaptureFixture[str], tiny_model: Path) -> Call:
    """Run `openclap classify` with the tiny model: (exit code, output, notes)."""

    def call(*words: object) -> tuple[int, str, str]:
        code = run(["classify", "--model", str(tiny_model), *map(str, words)])
        return code, *capsys.readouterr()

    return call


def test_probabilities_are_those_of_python(classify: Call, tiny_model: Path, sounds: Path) -> None:
    code, out, err = classify(sounds, "--labels", "low tone, noise,dog,bell,dog,", "--top", 9, "--json")
    assert code == 0 and not err
    paths = [str(path) for path in sorted(sounds.glob("*.wav"))]
    found = json.loads(out)
    assert [each["path"] for each in found] == paths
    wanted_NC = openclap.load(tiny_model).classify(paths, LABELS)
    for each, wanted_C in zip(found, wanted_NC, strict=True):
        chances = {row["label"]: row["probability"] for row in each["labels"]}
        np.testing.assert_allclose([chances[name] for name in LABELS], wanted_C, atol=1e-5)
        assert list(chances.values()) == sorted(chances.values(), reverse=True)
        assert sum(chances.values()) == pytest.approx(1)


def test_quotes_keep_a_comma(classify: Call, sounds: Path) -> None:
    code, out, _ = classify(sounds / "low-0.wav", "--labels", 'dog, "low, tone",bell', "--json")
    assert code == 0 and {each["label"] for each in json.loads(out)[0]["labels"]} == {"dog", "low, tone", "bell"}


def test_the_table_names_a_file_once(classify: Call, sounds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sounds.parent)
    code, out, _ = classify("sounds", "--labels", ",".join(LABELS), "--top", 2)
    head, *lines = out.splitlines()
    assert code == 0 and head.split() == ["file", "label", "probability"] and len(lines) == 12
    assert lines[0].startswith("sounds/high-1.wav  ") and lines[1].startswith("                   ")
    first, second = (float(line.split()[-1]) for line in lines[:2])
    assert 1 >= first >= second >= 0


def test_template_and_labels_file(classify: Call, tiny_model: Path, sounds: Path, tmp_path: Path) -> None:
    file, sound = tmp_path / "labels.txt", sounds / "low-0.wav"
    file.write_text("\ufefflow, tone\r\n\r\nbig_bell\r\n", encoding="utf-8")
    code, out, _ = classify(sound, "--labels-file", file, "--template", "the {} sound", "--json", "--top", 1)
    wanted_C = openclap.load(tiny_model).classify([sound], ["low, tone", "big_bell"], "the {} sound")[0]
    [best] = json.loads(out)[0]["labels"]
    assert code == 0 and best["label"] == ["low, tone", "big_bell"][wanted_C.argmax()]
    assert best["probability"] == pytest.approx(wanted_C.max(), abs=1e-5)


def test_damaged_files_do_not_stop_the_rest(classify: Call, sounds: Path) -> None:
    (sounds / "text.wav").write_text("not a sound", encoding="utf-8")
    code, out, err = classify(sounds, sounds / "none.wav", "--labels", "dog,bell", "--json")
    found = {Path(each["path"]).name: each for each in json.loads(out)}
    assert code == 0 and len(found) == 8 and all(each["labels"] for each in found.values() if "error" not in each)
    assert found["none.wav"]["error"] == "no such file or folder" and found["text.wav"]["labels"] == []
    assert "Skipped 2:" in err and "text.wav" in err and "none.wav: no such file or folder" in err


def test_mistakes_are_one_sentence(classify: Call, sounds: Path, tmp_path: Path) -> None:
    (tmp_path / "blank.txt").write_text(" \n\n", encoding="utf-8")
    (tmp_path / "torn.txt").write_bytes("Bär\nHörn".encode("utf-16")[:-1])
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.wav").write_bytes(b"")
    for words, what in [
        (["--labels", "a,b"], "requires an argument"),
        ([sounds, "--labels", "dog"], "openclap score"),
        ([sounds, "--labels", " , "], "holds no labels"),
        ([sounds, "--labels-file", tmp_path / "blank.txt"], "holds no labels"),
        ([sounds, "--labels-file", tmp_path / "torn.txt"], "is not valid text in its encoding"),
        ([sounds, "--labels-file", tmp_path / "none.txt"], "no such file"),
        ([sounds, "--labels-file", tmp_path], "directory"),
        ([sounds], "--labels-file"),
        ([sounds, "--labels", "a,b", "--labels-file", tmp_path / "blank.txt"], "either --labels"),
        ([sounds, "--labels", "a,b", "--template", "a sound"], "{}"),
        ([sounds, "--labels", "a,b", "--top", "0"], "--top"),
        ([sounds, "--labels", "a,b", "--precision", "fp7"], "precision"),
        ([sounds, "--labels", "a,b", "--batch-size", "0"], "--batch-size"),
        ([tmp_path / "none.wav", "--labels", "a,b"], "no such file"),
        ([tmp_path / "empty", "--labels", "a,b"], "there is no sound"),
    ]:
        code, out, err = classify(*words)
        assert code == 2 and what in err, (words, err)
        assert not out and err.startswith("openclap: ") and len(err.splitlines()) == 1, err
    assert classify(tmp_path / "broken.wav", "--labels", "a,b")[0] == 2


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_labels_in_any_usual_encoding(classify: Call, sounds: Path, tmp_path: Path, encoding: str) -> None:
    (tmp_path / "labels.txt").write_text("Bär\nHörn\n", encoding=encoding)
    code, out, _ = classify(sounds / "low-0.wav", "--labels-file", tmp_path / "labels.txt", "--json")
    assert code == 0 and {each["label"] for each in json.loads(out)[0]["labels"]} == {"Bär", "Hörn"}
