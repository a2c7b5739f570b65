"""Configuration of the audio front end, without torch: `mel` and `frontend` compute by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class MelConfig:
    """Parameters of a log-mel spectrogram.

    Attributes:
        rate: Hz of the waveform.
        scale: "htk" or "slaney" (mel scale of the band edges).
        norm: "none"; "area" (each triangle's area in Hz is 1, as Slaney's toolbox does) or "sum" (each
            band's weights add up to 1, as Essentia's unit_sum does).
        compression: "db" = 10·log10(max(power, 1e-10)); "log10" = log10(1 + 10⁴·power) / `ceiling`.
        ceiling: the largest value in the tower's pre-training data, by which "log10" divides.
    """

    rate: int
    n_fft: int
    hop: int
    n_mels: int
    f_min: float
    f_max: float
    scale: Literal["htk", "slaney"]
    norm: Literal["none", "area", "sum"]
    compression: Literal["db", "log10"]
    ceiling: float = 1.0

    def frames(self, samples: int) -> int:
        """Number of frames of a waveform of `samples` (centred frames)."""
        return samples // self.hop + 1


@dataclass(frozen=True, slots=True)
class FrontEndConfig:
    """Conversion of a waveform to the input of an audio tower.

    Attributes:
        samples: length of the tower's input.
        fill: how a shorter clip is filled up (see `openclap.audio.clips`).
        int16: round samples to 16 bits first, as LAION-CLAP does.
        long: input made of a longer clip: "windows", one view, a stretch of it; "fusion", four views, the whole clip
            resized and a stretch of each third (Wu et al. 2023, arXiv:2211.06687, section 3.2).
        antialias: filter before the whole view is resized. The weights do not show which was used
            (docs/decisions/0008).
    """

    mel: MelConfig
    samples: int
    fill: Literal["pad", "repeat", "repeatpad"]
    int16: bool = False
    long: Literal["windows", "fusion"] = "windows"
    antialias: bool = False

    @property
    def frames(self) -> int:
        """T, of one view."""
        return self.mel.frames(self.samples)
