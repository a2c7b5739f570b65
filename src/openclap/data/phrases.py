"""Phrases with segments as targets of training: which phrase is heard in which moment of which clip.

B clips, M moments, P phrases, N samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from openclap.sources.phrases import usable_phrases
from openclap.types import Phrase, PhraseBatch, TextBatch


@dataclass(frozen=True, slots=True)
class TimedPhrases:
    """The phrases of a clip, as it is read.

    Attributes:
        samples: length of the clip at the model's rate.
        phrases: with segments in seconds from the beginning of what is read; () for clips without phrases.
    """

    samples: int
    phrases: tuple[Phrase, ...]


def cut_phrases(phrases: Sequence[Phrase], start: int, samples: int, rate: int) -> TimedPhrases:
    """The phrases of the stretch of a clip that begins at sample `start`; segments outside of it are left out."""
    start_s, seconds = start / rate, samples / rate
    inside = []
    for phrase in usable_phrases(phrases, math.inf)[0]:  # other tools' shards hold any numbers
        moved = [(max(onset - start_s, 0.0), min(offset - start_s, seconds)) for onset, offset in phrase.segments]
        if segments := tuple((onset, offset) for onset, offset in moved if offset > onset):
            inside.append(Phrase(phrase.text, segments))
    return TimedPhrases(samples, tuple(inside))


def phrase_batch(
    clips: Sequence[TimedPhrases], moment_samples: float, rate: int, tokenize: Callable[[list[str]], TextBatch]
) -> PhraseBatch | None:
    """Collate the phrases of a batch: equal phrases are one. None where no clip has any."""
    texts = list(dict.fromkeys(phrase.text for clip in clips for phrase in clip.phrases))
    if not texts:
        return None
    moments = max(math.ceil(clip.samples / moment_samples) for clip in clips)
    active_BMP = torch.zeros(len(clips), moments, len(texts), dtype=torch.bool)
    valid_BM = torch.zeros(len(clips), moments, dtype=torch.bool)
    for number, clip in enumerate(clips):
        if clip.phrases:
            valid_BM[number, : math.ceil(clip.samples / moment_samples)] = True
        for phrase in clip.phrases:
            column = active_BMP[number, :, texts.index(phrase.text)]
            for segment in phrase.segments:
                column |= _moments_of(segment, moments, moment_samples / rate)
    return PhraseBatch(tokenize(texts), active_BMP, valid_BM)


def _moments_of(segment: tuple[float, float], moments: int, moment_s: float) -> Tensor:
    """(M,): the moments whose middle is in the segment; of a shorter sound, the moment in which its middle is."""
    onset_s, offset_s = segment
    middle_M = (torch.arange(moments, dtype=torch.float64) + 0.5) * moment_s
    active_M = (middle_M >= onset_s) & (middle_M < offset_s)
    if not active_M.any():
        active_M[min(int((onset_s + offset_s) / 2 / moment_s), moments - 1)] = True
    return active_M
