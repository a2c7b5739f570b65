"""The onnxruntime runtime against torch, and the front end in numpy against the one of tensors."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import openclap
from openclap.audio.clips import FILLS
from openclap.audio.frontend import FrontEnd
from openclap.audio.numpy_views import fill, four_views
from openclap.embedder import Embedder
from openclap.errors import AudioError, CheckpointError, ConfigError
from openclap.runtimes import sessions
from support.graphs import AUDIO, MEL_32, TEXTS, in_onnx, in_torch, read
from support.tiny_models import TINY_PRESET

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

TOLERANCE = 1e-5
RATE = 16000
LENGTHS = (1, 100, 2667, 7999, 8000, 8001, 8256, 12001, 30000, 70001)
"""Samples: shorter than the input of 8000, equal, one frame more, and several times as long."""
TEXT = ["rain", "a wolf howling in the rain on a big roof", "the sound of a dog", " ".join(["wolf"] * 40)]


def noise(*lengths: int) -> list[tuple[np.ndarray, int]]:
    rng = np.random.default_rng(1)
    return [((0.3 * rng.standard_normal(length)).astype(np.float32), RATE) for length in lengths]


@pytest.fixture(scope="module")
def pair(tiny_model: Path, tiny_graphs: Path) -> tuple[Embedder, Embedder]:
    """The small model in torch and in onnxruntime."""
    return openclap.load(tiny_model, device="cpu"), openclap.load(tiny_graphs)


def assert_equal(torch_model: Embedder, onnx_model: Embedder) -> None:
    assert onnx_model.runtime.name == "onnxruntime fp32"
    sounds = noise(*LENGTHS)
    expected = torch_model.embed_audio(sounds)
    np.testing.assert_allclose(onnx_model.embed_audio(sounds), expected, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(onnx_model.embed_audio(sounds, batch_size=1), expected, atol=TOLERANCE, rtol=0)
    assert (onnx_model.embed_audio(sounds) == onnx_model.embed_audio(sounds)).all()
    texts = torch_model.embed_text(TEXT)
    np.testing.assert_allclose(onnx_model.embed_text(TEXT), texts, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(onnx_model.embed_text(TEXT, batch_size=1), texts, atol=TOLERANCE, rtol=0)
    assert onnx_model.digest() == torch_model.digest()


def test_embeds_as_torch(pair: tuple[Embedder, Embedder]) -> None:
    assert_equal(*pair)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "htsat antialias" else pytest.mark.long) for name in AUDIO]
)
def test_every_audio_tower_embeds_as_torch(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long clips are computed in several blocks of frames as well."""
    front, tower = AUDIO[name]
    model = in_torch(replace(TINY_PRESET, frontend=front, audio=tower))
    converted = in_onnx(model, tmp_path / "graphs")
    assert_equal(model, converted)
    monkeypatch.setattr("openclap.runtimes.onnx.MEL_FRAMES", 40)
    assert_equal(model, converted)


@pytest.mark.long
@pytest.mark.parametrize("name", TEXTS)
def test_every_text_tower_embeds_as_torch(name: str, tmp_path: Path) -> None:
    model = in_torch(replace(TINY_PRESET, text=TEXTS[name]))
    assert_equal(model, in_onnx(model, tmp_path / "graphs"))


def test_windows_and_classes_are_those_of_torch(pair: tuple[Embedder, Embedder]) -> None:
    [sound] = noise(30000)
    expected, found = (model.windows(sound, 0.7, 0.3) for model in pair)
    assert [(window.start_s, window.end_s) for window in found] == [(one.start_s, one.end_s) for one in expected]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.vector, theirs.vector, atol=TOLERANCE, rtol=0)
    expected_NC, found_NC = (model.classify([sound, *noise(100)], ["dog", "rain"]) for model in pair)
    np.testing.assert_allclose(found_NC, expected_NC, atol=1e-4, rtol=0)  # the logit scale is 14
    assert abs(pair[0].runtime.logit_scale - pair[1].runtime.logit_scale) < 1e-5


def test_tokenizes_as_torch(pair: tuple[Embedder, Embedder]) -> None:
    torch_tokenizer, tokenizer = (embedder.tokenizer for embedder in pair)
    assert tokenizer.context == torch_tokenizer.context
    assert np.array_equal(tokenizer.encode(TEXTS).ids_BL, torch_tokenizer.encode(TEXTS).ids_BL)


def test_silence_and_no_sounds(pair: tuple[Embedder, Embedder]) -> None:
    silence = [(np.zeros(length, np.float32), RATE) for length in (1, 8000, 20000)]
    expected, found = (model.embed_audio(silence) for model in pair)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)
    assert pair[1].embed_audio([]).shape == (0, 16) and pair[1].embed_text([]).shape == (0, 16)


def test_overflow_is_the_same_error(pair: tuple[Embedder, Embedder]) -> None:
    """Samples so large that their power is infinite; the sound beside them is embedded."""
    waves = [noise(8000)[0][0] * np.float32(1e25), noise(8000)[0][0]]
    for model in pair:
        assert np.isnan(model.runtime.embed_waves(waves)[0]).all()
        results = [*model.embed_each([(wave, RATE) for wave in waves])]
        assert isinstance(results[0], AudioError) and isinstance(results[1], np.ndarray)


