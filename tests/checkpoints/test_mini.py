"""The bundled model: its size, its two runtimes, and the sounds that it was trained on."""

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
from safetensors.numpy import load_file, save_file

import openclap
from openclap.checkpoints.bundled import FOLDER, MINI
from openclap.checkpoints.mapped import read_header
from openclap.cli import run
from openclap.demo.run import SOUNDS
from openclap.embedder import Embedder
from openclap.errors import CheckpointError
from openclap.types import COSINE_BOUNDS
from support.errors import check_refusal, raises_naming

CLIPS = [SOUNDS / name for name in ("scratch-dog1.ogg", "scratch-wolf-howl.ogg", "scratch-laugh-male2.ogg")]
TEXTS = ["a dog barking", "rain", "a quiet glockenspiel in the distance, then footsteps"]


@pytest.fixture(scope="module")
def in_torch() -> Embedder:
    return openclap.load(MINI, runtime="torch", device="cpu")


@pytest.fixture(scope="module")
def in_onnx() -> Embedder:
    return openclap.load(MINI, runtime="onnx")


@pytest.fixture(scope="module")
def sounds() -> list[dict[str, str]]:
    with (FOLDER / "sounds.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_it_fits_into_25_megabytes() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 25e6


def test_both_runtimes_compute_the_same_from_one_file(in_torch: Embedder, in_onnx: Embedder) -> None:
    assert in_onnx.runtime.name == "onnxruntime fp32"
    np.testing.assert_allclose(in_onnx.embed_audio(CLIPS), in_torch.embed_audio(CLIPS), atol=1e-5, rtol=0)
    np.testing.assert_allclose(in_onnx.embed_text(TEXTS), in_torch.embed_text(TEXTS), atol=1e-5, rtol=0)
    assert in_onnx.digest() == in_torch.digest()


def test_graphs_hold_no_weights() -> None:
    largest = max(np.prod(entry["shape"]) for entry in read_header(FOLDER / "model.safetensors").values())
    graphs = sum((FOLDER / name).stat().st_size for name in ("audio.onnx", "text.onnx"))
    assert graphs < 1e6 < largest  # the filterbank and the window of the log-mel are in the audio graph


def test_graphs_are_written_beside_weights_that_they_share(in_torch: Embedder, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    from openclap.interop import onnx_shared

    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        shutil.copy(FOLDER / name, tmp_path)
    onnx_shared.write(tmp_path)
    assert sum((tmp_path / name).stat().st_size for name in ("audio.onnx", "text.onnx")) < 1e6
    again = openclap.load(tmp_path, runtime="onnx")
    np.testing.assert_allclose(again.embed_audio(CLIPS), in_torch.embed_audio(CLIPS), atol=1e-5, rtol=0)
    np.testing.assert_allclose(again.embed_text(TEXTS), in_torch.embed_text(TEXTS), atol=1e-5, rtol=0)
    assert again.digest() == in_torch.digest()
    assert (tmp_path / "onnx.json").read_text() == (FOLDER / "onnx.json").read_text()


@pytest.mark.parametrize("size", [None, 0, 100, 20_000_000])
def test_damaged_weights_behind_graphs_are_one_sentence(tmp_path: Path, size: int | None) -> None:
    model = Path(shutil.copytree(FOLDER, tmp_path / "model"))
    weights = model / "model.safetensors"
    if size is None:
        weights.unlink()
    else:
        os.truncate(weights, size)
    expected = "no such file" if size is None else "is damaged"
    for runtime in ("onnx", "torch"):
        with raises_naming(CheckpointError, weights, expected):
            openclap.load(model, runtime=runtime).embed_text(TEXTS)


def test_graphs_refuse_weights_that_they_were_not_made_for(in_torch: Embedder, tmp_path: Path) -> None:
    model = Path(shutil.copytree(FOLDER, tmp_path / "model"))
    weights = model / "model.safetensors"
    save_file({name: array.astype(np.float32) for name, array in load_file(weights).items()}, weights)
    with raises_naming(CheckpointError, weights, "were made for", "Delete onnx.json"):
        openclap.load(model, runtime="onnx")
    for name in ("onnx.json", "audio.onnx", "text.onnx"):
        (model / name).unlink()
    for runtime in ("onnx", "torch"):
        vectors = openclap.load(model, runtime=runtime).embed_text(TEXTS)
        np.testing.assert_allclose(vectors, in_torch.embed_text(TEXTS), atol=1e-5, rtol=0)


def test_weights_are_float16_and_finite() -> None:
    entries = read_header(FOLDER / "model.safetensors")
    assert {entry["dtype"] for entry in entries.values()} == {"F16"}


def test_a_copy_is_as_good(in_onnx: Embedder, in_torch: Embedder, tmp_path: Path) -> None:
    for number, model in enumerate((in_onnx, in_torch)):
        model.save(tmp_path / str(number))
        again = openclap.load(tmp_path / str(number))
        np.testing.assert_allclose(again.embed_text(TEXTS), model.embed_text(TEXTS), atol=1e-5, rtol=0)
        assert again.digest() == model.digest()


def test_the_name_comes_before_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(MINI).mkdir()
    assert openclap.load(MINI, runtime="onnx").embed_text(["rain"]).shape == (1, 384)


def test_it_understands_its_sounds(in_onnx: Embedder) -> None:
    """Not a measure of quality (scripts/mini/evaluate.py is): only a model whose towers belong together passes."""
    texts = {"bell-toll": "a church bell", "car-passing": "a car driving past", "dog1": "a dog barking"}
    texts |= {"water-drop": "a drop of water", "laugh-male2": "a man laughing", "bird": "a bird chirping"}
    audio_ND = in_onnx.embed_audio([SOUNDS / f"scratch-{name}.ogg" for name in texts])
    similarity = audio_ND @ in_onnx.embed_text(texts.values()).T
    assert np.trace(similarity) / len(texts) > similarity.mean() + 0.05


def test_it_learned_from_open_sounds_alone(sounds: list[dict[str, str]]) -> None:
    assert len(sounds) > 1000
    assert {row["licence"] for row in sounds} <= {"CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "MIT"}
    assert all(row["attribution"] and row["source"] for row in sounds if row["licence"] != "CC0-1.0")


def test_it_credits_the_models_that_it_is_made_from() -> None:
    card = (FOLDER / "README.md").read_text("utf-8")
    assert all(words in card for words in ("aiSFX", "CC BY 4.0", "MiniLM", "Apache", "must not be used"))


@pytest.mark.parametrize("format_name", ["laion", "hf"])
def test_formats_without_a_place_for_it_refuse_it(
    format_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["convert", MINI, str(tmp_path / "out"), "--to", format_name]) == 2
    told = capsys.readouterr().err
    check_refusal(told, "openclap")
    assert not any(tmp_path.iterdir())


def test_its_precisions_keep_their_bounds(in_torch: Embedder) -> None:
    fp32 = in_torch.embed_audio(CLIPS)
    for precision in ("bf16", "int8", "auto"):
        model = openclap.load(MINI, runtime="torch", device="cpu", precision=precision)
        assert model.precision == ("int8" if precision == "int8" else "fp32")
        assert (model.embed_audio(CLIPS) * fp32).sum(1).min() > COSINE_BOUNDS[model.precision]


def test_a_first_search_needs_no_torch_and_no_network(tmp_path: Path) -> None:
    script = f"""
import socket, sys
def refuse(*_): raise OSError("no network in this test")
socket.socket.connect = refuse
import openclap
library = openclap.Library.open({str(tmp_path / "index")!r})
library.add({[str(clip) for clip in CLIPS]!r})
print(library.search("a dog barking", k=1)[0].path)
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""
    environment = os.environ | {"OPENCLAP_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("scratch-dog1.ogg")
    identity = json.loads((tmp_path / "index" / "index.json").read_text("utf-8"))
    assert "mini" in json.dumps(identity)
