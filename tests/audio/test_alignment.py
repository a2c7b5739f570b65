"""Alignment of two recordings: compared with sums over all lags and with loops, and on real sounds. S samples."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

import openclap
from openclap.audio.alignment import RATE, agreement, align, excerpt
from openclap.audio.inputs import blocks

SOUNDS = Path(openclap.__file__).parent / "demo" / "sounds"


def lag_by_sums(long_S: np.ndarray, short_S: np.ndarray) -> int:
    """The whole lag of the short signal inside the long one with the best normalised correlation of differences."""
    found = []
    long_S, short_S = np.diff(long_S), np.diff(short_S)
    for lag in range(len(long_S) - len(short_S) + 1):
        part = long_S[lag : lag + len(short_S)]
        found.append((abs(part @ short_S) / np.linalg.norm(part) / np.linalg.norm(short_S), lag))
    return max(found)[1]


def agreement_by_loops(one_S: np.ndarray, other_S: np.ndarray) -> float:
    """The agreement of two signals of one length, written out from its definition."""
    edges = [0, 100, 200, 300, 400, 510, 630, 770, 920, 1080, 1270, 1480, 1720, 2000, 2320, 2700, 3150, 3700]
    window = np.hanning(257)[:256]
    tiles = {}
    for first in range(0, len(one_S) - 128, 128):
        parts = [np.zeros(256), np.zeros(256)]
        for part, wave_S in zip(parts, (one_S, other_S), strict=True):
            piece = wave_S[first : first + 256]
            part[: len(piece)] = piece
        a, b = (np.fft.fft(part * window) for part in parts)
        for low, high in pairwise(edges):
            at = [k for k in range(129) if low <= k * RATE / 256 < high]
            inner = sum((a[k] * b[k].conjugate()).real for k in at)
            tiles[first, low] = sum(abs(a[k]) ** 2 for k in at), sum(abs(b[k]) ** 2 for k in at), inner
    ratio = sum(a for a, _, _ in tiles.values()) / sum(b for _, b, _ in tiles.values())
    gain = np.copysign(np.sqrt(ratio), sum(c for _, _, c in tiles.values()))
    pairs = {key: (2 * gain * c, a + gain**2 * b) for key, (a, b, c) in tiles.items()}
    loudest = max(energy for _, energy in pairs.values())
    bands = [cross / energy for cross, energy in pairs.values() if energy > 1e-6 * loudest]
    frames = [
        [sum(pair[n] for (at, _), pair in pairs.items() if at == first) for n in (0, 1)]
        for first in sorted({first for first, _ in pairs})
    ]
    loudest = max(energy for _, energy in frames)
    loud = [cross / energy for cross, energy in frames if energy > 1e-3 * loudest]
    return float(np.quantile(bands, 0.3) + np.quantile(loud, 0.1)) / 2


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
def test_alignment_equals_sums_over_all_lags(noise: float) -> None:
    rng = np.random.default_rng(0)
    long_S = rng.standard_normal(4000)
    short_S = -0.4 * long_S[130:3131] + noise * 0.4 * rng.standard_normal(3001)
    assert lag_by_sums(long_S, short_S) == 130
    found = align(long_S, short_S)
    assert abs(found.offset_s - 130 / RATE) <= 0.25 / RATE
    similarity = agreement_by_loops(long_S[130:3131], short_S)
    assert agreement(long_S, short_S, 130.0) == pytest.approx(similarity, abs=1e-9)
    assert found.similarity == pytest.approx(similarity, abs=0.02)  # it may lie between two samples
    again = align(short_S, long_S)
    assert (again.similarity, again.offset_s) == (found.similarity, -found.offset_s)


def test_a_cut_between_two_samples_is_found() -> None:
    """Noise at 44.1 kHz, cut where RATE has no sample: its correlation at the nearest samples is negative."""
    noise_N = np.random.default_rng(3).standard_normal(44100)
    first = 8827  # 1601.27 samples at RATE
    one_S, other_S = (soxr.resample(wave_N, 44100, RATE) for wave_N in (noise_N, 0.5 * noise_N[first:]))
    found = align(one_S, other_S)
    assert found.similarity > 0.98 and found.offset_s == pytest.approx(first / 44100, abs=0.1 / RATE)


def test_silence_resembles_nothing() -> None:
    noise_S = np.random.default_rng(0).standard_normal(100)
    for one_S, other_S in [(np.zeros(50), noise_S), (noise_S, np.zeros(0)), (np.zeros(0), np.zeros(0))]:
        assert align(one_S, other_S).similarity == 0


def test_an_excerpt_begins_where_it_is_asked() -> None:
    wave_S = np.random.default_rng(0).standard_normal(70 * RATE).astype(np.float32)
    parts = np.array_split(wave_S, 31)
    np.testing.assert_array_equal(excerpt(parts, 2.5), wave_S[int(2.5 * RATE) : int(62.5 * RATE)])
    assert len(excerpt(parts, 69)) == RATE and len(excerpt(parts, 100)) == 0


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
