"""`openclap fad` on real sounds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import openclap
from openclap.cli import run
from openclap.evals.fad import frechet_distance, frechet_distance_infinity

Call = Callable[..., tuple[int, str, str]]
SOUNDS = Path(openclap.__file__).parent / "demo" / "sounds"


@pytest.fixture
def fad(capsys: pytest.CaptureFixture[str], tiny_model: Path) -> Call:
    """Run `openclap fad` with the tiny model: (exit code, output, notes)."""

    def call(*words: object) -> tuple[int, str, str]:
        code = run(["fad", "--model", str(tiny_model), *map(str, words)])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Sounds of animals and people, and sounds of machines."""
    for name, pattern in (("a", "scratch-[cd]*.ogg"), ("b", "opensfx-[m-t]*.ogg")):
        (tmp_path / name).mkdir()
        for path in sorted(SOUNDS.glob(pattern))[:12]:
            shutil.copy(path, tmp_path / name)
    return tmp_path / "a", tmp_path / "b"


def windows(model: Path, folder: Path) -> np.ndarray:
    embedder = openclap.load(model)
    return np.stack([window.vector for path in sorted(folder.iterdir()) for window in embedder.windows(path)])


def test_equals_the_distance_of_the_windows(fad: Call, tiny_model: Path, folders: tuple[Path, Path]) -> None:
    code, out, err = fad(*folders, "--json")
    said = json.loads(out)
    a, b = (windows(tiny_model, folder) for folder in folders)
    assert code == 0 and not err and len(a) > 16 and len(b) > 16
    assert said.pop("fad") == pytest.approx(frechet_distance(a, b), rel=1e-3)
    fit = frechet_distance_infinity(a, b)
    assert said.pop("fad_infinity") == pytest.approx(fit.value, rel=1e-2)
    assert said.pop("r_squared") == pytest.approx(fit.r_squared, rel=1e-2)
    assert said == {
        "a": {"folder": str(folders[0]), "files": 12, "windows": len(a)},
        "b": {"folder": str(folders[1]), "files": 12, "windows": len(b)},
        "dimension": 16,
        "model": str(tiny_model),
        "precision": "fp32",
        "channels": "mean",
        "trim_silence": False,
        "window_s": 0.5,
        "seed": 0,
        "skipped": [],
    }


def test_the_table_says_what_was_compared(
    fad: Call, tiny_model: Path, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folders[0].parent)
    (folders[1] / "broken.ogg").write_bytes(b"")
    code, out, err = fad("a", "b")
    figures, endless, head, a, b, last = (line.split() for line in out.splitlines())
    assert code == 0 and "Skipped 1:" in err and "broken.ogg" in err
    assert figures[0] == "FAD" and endless[0] == "FAD∞" and endless[2] == "R²" and len(endless) == 4
    assert head == ["windows", "files", "folder"] and a[::3] == ["A", "a"] and b[::3] == ["B", "b"] and b[2] == "12"
    assert " ".join(last) == f"windows of 0.50 s, fp32, model {tiny_model}"
    lines = " ".join(fad("a", "b", "--channels", "left")[1].split())
    assert lines.endswith(f"model {tiny_model}. Read of each recording: the left channel.")
    assert fad("a", "b")[1] == out and fad("a", "b", "--seed", "1")[1] != out
    assert json.loads(fad("a", "a", "--json")[1])["fad"] == pytest.approx(0, abs=1e-9)


def test_few_windows_are_noted(fad: Call, folders: tuple[Path, Path], sounds: Path) -> None:
    for path in sounds.glob("*-[2-5].wav"):
        path.unlink()
    code, out, err = fad(folders[0], sounds)
    assert code == 0 and "FAD∞" in out and "–" in out.splitlines()[1] and "too few windows in B" in out
    assert len(err.splitlines()) == 1 and err.startswith(
        "B has 2 windows, fewer than the 16 dimensions of an embedding: FAD"
    )
    figures = json.loads(fad(folders[0], sounds, "--json")[1])
    assert figures["fad_infinity"] is None and figures["warning"] == err.strip()
    assert "A has 2 windows and B has 2 windows, fewer" in fad(sounds, sounds)[2]
    assert json.loads(fad(folders[0], sounds, "--json")[1])["fad_infinity"] is None


def test_mistakes_are_one_sentence(fad: Call, folders: tuple[Path, Path], sounds: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    good = folders[0]
    for words, what in [
        ([good, tmp_path / "none"], "no such file or folder"),
        ([tmp_path / "empty", good], "there is no sound"),
        ([sounds / "low-0.wav", good], "1 of the 2 windows"),
        ([good], "requires an argument"),
        ([good, good, "--precision", "fp7"], "precision"),
        ([good, good, "--batch-size", "0"], "--batch-size"),
        ([good, good, "--seed", "-1"], "--seed is -1"),
    ]:
        code, out, err = fad(*words)
        assert code == 2 and what in err, (words, err)
        assert not out and err.startswith("openclap: ") and len(err.splitlines()) == 1, err
