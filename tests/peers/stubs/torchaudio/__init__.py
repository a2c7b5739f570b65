"""What LAION-CLAP's fusion models and msclap call: two transforms over librosa's filterbank, and `load`."""

from pathlib import Path

import soundfile
import torch

from torchaudio import transforms

__all__ = ["load", "transforms"]


def load(path: str | Path) -> tuple[torch.Tensor, int]:
    """(channels, N) float samples and their rate."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return torch.from_numpy(samples.T.copy()), rate
