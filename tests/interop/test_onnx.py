"""The folder of ONNX graphs, as other programs use it; `tests/runtimes/test_onnx.py` compares every kind of tower."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from openclap.audio.frontend import FrontEnd
from openclap.checkpoints import openclap_folder
from openclap.errors import CheckpointError
from openclap.interop import onnx
from openclap.loading import load
from support.errors import check_refusal, raises_naming
from support.graphs import AUDIO, in_torch
from support.tiny_models import TINY_PRESET, tiny_tokenizer

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.mark.parametrize("name", [name for name in AUDIO if "_" in name])
def test_fusing_every_clip_changes_nothing(name: str) -> None:
    front, tower = AUDIO[name]
    embedder = in_torch(replace(TINY_PRESET, frontend=front, audio=tower))
    rng = np.random.default_rng(1)
    batch = FrontEnd(front)([rng.standard_normal(length).astype(np.float32) for length in (30000, 8000, 12001)])
    with torch.inference_mode():
        expected = embedder.clap.encode_audio(batch)
        found = onnx.fuse_every_clip(embedder.clap).encode_audio(batch)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_folder_runs_without_openclap(tiny_graphs: Path, tiny_model: Path) -> None:
    """Its own description and tokenizer say all that is needed to get the Embedder's vectors."""
    import tokenizers

    facts = json.loads((tiny_graphs / "onnx.json").read_text())
    assert facts["audio"]["inputs"] == {"wave": {"type": "float32", "shape": ["batch", 8000]}}
    assert facts["audio"]["rate"] == 16000 and facts["embedding_size"] == 16
    tokenizer = tokenizers.Tokenizer.from_file(str(tiny_graphs / facts["text"]["tokenizer"]))
    texts = ["rain", " ".join(["wolf"] * 40)]
    encoded = tokenizer.encode_batch(texts)
    feed = {"ids": np.array([row.ids for row in encoded]), "mask": np.array([row.attention_mask for row in encoded])}
    assert feed["ids"].shape == (2, 16)
    embedder = load(tiny_model, device="cpu")
    found = onnxruntime.InferenceSession(tiny_graphs / facts["text"]["file"]).run(None, feed)[0]
    np.testing.assert_allclose(found, embedder.embed_text(texts), atol=onnx.TOLERANCE)
    wave = (0.2 * np.random.default_rng(3).standard_normal(6000)).astype(np.float32)
    short = {"wave": np.pad(wave, (0, 2000))[None]}
    found = onnxruntime.InferenceSession(tiny_graphs / facts["audio"]["file"]).run(None, short)[0]
    np.testing.assert_allclose(found, embedder.embed_audio([(wave, 16000)]), atol=onnx.TOLERANCE)


def test_only_an_onnx_folder_is_replaced(
    tiny_graphs: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from openclap.cli import run

    assert run(["convert", str(tiny_model), str(tiny_graphs.parent), "--to", "onnx"]) == 2
    check_refusal(capsys.readouterr().err, tiny_graphs.parent)


def test_graph_that_differs_from_torch_is_not_written(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights change after the export: what was written is no longer what the model gives."""
    whole = onnx.export

    def stale(graph: onnx.Graph, path: Path) -> None:
        whole(graph, path)
        with torch.no_grad():
            for weight in graph.network.parameters():
                weight.add_(0.1)

    monkeypatch.setattr(onnx, "export", stale)
    with raises_naming(CheckpointError, tmp_path / "out", "onnxruntime"):
        onnx.write(openclap_folder.read(tiny_model), tmp_path / "out", tiny_tokenizer())
    assert list(tmp_path.iterdir()) == []
