"""The two transforms of torchaudio that LAION-CLAP's fusion models call, over librosa's filterbank."""

from torchaudio import transforms

__all__ = ["transforms"]
