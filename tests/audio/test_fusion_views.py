from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import ClapFeatureExtractor

from openclap.audio.clips import quantise
from openclap.audio.frontend import FrontEnd
from openclap.presets import LAION_FUSION, LAION_PLAIN
from support.reference import GOLDEN, wave

EXACT = replace(LAION_FUSION, int16=False)
AUDIBLE_DB = -70.0
"""Power above 1e-7: what is under it is rounding."""


def assert_same_db(ours: torch.Tensor, other: np.ndarray, tolerance: float) -> None:
    heard = other > AUDIBLE_DB
    assert heard.mean() > 0.5
    np.testing.assert_allclose(ours.numpy()[heard], other[heard], rtol=0, atol=tolerance)


@pytest.mark.parametrize("samples", [480000, 480240, 504000, 1200000])
def test_the_four_views_are_the_references(samples: int) -> None:
    golden = np.load(GOLDEN / "fusion_views.npz")
    batch = FrontEnd(replace(EXACT, antialias=True))([wave(f"len{samples}", samples)])
    assert batch.mel_BVTF.shape == (1, 4, 1001, 64)
    assert bool(batch.is_long_B[0]) == bool(golden[f"n{samples}_longer"])
    assert_same_db(batch.mel_BVTF[0, :, ::25], golden[f"n{samples}_views"], 1e-3)


def test_the_round_trip_through_16_bits_is_the_references() -> None:
    golden = np.load(GOLDEN / "int16.npz")
    np.testing.assert_array_equal(quantise(torch.from_numpy(golden["x"])).numpy(), golden["y"])


def test_gradients_pass_the_round_trip() -> None:
    wave_N = torch.tensor([0.1234567, -0.5, 2.0], requires_grad=True)
    quantise(wave_N).sum().backward()
    assert wave_N.grad is not None
    assert wave_N.grad.tolist() == [1.0, 1.0, 0.0]  # what is clipped moves nothing


@pytest.mark.parametrize("samples", [30000, 480000])
def test_short_clips_are_transformers(samples: int) -> None:
    sound = wave("short", samples)
    for truncation, config in (("rand_trunc", LAION_PLAIN), ("fusion", EXACT)):
        theirs = ClapFeatureExtractor(frequency_min=50, truncation=truncation)(sound, sampling_rate=48000)
        ours = FrontEnd(replace(config, int16=False))([sound])
        # transformers computes its HTK bank in float64
        assert_same_db(ours.mel_BVTF[0], np.asarray(theirs["input_features"][0]), 5e-3)
        assert not ours.is_long_B.any()


def test_the_whole_of_a_long_clip_is_transformers() -> None:
    sound = wave("long", 700000)
    theirs = ClapFeatureExtractor(frequency_min=50, truncation="fusion")(sound, sampling_rate=48000)
    ours = FrontEnd(EXACT)([sound])
    assert ours.is_long_B.all()
    assert_same_db(ours.mel_BVTF[0, 0], np.asarray(theirs["input_features"][0][0]), 5e-3)


def test_clips_are_the_same_alone_and_together() -> None:
    frontend = FrontEnd(EXACT)
    sounds = [wave(f"mixed{n}", n) for n in (9000, 480000, 480100, 600000, 9000, 700000)]
    together = frontend(sounds)
    assert together.is_long_B.tolist() == [False, False, False, True, False, True]
    for row, sound in enumerate(sounds):
        torch.testing.assert_close(together.mel_BVTF[row], frontend([sound]).mel_BVTF[0], rtol=0, atol=1e-4)


def test_training_crops_differ_and_are_seeded() -> None:
    frontend, sound = FrontEnd(EXACT), wave("long", 900000)
    one, two = (frontend([sound], rng=np.random.default_rng(seed)).mel_BVTF for seed in (1, 2))
    again = frontend([sound], rng=np.random.default_rng(1)).mel_BVTF
    assert torch.equal(one, again)
    assert torch.equal(one[:, 0], two[:, 0])
    assert not torch.equal(one[:, 1:], two[:, 1:])


def test_gradients_reach_the_waveforms() -> None:
    sounds = [torch.rand(n).requires_grad_() for n in (4000, 500000)]
    FrontEnd(LAION_FUSION)(sounds).mel_BVTF.mean().backward()
    assert all(sound.grad is not None and sound.grad.abs().sum() > 0 for sound in sounds)
