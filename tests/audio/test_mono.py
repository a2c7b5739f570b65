"""Channels to one, and silent ends."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pytest

from openclap.audio.mono import SILENCE, MonoBlocks, MonoConfig
from openclap.errors import AudioWarning, ConfigError

RATE = 8000
TONE = (0.4 * np.sin(np.arange(RATE) * 0.3)).astype(np.float32)
QUIET = (0.1 * np.cos(np.arange(RATE) * 0.7)).astype(np.float32)


def mono(wave: np.ndarray, *, rate: int = RATE, pieces: int = 7, **choices: object) -> tuple[np.ndarray, int]:
    """The mono waveform, and how many samples were cut from its front."""

    def opened() -> Iterator[tuple[np.ndarray, int]]:
        return ((piece, RATE) for piece in np.array_split(wave, pieces))

    blocks = MonoBlocks(opened, rate, MonoConfig(**choices), "a.wav")  # type: ignore[arg-type]
    return np.concatenate(list(blocks)), blocks.start


@pytest.mark.parametrize(
    ("channels", "expected"),
    [("mean", (TONE + QUIET) / 2), ("left", QUIET), ("right", TONE), ("loudest", TONE)],
)
def test_channel_option_selects_its_channel(channels: str, expected: np.ndarray) -> None:
    found, start = mono(np.stack([QUIET, TONE], axis=1), channels=channels)
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert start == 0
    np.testing.assert_array_equal(mono(TONE, channels=channels)[0], TONE)  # mono recordings are left as they are


@pytest.mark.parametrize("choices", [{}, {"channels": "loudest"}, {"trim_silence": True}])
def test_facts_of_the_recording_are_known_at_its_end(choices: dict[str, object]) -> None:
    """Also where the recording is decoded twice, for its levels first."""
    wave = np.stack([0 * TONE, TONE, QUIET], axis=1)
    blocks = MonoBlocks(lambda: ((part, RATE) for part in np.array_split(wave, 7)), 16000, MonoConfig(**choices))  # type: ignore[arg-type]
    assert sum(len(block) for block in blocks) > 0
    assert (blocks.duration_s, blocks.source_rate, blocks.source_channels) == (1.0, RATE, 3)


def test_the_loudest_is_that_of_the_whole_recording() -> None:
    early, late = TONE.copy(), 2 * TONE
    early[RATE // 2 :] = 0
    late[: RATE // 2] = 0
    np.testing.assert_array_equal(mono(np.stack([early, late], axis=1), channels="loudest")[0], late)
    np.testing.assert_array_equal(mono(np.stack([late, early, QUIET], axis=1), channels="loudest")[0], late)


@pytest.mark.parametrize("right", [-TONE, -0.9 * TONE, np.roll(-TONE, 0) + 0.02 * QUIET])
def test_inverted_polarity_warns(right: np.ndarray) -> None:
    with pytest.warns(AudioWarning) as caught:
        mono(np.stack([TONE, right], axis=1).astype(np.float32))
    assert len(caught) == 1 and str(caught[0].message).startswith("a.wav: ")


@pytest.mark.parametrize(
    "wave",
    [
        np.stack([TONE, TONE], axis=1),
        np.stack([TONE, QUIET], axis=1),
        np.stack([TONE, 0 * TONE], axis=1),
        np.stack([TONE, *[0 * TONE] * 63], axis=1),
        np.stack([TONE, -0.5 * TONE], axis=1),
        np.zeros((RATE, 2), np.float32),
        TONE,
    ],
)
def test_other_recordings_pass_without_a_word(wave: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mono(wave)


@pytest.mark.parametrize("channels", ["left", "right", "loudest"])
def test_one_channel_of_an_inverted_pair_is_sound(channels: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, _ = mono(np.stack([TONE, -TONE], axis=1), channels=channels)
    assert np.abs(found).max() > 0.39


@pytest.mark.parametrize(("rate", "factor"), [(RATE, 1), (2 * RATE, 2)])
def test_silent_ends_are_cut_and_the_middle_stays(rate: int, factor: int) -> None:
    hum = np.full(RATE, 0.9 * SILENCE, np.float32)
    inner = np.concatenate([TONE, hum, QUIET])
    inner[0] = inner[-1] = 0.2
    found, start = mono(np.concatenate([hum, hum, inner, hum]), rate=rate, trim_silence=True)
    assert start == 2 * RATE * factor and len(found) == len(inner) * factor
    if factor == 1:
        np.testing.assert_array_equal(found, inner)


def test_silence_alone_is_left_whole() -> None:
    hum = np.full((RATE, 2), 0.5 * SILENCE, np.float32)
    found, start = mono(hum, trim_silence=True)
    assert (len(found), start) == (RATE, 0)


def test_silence_is_that_of_the_channel_that_is_read() -> None:
    left, right = np.zeros((2, 3 * RATE), np.float32)
    left[:RATE], right[RATE : 2 * RATE] = 0.1, 0.5
    both = np.stack([left, right], axis=1)
    for channels, wanted in {
        "left": (RATE, 0),
        "right": (RATE, RATE),
        "loudest": (RATE, RATE),
        "mean": (2 * RATE, 0),
    }.items():
        found, start = mono(both, channels=channels, trim_silence=True)
        assert (len(found), start) == wanted, channels


def test_mistyped_choices_are_refused() -> None:
    for wrong in ({"channels": "centre"}, {"trim_silence": "yes"}):
        with pytest.raises(ConfigError):
            MonoConfig(**wrong)  # type: ignore[arg-type]
