"""Alignment of two recordings: compared with sums over all lags, and on real sounds. S samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

import openclap
from openclap.audio.alignment import RATE, align, excerpt
from openclap.audio.inputs import blocks

SOUNDS = Path(openclap.__file__).parent / "demo" / "sounds"


def by_sums(long_S: np.ndarray, short_S: np.ndarray) -> tuple[float, int]:
    """The best normalised correlation over whole lags with the short signal inside the long one, and the lag."""
    found = []
    for lag in range(len(long_S) - len(short_S) + 1):
        part = long_S[lag : lag + len(short_S)].astype(np.float64)
        found.append((abs(part @ short_S) / np.linalg.norm(part) / np.linalg.norm(short_S), lag))
    return max(found)


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
def test_alignment_equals_sums_over_all_lags(noise: float) -> None:
    rng = np.random.default_rng(0)
    long_S = rng.standard_normal(900)
    short_S = -0.4 * long_S[130:700] + noise * 0.4 * rng.standard_normal(570)
    similarity, lag = by_sums(long_S, short_S)
    assert lag == 130
    found = align(long_S, short_S)
    assert similarity - 1e-9 <= found.similarity <= similarity + 0.02  # between two samples it may be a little higher
    assert abs(found.offset_s - 130 / RATE) <= 0.5 / RATE
    assert align(short_S, long_S).offset_s == pytest.approx(-found.offset_s)


def test_silence_resembles_nothing() -> None:
    noise_S = np.random.default_rng(0).standard_normal(100)
    for one_S, other_S in [(np.zeros(50), noise_S), (noise_S, np.zeros(0)), (np.zeros(0), np.zeros(0))]:
        assert align(one_S, other_S).similarity == 0


def test_an_excerpt_begins_where_it_is_asked() -> None:
    wave_S = np.random.default_rng(0).standard_normal(70 * RATE).astype(np.float32)
    parts = np.array_split(wave_S, 31)
    np.testing.assert_array_equal(excerpt(parts, 2.5), np.diff(wave_S[int(2.5 * RATE) : int(62.5 * RATE)]))
    assert len(excerpt(parts, 69)) == RATE - 1 and len(excerpt(parts, 100)) == 0


@pytest.fixture(scope="module")
def dog() -> tuple[np.ndarray, int]:
    return soundfile.read(SOUNDS / "scratch-dog1.ogg", always_2d=True)


def read(path: Path) -> np.ndarray:
    return excerpt(blocks(path, RATE))


@pytest.mark.parametrize("form", ["MP3", "OGG"])
def test_forms_of_a_recording_resemble_it(form: str, dog: tuple[np.ndarray, int], tmp_path: Path) -> None:
    wave_NC, rate = dog
    cut_NC = 0.5 * wave_NC[int(0.1234 * rate) :]
    soundfile.write(tmp_path / "cut", cut_NC, rate, format=form)
    found = align(read(SOUNDS / "scratch-dog1.ogg"), read(tmp_path / "cut"))
    assert found.similarity > 0.9 and found.offset_s == pytest.approx(0.1234, abs=0.03)  # MP3 begins with a delay
    low_NC = soxr.resample(wave_NC, rate, 16000)
    soundfile.write(tmp_path / "low.wav", low_NC, 16000)
    assert align(read(tmp_path / "low.wav"), read(SOUNDS / "scratch-dog1.ogg")).similarity > 0.98


def test_takes_of_one_sound_do_not_resemble_each_other() -> None:
    for name in ("scratch-dog", "scratch-drum-set", "scratch-singer", "scratch-laugh-male"):
        one_S, other_S = (read(SOUNDS / f"{name}{take}.ogg") for take in "12")
        assert align(one_S, other_S).similarity < 0.6, name
