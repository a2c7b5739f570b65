"""What is to be learnt from labelled clips, and how well it was.

P clips to learn from, N clips, C classes, D embedding.

A learner is a function from a `Lesson` to a function that scores clips. `openclap.evals.learners` has those that read
the frozen vectors alone; `openclap.evals.supervised` those that train networks, and the audio tower too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclap.evals.clips import EvalClips, Vectors
from openclap.evals.hearing import Listener
from openclap.evals.metrics import classify
from openclap.evals.probe import group_folds
from openclap.evals.ranks import Floats
from openclap.evals.tagging import average_precisions, tag

EPOCHS = 100


@dataclass(frozen=True, slots=True)
class Part:
    """Clips with their vectors (P, D), and which labels they have (P, C)."""

    clips: EvalClips
    vectors_PD: Vectors
    truth_PC: NDArray[np.bool_]

    def at(self, rows: Any) -> Part:
        """Some of the clips."""
        places = np.arange(len(self.clips))[rows]
        return Part(self.clips.select(places.tolist()), self.vectors_PD[places], self.truth_PC[places])


@dataclass(frozen=True, slots=True)
class Lesson:
    """What to learn: `train`, and `valid` to choose with.

    Attributes:
        many: whether clips may have any number of labels.
        listener: the model that made the vectors, for what learns from sounds.
        epochs: the most that a network gets.
        seed: of networks and orders.
    """

    train: Part
    valid: Part
    many: bool
    listener: Listener | None = None
    epochs: int = EPOCHS
    seed: int = 0


Scorer = Callable[[EvalClips, Vectors], Floats]
"""Clips and their vectors (N, D) to scores (N, C)."""
Learner = Callable[[Lesson], tuple[Scorer, str]]
"""Gives what scores clips, and a sentence on what was chosen."""


def lesson(
    train: Part,
    valid: Part | None,
    *,
    many: bool,
    listener: Listener | None = None,
    epochs: int = EPOCHS,
    seed: int = 0,
) -> Lesson:
    """With no split to choose with, whole groups of `train` are held out for it."""
    if valid is None:
        train, valid = _held_out(train, seed)
    return Lesson(train, valid, many, listener, epochs, seed)


def _held_out(train: Part, seed: int) -> tuple[Part, Part]:
    """(what stays to learn from, what is held out); all of it twice where the groups allow no more."""
    folds = group_folds(train.truth_PC.argmax(1), np.array(train.clips.groups), seed)
    if not folds:
        return train, train
    seen, held = folds[0]
    return train.at(seen), train.at(held)


def figure(part: Part, scorer: Scorer, many: bool) -> float:
    """Accuracy of a part, or mAP where clips may have many labels."""
    score_NC = scorer(part.clips, part.vectors_PD)
    if not many:
        return float((classify(score_NC, part.truth_PC.argmax(1)).rank_N == 1).mean())
    varied = part.truth_PC.any(0) & ~part.truth_PC.all(0)
    return float(np.nanmean(average_precisions(tag(score_NC, part.truth_PC)))) if varied.any() else 0.0
