"""The page on other tools, run as it stands."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openclap.cli import run
from openclap.embedder import load

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("sentence_transformers")
pytest.importorskip("mteb")

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "use-elsewhere.md"
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_page_runs(tiny_model: Path, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command and every line, in one place and one after the other."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    shutil.copytree(tiny_model, place / "FOLDER")
    shutil.copy(sounds / "low-0.wav", place / "dog.wav")
    names: dict[str, Any] = {}
    for kind, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if kind == "python":
            exec(compile(text, str(PAGE), "exec"), names)
        for line in re.findall(r"^\$ openclap (.*)$", text, re.MULTILINE) if kind == "console" else ():
            assert run(shlex.split(line)) == 0
    embedder = load(tiny_model, device="cpu")
    np.testing.assert_allclose(names["texts"], embedder.embed_text(["rain", "a dog"]), atol=1e-5)
    np.testing.assert_allclose(names["sounds"][:1], embedder.embed_audio(["dog.wav"]), atol=1e-5)
    assert names["scores"].shape == (1, 2)
    assert names["embeds"].mteb_model_meta.name == "me/my-model"
    assert names["scenes"].shape == (2, 16) and names["moments"].shape == (2, 61, 16)
    assert names["milliseconds"][0, -1] == 3000
