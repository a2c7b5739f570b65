from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openclap.audio.clips import FILLS, crop
from openclap.audio.frontend import FrontEnd
from openclap.audio.windows import window_starts
from openclap.presets import MINI
from support.reference import GOLDEN, wave


@pytest.mark.parametrize("fill", ["pad", "repeat", "repeatpad"])
@pytest.mark.parametrize("n", [14400, 100001, 336000])
def test_fills_are_the_references(fill: str, n: int) -> None:
    golden = np.load(GOLDEN / f"clip_{fill}.npz")
    filled = FILLS[fill](torch.from_numpy(wave(f"len{n}", n)), 480000).numpy()
    assert len(filled) == 480000
    np.testing.assert_array_equal(filled[::997], golden[f"n{n}"])
    assert np.count_nonzero(filled) == golden[f"n{n}_nonzero"]


def test_crops_are_the_middle_or_drawn() -> None:
    wave_N = torch.arange(10)
    assert crop(wave_N, 4).tolist() == [3, 4, 5, 6]
    starts = {int(crop(wave_N, 4, np.random.default_rng(seed))[0]) for seed in range(60)}
    assert starts == set(range(7))


@given(st.integers(1, 5000), st.integers(1, 700), st.integers(1, 700))
def test_windows_cover_everything(length: int, window: int, hop: int) -> None:
    starts = window_starts(length, window, min(hop, window))
    covered = np.zeros(length, bool)
    for start in starts:
        covered[start : start + window] = True
    assert covered.all() and starts[0] == 0 and starts == sorted(set(starts))
    assert length <= window or starts[-1] + window == length


def test_the_front_end_fills_and_crops_to_one_shape() -> None:
    frontend = FrontEnd(MINI.frontend)
    short, long = np.ones(10, np.float32), np.ones(300_000, np.float32)
    batch = frontend([short, long])
    assert batch.mel_BVTF.shape == (2, 1, 100, 96)
    assert batch.is_long_B.tolist() == [False, True]
    again = frontend([short, long])
    assert torch.equal(batch.mel_BVTF, again.mel_BVTF)


def test_random_crops_follow_the_generator() -> None:
    frontend = FrontEnd(MINI.frontend)
    noise = np.random.default_rng(0).standard_normal(400_000).astype(np.float32)
    one, same, other = (frontend([noise], rng=np.random.default_rng(seed)).mel_BVTF for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
