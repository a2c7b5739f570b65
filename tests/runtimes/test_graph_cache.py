"""Graphs under openclap's home: found for a model without torch, and only for exactly its weights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import openclap
from openclap.errors import CheckpointError, ConfigError, IndexMismatchError, MissingExtraError
from openclap.interop import onnx
from openclap.library import Library
from openclap.runtimes import graph_cache
from support.errors import raises_naming
from support.tiny_models import TINY_PRESET, TINY_SWIN_PRESET, save_tiny_model, tiny_clap, tiny_laion_state

pytest.importorskip("onnxruntime")


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture
def converted(model: Path, tiny_graphs: Path) -> Path:
    """A model with graphs at hand, which were converted in another home."""
    digest = openclap.load(tiny_graphs).runtime.weights_digest()
    shutil.copytree(tiny_graphs, graph_cache.place_of(digest))
    return model


def test_graphs_are_found_by_the_digest_of_the_model(converted: Path) -> None:
    place = graph_cache.find(converted)
    assert place is not None
    assert place.name == openclap.load(converted, runtime="torch", device="cpu").runtime.weights_digest()


def test_a_digest_is_computed_once(converted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert graph_cache.find(converted)
    monkeypatch.setattr(graph_cache.mapped, "read", lambda folder: pytest.fail("computed again"))
    assert graph_cache.find(converted)


def test_another_time_is_hashed_again_and_other_weights_have_no_graphs(converted: Path) -> None:
    assert graph_cache.find(converted)
    os.utime(converted / "model.safetensors", ns=(1, 1))
    assert graph_cache.find(converted)
    shutil.copyfile(
        save_tiny_model(converted.parent / "other", seed=1) / "model.safetensors", converted / "model.safetensors"
    )
    assert graph_cache.find(converted) is None


def test_a_home_that_cannot_be_written_is_no_error(converted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, content: bytes) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(graph_cache, "write_bytes", refuse)
    assert graph_cache.find(converted)
    assert not graph_cache.place_of("digests.json").exists()


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', "{"])
def test_damaged_digests_are_computed_again(content: str, converted: Path) -> None:
    file = graph_cache.place_of("digests.json")
    file.write_text(content, encoding="utf-8")
    assert graph_cache.find(converted)
    assert str(converted) in json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("damage", ["weights", "header", "config"])
def test_a_damaged_model_has_no_graphs(damage: str, converted: Path) -> None:
    file = converted / ("config.json" if damage == "config" else "model.safetensors")
    whole = file.read_bytes()
    file.write_bytes({"weights": whole[:-1000], "header": b"\xff" * 9 + whole[9:], "config": b"{"}[damage])
    assert graph_cache.find(converted) is None


def test_a_file_of_another_format_is_found_once_it_was_converted(tmp_path: Path, tiny_graphs: Path) -> None:
    """Its digest needs torch, so it is stored."""
    import torch

    file = tmp_path / "laion.pt"
    torch.save({"state_dict": tiny_laion_state()}, file)
    digest = openclap.load(tiny_graphs).runtime.weights_digest()
    shutil.copytree(tiny_graphs, graph_cache.place_of(digest))
    assert graph_cache.find(file) is None
    graph_cache.remember(file, digest)
    assert graph_cache.find(file) == graph_cache.place_of(digest)
    file.write_bytes(file.read_bytes() + b"0")
    assert graph_cache.find(file) is None


def test_convert_without_a_destination_keeps_the_graphs(
    model: Path, tiny_graphs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from openclap.cli import run

    def copy(checkpoint: object, place: Path, tokenizer: object) -> object:
        shutil.copytree(tiny_graphs, place)
        return onnx.ConversionLosses()

    monkeypatch.setattr(onnx, "write", copy)  # exporting them again would take seconds
    assert run(["convert", str(model), "--to", "onnx"]) == 0
    place = graph_cache.find(model)
    assert place is not None and f"Wrote {place}" in " ".join(capsys.readouterr().err.split())
    assert run(["convert", str(model), "--to", "hf"]) == 2
    assert "'hf' needs a destination" in capsys.readouterr().err


def test_load_chooses_the_runtime(converted: Path, tiny_graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def name(source: Path, **options: object) -> str:
        return openclap.load(source, **options).runtime.name  # type: ignore[arg-type]

    monkeypatch.setattr("shutil.which", lambda program: None)  # no GPU
    assert name(converted) == "torch fp32"
    assert name(converted, runtime="onnx") == name(converted, runtime="auto") == "onnxruntime fp32"
    assert name(converted, runtime="auto", precision="bf16", device="cpu") == "torch bf16"
    assert name(tiny_graphs) == name(tiny_graphs, runtime="auto") == "onnxruntime fp32"
    monkeypatch.setattr("openclap.runtimes.has", lambda package: package == "torch")  # no OpenVINO
    monkeypatch.setattr("openclap.loading._has_bfloat16_units", lambda: True)
    assert name(converted, runtime="auto", precision="auto") != "onnxruntime fp32"  # torch's own table decides
    monkeypatch.setattr("openclap.loading._has_bfloat16_units", lambda: False)
    assert name(converted, runtime="auto", precision="auto") == "onnxruntime fp32"
    monkeypatch.setattr("shutil.which", lambda program: "/usr/bin/nvidia-smi")
    assert name(converted, runtime="auto") == "torch fp32"
    assert name(converted, runtime="auto", device="cpu") == "onnxruntime fp32"
    monkeypatch.setattr("openclap.runtimes.has", lambda package: False)
    assert name(converted) == "onnxruntime fp32"


def test_choices_that_cannot_be_are_errors(model: Path, tiny_graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="expected one of: torch, onnx, auto"):
        openclap.load(model, runtime="jax")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="holds ONNX graphs"):
        openclap.load(tiny_graphs, runtime="torch")
    for options in ({"device": "cuda"}, {"precision": "bf16"}, {"compile": True}, {"preset": TINY_SWIN_PRESET}):
        with pytest.raises(ConfigError):
            openclap.load(tiny_graphs, **options)  # type: ignore[arg-type]
    with raises_naming(CheckpointError, model, "tiny", "openclap convert"):
        openclap.load(model, runtime="onnx")
    monkeypatch.setattr("openclap.runtimes.has", lambda package: False)
    with pytest.raises(MissingExtraError, match=r"pip install 'openclap\[torch\]'"):
        openclap.load(model)
    with pytest.raises(MissingExtraError, match=r"pip install 'openclap\[torch\]'"):
        openclap.load("630k-audioset-best")  # nothing is downloaded that could not be read
    with pytest.raises(CheckpointError, match="no such model"):
        openclap.load("nothing.pt")


@pytest.mark.parametrize("order", [("torch", "onnx"), ("onnx", "torch")])
def test_an_index_of_one_runtime_is_searched_by_the_other(
    order: tuple[str, str], converted: Path, sounds: Path, tmp_path: Path
) -> None:
    first, second = order
    built = Library.open(tmp_path / "index", converted, runtime=first, device="cpu")  # type: ignore[arg-type]
    built.add([sounds])
    other = Library.open(tmp_path / "index", runtime=second, device="cpu")  # type: ignore[arg-type]
    assert other.index.identity == built.index.identity and other.embedder.runtime.name.startswith(second)
    assert other.add([sounds]).unchanged == 6
    file = sounds / "low-0.wav"
    for hits in (lambda library: library.search("a low tone", 6), lambda library: library.similar(file, 6)):
        expected, found = ({hit.path: hit.score for hit in hits(library)} for library in (built, other))
        assert found == pytest.approx(expected, abs=1e-5)


def test_an_index_refuses_graphs_of_other_weights(
    converted: Path, sounds: Path, tmp_path: Path, tiny_graphs: Path
) -> None:
    other = save_tiny_model(tmp_path / "other", seed=1)
    Library.open(tmp_path / "index", other, device="cpu").add([sounds])
    with pytest.raises(IndexMismatchError):
        Library.open(tmp_path / "index", tiny_graphs)


def test_prepare_converts_once(converted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs that are there are not written again; a failure is noted, and not tried again."""
    lines: list[str] = []
    model = openclap.load(converted, device="cpu")
    monkeypatch.setattr(onnx, "write", lambda *given: pytest.fail("written again"))
    onnx.prepare(model, converted, lines.append)
    onnx.prepare(openclap.load(converted, runtime="onnx"), converted, lines.append)
    assert lines == []

    def fail(*given: object) -> None:
        raise CheckpointError("torch cannot export this model.")

    other = openclap.load(save_tiny_model(converted.parent / "other", seed=1), device="cpu")
    monkeypatch.setattr(onnx, "write", fail)
    for _ in range(2):
        onnx.prepare(other, converted.parent / "other", lines.append)
    assert len(lines) == 2 and "once" in lines[0] and "stays with torch: torch cannot export" in lines[1]


