"""The waveforms of the reference's golden files, made again (tests/golden/README.md)."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

GOLDEN = Path(__file__).parent / "golden"


def rng(name: str) -> np.random.Generator:
    """One generator per name."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))


def wave(name: str, n: int) -> NDArray[np.float32]:
    """n samples at 48 kHz: a rising chirp, a tone and noise."""
    g, t = rng("wave/" + name), np.arange(n) / 48000
    low, high, length_s = g.uniform(80, 400), g.uniform(3000, 12000), max(n / 48000, 1e-3)
    chirp = 0.4 * np.sin(2 * np.pi * (low * t + (high - low) * t**2 / (2 * length_s)))
    tone = 0.2 * np.sin(2 * np.pi * g.uniform(200, 2000) * t)
    return (chirp + tone + 0.05 * g.standard_normal(n)).astype(np.float32)
