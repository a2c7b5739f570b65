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
        n_fft, hop: window and hop length in samples.
        f_min, f_max: lowest and highest edge of the bands in Hz.
        norm: normalisation of the triangular filters: "none"; "area" (each has area 1 in Hz, as in Slaney's toolbox);
            or "sum" (the weights of each add up to 1, as Essentia's unit_sum).
        compression: "db" = 10·log10(max(power, 1e-10)) / `ceiling`; "log10" = log10(1 + 10⁴·power) / `ceiling`.
        ceiling: divisor of the result; for aiSFX the largest value in its pre-training data.
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
        """Number of (centred) frames of a waveform with `samples` samples."""
        # Centred on 0, hop, 2 · hop …: 480,000 samples at a hop of 480 have 1001 frames.
        return samples // self.hop + 1


@dataclass(frozen=True, slots=True)
class FrontEndConfig:
    """Conversion of a waveform to the input of an audio tower.

    Attributes:
        samples: length of the tower's input in samples.
        fill: how a shorter clip is filled (see `openclap.audio.clips`).
        int16: round samples to 16 bits first, as LAION-CLAP does.
        long: the views of a longer clip: "windows", one view, a stretch of it; "fusion", four views, the whole clip
            resized and a stretch of each third (Wu et al. 2023, arXiv:2211.06687, section 3.2).
        antialias: filter the whole view before it is resized. Checkpoints do not state whether their training did
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
        """Number of frames T of one view."""
        return self.mel.frames(self.samples)