def test_card_and_figures_travel_with_the_graphs(tmp_path: Path) -> None:
    assert onnx.card_of(tmp_path) == onnx.card_of(None) == {}
    (tmp_path / "README.md").write_text("---\nlicense: cc0-1.0\n---\n", encoding="utf-8")
    (tmp_path / "evaluation.json").write_text('{"figures": []}', encoding="utf-8")
    assert onnx.card_of(tmp_path) == {"card": "---\nlicense: cc0-1.0\n---\n", "evaluation": {"figures": []}}
    (tmp_path / "evaluation.json").write_text("{", encoding="utf-8")
    assert "evaluation" not in onnx.card_of(tmp_path)


def test_digest_without_torch_is_that_of_torch(tmp_path: Path) -> None:
    from openclap.checkpoints.checkpoint import weights_digest

    place = save_tiny_model(tmp_path / "model", seed=5)
    assert graph_cache._computed_digest(place) == weights_digest(tiny_clap(seed=5), TINY_PRESET)


WITHOUT_TORCH = """
import json, sys
sys.modules["torch"] = sys.modules["transformers"] = None
from openclap.cli import run
for words in json.loads(sys.argv[1]):
    print("##", run(words), flush=True)
print([name for name in ("torch", "transformers") if sys.modules.get(name)])
"""


