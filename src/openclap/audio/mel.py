"""Compute log-mel spectrograms.

B clips, N samples, T frames, F mel bins, K = n_fft // 2 + 1 frequency bins.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openclap.audio.config import MelConfig

FRAMES = 8192
"""Frames of a long waveform that are computed at once: their complex spectrum with 513 bins takes 34 MB."""


class LogMel(nn.Module):
    """(B, N) waveform in -1..1 to (B, T, F) log-mel, T = N // hop + 1.

    Periodic Hann window, centred frames, reflect padding, power spectrum. The window and the filterbank are
    computed, never loaded: they are no part of the state dict.
    """

    window: Tensor
    filterbank_KF: Tensor

    def __init__(self, config: MelConfig) -> None:
        super().__init__()
        self.config = config
        self.compress = COMPRESSIONS[config.compression]
        # Buffers, so that they move with the module to a device.
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)
        self.register_buffer("filterbank_KF", mel_filterbank(config), persistent=False)

    def forward(self, wave_BN: Tensor) -> Tensor:
        """Compute in blocks of frames, so that an hour needs little more memory than its log-mel."""
        margin = self.config.n_fft // self.config.hop + 1  # the last block must be longer than its reflected padding
        frames = self.config.frames(wave_BN.shape[-1])
        starts = list(range(0, max(frames - margin, 1), FRAMES))
        parts = [self._frames(wave_BN, *bounds) for bounds in zip(starts, [*starts[1:], frames], strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def at_once(self, wave_BN: Tensor) -> Tensor:
        """Compute in one block, for exported graphs: a loop over blocks would fix their number."""
        return self._frames(wave_BN, 0, self.config.frames(wave_BN.shape[-1]))

    def _frames(self, wave_BN: Tensor, start: int, stop: int) -> Tensor:
        """The frames from `start` to before `stop`. Only the two ends of the whole waveform are padded."""
        config, samples = self.config, wave_BN.shape[-1]
        half = config.n_fft // 2
        first, last = start * config.hop - half, (stop - 1) * config.hop + half
        beyond = (max(-first, 0), max(last - samples, 0))
        mode = "reflect" if samples > half else "constant"  # torch cannot reflect more samples than there are
        spectrum_BKT = torch.stft(
            F.pad(wave_BN[:, max(first, 0) : last], beyond, mode=mode),
            config.n_fft,
            config.hop,
            window=self.window,
            # The ends are padded above: a block of frames inside the waveform continues in its neighbours and is not
            # reflected.
            center=False,
            return_complex=True,
        )
        power_BTK = spectrum_BKT.abs().square().transpose(1, 2)
        return self.compress(power_BTK @ self.filterbank_KF, config.ceiling)


def mel_filterbank(config: MelConfig) -> Tensor:
    """(K, F) float32 triangular bands, linear in Hz between edges that are evenly spaced in mel."""
    scale = SCALES[config.scale]
    mel_edges = torch.linspace(scale.mel(config.f_min), scale.mel(config.f_max), config.n_mels + 2, dtype=scale.dtype)
    # One edge more on either side: band n rises from edge n to edge n + 1 and falls to edge n + 2.
    edges_hz = scale.hz(mel_edges)
    bins_hz = torch.linspace(0, (config.filterbank_rate or config.rate) / 2, config.n_fft // 2 + 1, dtype=scale.dtype)
    distance_KE = edges_hz[None, :] - bins_hz[:, None]
    width_E = edges_hz.diff()
    rising_KF = -distance_KE[:, :-2] / width_E[:-1]
    falling_KF = distance_KE[:, 2:] / width_E[1:]
    bank_KF = torch.minimum(rising_KF, falling_KF).clamp_min(0.0)
    return NORMS[config.norm](bank_KF, edges_hz).float()


@dataclass(frozen=True, slots=True)
class MelScale:
    """Hz to mel for one number, mel to Hz for the edges, and the precision these are computed in."""

    mel: Callable[[float], float]
    hz: Callable[[Tensor], Tensor]
    dtype: torch.dtype


def _htk_mel(hz: float) -> float:
    return 2595.0 * math.log10(1.0 + hz / 700.0)


def _htk_hz(mel: Tensor) -> Tensor:
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)


_BREAK_HZ, _BREAK_MEL, _LOG_STEP = 1000.0, 15.0, math.log(6.4) / 27.0
"""Slaney's scale: linear (200/3 Hz a mel) to 1 kHz, then 27 mels for each factor of 6.4."""


def _slaney_mel(hz: float) -> float:
    return hz * 3.0 / 200.0 if hz < _BREAK_HZ else _BREAK_MEL + math.log(hz / _BREAK_HZ) / _LOG_STEP


def _slaney_hz(mel: Tensor) -> Tensor:
    above = _BREAK_HZ * torch.exp(_LOG_STEP * (mel.clamp_min(_BREAK_MEL) - _BREAK_MEL))
    return torch.where(mel < _BREAK_MEL, mel * 200.0 / 3.0, above)


def _unit_area(bank_KF: Tensor, edges_hz: Tensor) -> Tensor:
    # A triangle of height 2 / width has area 1.
    return bank_KF * (2.0 / (edges_hz[2:] - edges_hz[:-2]))


def _unit_sum(bank_KF: Tensor, edges_hz: Tensor) -> Tensor:
    total_F = bank_KF.sum(dim=0)
    # A low band may be narrower than the distance of two bins, and hold none.
    return bank_KF / torch.where(total_F > 0, total_F, 1.0)


def _decibels(power: Tensor, ceiling: float) -> Tensor:
    # The floor is -100 dB. There is no limit below the loudest frame (librosa's top_db), as in LAION-CLAP: a frame's
    # values do not depend on the rest of the clip.
    return 10.0 * torch.log10(power.clamp_min(1e-10)) / ceiling


def _log10_1p(power: Tensor, ceiling: float) -> Tensor:
    return torch.log10(1.0 + 1e4 * power) / ceiling


def _whisper(power_BTF: Tensor, ceiling: float) -> Tensor:
    # Eight decades below the loudest value of the clip. open_clip takes the loudest of the whole batch, so that an
    # embedding depends on its neighbours; here, as in OpenAI's code for one recording, each clip has its own.
    log_BTF = torch.log10(power_BTF.clamp_min(1e-10))
    floor_B11 = log_BTF.amax(dim=(1, 2), keepdim=True) - 8.0
    return (torch.maximum(log_BTF, floor_B11) + 4.0) / 4.0 / ceiling


# LAION: its HTK filterbank comes from torchaudio, which computes in float32, and its Slaney filterbank from librosa,
# which computes in float64. Another precision changes the log-mels by up to 4e-3 dB
# (test_log_mels_are_the_references).
SCALES: dict[str, MelScale] = {
    "htk": MelScale(_htk_mel, _htk_hz, torch.float32),
    "htk64": MelScale(_htk_mel, _htk_hz, torch.float64),  # open_clip's Whisper, whose filterbank is librosa's
    "slaney": MelScale(_slaney_mel, _slaney_hz, torch.float64),
}
NORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "none": lambda bank_KF, edges_hz: bank_KF,
    "area": _unit_area,
    "sum": _unit_sum,
}
COMPRESSIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "db": _decibels,
    "log10": _log10_1p,
    "whisper": _whisper,
}
