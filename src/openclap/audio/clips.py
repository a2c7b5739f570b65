"""Clips of any length to the model's length: fill short ones, crop long ones. `windows` cuts recordings.

N samples of the clip, M samples of the model's input. Tensors, so that gradients reach the waveform.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch.nn.functional as F
from torch import Tensor


def pad(wave_N: Tensor, samples: int) -> Tensor:
    """Zeros after the sound."""
    return F.pad(wave_N, (0, samples - len(wave_N)))


def repeat(wave_N: Tensor, samples: int) -> Tensor:
    """Copies end to end, the last one cut."""
    return wave_N.repeat(-(-samples // len(wave_N)))[:samples]


def repeatpad(wave_N: Tensor, samples: int) -> Tensor:
    """As many whole copies as fit, then zeros (LAION-CLAP's `data_filling="repeatpad"`)."""
    return pad(wave_N.repeat(samples // len(wave_N)), samples)


FILLS: dict[str, Callable[[Tensor, int], Tensor]] = {"pad": pad, "repeat": repeat, "repeatpad": repeatpad}


def crop(wave_N: Tensor, samples: int, rng: np.random.Generator | None = None) -> Tensor:
    """(M,) out of (N,), N ≥ M: the middle, or a random stretch when `rng` is given."""
    last = len(wave_N) - samples
    start = last // 2 if rng is None else int(rng.integers(0, last + 1))
    return wave_N[start : start + samples]


def quantise(wave_N: Tensor) -> Tensor:
    """LAION-CLAP's round trip through 16 bits: clipped to ±1, times 32767, cut towards zero. Gradients pass."""
    clipped_N = wave_N.clamp(-1.0, 1.0)
    rounded_N = (clipped_N * 32767.0).trunc() / 32767.0
    return clipped_N + (rounded_N - clipped_N).detach() if wave_N.requires_grad else rounded_N
