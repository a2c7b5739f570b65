"""Graphs of published presets, bound to the weights of model folders without torch."""

from __future__ import annotations

import importlib.util
import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import openclap
from openclap import presets
from openclap.checkpoints import detect, huggingface, mapped
from openclap.checkpoints.checkpoint import build_network, empty_network, weights_digest
from openclap.checkpoints.published import PUBLISHED
from openclap.embedder import Embedder
from openclap.errors import CheckpointError, MissingExtraError
from openclap.runtimes import preset_graphs
from support.errors import raises_naming
from support.graphs import NEW
from support.tiny_models import save_tiny_model, tiny_clap_model, tiny_roberta_tokenizer

ROOT = Path(__file__).parents[2]
SOUNDS = ROOT / "src" / "openclap" / "demo" / "sounds"
TEXTS = ["rain on a tin roof", "a dog", "the howling of a wolf in the rain on the roof"]
TOLERANCE = 1e-5


@pytest.fixture(scope="session")
def build_graphs() -> ModuleType:
    """The script that makes the graphs."""
    pytest.importorskip("onnxscript")
    spec = importlib.util.spec_from_file_location("build_graphs", ROOT / "scripts" / "build_graphs.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def published_folder(place: Path, **config: object) -> Path:
    """A ClapModel of published size with random weights, as transformers saves it."""
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ClapModel(ClapConfig(**config)).eval().save_pretrained(place)
    is_fused = "audio_config" in config and "fusion_type" in config["audio_config"]  # type: ignore[operator]
    ClapFeatureExtractor(
        truncation="fusion" if is_fused else "rand_trunc", padding="repeatpad", frequency_min=50, frequency_max=14000
    ).save_pretrained(place)
    tiny_roberta_tokenizer(place / "tokenizer.json")
    return place


@pytest.fixture(scope="session")
def unfused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the layout and size of laion/clap-htsat-unfused."""
    return published_folder(tmp_path_factory.mktemp("published") / "unfused")


def assert_equal_to_torch(folder: Path, sounds: list[Path]) -> Embedder:
    """Check vectors, digest and scale of a folder in onnxruntime against torch, and return the former."""
    bound, reference = openclap.load(folder, runtime="onnx"), openclap.load(folder, runtime="torch", device="cpu")
    assert bound.runtime.name == "onnxruntime fp32" and bound.preset == reference.preset
    np.testing.assert_allclose(bound.embed_audio(sounds), reference.embed_audio(sounds), atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(bound.embed_text(TEXTS), reference.embed_text(TEXTS), atol=TOLERANCE, rtol=0)
    assert bound.digest() == reference.digest()
    assert bound.runtime.logit_scale == pytest.approx(reference.runtime.logit_scale, rel=1e-6)
    return bound


def test_every_preset_has_its_graphs(build_graphs: ModuleType) -> None:
    """The files are there, hold the configuration of their preset, and name tensors of its network by their shapes."""
    wanted = set()
    for preset in build_graphs.shipped().values():
        files = {graph: preset_graphs.file_of(preset, graph) for graph in preset_graphs.graphs_of(preset)}
        if wanted.issuperset(files.values()):
            continue
        wanted.update(files.values())
        network = empty_network(preset, preset.name)
        shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        for graph, file in files.items():
            _, named = preset_graphs.read_graph(file)
            assert named.items() <= shapes.items(), file.name
            is_part = {"audio": "audio_tower.", "text": "text_tower."}.get(graph)
            assert not named if is_part is None else any(name.startswith(is_part) for name in named)
            parts = [name for name in shapes if is_part and name.startswith(is_part) and "num_batches" not in name]
            assert {name.split(".")[1] for name in parts if name not in named} <= {"tagger"}, file.name
    assert set(preset_graphs.FOLDER.iterdir()) == wanted


def test_published_models_are_among_the_presets(build_graphs: ModuleType) -> None:
    models = {name for name, model in PUBLISHED.items() if model.format == "huggingface"}
    base = {name for name in models if name.startswith("laion/larger_clap")}
    assert models - base <= set(build_graphs.shipped()) and base & set(build_graphs.shipped())


def test_graphs_hold_no_weights() -> None:
    assert sum(file.stat().st_size for file in preset_graphs.FOLDER.iterdir()) < 2e6
    for file in preset_graphs.FOLDER.glob("text-*"):
        content, shapes = preset_graphs.read_graph(file)
        assert len(content) < 2e5 < sum(4 * np.prod(shape) for shape in shapes.values())


def test_a_folder_of_openclap_embeds_as_torch(full_mini: Path) -> None:
    """Real weights, real sounds, without a conversion before."""
    bound = assert_equal_to_torch(full_mini, sorted(SOUNDS.glob("*.ogg"))[:12])
    assert isinstance(bound.runtime.graphs, preset_graphs.BoundGraphs)  # type: ignore[attr-defined]
    again = pickle.loads(pickle.dumps(bound.runtime))
    np.testing.assert_array_equal(again.embed_texts(TEXTS, 4), bound.embed_text(TEXTS))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_other_types_embed_as_in_torch(dtype: torch.dtype, full_mini: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(full_mini, tmp_path / "model"))
    weights = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in loaded(folder).items()
    }
    save_file(weights, folder / "model.safetensors")
    assert_equal_to_torch(folder, sorted(SOUNDS.glob("*.ogg"))[:3])


def test_a_model_is_saved_as_openclaps_folder(full_mini: Path, tmp_path: Path) -> None:
    bound = openclap.load(full_mini, runtime="onnx")
    bound.save(tmp_path / "copy")
    assert openclap.load(tmp_path / "copy", runtime="torch", device="cpu").digest() == bound.digest()
    weights = loaded(tmp_path / "copy")
    assert weights.keys() == loaded(full_mini).keys()
    assert all(torch.equal(tensor, loaded(full_mini)[name]) for name, tensor in weights.items())


@pytest.mark.parametrize("fused", [False, True])
def test_a_clap_model_is_mapped_as_torch_reads_it(fused: bool, tmp_path: Path) -> None:
    """Names, joined projections, computed buffers and the digest, in one file and in several with an index."""
    huggingface.write(tiny_clap_model(fused=fused), tmp_path / "model")
    for _ in range(2):
        checkpoint, found = detect.read(tmp_path / "model"), mapped.read(tmp_path / "model")
        assert found.preset == checkpoint.preset
        assert found.weights.keys() == checkpoint.weights.keys()
        assert all(np.array_equal(found.weights[name], tensor) for name, tensor in checkpoint.weights.items())
        assert found.digest() == weights_digest(build_network(checkpoint, "model"), checkpoint.preset)
        state = loaded(tmp_path / "model")
        parts = {
            f"model-{number:05}-of-00002.safetensors": dict(list(state.items())[number - 1 :: 2]) for number in (1, 2)
        }
        for name, part in parts.items():
            save_file(part, tmp_path / "model" / name)
        index = {"weight_map": {tensor: name for name, part in parts.items() for tensor in part}}
        (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
        (tmp_path / "model" / "model.safetensors").unlink(missing_ok=True)
        save_file({}, tmp_path / "model" / "model.safetensors")  # the index comes first


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_defaults_of_a_clap_config_are_those_of_transformers() -> None:
    from transformers import ClapConfig

    from openclap.checkpoints.clap_model import DEFAULTS

    config = ClapConfig().to_dict()
    for name, value in DEFAULTS.items():
        if isinstance(value, dict):
            assert value.items() <= config[name].items(), name
        else:
            assert config[name] == value


def test_other_heads_and_towers_are_not_bound_to_these_graphs() -> None:
    """A head with another activation has weights of the same names and shapes."""
    known = presets.named("htsat-tiny-roberta")
    assert preset_graphs.file_of(known, "audio").is_file() and preset_graphs.file_of(known, "text").is_file()
    for change in ({"audio_head": "mlp_gelu"}, {"unit_audio": True}):
        assert not preset_graphs.file_of(replace(known, **change), "audio").is_file()  # type: ignore[arg-type]
    assert not preset_graphs.file_of(replace(known, text_head="mlp_gelu"), "text").is_file()
    for preset in NEW.values():
        assert not any(preset_graphs.file_of(preset, graph).is_file() for graph in preset_graphs.graphs_of(preset))


def test_models_that_need_torch_say_so(full_mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pickled = Path(shutil.copytree(full_mini, tmp_path / "pickled"))
    huggingface.write(tiny_clap_model(), tmp_path / "clap")
    (tmp_path / "clap" / "model.safetensors").rename(tmp_path / "clap" / "pytorch_model.bin")
    (pickled / "model.pt").write_bytes(b"PK\x03\x04")
    tiny = save_tiny_model(tmp_path / "tiny")
    monkeypatch.setattr("openclap.runtimes.has", lambda package: package != "torch")
    for place, reason in ((pickled / "model.pt", "file"), (tmp_path / "clap", "pytorch_model.bin"), (tiny, "tiny")):
        with raises_naming(MissingExtraError, place, reason, "openclap[torch]"):
            openclap.load(place)
    assert openclap.load(full_mini).runtime.name == "onnxruntime fp32"


@pytest.mark.parametrize("damage", ["missing", "shape", "truncated", "scale"])
def test_damaged_weights_are_one_sentence(damage: str, full_mini: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(full_mini, tmp_path / "model"))
    weights = loaded(folder)
    name = {"scale": "logit_scale"}.get(damage, "text_head.0.weight")
    if damage == "truncated":
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-1000])
    else:
        tensor = weights.pop(name)
        save_file(weights | ({name: tensor[:1].clone()} if damage == "shape" else {}), folder / "model.safetensors")
    with raises_naming(CheckpointError, *([folder] if damage == "truncated" else [name])):
        openclap.load(folder, runtime="onnx").embed_text(TEXTS)


WITHOUT_TORCH = """
import json, sys
sys.modules["torch"] = sys.modules["transformers"] = None
from openclap.cli import run
for words in json.loads(sys.argv[1]):
    print("##", run(words), flush=True)
print([name for name in ("torch", "transformers") if sys.modules.get(name)])
"""


@pytest.mark.long
def test_a_published_model_serves_without_torch(unfused: Path, tmp_path: Path) -> None:
    """The commands on a downloaded folder and real sounds, and their vectors beside torch's."""
    sounds = [str(sound) for sound in sorted(SOUNDS.glob("*.ogg"))[:3]]
    index, out, model = str(tmp_path / "index"), str(tmp_path / "out.npy"), ["--model", str(unfused)]
    commands = [
        ["index", "add", *sounds, "--index", index, *model],
        ["search", "a dog", "--index", index, "--json"],
        ["embed", *sounds, "-o", out, *model],
        ["classify", sounds[0], "--labels", "dog,rain", *model],
    ]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, json.dumps(commands)], capture_output=True, text=True, check=False
    )
    codes = [line for line in done.stdout.splitlines() if line.startswith("## ")]
    assert codes == ["## 0"] * len(commands), done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    reference = openclap.load(unfused, runtime="torch", device="cpu")
    np.testing.assert_allclose(np.load(out), reference.embed_audio(sounds), atol=TOLERANCE, rtol=0)
    bound = openclap.load(unfused, runtime="onnx")
    np.testing.assert_allclose(bound.embed_text(TEXTS), reference.embed_text(TEXTS), atol=TOLERANCE, rtol=0)
    assert bound.digest() == reference.digest()


@pytest.mark.long
@pytest.mark.parametrize(
    "audio_config",
    [
        {"enable_fusion": True, "fusion_type": "aff_2d"},
        {"patch_embeds_hidden_size": 128, "depths": [2, 2, 12, 2], "hidden_size": 1024},
    ],
    ids=["fused", "base"],
)
def test_other_published_models_embed_as_torch(audio_config: dict[str, object], tmp_path: Path) -> None:
    import soundfile

    folder = published_folder(tmp_path / "model", audio_config=audio_config)
    long = tmp_path / "long.wav"
    soundfile.write(long, 0.1 * np.random.default_rng(0).standard_normal(25 * 48000), 48000)
    assert_equal_to_torch(folder, [*sorted(SOUNDS.glob("*.ogg"))[:4], long])


@pytest.mark.long
def test_the_script_makes_the_same_graphs(build_graphs: ModuleType) -> None:
    """Of one preset; `python scripts/build_graphs.py --check` compares all."""
    assert build_graphs.build([build_graphs.shipped()["demo"]], check=True) == []
