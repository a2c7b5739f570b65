"""Labels as numbers, and the answers to a labelling task.

N clips, C labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from openclap.evals.clips import EvalClips
from openclap.evals.metrics import Classified, Measure, classification_measures
from openclap.evals.ranks import Ints


@dataclass(frozen=True, slots=True)
class Answers:
    """What was answered for the clips at positions `clip_N` of the split, among `labels`."""

    labels: tuple[str, ...]
    clip_N: Ints
    classified: Classified
    notes: tuple[str, ...] = ()

    def measures(self) -> dict[str, Measure]:
        """The figures; items belong to clips as the split numbers them."""
        return {
            name: Measure(measure.statistic, self.clip_N)
            for name, measure in classification_measures(self.classified).items()
        }


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A task that was not done, and the reason, for a person."""

    reason: str


def labelled(clips: EvalClips, labels: tuple[str, ...]) -> tuple[Ints, Ints]:
    """(positions of the clips whose label is one of `labels`, the number of that label)."""
    number = {label: index for index, label in enumerate(labels)}
    pairs = [(i, number[clip.label]) for i, clip in enumerate(clips.clips) if clip.label in number and clip.label]
    table = np.array(pairs, np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def labels_of(clips: EvalClips) -> tuple[str, ...]:
    """The different labels of a split, sorted."""
    return tuple(sorted({clip.label for clip in clips.clips if clip.label}))
