"""ONNX graphs against the Embedder, in onnxruntime, for every kind of tower."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from openclap.audio.frontend import FrontEnd
from openclap.checkpoints import openclap_folder
from openclap.embedder import Embedder
from openclap.errors import CheckpointError
from openclap.interop import onnx
from openclap.loading import load
from openclap.models.build import build_clap
from openclap.models.config import HTSATConfig, TextTowerConfig
from openclap.presets import Preset
from openclap.runtimes.torch import TorchRuntime
from support.errors import check_refusal, raises_naming
from support.tiny_models import TINY_PRESET, tiny_tokenizer

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

HTSAT = HTSATConfig(width=8, depths=(1, 2), heads=(1, 2), n_mels=32, image=64, window=8, classes=0)
HEARS_32 = replace(TINY_PRESET.frontend, mel=replace(TINY_PRESET.frontend.mel, n_mels=32))
LAYERS = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 64}
TEXTS = {
    "roberta": TextTowerConfig(
        "roberta", "pooler", 16, 16, LAYERS | {"max_position_embeddings": 34, "pad_token_id": 1}
    ),
    "bert": TextTowerConfig("bert", "pooler", 16, 16, LAYERS | {"max_position_embeddings": 16}),
    "minilm": TINY_PRESET.text,
    "clip": TextTowerConfig(
        "clip_text_model", "eot", 16, 16, LAYERS | {"max_position_embeddings": 16, "bos_token_id": 2, "eos_token_id": 3}
    ),
    "bart": TextTowerConfig(
        "bart",
        "mean_padded",
        16,
        16,
        {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
        | {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": 64, "max_position_embeddings": 32},
    ),
}
AUDIO = {
    "pann": (TINY_PRESET.frontend, TINY_PRESET.audio),
    "htsat": (replace(HEARS_32, int16=True, fill="repeatpad"), HTSAT),
    **{
        f"{name} {fusion}": (replace(HEARS_32, long="fusion"), replace(tower, fusion=fusion))
        for name, tower in {"htsat": HTSAT, "pann": replace(TINY_PRESET.audio, n_mels=32)}.items()
        for fusion in ("aff_2d", "iaff_2d", "daf_2d", "aff_1d", "channel_map")
    },
}
QUICK = ("htsat aff_2d",)
"""Every export takes seconds; windows of sound are in the folder below."""


def model(preset: Preset) -> Embedder:
    torch.manual_seed(0)
    return Embedder(TorchRuntime(build_clap(preset), preset, tiny_tokenizer(), device=torch.device("cpu")))


def graphs(embedder: Embedder) -> dict[str, onnx.Graph]:
    return {
        Path(graph.file).stem: graph for graph in onnx.graphs_of(onnx.fuse_every_clip(embedder.clap), embedder.preset)
    }


def session(graph: onnx.Graph, place: Path) -> onnxruntime.InferenceSession:
    onnx.export(graph, place / graph.file)
    onnx.check(graph, place / graph.file)
    return onnxruntime.InferenceSession(place / graph.file)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.long) for name in AUDIO]
)
def test_audio_graphs_equal_the_embedder(name: str, tmp_path: Path) -> None:
    front, tower = AUDIO[name]
    embedder = model(replace(TINY_PRESET, frontend=front, audio=tower))
    rng = np.random.default_rng(1)
    lengths = (8000, 8000, 8000) if front.long == "windows" else (8000, 12001, 30000)
    waves = [(0.3 * rng.standard_normal(length)).astype(np.float32) for length in lengths]
    expected = embedder.embed_audio(
        [(wave, 16000) for wave in waves]
    )  # before fuse_every_clip: only long clips are fused
    graph = session(graphs(embedder)["audio"], tmp_path)
    if front.long == "windows":
        feed = {"wave": np.stack(waves)}
    else:
        batch = FrontEnd(front)(waves)
        assert batch.is_long_B.tolist() == [False, True, True]
        feed = {"mel": batch.mel_BVTF.numpy(), "is_long": batch.is_long_B.numpy()}
    np.testing.assert_allclose(graph.run(["vector"], feed)[0], expected, atol=onnx.TOLERANCE)


@pytest.mark.parametrize("name", [name for name in AUDIO if "_" in name])
def test_fusing_every_clip_changes_nothing(name: str) -> None:
    front, tower = AUDIO[name]
    embedder = model(replace(TINY_PRESET, frontend=front, audio=tower))
    rng = np.random.default_rng(1)
    batch = FrontEnd(front)([rng.standard_normal(length).astype(np.float32) for length in (30000, 8000, 12001)])
    with torch.inference_mode():
        expected = embedder.clap.encode_audio(batch)
        found = onnx.fuse_every_clip(embedder.clap).encode_audio(batch)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ("roberta", "clip") else pytest.mark.long) for name in TEXTS]
)
def test_text_graphs_equal_the_embedder(name: str, tmp_path: Path) -> None:
    embedder = model(replace(TINY_PRESET, text=TEXTS[name]))
    padded = TEXTS[name].padded
    words = type(tiny_tokenizer())(tiny_tokenizer().definition, 16, padded=padded)
    embedder = Embedder(TorchRuntime(embedder.clap, embedder.preset, words))
    texts = ["rain", "a wolf howling in the rain on a big roof", "the sound of a dog"]
    graph = session(graphs(embedder)["text"], tmp_path)
    tokens = embedder.tokenizer(texts)
    found = graph.run(["vector"], {"ids": tokens.ids_BL.numpy(), "mask": tokens.mask_BL.numpy()})[0]
    np.testing.assert_allclose(found, embedder.embed_text(texts), atol=onnx.TOLERANCE)


def test_logmel_graph_takes_any_length(tmp_path: Path) -> None:
    front = replace(HEARS_32, long="fusion", int16=True)
    embedder = model(replace(TINY_PRESET, frontend=front, audio=replace(HTSAT, fusion="daf_2d")))
    graph = session(graphs(embedder)["logmel"], tmp_path)
    wave = torch.from_numpy((0.3 * np.random.default_rng(2).standard_normal(31234)).astype(np.float32))
    found = graph.run(["mel"], {"wave": wave[None].numpy()})[0]
    expected = embedder.frontend.logmel(onnx.quantise(wave)[None]).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The small model as a folder of graphs, made by the command line."""
    from openclap.cli import run

    place = tmp_path_factory.mktemp("onnx") / "out"
    assert run(["convert", str(tiny_model), str(place), "--to", "onnx"]) == 0
    return place


