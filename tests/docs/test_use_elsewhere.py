"""Run docs/howto/use-elsewhere.md unchanged, each section on its own."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openclap.checkpoints import openclap_folder
from openclap.cli import run
from openclap.embedder import Embedder
from openclap.loading import load
from openclap.text.tokenizer import Tokenizer
from support.tiny_models import tiny_clap_model, tiny_roberta_tokenizer

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "use-elsewhere.md"
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NEEDS = {
    "ONNX": ("onnxruntime", "onnxscript"),
    "transformers": (),
    "LAION-CLAP": ("laion_clap",),
    "sentence-transformers": ("sentence_transformers",),
    "MTEB and MAEB": ("mteb",),
    "HEAR": (),
}
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))


@pytest.fixture
def embedder(tiny_model: Path, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Embedder:
    """The model under the name that the page uses, with a sound beside it."""
    place = tmp_path / "here"
    shutil.copytree(tiny_model, place / "FOLDER")
    shutil.copy(sounds / "low-0.wav", place / "dog.wav")
    monkeypatch.chdir(place)
    return load("FOLDER", device="cpu")


@pytest.fixture
def clap(embedder: Embedder) -> Embedder:
    """In its place, a model that ClapModel and LAION-CLAP can represent."""
    shutil.rmtree("FOLDER")
    checkpoint = tiny_clap_model()
    words = Tokenizer.read(tiny_roberta_tokenizer(Path("words.json")), checkpoint.preset.text.context)
    openclap_folder.write(checkpoint, Path("FOLDER"), words)
    return load("FOLDER", device="cpu")


def run_section(section: str) -> dict[str, Any]:
    """Run a section's commands and Python, and return the names it defines."""
    for module in NEEDS[section]:
        pytest.importorskip(module)
    names: dict[str, Any] = {}
    blocks = BLOCK.findall(SECTIONS[section])
    assert any(kind == "python" for kind, _ in blocks)
    for kind, text in blocks:
        if kind == "python":
            exec(compile(text, str(PAGE), "exec"), names)
            continue
        for line in re.findall(r"^\$ openclap (.*)$", text, re.MULTILINE):
            assert run(shlex.split(line)) == 0
    return names


def test_every_section_is_tested() -> None:
    # Run by test_several_processes.py; folders for open_clip are written by tests/checkpoints/test_open_clip.py.
    assert set(SECTIONS) - set(NEEDS) <= {"Several processes", "open_clip"}
    assert set(NEEDS) <= set(SECTIONS)


def test_onnx(embedder: Embedder) -> None:
    names = run_section("ONNX")
    np.testing.assert_allclose(names["text_ND"], embedder.embed_text(["rain", "a dog"]), atol=1e-4)
    expected = embedder.embed_audio([(names["wave"][0], 16000)])
    np.testing.assert_allclose(names["audio_ND"], expected, atol=1e-4)
    assert names["scores"].shape == (1, 2)


def test_transformers(clap: Embedder) -> None:
    names = run_section("transformers")
    np.testing.assert_allclose(names["out"].text_embeds.detach(), clap.embed_text(["rain", "a dog"]), atol=1e-5)
    expected = clap.embed_audio([(names["wave"], 48000)])
    np.testing.assert_allclose(names["out"].audio_embeds.detach(), expected, atol=1e-4)
    chances = clap.classify([(names["wave"], 48000)], ["rain", "a dog"], template="This is a sound of {}.")
    found = {answer["label"]: answer["score"] for answer in names["answers"]}
    np.testing.assert_allclose([found["rain"], found["a dog"]], chances[0], atol=1e-3)


def test_laion_clap(clap: Embedder) -> None:
    """tests/peers runs its Python, where the package is installed."""
    [command, lines] = [text for _, text in BLOCK.findall(SECTIONS["LAION-CLAP"])]
    assert run(shlex.split(command.removeprefix("$ openclap "))) == 0
    compile(lines, str(PAGE), "exec")
    again = load("out.pt", device="cpu")
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 90000).astype(np.float32)
    np.testing.assert_array_equal(again.embed_audio([(wave, 48000)]), clap.embed_audio([(wave, 48000)]))


def test_sentence_transformers(embedder: Embedder) -> None:
    names = run_section("sentence-transformers")
    np.testing.assert_allclose(names["text_ND"], embedder.embed_text(["rain", "a dog"]), atol=1e-5)
    np.testing.assert_allclose(names["audio_ND"][:1], embedder.embed_audio(["dog.wav"]), atol=1e-5)


def test_mteb(embedder: Embedder) -> None:
    names = run_section("MTEB and MAEB")
    assert names["model"].mteb_model_meta.name == "me/my-model"
    assert names["model"].model.digest() == embedder.digest()


def test_hear(embedder: Embedder) -> None:
    names = run_section("HEAR")
    expected = embedder.embed_audio([(wave.numpy(), 16000) for wave in names["audio"]])
    np.testing.assert_allclose(names["scene_SD"], expected, atol=1e-5)
    assert names["timestamp_STD"].shape == (2, 61, 16) and names["milliseconds_ST"][0, -1] == 3000
