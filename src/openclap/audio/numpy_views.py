"""Fill clips and make the views of long clips in numpy; `clips` and `frontend` do the same with tensors.

N samples of a clip, M of the model's input, L frames of a long clip, T of the model's input, F mel bins.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from openclap.arrays import Wave
from openclap.audio.windows import third_starts

Mel = NDArray[np.float32]
"""Log-mels: (L, F) or (T, F) of a clip, (4, T, F) of its views."""


def fill(wave_N: Wave, samples: int, how: str) -> Wave:
    """(M,): a clip with 1 ≤ N ≤ M, and then zeros ("pad"), copies, the last one cut ("repeat"), or whole copies and
    then zeros ("repeatpad"); (N,): the clip as it is ("none")."""
    if how == "none":
        return wave_N
    filled_M = np.zeros(samples, np.float32)
    if how == "repeat":
        filled_M[:] = np.resize(wave_N, samples)
        return filled_M
    copies = samples // len(wave_N) if how == "repeatpad" else 1
    filled_M[: copies * len(wave_N)] = np.tile(wave_N, copies)
    return filled_M


def four_views(mel_LF: Mel, frames: int, *, antialias: bool) -> Mel:
    """(4, T, F): the whole log-mel resized to T frames, and T frames from the middle start of each third.

    A log-mel with no more than T frames gives four equal views.
    """
    if len(mel_LF) <= frames:
        return np.broadcast_to(mel_LF, (4, *mel_LF.shape))
    whole_TF = (resize_antialiased if antialias else resize)(mel_LF, frames)
    stretches = [mel_LF[start : start + frames] for start in third_starts(len(mel_LF), frames)]
    return np.stack([whole_TF, *stretches])


def resize(mel_LF: Mel, frames: int) -> Mel:
    """(T, F): interpolate linearly between the centres of frames, as torch's `interpolate` (bilinear, no aligned
    corners).

    Positions are computed in float32, because torch does: in a recording of an hour that shifts them by up to 0.03
    frames.
    """
    scale = np.float32(len(mel_LF)) / np.float32(frames)
    place_T = np.maximum(scale * (np.arange(frames, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5), 0)
    before_T = place_T.astype(np.int64)
    after_T = np.minimum(before_T + 1, len(mel_LF) - 1)
    weight_T1 = (place_T - before_T.astype(np.float32))[:, None]
    resized_TF: Mel = (1 - weight_T1) * mel_LF[before_T] + weight_T1 * mel_LF[after_T]
    return resized_TF


def resize_antialiased(mel_LF: Mel, frames: int) -> Mel:
    """(T, F): the same with a triangular filter as wide as the reduction, as torch's `interpolate` with `antialias`."""
    scale = len(mel_LF) / frames
    reach = max(scale, 1.0)
    rows = []
    for frame in range(frames):
        centre = scale * (frame + 0.5)
        first, last = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), len(mel_LF))
        weight = np.maximum(1 - np.abs((np.arange(first, last) - centre + 0.5) / reach), 0)
        rows.append((weight / weight.sum()).astype(np.float32) @ mel_LF[first:last])
    return np.stack(rows)
