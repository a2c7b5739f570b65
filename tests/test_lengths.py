"""Clips and texts of any length: batches by length, the same embedding in any batch, cost by length."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import openclap
from openclap.arrays import batches_by_length
from openclap.runtimes import torch as torch_runtime
from support.open_clip import captions, write_folder

RATE = 48000
LENGTHS_S = (0.05, 0.3, 0.31, 1.0, 2.5, 7.3, 10.0, 30.0, 59.9, 60.1, 120.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> openclap.Embedder:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENCLAP_HOME", str(home))
        embedder = openclap.load(write_folder(home / "tiny", "tiny"))
        embedder.check_tokenizer()
    return embedder


@pytest.fixture(scope="module")
def sounds() -> list[tuple[np.ndarray, int]]:
    noise = 0.1 * np.random.default_rng(0).standard_normal((len(LENGTHS_S), int(RATE * max(LENGTHS_S))))
    return [(wave[: int(RATE * s)].astype(np.float32), RATE) for wave, s in zip(noise, LENGTHS_S, strict=True)]


@pytest.fixture(scope="module")
def alone(model: openclap.Embedder, sounds: list[tuple[np.ndarray, int]]) -> np.ndarray:
    return np.concatenate([model.embed_audio([sound]) for sound in sounds])


@given(st.lists(st.integers(1, 900), max_size=60), st.integers(1, 1000))
def test_batches_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = [list(map(int, rows)) for rows in batches_by_length(lengths, budget)]
    assert sorted(itertools.chain(*batches)) == list(range(len(lengths)))
    padded = [len(rows) * max(lengths[row] for row in rows) for rows in batches]
    assert all(size <= budget or len(rows) == 1 for size, rows in zip(padded, batches, strict=True))
    in_order = [lengths[row] for rows in batches for row in rows]
    assert in_order == sorted(lengths)


@pytest.mark.parametrize("budget", [1, 512, pytest.param(100_000, marks=pytest.mark.long)])
def test_an_embedding_does_not_depend_on_its_batch(
    model: openclap.Embedder,
    sounds: list[tuple[np.ndarray, int]],
    alone: np.ndarray,
    budget: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch_runtime, "CPU_TOKENS", budget)
    order = np.random.default_rng(budget).permutation(len(sounds))
    together = model.embed_audio([sounds[row] for row in order])
    np.testing.assert_allclose(together, alone[order], rtol=0, atol=1e-5)


def test_embedding_is_deterministic(
    model: openclap.Embedder, sounds: list[tuple[np.ndarray, int]], alone: np.ndarray
) -> None:
    again = np.concatenate([model.embed_audio([sound]) for sound in sounds])
    assert np.array_equal(again, alone)


def test_a_clip_up_to_a_minute_is_read_whole_and_a_longer_one_in_windows_of_a_minute(
    model: openclap.Embedder, sounds: list[tuple[np.ndarray, int]], alone: np.ndarray
) -> None:
    wave = sounds[-1][0]
    halves = model.embed_audio([(wave[: 60 * RATE], RATE), (wave[60 * RATE :], RATE)])
    mean = halves.sum(axis=0) / np.linalg.norm(halves.sum(axis=0))
    np.testing.assert_allclose(alone[-1], mean, atol=1e-5)
    with torch.inference_mode():
        whole = model.clap.encode_audio(model.frontend([torch.from_numpy(sounds[-3][0])]))[0]
    np.testing.assert_allclose(alone[-3], whole, atol=1e-5)


def test_gradients_reach_clips_of_different_lengths(model: openclap.Embedder) -> None:
    waves = [torch.randn(n, requires_grad=True) for n in (300, 20000)]
    vectors = model.audio_tensor(waves)
    np.testing.assert_allclose(
        vectors.detach(), model.embed_audio([(wave.detach().numpy(), RATE) for wave in waves]), atol=1e-5
    )
    vectors.sum().backward()
    assert all(wave.grad is not None and wave.grad.abs().sum() > 0 for wave in waves)


def test_recordings_are_cut_into_windows_of_the_training_length(model: openclap.Embedder) -> None:
    windows = model.windows((np.zeros(25 * RATE, np.float32), RATE))
    assert [(window.start_s, window.end_s) for window in windows] == [(0, 10), (10, 20), (15, 25)]


def test_texts_have_the_same_embedding_in_any_batch(model: openclap.Embedder) -> None:
    texts = captions()
    alone = np.concatenate([model.embed_text([text]) for text in texts])
    for batch_size in (1, 5, 64):
        np.testing.assert_allclose(model.embed_text(texts, batch_size), alone, rtol=0, atol=1e-5)


def test_short_clips_cost_in_proportion_to_their_length(
    model: openclap.Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted in patches that the tower computes, padding included."""
    counted: list[int] = []
    tower = model.clap.audio_tower

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        counted.append(inputs[0].shape[0] * inputs[0].shape[1])

    hook = tower.embed.register_forward_pre_hook(count)
    draw = np.random.default_rng(1)
    lengths = (RATE * np.clip(draw.lognormal(np.log(1.5), 0.8, 200), 0.1, 10)).astype(int)
    try:
        model.embed_audio([(draw.standard_normal(n).astype(np.float32), RATE) for n in lengths])
    finally:
        hook.remove()
    config, mel = tower.config, model.preset.frontend.mel
    needed = sum(config.tokens(mel.frames(int(n))) for n in lengths)
    assert needed <= sum(counted) < 1.15 * needed


def test_a_folder_of_the_model_gives_the_same_embeddings(
    model: openclap.Embedder, sounds: list[tuple[np.ndarray, int]], alone: np.ndarray, tmp_path: Path
) -> None:
    model.save(tmp_path / "saved")
    again = openclap.load(tmp_path / "saved")
    assert again.preset == model.preset and again.digest() == model.digest()
    np.testing.assert_array_equal(again.embed_audio(sounds[:4]), model.embed_audio(sounds[:4]))
    assert replace(model.preset, unit_audio=True) != model.preset


@pytest.mark.parametrize(("precision", "bound"), [("bf16", 0.999), ("int8", 0.98)])
def test_other_precisions_are_close_and_do_not_depend_on_the_batch(
    model: openclap.Embedder, sounds: list[tuple[np.ndarray, int]], precision: str, bound: float, tmp_path: Path
) -> None:
    model.save(tmp_path / "saved")
    other = openclap.load(tmp_path / "saved", precision=precision)
    together = other.embed_audio(sounds[:5])
    assert ((together * model.embed_audio(sounds[:5])).sum(axis=1) > bound).all()
    if precision == "int8":  # a scale for each layer's whole input: with other clips beside, it would be another one
        np.testing.assert_allclose(together[:1], other.embed_audio(sounds[:1]), rtol=0, atol=1e-6)
