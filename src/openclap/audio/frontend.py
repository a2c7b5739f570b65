"""The front end: from waveforms to the input of an audio tower.

B clips, V views, T frames of the input, L frames of a whole long clip, F mel bins, N samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from openclap.arrays import Wave
from openclap.audio.clips import FILLS, crop, pad, quantise
from openclap.audio.config import FrontEndConfig
from openclap.audio.mel import LogMel
from openclap.audio.windows import third_starts
from openclap.types import AudioBatch

Views = Callable[[Sequence[Tensor], np.random.Generator | None], AudioBatch]
"""Makes the views of waveforms (N,), with random stretches if a generator is given."""


class FrontEnd:
    """Converts waveforms to batches of log-mels: deterministically, or, in training, with random stretches of long
    clips drawn from a given `rng`."""

    def __init__(self, config: FrontEndConfig) -> None:
        self.config = config
        self.sample_rate = config.mel.rate
        self.samples = config.samples
        self.logmel = LogMel(config.mel)
        self._fill = FILLS[config.fill]
        # Before filling and cropping: LAION-CLAP rounds a clip as soon as it is read.
        self._round = quantise if config.int16 else _as_it_is
        views: dict[str, Views] = {"windows": self._one_view, "fusion": self._four_views}
        self._views = self._any_length if config.is_any_length else views[config.long]

    def __call__(self, waves: Sequence[Wave | Tensor], *, rng: np.random.Generator | None = None) -> AudioBatch:
        """Convert mono waveforms (N,), N ≥ 1, at `sample_rate` Hz to an AudioBatch on the front end's device.

        Gradients reach waveforms that are tensors, also through the rounding to 16 bits (see `quantise`).
        """
        device = self.logmel.window.device
        return self._views([self._round(torch.as_tensor(wave_N).to(device)) for wave_N in waves], rng)

    def draw_start(self, samples: int, rng: np.random.Generator) -> int:
        """Where the stretch of `self.samples` begins that is read of a clip of so many samples in training: the number
        that `crop` draws; 0 for towers that read any length, which keep the beginning. The stretch of a fusion model is
        then a short clip, so it is not fused."""
        last = samples - self.samples
        return 0 if last <= 0 or self.config.is_any_length else int(rng.integers(0, last + 1))

    def to(self, device: torch.device) -> FrontEnd:
        """Move the filterbank and the window to `device`."""
        self.logmel.to(device)
        return self

    def _one_view(self, waves: Sequence[Tensor], rng: np.random.Generator | None) -> AudioBatch:
        """V = 1: the clip, filled if it is short; the middle or a random stretch of a longer clip."""
        wave_BN = torch.stack([self._fit(wave_N, rng) for wave_N in waves])
        # No plain tower reads it; caches of outputs in training do, because a long clip is cropped anew in each epoch.
        is_long_B = torch.tensor([len(wave_N) > self.samples for wave_N in waves], device=wave_BN.device)
        return AudioBatch(self.logmel(wave_BN).unsqueeze(1), is_long_B)

    def _any_length(self, waves: Sequence[Tensor], rng: np.random.Generator | None) -> AudioBatch:
        """V = 1: each clip at its own length, then zeros; its number of frames is in `frames_B`.

        A clip shorter than the window of the Fourier transform gets zeros up to that length. In training (with `rng`) a
        longer clip than the training clips keeps its beginning, as in open_clip: nothing is drawn.
        """
        most = max(map(len, waves)) if rng is None else self.samples
        least = self.config.mel.n_fft
        mels = self._log_mels([pad(w, least) if len(w) < least else w[:most] for w in waves])
        frames_B = torch.tensor([len(mel_TF) for mel_TF in mels], device=mels[0].device)
        mel_BTF = torch.nn.utils.rnn.pad_sequence(mels, batch_first=True)
        return AudioBatch(mel_BTF.unsqueeze(1), torch.zeros_like(frames_B, dtype=torch.bool), frames_B)

    def _four_views(self, waves: Sequence[Tensor], rng: np.random.Generator | None) -> AudioBatch:
        """V = 4: whole, front, middle, back. A clip with no more frames than the input has four equal views."""
        # The log-mel of the whole clip, however long: its views are cut from it and not from the waveform, so they have
        # no padding of their own.
        mels = self._log_mels([self._fill(w, self.samples) if len(w) < self.samples else w for w in waves])
        # By frames and not by samples, as LAION-CLAP: up to a hop more than the input makes no further frame, and no
        # long clip.
        long = [len(mel_LF) > self.config.frames for mel_LF in mels]
        views = [
            self._thirds(mel_LF, rng) if is_long else mel_LF.expand(4, -1, -1)
            for mel_LF, is_long in zip(mels, long, strict=True)
        ]
        return AudioBatch(torch.stack(views), torch.tensor(long, device=views[0].device))

    def _log_mels(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """The log-mel (L, F) of each waveform; waveforms of equal length are computed in one batch."""
        lengths = [len(wave_N) for wave_N in waves]
        groups = {
            length: [i for i, other in enumerate(lengths) if other == length] for length in dict.fromkeys(lengths)
        }
        mels: dict[int, Tensor] = {}
        for group in groups.values():
            wave_BN = torch.stack([waves[i] for i in group]) if len(group) > 1 else waves[group[0]][None]
            mels |= zip(group, self.logmel(wave_BN), strict=True)
        return [mels[i] for i in range(len(waves))]

    def _thirds(self, mel_LF: Tensor, rng: np.random.Generator | None) -> Tensor:
        """(4, T, F): the whole log-mel resized to T frames, and T frames from each third of the possible starts."""
        frames = self.config.frames
        # As torchvision's Resize, with which LAION-CLAP makes this view.
        whole = F.interpolate(
            mel_LF[None, None],
            (frames, mel_LF.shape[1]),
            mode="bilinear",
            align_corners=False,
            antialias=self.config.antialias,
        )[0, 0]
        return torch.stack(
            [whole, *(mel_LF[start : start + frames] for start in third_starts(len(mel_LF), frames, rng))]
        )

    def _fit(self, wave_N: Tensor, rng: np.random.Generator | None) -> Tensor:
        return crop(wave_N, self.samples, rng) if len(wave_N) > self.samples else self._fill(wave_N, self.samples)


def _as_it_is(wave_N: Tensor) -> Tensor:
    return wave_N
