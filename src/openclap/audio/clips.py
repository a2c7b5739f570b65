"""Any length to one length: fill what is short, crop what is long, cut recordings into windows.

N samples of the clip, M samples the model reads. Tensors, so that gradients reach the waveform.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
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


def window_starts(length: int, window: int, hop: int) -> list[int]:
    """Where windows start so that they cover a recording of `length` samples: every `hop`, the last one
    anchored at the end. A recording no longer than one window gives [0].

    Raises ValueError when `window` or `hop` is not positive.
    """
    if window < 1 or hop < 1:
        raise ValueError(f"window and hop must be positive numbers of samples, got {window} and {hop}")
    if length <= window:
        return [0]
    starts = list(range(0, length - window + 1, hop))
    return starts if starts[-1] + window >= length else [*starts, length - window]


Cut = tuple[int, int, NDArray[np.float32]]
"""A window of a recording: where it starts and ends, in samples, and its waveform."""


def cut(blocks: Iterable[NDArray[np.float32]], length: int, hop: int) -> Iterator[Cut]:
    """The windows of `window_starts`, from a recording that comes in blocks; no more of it is held than a window and
    a block. An empty recording gives one sample of silence."""
    held, first, start, end = deque[NDArray[np.float32]](), 0, 0, 0  # what is held begins at sample `first`
    for block in blocks:
        held.append(block)
        end += len(block)
        if start + length <= end:
            whole = np.concatenate(held)
            while start + length <= end:
                yield start, start + length, whole[start - first : start - first + length].copy()
                start += hop
            keep = max(min(start, end - length), first)  # the last window is anchored at the end
            held, first = deque([whole[keep - first :].copy()]), keep
        while held and first + len(held[0]) <= min(start, end - length):
            first += len(held.popleft())
    rest = np.concatenate([*held, np.zeros(0, np.float32)])
    if end <= length and start == 0:
        yield 0, max(end, 1), rest if end else np.zeros(1, np.float32)
    elif start - hop + length < end:
        yield end - length, end, rest[end - length - first :].copy()


def quantise(wave_N: Tensor) -> Tensor:
    """LAION-CLAP's round trip through 16 bits: clipped to ±1, times 32767, cut towards zero. Gradients pass."""
    clipped_N = wave_N.clamp(-1.0, 1.0)
    rounded_N = (clipped_N * 32767.0).trunc() / 32767.0
    return clipped_N + (rounded_N - clipped_N).detach() if wave_N.requires_grad else rounded_N
