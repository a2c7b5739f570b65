"""Each newer tower with each tool: the tool's embeddings are those of torch, or one sentence says why there are none.

The towers are those of open_clip (NaFlex, its text transformers, Whisper), of Microsoft's CLAP, and models that
transformers computes. OpenVINO: tests/runtimes/test_backends.py; MTEB: tests/interop/test_mteb.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import openclap
from openclap.errors import CheckpointError, ConfigError
from openclap.interop import hear
from openclap.interop.conversion import TargetFormat, convert
from openclap.library import Library
from support.errors import raises_naming
from support.foreign import write_perception
from support.graphs import NEW, in_torch, read
from support.reference import wave
from support.serving import serving, write_sounds

TEXTS = ["a dog", "rain on the roof", "low noise of a big bell"]
FOREIGN = "PE-AV"


@pytest.fixture(scope="module", params=[*NEW, FOREIGN])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("newer") / "model"
    if kind == FOREIGN:
        return write_perception(place)
    model = in_torch(NEW[kind])
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(5)
        for weight in model.clap.parameters():  # fresh weights make embeddings alike, which would hide mistakes
            weight.add_(0.1 * torch.randn_like(weight))
    model.save(place)
    return place


@pytest.fixture(scope="module")
def model(folder: Path) -> openclap.Embedder:
    return openclap.load(folder, device="cpu")


def sounds(model: openclap.Embedder) -> list[tuple[np.ndarray, int]]:
    return [(wave(f"n{n}", n), model.sample_rate) for n in (3000, model.input_samples, 2 * model.input_samples + 77)]


def close(found: object, expected: np.ndarray) -> None:
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-5, rtol=0)


@pytest.mark.long
def test_onnx(kind: str, folder: Path, model: openclap.Embedder, tmp_path: Path) -> None:
    if kind == FOREIGN:
        with raises_naming(CheckpointError, folder, "neither converts nor trains"):
            convert(folder, tmp_path / "graphs", "onnx")
        return
    convert(folder, tmp_path / "graphs", "onnx")
    converted = read(tmp_path / "graphs")
    close(converted.embed_text(TEXTS), model.embed_text(TEXTS))
    close(converted.embed_audio(sounds(model)), model.embed_audio(sounds(model)))


@pytest.mark.parametrize("to", ["hf", "laion"])
def test_formats_of_laion_and_clap_model(kind: str, folder: Path, to: TargetFormat, tmp_path: Path) -> None:
    with raises_naming(CheckpointError):
        convert(folder, tmp_path / "out", to)


def test_sentence_transformers(kind: str, folder: Path, model: openclap.Embedder, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    if kind == FOREIGN:
        with raises_naming(CheckpointError, folder, "neither converts nor trains"):
            convert(folder, tmp_path / "st", "sentence-transformers")
        return
    convert(folder, tmp_path / "st", "sentence-transformers")
    loaded = library.SentenceTransformer(str(tmp_path / "st"), trust_remote_code=True, device="cpu")
    close(loaded.encode(TEXTS), model.embed_text(TEXTS))
    clips = [{"array": samples, "sampling_rate": rate} for samples, rate in sounds(model)]
    close(loaded.encode(clips), model.embed_audio(sounds(model)))


def test_hear(kind: str, folder: Path, model: openclap.Embedder) -> None:
    if kind == FOREIGN:
        with raises_naming(ConfigError, "openclap's own networks"):
            hear.load_model(str(folder))
        return
    loaded = hear.load_model(str(folder))
    samples, rate = sounds(model)[1]
    audio = torch.from_numpy(samples)[None]
    close(hear.get_scene_embeddings(audio, loaded), model.embed_audio([(samples, rate)]))
    embeddings, times = hear.get_timestamp_embeddings(audio, loaded)
    assert embeddings.shape[:2] == times.shape and torch.isfinite(embeddings).all()


def test_serving_and_indexing(folder: Path, model: openclap.Embedder, tmp_path: Path) -> None:
    library = Library.open(tmp_path / "index", model=str(folder))
    library.add([write_sounds(tmp_path / "sounds", 3)])
    with serving(library) as start:
        client = start().client
        answer = client.post("/v1/embeddings", json={"model": "tiny", "input": TEXTS})
        assert answer.status_code == 200, answer.text
        close([row["embedding"] for row in answer.json()["data"]], model.embed_text(TEXTS))
        found = client.post("/v1/search", json={"text": "a dog", "k": 3})
        assert found.status_code == 200, found.text
    scores = (
        model.embed_audio([str(tmp_path / "sounds" / f"{n}.wav") for n in range(3)]) @ model.embed_text(["a dog"])[0]
    )
    assert Path(library.search("a dog", k=3)[0].path).name == f"{scores.argmax()}.wav"
