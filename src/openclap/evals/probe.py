"""The linear probe: how much of the labels a linear classifier reads out of frozen audio vectors.

N clips, C labels, D embedding, P training clips. The classifier is scikit-learn's logistic regression on
the unit vectors as they are. Its regularisation is chosen by cross-validation over groups within the
training split alone; the held-out split is looked at once.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclap.errors import require
from openclap.evals.answers import Answers, LeftOut, labelled, labels_of
from openclap.evals.clips import EvalClips, Vectors
from openclap.evals.metrics import classify
from openclap.evals.ranks import Ints

STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)
"""Inverse regularisation C, weakest model first: on a tie the simpler one wins."""
FOLDS = 5
ITERATIONS = 2000


def probe(
    train: EvalClips, train_PD: Vectors, test: EvalClips, test_ND: Vectors, *, seed: int = 0
) -> Answers | LeftOut:
    """Fit on the training split, answer the test split.

    Test clips whose label has no training example cannot be answered: they are left out, and a note says
    so. The whole task is left out, with the reason, when a split has no labels or fewer than two remain.
    """
    known, wanted = labels_of(train), labels_of(test)
    if reason := impossible(train, test):
        return LeftOut(reason)
    place_P, label_P = labelled(train, known)
    place_N, label_N = labelled(test, known)
    group_P = np.array(train.groups)[place_P]
    strength = choose_strength(train_PD[place_P], label_P, group_P, seed=seed)
    model = fit(train_PD[place_P], label_P, strength)
    unknown = sorted(set(wanted) - set(known))
    folds = len(group_folds(label_P, group_P, seed))
    how = f"chosen by {folds}-fold cross-validation over" if folds else "not chosen: no fold can be made of the"
    notes = [f"Probe: C = {strength:g}, {how} groups of {train.name}."]
    if unknown:
        gone = sum(clip.label in unknown for clip in test.clips)
        notes.append(f"Probe: {gone} clips were left out, {train.name} has no example of: {', '.join(unknown)}.")
    return Answers(known, place_N, classify(scores(model, test_ND[place_N]), label_N), tuple(notes))


def fit(vector_PD: Vectors, label_P: Ints, strength: float) -> Any:
    """scikit-learn's LogisticRegression on these vectors, in float64."""
    return logistic(strength).fit(vector_PD.astype(np.float64), label_P)


def logistic(strength: float) -> Any:
    """scikit-learn's LogisticRegression with C = `strength`, which has learnt nothing yet."""
    return require("sklearn.linear_model", "eval").LogisticRegression(C=strength, max_iter=ITERATIONS)


def scores(model: Any, vector_ND: Vectors) -> NDArray[np.float64]:
    """(N, C) decision values, one column a class (scikit-learn gives one column in all for two classes)."""
    value: NDArray[np.float64] = model.decision_function(vector_ND.astype(np.float64))
    return np.stack([-value, value], axis=1) if value.ndim == 1 else value


def choose_strength(vector_PD: Vectors, label_P: Ints, group_P: NDArray[np.str_], *, seed: int = 0) -> float:
    """The C of STRENGTHS with the highest accuracy on held-out groups; 1.0 when the groups allow no fold."""
    folds = group_folds(label_P, group_P, seed)
    if not folds:
        return 1.0
    right = [sum(_right(vector_PD, label_P, fold, strength) for fold in folds) for strength in STRENGTHS]
    return STRENGTHS[int(np.argmax(right))]


def _right(vector_PD: Vectors, label_P: Ints, fold: tuple[Ints, Ints], strength: float) -> int:
    seen, held = fold
    model = fit(vector_PD[seen], label_P[seen], strength)
    return int((model.predict(vector_PD[held].astype(np.float64)) == label_P[held]).sum())


def group_folds(label_P: Ints, group_P: NDArray[np.str_], seed: int) -> list[tuple[Ints, Ints]]:
    """(seen, held) splits with whole groups and classes spread; a seen part of one class is left out."""
    count = min(FOLDS, len(np.unique(group_P)), int(np.bincount(label_P).max()))
    if count < 2:
        return []
    selection = require("sklearn.model_selection", "eval")
    splitter = selection.StratifiedGroupKFold(n_splits=count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        pairs = list(splitter.split(np.zeros(len(label_P)), label_P, group_P))
    return [(seen, held) for seen, held in pairs if len(held) and len(np.unique(label_P[seen])) > 1]


def impossible(train: EvalClips, test: EvalClips) -> str | None:
    """Why these splits allow no probe; None when they do."""
    known, wanted = labels_of(train), labels_of(test)
    if len(known) < 2:
        return f"{train.name} has {len(known)} labels; a classifier needs at least two."
    if not wanted:
        return f"{test.name} has no labels to score against."
    if len(set(known) & set(wanted)) < 2:
        return f"{train.name} and {test.name} share fewer than two labels."
    return None