@pytest.mark.parametrize("how", FILLS)
@pytest.mark.parametrize("length", [1, 3, 999, 1000, 1001, 1999, 2000])
def test_fill_is_bit_equal_to_that_of_tensors(how: str, length: int) -> None:
    wave = np.random.default_rng(0).standard_normal(length).astype(np.float32)
    expected = FILLS[how](torch.from_numpy(wave), 2000).numpy()
    assert (fill(wave, 2000, how) == expected).all()


@pytest.mark.parametrize("antialias", [False, True])
def test_views_are_those_of_the_front_end(antialias: bool) -> None:
    front_end = FrontEnd(replace(MEL_32, long="fusion", antialias=antialias))
    frames = front_end.config.frames
    for wave, _ in noise(8000, 8100, 8256, 8512, 12001, 30000, 800_001):
        expected = front_end([wave])
        [mel_LF] = front_end.logmel(torch.from_numpy(wave)[None]).numpy()
        views = four_views(mel_LF, frames, antialias=antialias)
        assert (len(mel_LF) > frames) == expected.is_long_B.item()
        np.testing.assert_allclose(views, expected.mel_BVTF[0].numpy(), atol=2e-6, rtol=0)


def test_resizing_an_hour_follows_torch() -> None:
    """Positions in float32 are coarse there; another rounding would shift frames visibly."""
    mel_LF = np.random.default_rng(0).standard_normal((360_001, 4)).astype(np.float32)
    for antialias in (False, True):
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(mel_LF)[None, None], (1001, 4), mode="bilinear", antialias=antialias
        )[0, 0]
        found = four_views(mel_LF, 1001, antialias=antialias)[0]
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-3, rtol=0)


def test_save_copies_the_folder(pair: tuple[Embedder, Embedder], tiny_graphs: Path, tmp_path: Path) -> None:
    pair[1].save(tmp_path / "copy")
    again = openclap.load(tmp_path / "copy")
    assert (again.embed_text(TEXT) == pair[1].embed_text(TEXT)).all() and again.digest() == pair[1].digest()
    assert {file.name for file in (tmp_path / "copy").iterdir()} == {file.name for file in tiny_graphs.iterdir()}
    with pytest.raises(CheckpointError, match="is the source itself"):
        again.save(tmp_path / "copy")


def test_another_process_gets_a_runtime_without_sessions(pair: tuple[Embedder, Embedder]) -> None:
    pair[1].embed_text(["rain"])
    copy = pickle.loads(pickle.dumps(pair[1].runtime))
    assert (copy.embed_texts(["rain"], 1) == pair[1].runtime.embed_texts(["rain"], 1)).all()
    assert pair[1].runtime._sessions


def test_attributes_of_torch_are_refused(pair: tuple[Embedder, Embedder]) -> None:
    for name in ("clap", "frontend", "device", "objective"):
        with pytest.raises(ConfigError, match=f"{name} needs openclap's own networks in torch.*onnxruntime"):
            getattr(pair[1], name)
    with pytest.raises(ConfigError, match="own networks in torch"):
        pair[1].audio_tensor([torch.zeros(10)])


DAMAGES = [
    *((damage, name) for damage in ("cut", "garbage", "missing") for name in ("audio.onnx", "audio.onnx.data")),
    ("another", "audio.onnx"),
]


@pytest.mark.parametrize(("damage", "name"), DAMAGES)
def test_damaged_graphs_are_one_sentence(damage: str, name: str, tiny_graphs: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(tiny_graphs, tmp_path / "graphs"))
    file = place / name
    whole = file.read_bytes()
    file.unlink()
    if damage != "missing":
        contents = {
            "cut": whole[: len(whole) // 2],
            "garbage": b"\x08" * 1000,
            "another": (place / "text.onnx").read_bytes(),
        }
        file.write_bytes(contents[damage])
    with pytest.raises(CheckpointError, match=r"audio\.onnx.*Convert the model again") as error:
        read(place).embed_audio(noise(8000))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: facts.pop("preset"),
        lambda facts: facts["preset"].pop("frontend"),
        lambda facts: facts.pop("weights_digest"),
        lambda facts: facts.update(scale="high"),
    ],
)
def test_damaged_description_is_one_sentence(change: object, tiny_graphs: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"onnx\.json: is damaged"):
        openclap.load(changed(tiny_graphs, tmp_path / "graphs", change))


@pytest.mark.parametrize(("version", "advice"), [(1, "openclap convert MODEL"), (3, "Upgrade openclap")])
def test_another_format_version_is_refused(version: int, advice: str, tiny_graphs: Path, tmp_path: Path) -> None:
    place = changed(tiny_graphs, tmp_path / "graphs", lambda facts: facts.update(format_version=version))
    with pytest.raises(CheckpointError, match=f"format {version}.*{advice}"):
        openclap.load(place)


def changed(graphs: Path, place: Path, change: object) -> Path:
    """A copy of a folder of graphs with another description."""
    shutil.copytree(graphs, place)
    facts = json.loads((place / "onnx.json").read_text(encoding="utf-8"))
    change(facts)  # type: ignore[operator]
    (place / "onnx.json").write_text(json.dumps(facts), encoding="utf-8")
    return place


def test_threads_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert sessions._threads() == 3
