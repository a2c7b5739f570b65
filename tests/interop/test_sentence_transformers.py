"""Folders as sentence-transformers itself loads them."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import openclap
from openclap.cli import run
from openclap.errors import AudioError, ConfigError
from openclap.interop import audio_inputs
from support.errors import check_refusal, raises_naming
from support.hub_server import TOKEN, Hub

library = pytest.importorskip("sentence_transformers")


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    place = tmp_path_factory.mktemp("st") / "model"
    assert run(["convert", str(tiny_model), str(place), "--to", "sentence-transformers"]) == 0
    return place


@pytest.fixture(scope="module")
def model(converted: Path) -> library.SentenceTransformer:
    return library.SentenceTransformer(str(converted), trust_remote_code=True, device="cpu")


TEXTS = ["rain", "a wolf howling in the rain on a big roof", "the sound of a dog"]


def test_embeddings_equal_the_embedder(model: library.SentenceTransformer, tiny_model: Path, sounds: Path) -> None:
    embedder = openclap.load(tiny_model, device="cpu")
    assert model.modalities == ["text", "audio"] and model.get_embedding_dimension() == 16
    np.testing.assert_allclose(model.encode(TEXTS), embedder.embed_text(TEXTS), atol=1e-5)
    files = [str(file) for file in sorted(sounds.glob("*.wav"))]  # 0.3 to 1.3 s; the model reads 0.5 s
    audio_embeddings = embedder.embed_audio(files)
    np.testing.assert_allclose(model.encode(files, batch_size=4), audio_embeddings, atol=1e-5)
    stereo = np.random.default_rng(0).uniform(-1, 1, (2, 30000)).astype(np.float32)
    expected = embedder.embed_audio([(stereo.T, 22050)])
    for array in (stereo, stereo.T, torch.from_numpy(stereo)):
        np.testing.assert_allclose(model.encode([{"array": array, "sampling_rate": 22050}]), expected, atol=1e-5)
    np.testing.assert_allclose(model.encode({"audio": files[1]}), audio_embeddings[1], atol=1e-5)
    scores = model.similarity(model.encode(TEXTS), model.encode(files))
    np.testing.assert_allclose(scores, embedder.embed_text(TEXTS) @ audio_embeddings.T, atol=1e-5)


def test_prompt_is_put_before_texts(model: library.SentenceTransformer, tiny_model: Path) -> None:
    expected = openclap.load(tiny_model, device="cpu").embed_text(["this is rain"])
    np.testing.assert_allclose(model.encode(["rain"], prompt="this is "), expected, atol=1e-5)


def test_folder_saved_by_the_library_loads_in_openclap(
    model: library.SentenceTransformer, tmp_path: Path, tiny_model: Path
) -> None:
    model.save(str(tmp_path / "again"))
    again = library.SentenceTransformer(str(tmp_path / "again"), trust_remote_code=True, device="cpu")
    np.testing.assert_array_equal(again.encode(TEXTS), model.encode(TEXTS))
    ours = openclap.load(tmp_path / "again", device="cpu")
    assert ours.digest() == openclap.load(tiny_model, device="cpu").digest()


FROM_THE_HUB = """
import sys
from sentence_transformers import SentenceTransformer
model = SentenceTransformer("me/st", trust_remote_code=True, device="cpu")
print(model.encode(["rain"]).tolist())
"""


@pytest.mark.long
def test_pushed_folder_loads_from_the_hub(converted: Path, model: library.SentenceTransformer, tmp_path: Path) -> None:
    place = shutil.copytree(converted, tmp_path / "st")
    with Hub() as hub:
        online = os.environ | hub.environment(tmp_path / "hf") | {"HF_TOKEN": TOKEN}
        for words in (["-m", "openclap", "push", str(place), "me/st"], ["-c", FROM_THE_HUB]):
            done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, env=online)
            assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_allclose(json.loads(done.stdout), model.encode(["rain"]), atol=1e-6)


def test_model_can_be_trained_in_the_library(converted: Path) -> None:
    model = library.SentenceTransformer(str(converted), trust_remote_code=True, device="cpu")
    wave = torch.rand(9000) - 0.5
    for batch in (model.preprocess(TEXTS), model.preprocess([{"array": wave, "sampling_rate": 16000}])):
        model(batch)["sentence_embedding"].sum().backward()
    gradients = {name.split(".")[2] for name, weight in model.named_parameters() if weight.grad is not None}
    assert gradients == {"audio_tower", "audio_head", "text_tower", "text_head"}


MISSING = ["no-such.wav", "sounds/no-such.FLAC", "./no such.mp3", "/data/a b.m4a", "~/x.opus", "C:\\\\x.wav", "a.mkv"]
SENTENCES = [
    *(
        "rain",
        "a dog barking.",
        "rock/pop",
        "AC/DC",
        "24/7",
        "and/or",
        "/kæt/",
        "km/h",
        ".wav",
        "e.g. a wav",
        "3.5 kHz",
    ),
    *("A recording called rain.wav", "convert the mp3 / the wav", "Listen: http://example.org is a site", "...", "/"),
    *("a/b " * 2000, "\0/\0", "~nobody/sings"),
    *("speech and/or music, e.g. in a .flac", "a 4.1 surround mix", "This is version 2.0", "wav", "~", "./"),
]


@pytest.mark.parametrize("path", MISSING)
def test_path_of_a_missing_file_is_refused_as_text(model: library.SentenceTransformer, path: str) -> None:
    for entry in (path, Path(path)) if "\\" not in path else (path,):
        with raises_naming(AudioError, path.removeprefix("./")):
            model.encode([entry])
    assert model.encode([{"text": path}]).shape == (1, 16)


def test_path_into_an_existing_folder_is_refused_as_text(
    model: library.SentenceTransformer, sounds: Path, tmp_path: Path
) -> None:
    (tmp_path / "my sounds").mkdir()
    for missing in (tmp_path / "my sounds" / "a b.wav", tmp_path / "no-suffix"):
        with raises_naming(AudioError, missing):
            model.encode([str(missing)])


def test_sentences_that_look_like_paths_are_texts(model: library.SentenceTransformer, tiny_model: Path) -> None:
    expected = openclap.load(tiny_model, device="cpu").embed_text(SENTENCES)
    np.testing.assert_allclose(model.encode(SENTENCES), expected, atol=1e-5)
    bundled = (Path(openclap.__file__).parent / "demo" / "sounds" / "sounds.csv").read_text(encoding="utf-8")
    captions = {row["captions"] for row in csv.DictReader(bundled.splitlines())}
    assert len(captions) > 50 and not any(audio_inputs.is_path(caption) for caption in captions)


def test_files_of_every_audio_format_are_embedded_as_audio(
    model: library.SentenceTransformer, sounds: Path, tmp_path: Path
) -> None:
    """The library itself knows five suffixes; a file with another one, or none, is no text either."""
    file = min(sounds.glob("*.wav"))
    expected = model.encode([str(file)])
    for name in ("a.aiff", "b.opus", "c.WAVE", "d", "e.2023"):
        shutil.copy(file, tmp_path / name)
        np.testing.assert_array_equal(model.encode([str(tmp_path / name)]), expected)
    np.testing.assert_allclose(model.encode([file, tmp_path / "d"]), np.concatenate([expected] * 2), atol=1e-6)
    with raises_naming(ConfigError):
        model.encode([str(tmp_path / "d"), "rain"])


def test_invalid_inputs_are_refused(
    model: library.SentenceTransformer, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with raises_naming(AudioError, "rate"):
        model.encode([np.zeros(100, np.float32)])
    with raises_naming(AudioError, "NaN"):
        model.encode([{"array": np.full(100, np.nan, np.float32), "sampling_rate": 16000}])
    with raises_naming(AudioError, "0 Hz"):
        model.encode([{"array": np.zeros(100, np.float32), "sampling_rate": 0}])
    with pytest.raises(ValueError, match="mixes multiple modalities"):
        model.encode(["rain", {"array": np.zeros(100, np.float32), "sampling_rate": 16000}])
    assert len(model.encode([])) == 0
    (tmp_path / "mine.txt").write_text("keep")
    assert run(["convert", str(tiny_model), str(tmp_path), "--to", "sentence-transformers"]) == 2
    check_refusal(capsys.readouterr().err, tmp_path)
