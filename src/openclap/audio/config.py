"""Configuration of the audio front end, without torch: `mel` and `frontend` compute by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from openclap.formatting import describe_fields


@dataclass(frozen=True, slots=True, repr=False)
class MelConfig:
    """Parameters of a log-mel spectrogram.

    Attributes:
        rate: Hz of the waveform.
        scale: "htk" or "slaney" (mel scale of the band edges); "htk64", the first computed in float64.
        n_fft, hop: window and hop length in samples.
        f_min, f_max: lowest and highest edge of the bands in Hz.
        norm: normalisation of the triangular filters: "none"; "area" (each has area 1 in Hz, as in Slaney's toolbox);
            or "sum" (the weights of each add up to 1, as Essentia's unit_sum).
        compression: "db" = 10·log10(max(power, 1e-10)) / `ceiling`; "log10" = log10(1 + 10⁴·power) / `ceiling`;
            "whisper", Whisper's own (see `openclap.audio.mel`), without the last frame.
        ceiling: divisor of the result; for aiSFX the largest value in its pre-training data.
        filterbank_rate: Hz for which the filterbank is computed; 0 for `rate`. Microsoft's CLAP of 2023 reads waveforms
            at 44.1 kHz by the filterbank of 32 kHz.
    """

    rate: int
    n_fft: int
    hop: int
    n_mels: int
    f_min: float
    f_max: float
    scale: Literal["htk", "htk64", "slaney"]
    norm: Literal["none", "area", "sum"]
    compression: Literal["db", "log10", "whisper"]
    ceiling: float = 1.0
    filterbank_rate: int = 0

    def __repr__(self) -> str:
        # See `FrontEndConfig.__repr__`.
        return describe_fields(self, added=("filterbank_rate",))

    def frames(self, samples: int) -> int:
        """Number of (centred) frames of a waveform with `samples` samples."""
        # Centred on 0, hop, 2 · hop …: 480,000 samples at a hop of 480 have 1001 frames.
        return samples // self.hop + (0 if self.compression == "whisper" else 1)


@dataclass(frozen=True, slots=True, repr=False)
class FrontEndConfig:
    """Conversion of a waveform to the input of an audio tower.

    Attributes:
        samples: length of the tower's input in samples; of a tower that reads any length, the length of its training
            clips, which is also that of the windows of long recordings.
        fill: how a shorter clip is filled (see `openclap.audio.clips`); "none" for towers that read any length.
        int16: round samples to 16 bits first, as LAION-CLAP does.
        long: the views of a longer clip: "windows", one view, a stretch of it; "fusion", four views, the whole clip
            resized and a stretch of each third (Wu et al. 2023, arXiv:2211.06687, section 3.2).
        antialias: filter the whole view before it is resized. Checkpoints do not state whether their training did
            (docs/decisions/0008).
        longest: the longest clip in samples that is read as a whole; 0 for `samples`. Only towers that read any length
            have more.
    """

    mel: MelConfig
    samples: int
    fill: Literal["pad", "repeat", "repeatpad", "none"]
    int16: bool = False
    long: Literal["windows", "fusion"] = "windows"
    antialias: bool = False
    longest: int = 0

    def __repr__(self) -> str:
        # The identity of embeddings is a digest of this text, so a later field must not change that of older models.
        return describe_fields(self, added=("longest",))

    @property
    def whole_samples(self) -> int:
        """The longest clip that is read as a whole, in samples."""
        return self.longest or self.samples

    @property
    def is_any_length(self) -> bool:
        """Whether clips keep their own length."""
        return self.fill == "none"

    @property
    def frames(self) -> int:
        """Number of frames T of one view."""
        return self.mel.frames(self.samples)
