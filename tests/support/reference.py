"""The waveforms of the reference's golden files, made again (tests/golden/README.md)."""

from __future__ import annotations

import functools
import json
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

GOLDEN = Path(__file__).parents[1] / "golden"


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


@functools.cache
def _keys() -> dict[str, list[tuple[str, list[int], str]]]:
    keys: dict[str, list[tuple[str, list[int], str]]] = json.loads((GOLDEN / "keys.json").read_text(encoding="utf-8"))
    return keys


def all_names(model: str) -> set[str]:
    """Every name of the reference's state dict, buffers that it computes included."""
    return set(all_shapes(model))


def all_shapes(model: str) -> dict[str, tuple[int, ...]]:
    """The shape of each."""
    return {name: tuple(shape) for name, shape, _ in _keys()[model]}


def state(model: str, *prefixes: str) -> dict[str, torch.Tensor]:
    """The made-up weights of a model of keys.json, in the reference's names; those that begin so, if any is given."""
    return {
        name: torch.from_numpy(np.asarray(_weight(name, shape, kind), np.float32))
        for name, shape, kind in _keys()[model]
        if kind != "keep" and (not prefixes or name.startswith(prefixes))
    }


def _weight(name: str, shape: list[int], kind: str) -> NDArray[np.float64]:
    g = rng(name)
    if kind == "var":
        return g.uniform(0.5, 1.5, shape)
    if kind == "scale":
        return np.full(shape, np.log(1 / 0.07))
    noise = g.standard_normal(shape)
    scales = {"mean": 0.1, "gain": 0.1, "bias": 0.02, "matrix": 1 / np.sqrt(max(1, np.prod(shape[1:])))}
    return noise * scales[kind] + (1 if kind == "gain" else 0)
