"""By the definitions in torchaudio's documentation: HTK mel scale, no norm, a centred STFT with reflection."""

from __future__ import annotations

from typing import Any

import librosa
import torch
from torch import Tensor, nn


class MelSpectrogram(nn.Module):
    """(N,) samples to (mels, T) power."""

    def __init__(
        self, *, sample_rate: int, n_fft: int, hop_length: int, n_mels: int, f_min: float, f_max: float, **rest: Any
    ) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop_length
        bank = librosa.filters.mel(
            sr=sample_rate, n_fft=n_fft, n_mels=n_mels, fmin=f_min, fmax=f_max, htk=True, norm=None
        )
        self.register_buffer("bank", torch.from_numpy(bank))
        self.register_buffer("window", torch.hann_window(n_fft))

    def forward(self, wave_N: Tensor) -> Tensor:
        spectrum = torch.stft(
            wave_N, self.n_fft, self.hop, window=self.window, center=True, pad_mode="reflect", return_complex=True
        )
        return self.bank @ spectrum.abs().square()


class AmplitudeToDB(nn.Module):
    """10·log10 of a power of at least 1e-10."""

    def __init__(self, top_db: float | None = None) -> None:
        super().__init__()

    def forward(self, power: Tensor) -> Tensor:
        return 10 * power.clamp_min(1e-10).log10()
