"""The checks of HEAR's validator, and those that it leaves to others."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from openclap import load
from openclap.errors import AudioError, CheckpointError, ConfigError
from openclap.interop import hear
from support.errors import raises_naming


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> hear.HearModel:
    module = importlib.import_module("openclap.interop.hear")  # as the tools find it
    loaded: hear.HearModel = module.load_model(str(tiny_model), window_s=0.3)
    return loaded


def noise(sounds: int, seconds: float, rate: int = 16000) -> torch.Tensor:
    return torch.rand(sounds, int(seconds * rate), generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_model_has_hears_attributes(model: hear.HearModel) -> None:
    assert isinstance(model, torch.nn.Module) and not model.training
    assert model.sample_rate in (16000, 22050, 44100, 48000)
    assert type(model.scene_embedding_size) is int and type(model.timestamp_embedding_size) is int
    assert sum(p.numel() for p in model.parameters()) > 0


@pytest.mark.parametrize("seconds", [1.07, 1.98, 4.0, 0.01])
def test_timestamps(model: hear.HearModel, seconds: float) -> None:
    audio = noise(2, seconds)
    vectors, times = hear.get_timestamp_embeddings(audio, model)
    assert vectors.dtype == torch.float32 and vectors.device == audio.device == times.device
    assert vectors.ndim == 3 and vectors.shape[:2] == times.shape
    assert vectors.shape[0] == 2 and vectors.shape[2] == model.timestamp_embedding_size
    assert times.min() >= 0 and torch.equal(times[0], times[1])
    assert 1000 * seconds - 50 <= times.max() <= 1000 * seconds
    hops = times.diff(dim=1)
    if hops.numel():
        torch.testing.assert_close(hops, torch.full_like(hops, 50.0))


def test_scenes(model: hear.HearModel, tiny_model: Path) -> None:
    audio = noise(4, 2.74)
    vectors = hear.get_scene_embeddings(audio, model)
    assert vectors.dtype == torch.float32 and vectors.shape == (4, model.scene_embedding_size)
    assert not vectors.requires_grad and vectors.device == audio.device
    expected = load(tiny_model, device="cpu").embed_audio([(wave.numpy(), 16000) for wave in audio])
    np.testing.assert_allclose(vectors.numpy(), expected, atol=1e-5)
    torch.testing.assert_close(hear.get_scene_embeddings(audio[2:3], model), vectors[2:3], atol=1e-5, rtol=0)


def test_timestamp_embedding_depends_on_the_audio_around_it(model: hear.HearModel) -> None:
    """Also in minutes of sound at a hop that is no whole number of samples: nothing drifts."""
    embedder = model.embedder
    drifting = hear.HearModel(embedder, window_s=0.3, hop_ms=333.3)  # 5332.8 samples
    audio = noise(1, 60.0)
    vectors, times = hear.get_timestamp_embeddings(audio, drifting)
    for place in (1, 90, times.shape[1] - 2):
        middle = round(float(times[0, place]) / 1000 * 16000)
        window = audio[0, middle - 2400 : middle + 2400].numpy()
        np.testing.assert_allclose(vectors[0, place], embedder.embed_audio([(window, 16000)])[0], atol=1e-5)
    start = np.concatenate([np.zeros(2400, np.float32), audio[0, :2400].numpy()])
    np.testing.assert_allclose(vectors[0, 0], embedder.embed_audio([(start, 16000)])[0], atol=1e-5)


def test_embeddings_do_not_depend_on_the_batch(model: hear.HearModel) -> None:
    audio = noise(3, 1.3)
    together, _ = hear.get_timestamp_embeddings(audio, model)
    alone = torch.cat([hear.get_timestamp_embeddings(sound[None], model)[0] for sound in audio])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_audio_follows_the_model_to_its_device(tiny_model: Path) -> None:
    model = hear.load_model(str(tiny_model), window_s=0.3)
    assert model.to("meta").embedder.device.type == "meta"


@pytest.mark.parametrize(
    ("audio", "value"),
    [
        (torch.zeros(16000), "(16000,)"),
        (torch.zeros(2, 0), "(2, 0)"),
        (torch.zeros(0, 16000), "(0, 16000)"),
        (torch.zeros(1, 16000, dtype=torch.int16), "torch.int16"),
        (np.zeros((1, 16000)), "ndarray"),
        (torch.full((1, 16000), float("nan")), "NaN"),
        (torch.full((1, 16000), 1e30), "1e+30"),
    ],
)
def test_invalid_audio_is_refused(model: hear.HearModel, audio: torch.Tensor, value: str) -> None:
    for embed in (hear.get_scene_embeddings, hear.get_timestamp_embeddings):
        with raises_naming(AudioError, value):
            embed(audio, model)


def test_invalid_model_options_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    with raises_naming(ConfigError, "model_file_path"):
        hear.load_model()
    with pytest.raises(CheckpointError):
        hear.load_model(str(tmp_path / "none"))
    with raises_naming(ConfigError, "window_s", 2.0, 0.5):
        hear.load_model(str(tiny_model), window_s=2.0)
    for hop in (0, float("inf"), "50"):
        with raises_naming(ConfigError, "hop_ms", repr(hop)):
            hear.load_model(str(tiny_model), hop_ms=hop)  # type: ignore[arg-type]
    with raises_naming(ConfigError, "window_s", "'1'"):
        hear.load_model(str(tiny_model), window_s="1")  # type: ignore[arg-type]