def test_commands_that_use_a_model_run_without_torch(converted: Path, sounds: Path, tmp_path: Path) -> None:
    low, index, out = str(sounds / "low-0.wav"), ["--index", str(tmp_path / "index")], str(tmp_path / "out.npy")
    model = ["--model", str(converted)]
    commands = [
        ["index", "add", str(sounds), *index, *model],
        ["search", "a low tone", *index, "--json"],
        ["similar", low, *index],
        ["index", "status", *index],
        ["embed", str(sounds), "-o", out, *model],
        ["classify", low, "--labels", "low,high", *model],
        ["score", low, "a low tone", *model],
        ["models"],
        ["doctor"],
    ]
    needing_torch = [
        ["classify", low, "--labels", "low,high", "--model", str(save_tiny_model(tmp_path / "other", seed=1))],
        ["classify", low, "--labels", "low,high", *model, "--precision", "bf16"],
        ["eval", str(converted), "--data", str(sounds / "sounds.csv")],
        ["inspect", str(converted)],
        ["convert", str(converted), str(tmp_path / "copy"), "--to", "hf"],
        ["init", "htsat-tiny-roberta", "--out", str(tmp_path / "init")],
        ["train", "demo", "--out", str(tmp_path / "run")],
        ["demo"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, json.dumps([*commands, *needing_torch])],
        capture_output=True,
        text=True,
        check=False,
    )
    codes = [line for line in done.stdout.splitlines() if line.startswith("## ")]
    assert codes == ["## 0"] * len(commands) + ["## 2"] * len(needing_torch), done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr.count("pip install 'openclap[torch]'") >= len(needing_torch), done.stderr
    assert "Traceback" not in done.stderr
    expected = openclap.load(converted, device="cpu").embed_audio(sorted(sounds.glob("*.wav")))
    np.testing.assert_allclose(np.load(out), expected, atol=1e-5)
