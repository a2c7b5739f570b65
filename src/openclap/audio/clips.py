"""Fill or crop a clip to the length of the model's input. (`windows` cuts long recordings.)

These functions take tensors, so that gradients reach the waveform. N samples of the clip, M of the model's input.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch.nn.functional as F
from torch import Tensor


def pad(wave_N: Tensor, samples: int) -> Tensor:
    """(M,): the clip, then zeros."""
    return F.pad(wave_N, (0, samples - len(wave_N)))


def repeat(wave_N: Tensor, samples: int) -> Tensor:
    """(M,): copies of the clip end to end, the last one cut."""
    return wave_N.repeat(-(-samples // len(wave_N)))[:samples]  # division rounded up


def repeatpad(wave_N: Tensor, samples: int) -> Tensor:
    """(M,): as many whole copies as fit, then zeros (LAION-CLAP's `data_filling="repeatpad"`)."""
    return pad(wave_N.repeat(samples // len(wave_N)), samples)


def own_length(wave_N: Tensor, samples: int) -> Tensor:
    """(N,): the clip as it is, for towers that read any length."""
    return wave_N


FILLS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "pad": pad,
    "repeat": repeat,
    "repeatpad": repeatpad,
    "none": own_length,
}


def crop(wave_N: Tensor, samples: int, rng: np.random.Generator | None = None) -> Tensor:
    """(M,): the middle of a clip with N ≥ M, or a random stretch if `rng` is given."""
    last = len(wave_N) - samples
    # LAION-CLAP crops at random also when it embeds; here the same clip always gives the same embedding.
    start = last // 2 if rng is None else int(rng.integers(0, last + 1))
    return wave_N[start : start + samples]


def quantise(wave_N: Tensor) -> Tensor:
    """Round to 16 bits as LAION-CLAP does (`int16_to_float32(float32_to_int16(x))`): clip to ±1, multiply by 32767,
    truncate towards zero."""
    clipped_N = wave_N.clamp(-1.0, 1.0)
    # LAION: 32767 both ways, and truncation. Rounding, or 32768, would differ from what its weights were trained on.
    rounded_N = (clipped_N * 32767.0).trunc() / 32767.0
    # Straight-through estimator: truncation has no gradient, so pass the gradient of the clipped waveform.
    return clipped_N + (rounded_N - clipped_N).detach() if wave_N.requires_grad else rounded_N
