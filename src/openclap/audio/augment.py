"""Augmentation of waveforms and log-mels in training.

N samples, M samples of another sound, B clips, V views, T frames, F mel bins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from openclap.arrays import Wave
from openclap.errors import ConfigError
from openclap.limits import check_count
from openclap.types import AudioBatch

if TYPE_CHECKING:
    from torch import Tensor

MOST_DB = 120.0
"""Upper bound of `gain_db`: the dynamic range of 20 bits."""


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """Augmentations of training, all off by default. They are applied in this order:

    Attributes:
        gain_db: amplify or attenuate each sound by up to this many decibels, drawn uniformly. Front ends that round to
            16 bits clip samples beyond ±1.
        shift: rotate each sound by up to this share of its length, at most 0.5. The shift is circular, so that every
            event of the caption remains in the sound.
        mixup: the probability with which a sound is mixed with another of its shard (`mix`) and their captions are
            joined.
        time_stripes, mel_stripes: the number of stripes of frames and of mel bins to mask (`hide_stripes`), as in
            SpecAugment (Park et al. 2019, arXiv:1904.08779); LAION-CLAP masks two of each.
        time_width, mel_width: the largest width of a stripe, in frames and in bins; each width is drawn from 0 up.
        patch_dropout: the share of time that the audio tower drops (`openclap.models.patch_dropout`). The trainer
            passes it to the tower; it does not change batches.

    Raises ConfigError for a value out of range.
    """

    gain_db: float = 0.0
    shift: float = 0.0
    mixup: float = 0.0
    time_stripes: int = 0
    time_width: int = 64
    mel_stripes: int = 0
    mel_width: int = 8
    patch_dropout: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.gain_db <= MOST_DB:
            raise ConfigError(f"augment.gain_db is {self.gain_db}, expected decibels from 0 to {MOST_DB:g}.")
        for name, most in (("shift", 0.5), ("mixup", 1.0)):
            if not 0 <= getattr(self, name) <= most:
                raise ConfigError(f"augment.{name} is {getattr(self, name)}, expected 0 to {most:g}.")
        if not 0 <= self.patch_dropout < 1:
            raise ConfigError(f"augment.patch_dropout is {self.patch_dropout}, expected 0 to below 1.")
        for name in ("time_stripes", "time_width", "mel_stripes", "mel_width"):
            check_count(f"augment.{name}", getattr(self, name), least=0)


UNCHANGED = AugmentConfig()
"""No augmentation."""
LAION_STRIPES = AugmentConfig(time_stripes=2, mel_stripes=2)
"""The augmentation of LAION-CLAP."""

LEAST_SHARE = 0.25
"""Smallest share of either sound in a mix: both must be audible, because the caption names both."""


def vary(wave_N: Wave, config: AugmentConfig, rng: np.random.Generator) -> Wave:
    """Change the gain of a waveform (N,), then shift it, as configured."""
    # An augmentation that is off draws no random number, so it does not change the draws of the others.
    if config.gain_db:
        wave_N = amplify(wave_N, rng.uniform(-config.gain_db, config.gain_db))
    if config.shift:
        wave_N = np.roll(wave_N, round(rng.uniform(-config.shift, config.shift) * len(wave_N)))
    return wave_N


def amplify(wave_N: Wave, gain_db: float) -> Wave:
    """Amplify by `gain_db` decibels."""
    return wave_N * np.float32(10 ** (gain_db / 20))


def draw_mix(wave_N: Wave, other_M: Wave, rng: np.random.Generator) -> Wave | None:
    """Mix a random stretch of the other sound (M,) into (N,), at a random share. A shorter other sound is repeated, so
    that every stretch of the result has both.

    Returns None when either is silent, because its caption would then describe nothing.
    """
    if len(other_M) > len(wave_N):
        start = int(rng.integers(len(other_M) - len(wave_N) + 1))
        other_N = other_M[start : start + len(wave_N)]
    else:
        # numpy's function repeats the array; the method of the same name would fill it with zeros.
        other_N = np.resize(other_M, len(wave_N))
    share = rng.uniform(LEAST_SHARE, 1 - LEAST_SHARE)
    return mix(wave_N, other_N, share) if wave_N.any() and other_N.any() else None


def mix(wave_N: Wave, other_N: Wave, share: float) -> Wave:
    """Mix two sounds (N,), neither silent, with weights that make their RMS levels relate as `share` to 1 − `share`.

    Between-class learning (Tokozume et al. 2018, arXiv:1711.10282, section 3.2): (p·x + (1 − p)·y) / √(p² + (1 − p)²).
    The denominator keeps the loudness of two equally loud, uncorrelated sounds.
    """
    level, other_level = _rms(wave_N), _rms(other_N)
    # The paper's p, with levels in place of its decibels.
    weight = share * other_level / (share * other_level + (1 - share) * level)
    total = math.hypot(weight, 1 - weight)
    mixed: Wave = np.float32(weight / total) * wave_N + np.float32((1 - weight) / total) * other_N
    return mixed


def join_captions(caption: str, other: str) -> str:
    """Join the captions of two mixed sounds: "A dog barks and Rain falls."."""
    return f"{caption.rstrip('. ')} and {other}"


def hide_stripes(audio: AudioBatch, config: AugmentConfig, rng: np.random.Generator) -> AudioBatch:
    """Mask stripes of frames and of mel bins, the same ones in all views of all clips.

    Masked values become the mean of their view. SpecAugment and LAION-CLAP set them to zero after a normalisation
    (LAION-CLAP after its first batch norm), where zero is the mean; in an unnormalised log-mel zero would be 0 dB,
    louder than its surroundings.
    """
    import torch  # here, because recipes and the search half read this module's configuration without torch

    if not (config.time_stripes or config.mel_stripes):
        return audio
    mel_BVTF = audio.mel_BVTF
    frames, bins = mel_BVTF.shape[-2:]
    hidden_T = _stripes(frames, config.time_stripes, config.time_width, rng)
    hidden_F = _stripes(bins, config.mel_stripes, config.mel_width, rng)
    hidden_TF = hidden_T[:, None] | hidden_F[None, :]
    mean = mel_BVTF.mean(dim=(-2, -1), keepdim=True)
    return replace(audio, mel_BVTF=torch.where(hidden_TF, mean, mel_BVTF))


def _stripes(length: int, count: int, widest: int, rng: np.random.Generator) -> Tensor:
    """(length,) boolean mask, true within `count` stripes of widths from 0 to `widest` that lie within the length."""
    import torch

    hidden = torch.zeros(length, dtype=torch.bool)
    for _ in range(count):
        width = int(rng.integers(min(widest, length) + 1))
        start = int(rng.integers(length - width + 1))
        hidden[start : start + width] = True
    return hidden


def _rms(wave_N: Wave) -> float:
    return math.sqrt(float(np.mean(np.square(wave_N, dtype=np.float64))))
