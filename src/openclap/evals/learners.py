"""What learns labels from frozen vectors: the linear probe and a small network, for one label a clip or for many.

P clips to learn from, N clips, C classes, D embedding. `LEARNERS` names these, and those of
`openclap.evals.supervised`, which train networks in torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclap.errors import require
from openclap.evals import supervised
from openclap.evals.clips import EvalClips, Vectors
from openclap.evals.lesson import Learner, Lesson, Part, Scorer, figure
from openclap.evals.probe import STRENGTHS, logistic, scores
from openclap.evals.ranks import Floats

HIDDEN, BATCH = 1024, 160
DECAYS = (1e-1, 1e-2, 1e-4)
"""Weight decay of the network, strongest first: on a tie the simpler model wins."""
CHOOSE_AMONG = 20_000
"""Clips that the strength is chosen with; the rest joins for the last fit."""


def linear(lesson: Lesson) -> tuple[Scorer, str]:
    """scikit-learn's logistic regression, one against the rest where there are many labels. C is chosen on
    `lesson.valid`; the last fit is on both parts."""
    several = require("sklearn.multiclass", "eval")

    def made(strength: float, target: NDArray[Any]) -> Any:
        return several.OneVsRestClassifier(logistic(strength)) if target.ndim == 2 else logistic(strength)

    strength, scorer = _chosen(lesson, made, STRENGTHS)
    return scorer, f"Logistic regression with C = {strength:g}, chosen on {lesson.valid.clips.name}."


def mlp(lesson: Lesson) -> tuple[Scorer, str]:
    """One hidden layer of 1,024 (scikit-learn's MLPClassifier; Adam, batches of 160, at most `lesson.epochs`);
    cross-entropy for one label, binary cross-entropy for many. Weight decay is chosen on `lesson.valid`."""
    networks = require("sklearn.neural_network", "eval")

    def made(decay: float, target: NDArray[Any]) -> Any:
        batch = min(BATCH, len(target))
        return networks.MLPClassifier(
            (HIDDEN,), alpha=decay, batch_size=batch, max_iter=lesson.epochs, random_state=lesson.seed
        )

    decay, scorer = _chosen(lesson, made, DECAYS)
    return scorer, f"A network with a hidden layer of {HIDDEN}, decay {decay:g}, chosen on {lesson.valid.clips.name}."


LEARNERS: dict[str, Learner] = {
    "linear": linear,
    "mlp": mlp,
    "laion_linear": supervised.laion_linear,
    "laion_mlp": supervised.laion_mlp,
    "fine_tune": supervised.fine_tune,
}


_Make = Callable[[float, NDArray[Any]], Any]
"""A choice and the targets that are to be learnt, to a classifier of scikit-learn."""


def _chosen(lesson: Lesson, made: _Make, choices: Sequence[float]) -> tuple[float, Scorer]:
    """The choice that is best on the part to choose with, and what it learns from both parts."""
    few = lesson.train
    if len(few.clips) > CHOOSE_AMONG:
        few = few.at(np.sort(np.random.default_rng(lesson.seed).permutation(len(few.clips))[:CHOOSE_AMONG]))
    figures = [figure(lesson.valid, learnt(few, partial(made, one), lesson.many), lesson.many) for one in choices]
    best = choices[int(np.argmax(figures))]
    everything = lesson.train if lesson.valid is lesson.train else _both(lesson.train, lesson.valid)
    return best, learnt(everything, partial(made, best), lesson.many)


def _both(a: Part, b: Part) -> Part:
    clips = replace(a.clips, clips=(*a.clips.clips, *b.clips.clips))
    return Part(clips, np.concatenate([a.vectors_PD, b.vectors_PD]), np.concatenate([a.truth_PC, b.truth_PC]))


def learnt(part: Part, made: Callable[[NDArray[Any]], Any], many: bool) -> Scorer:
    """Learn the classes that occur with a classifier that is made for its targets; other classes score least."""
    truth_PC = part.truth_PC
    known = np.flatnonzero(truth_PC.any(0) & ~truth_PC.all(0)) if many else np.unique(truth_PC.argmax(1))
    vectors_PD = part.vectors_PD.astype(np.float64)
    target = truth_PC[:, known].astype(np.int64) if many and len(known) > 1 else truth_PC.argmax(1)
    if many and len(known) == 1:
        target = truth_PC[:, known[0]].astype(np.int64)
    model = None
    if len(known) > (0 if many else 1):
        with _without_warnings():
            model = made(target).fit(vectors_PD, target)

    def scorer(clips: EvalClips, vectors_ND: Vectors) -> Floats:
        score_NC = np.full((len(vectors_ND), truth_PC.shape[1]), -np.inf)
        if model is not None:
            score_NC[:, known] = _scores(model, vectors_ND)[:, -len(known) :]
        return score_NC

    return scorer


def _scores(model: Any, vectors_ND: Vectors) -> Floats:
    """(N, classes) of a classifier: decision values, or logarithms of probabilities."""
    if hasattr(model, "decision_function"):
        return scores(model, vectors_ND)
    with np.errstate(divide="ignore"):
        return np.asarray(model.predict_log_proba(vectors_ND.astype(np.float64)), np.float64)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """A network that stops after its epochs says so; that is what was asked."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=require("sklearn.exceptions", "eval").ConvergenceWarning)
        yield
