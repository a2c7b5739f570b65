"""What augmentation does to sounds and log-mels, worked out by hand and by statistics with fixed seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from openclap.audio.augment import (
    LAION_STRIPES,
    LEAST_SHARE,
    UNCHANGED,
    AugmentConfig,
    amplify,
    draw_mix,
    hide_stripes,
    join_captions,
    mix,
    vary,
)
from openclap.errors import ConfigError
from openclap.types import AudioBatch
from support.errors import raises_naming


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def level(wave_N: np.ndarray) -> float:
    return float(np.sqrt(np.mean(wave_N.astype(np.float64) ** 2)))


def mels(frames: int = 200, bins: int = 64, views: int = 1) -> AudioBatch:
    mel = torch.randn(1, views, frames, bins, generator=torch.Generator().manual_seed(3)) * 10 - 40
    return AudioBatch(mel, torch.zeros(1, dtype=torch.bool))


def test_no_random_number_is_drawn_by_default() -> None:
    draw, wave_N, audio = rng(), np.arange(5, dtype=np.float32), mels()
    assert vary(wave_N, UNCHANGED, draw) is wave_N
    assert hide_stripes(audio, UNCHANGED, draw) is audio
    assert draw.bit_generator.state == rng().bit_generator.state


def test_gain_by_hand() -> None:
    louder = amplify(np.array([0.1, -0.2], np.float32), 20.0)
    np.testing.assert_allclose(louder, [1.0, -2.0], rtol=1e-6)
    assert louder.dtype == np.float32


def test_gains_are_even_between_the_bounds() -> None:
    config, draw, one = AugmentConfig(gain_db=6.0), rng(1), np.ones(1, np.float32)
    gains_db = np.array([20 * np.log10(vary(one, config, draw)[0]) for _ in range(4000)])
    assert -6 <= gains_db.min() < -5.9 and 5.9 < gains_db.max() <= 6
    assert abs(gains_db.mean()) < 4 * 12 / np.sqrt(12 * 4000)  # four standard errors of an even draw
    assert abs(gains_db.std() - 12 / np.sqrt(12)) < 0.1


def test_shift_is_circular() -> None:
    wave_N, draw = np.arange(100, dtype=np.float32), rng(2)
    firsts = []
    for _ in range(3000):
        shifted_N = vary(wave_N, AugmentConfig(shift=0.1), draw)
        np.testing.assert_array_equal(np.diff(shifted_N) % 100, np.ones(99))
        firsts.append(int(shifted_N[0]))
    assert set(firsts) == {*range(90, 100), *range(11)}


def test_a_mix_by_hand() -> None:
    loud, soft = np.array([0.8, -0.8], np.float32), np.array([0.2, 0.2], np.float32)
    # shares of a half make the levels equal: p = 0.2 / (0.2 + 0.8), 0.2 · 0.8 = 0.8 · 0.2 = 0.16
    scale = 0.16 / np.hypot(0.2, 0.8)
    np.testing.assert_allclose(mix(loud, soft, 0.5), [2 * scale, 0], atol=1e-7)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.7])
def test_mix_has_the_requested_levels(share: float) -> None:
    """Two tones of whole periods are orthogonal, so what is left of each can be measured."""
    seconds = np.arange(4800) / 4800
    one, other = np.sin(2 * np.pi * 50 * seconds), 0.03 * np.sin(2 * np.pi * 120 * seconds)
    mixed = mix(one.astype(np.float32), other.astype(np.float32), share).astype(np.float64)
    left = [abs(mixed @ tone) / np.sqrt(tone @ tone) for tone in (one, other)]
    np.testing.assert_allclose(left[0] / left[1], share / (1 - share), rtol=1e-4)


def test_a_mix_of_two_equally_loud_sounds_is_as_loud() -> None:
    one, other = rng(1).standard_normal((2, 50_000)).astype(np.float32)
    assert abs(level(mix(one, other, 0.4)) - 1) < 0.02


def test_every_stretch_of_a_mix_holds_both_sounds() -> None:
    wave_N, short, long = np.ones(12, np.float32), np.float32([0, 1, 0]), np.arange(1, 101, dtype=np.float32)
    mixed = draw_mix(wave_N, short, rng())
    assert mixed is not None and len(mixed) == 12
    np.testing.assert_allclose(mixed[:9], mixed[3:], rtol=1e-6)  # the short one comes again and again
    places = set()
    for seed in range(300):
        mixed = draw_mix(wave_N, long, rng(seed))
        assert mixed is not None and len(mixed) == 12
        steps = np.diff(mixed)
        np.testing.assert_allclose(steps, steps[0], rtol=1e-2)  # twelve neighbours of the ramp
        places.add(round(float(mixed[0]), 4))
    assert len(places) > 80


def test_the_shares_of_a_mix_are_even_between_the_bounds() -> None:
    one, other = np.float32([1, 1]), np.float32([1, -1])
    shares = []
    for seed in range(2000):
        mixed = draw_mix(one, other, rng(seed))
        assert mixed is not None
        left = (mixed[0] + mixed[1]) / 2, (mixed[0] - mixed[1]) / 2
        shares.append(left[0] / (left[0] + left[1]))
    assert LEAST_SHARE <= min(shares) < 0.26 and 0.74 < max(shares) <= 1 - LEAST_SHARE + 1e-6
    assert abs(np.mean(shares) - 0.5) < 4 * 0.5 / np.sqrt(12 * 2000)


def test_silence_is_not_mixed() -> None:
    silent, sound = np.zeros(4, np.float32), np.ones(4, np.float32)
    assert draw_mix(silent, sound, rng()) is draw_mix(sound, silent, rng()) is None


def test_captions_are_joined() -> None:
    assert join_captions("A dog barks.", "Rain falls.") == "A dog barks and Rain falls."
    assert join_captions("dog", "rain") == "dog and rain"


def test_stripe_is_filled_with_the_mean_of_its_view() -> None:
    audio = mels(views=2)
    hidden = hide_stripes(audio, LAION_STRIPES, rng(5)).mel_BVTF
    changed = hidden != audio.mel_BVTF
    assert changed.any() and torch.equal(changed[:, 0], changed[:, 1])
    for view in range(2):
        values = hidden[0, view][changed[0, view]]
        assert torch.all(values == values[0])
        torch.testing.assert_close(values[0], audio.mel_BVTF[0, view].mean())
    rows, columns = changed[0, 0].all(dim=1), changed[0, 0].all(dim=0)
    assert torch.equal(changed[0, 0], rows[:, None] | columns[None, :])
    assert torch.equal(audio.mel_BVTF, mels(views=2).mel_BVTF)


@pytest.mark.parametrize(("name", "axis", "length"), [("time", 0, 200), ("mel", 1, 64)])
def test_widths_and_places_of_stripes(name: str, axis: int, length: int) -> None:
    config, audio = AugmentConfig(**{f"{name}_stripes": 1, f"{name}_width": 8}), mels()  # type: ignore[arg-type]
    widths, covered = np.zeros(9, int), np.zeros(length, int)
    for seed in range(2000):
        changed = (hide_stripes(audio, config, rng(seed)).mel_BVTF != audio.mel_BVTF)[0, 0].any(dim=1 - axis).numpy()
        places = np.flatnonzero(changed)
        assert len(places) == 0 or places[-1] - places[0] + 1 == len(places)
        widths[len(places)] += 1
        covered += changed
    assert np.all(np.abs(widths - 2000 / 9) < 4 * np.sqrt(2000 / 9))
    middle = covered[8:-8]
    assert np.all(np.abs(middle - middle.mean()) < 6 * np.sqrt(middle.mean()))


def test_stripes_wider_than_the_mel_hide_no_more_than_there_is() -> None:
    config = AugmentConfig(time_stripes=3, time_width=500, mel_stripes=3, mel_width=500)
    for seed in range(50):
        assert hide_stripes(mels(9, 4), config, rng(seed)).mel_BVTF.shape == (1, 1, 9, 4)


@pytest.mark.parametrize(
    "choice",
    [
        {"gain_db": -1.0},
        {"gain_db": float("nan")},
        {"shift": 0.6},
        {"mixup": 1.1},
        {"mixup": float("nan")},
        {"time_stripes": -1},
        {"mel_width": -8},
        {"patch_dropout": 1.0},
    ],
)
def test_impossible_choices(choice: dict[str, Any]) -> None:
    [name] = choice
    with raises_naming(ConfigError, f"augment.{name}"):
        AugmentConfig(**choice)
