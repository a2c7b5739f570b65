"""Waveforms to what an audio tower reads.

B clips, V views, T frames, F mel bins, N samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from openclap.audio.clips import FILLS, crop
from openclap.audio.io import Wave
from openclap.audio.mel import LogMel, MelConfig
from openclap.types import AudioBatch


@dataclass(frozen=True, slots=True)
class FrontEndConfig:
    """How a waveform becomes a log-mel.

    Attributes:
        samples: how many samples the tower reads.
        fill: what happens to a shorter clip (see `openclap.audio.clips`).
    """

    mel: MelConfig
    samples: int
    fill: Literal["pad", "repeat", "repeatpad"]


class FrontEnd:
    """Deterministic without `rng`; with it, clips longer than the input are cropped at random (training)."""

    def __init__(self, config: FrontEndConfig) -> None:
        self.config = config
        self.sample_rate = config.mel.rate
        self.samples = config.samples
        self.logmel = LogMel(config.mel)
        self._fill = FILLS[config.fill]

    def __call__(self, waves: Sequence[Wave | Tensor], *, rng: np.random.Generator | None = None) -> AudioBatch:
        """Mono waveforms at `sample_rate`, each (N,) with N ≥ 1, to an AudioBatch of one view each.

        Longer clips give their middle (a random stretch with `rng`); shorter ones are filled. Where the
        waveforms are tensors, gradients reach them.
        """
        wave_BN = torch.stack([self._fit(torch.as_tensor(wave_N), rng) for wave_N in waves])
        is_long_B = torch.tensor([len(wave_N) > self.samples for wave_N in waves])
        return AudioBatch(self.logmel(wave_BN).unsqueeze(1), is_long_B)

    def to(self, device: torch.device) -> FrontEnd:
        """Move the filterbank and the window to `device`."""
        self.logmel.to(device)
        return self

    def _fit(self, wave_N: Tensor, rng: np.random.Generator | None) -> Tensor:
        if len(wave_N) > self.samples:
            return crop(wave_N, self.samples, rng)
        return self._fill(wave_N, self.samples)