def test_folder_runs_without_openclap(exported: Path, tiny_model: Path) -> None:
    """Its own description and tokenizer say all that is needed to get the Embedder's vectors."""
    import tokenizers

    facts = json.loads((exported / "onnx.json").read_text())
    assert facts["audio"]["inputs"] == {"wave": {"type": "float32", "shape": ["batch", 8000]}}
    assert facts["audio"]["rate"] == 16000 and facts["embedding_size"] == 16
    tokenizer = tokenizers.Tokenizer.from_file(str(exported / facts["text"]["tokenizer"]))
    texts = ["rain", " ".join(["wolf"] * 40)]
    encoded = tokenizer.encode_batch(texts)
    feed = {"ids": np.array([row.ids for row in encoded]), "mask": np.array([row.attention_mask for row in encoded])}
    assert feed["ids"].shape == (2, 16)
    embedder = load(tiny_model, device="cpu")
    found = onnxruntime.InferenceSession(exported / facts["text"]["file"]).run(None, feed)[0]
    np.testing.assert_allclose(found, embedder.embed_text(texts), atol=onnx.TOLERANCE)
    wave = (0.2 * np.random.default_rng(3).standard_normal(6000)).astype(np.float32)
    short = {"wave": np.pad(wave, (0, 2000))[None]}
    found = onnxruntime.InferenceSession(exported / facts["audio"]["file"]).run(None, short)[0]
    np.testing.assert_allclose(found, embedder.embed_audio([(wave, 16000)]), atol=onnx.TOLERANCE)


def test_only_an_onnx_folder_is_replaced(exported: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from openclap.cli import run

    assert run(["convert", str(tiny_model), str(exported.parent), "--to", "onnx"]) == 2
    check_refusal(capsys.readouterr().err, exported.parent)


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
