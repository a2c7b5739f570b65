"""The figures made of ranks and answers: pure functions of numpy arrays.

Letters in names: A clips, T captions, N items (captions, clips or answers), C classes, R resamples.

Every figure is a *weighted* statistic: a function from weights (R, N) to values (R,). With weights of one
it is the figure itself; with the counts of a bootstrap it is the figure of every resample at once, so the
two cannot drift apart (`openclap.evals.bootstrap`).

Ties are broken against us everywhere: what is wrong and scores the same stands first. A model that gives
every pair one score therefore scores nothing, and no figure depends on the order of the clips.

Protocol: LAION-CLAP's evaluation (Wu et al. 2023, arXiv:2211.06687), opened to any number of captions a clip.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from openclap.errors import DataError
from openclap.evals.ranks import CUT, Floats, Ints, Ranks, as_numpy, as_places, rank_retrieval

Statistic = Callable[[Floats], Floats]

RECALL_AT = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class Measure:
    """A weighted statistic over N items, and the clip `clip_N` that each item belongs to."""

    statistic: Statistic
    clip_N: Ints

    @property
    def value(self) -> float:
        """The figure itself: every item once."""
        return float(self.statistic(np.ones((1, len(self.clip_N))))[0])


def retrieval_measures(ranks: Ranks) -> dict[str, Measure]:
    """Every retrieval figure as a measure. Items are captions from text to audio, and clips from audio to
    text.
    """
    rank_T, best_A, asked = ranks.text_to_audio_T, ranks.best(), ranks.asked
    reciprocal_T = np.where(rank_T <= CUT, 1.0 / rank_T, 0.0)
    return {
        **_rank_measures("text_to_audio", rank_T, reciprocal_T, ranks.owner_T),
        **_rank_measures("audio_to_text", best_A, ranks.average_precision(), asked),
    }


def reciprocal_measures(ranks: Ranks) -> dict[str, Measure]:
    """{text_to_audio,audio_to_text}_MRR, the mean of 1/rank without a cut; from audio to text of the best caption."""
    return {
        "text_to_audio_MRR": Measure(mean_of(1.0 / ranks.text_to_audio_T), ranks.owner_T),
        "audio_to_text_MRR": Measure(mean_of(1.0 / ranks.best()), ranks.asked),
    }


def retrieval_metrics(similarity_AT: ArrayLike, owner_T: ArrayLike) -> dict[str, float]:
    """The figures of retrieval as LAION-CLAP publishes them, named
    {text_to_audio,audio_to_text}_{R@1,R@5,R@10,mAP@10,median_rank,mean_rank}.

    Text → audio asks with every caption: R@k is the share whose clip ranks within k, mAP@10 the mean of
    1/rank within 10. Audio → text asks with every clip: R@k and the two ranks take its best-placed caption, mAP@10 is
    the sum of i/rank_i over its captions within 10, divided by the count of its captions. With one caption a clip this
    is the plain form. The median rank is floor(median of 0-based ranks) + 1. Ties stand against us. Raises DataError
    as `rank_retrieval` does.

    One surprise: with several captions a clip the published mAP@10 of audio → text depends on the order the
    captions are listed in (see `Ranks.published_average_precision`). `retrieval_measures`, which
    evaluations print, numbers them best first.
    """
    ranks = rank_retrieval(similarity_AT, owner_T)
    figures = {name: measure.value for name, measure in retrieval_measures(ranks).items()}
    return figures | {"audio_to_text_mAP@10": float(ranks.published_average_precision().mean())}


@dataclass(frozen=True, slots=True)
class Classified:
    """N answers among C classes: the scores, the true `label_N`, its `rank_N` from 1, and what was
    `predicted_N`.
    """

    score_NC: NDArray[Any]
    label_N: Ints
    rank_N: Ints
    predicted_N: Ints

    def confusion(self) -> Ints:
        """(C, C) counts: rows are true classes, columns predicted ones."""
        table_CC = np.zeros((self.score_NC.shape[1],) * 2, np.int64)
        np.add.at(table_CC, (self.label_N, self.predicted_N), 1)
        return table_CC


def classify(scores_NC: ArrayLike, label_N: ArrayLike, *, tie: float = 0.0) -> Classified:
    """Rank the true class of every item. On a tie (scores within `tie`) the wrong class is the prediction.

    Raises DataError."""
    score_NC, labels = as_numpy(scores_NC), as_places(label_N, "Labels")
    if score_NC.ndim != 2 or labels.shape != score_NC.shape[:1] or not labels.size:
        raise DataError(
            f"Scores {score_NC.shape} and labels {labels.shape} do not fit: expected (N, C) and (N,), N ≥ 1."
        )
    items, classes = score_NC.shape
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"Labels run from {labels.min()} to {labels.max()}, but the scores name {classes} classes.")
    if np.isnan(score_NC).any():
        raise DataError("The class scores hold NaN, so nothing can be ranked. Check the vectors they come from.")
    own_N = score_NC[np.arange(items), labels]
    rank_N = (score_NC >= own_N[:, None] - tie).sum(1).astype(np.int64)
    others_NC = np.where(np.arange(classes) == labels[:, None], -np.inf, score_NC)
    return Classified(score_NC, labels, rank_N, np.where(rank_N == 1, labels, others_NC.argmax(1)))


def classification_measures(answers: Classified) -> dict[str, Measure]:
    """Accuracy (top-1), balanced accuracy (mean recall of the classes that occur) and mAP@10, as measures."""
    right_N = (answers.rank_N == 1).astype(np.float64)
    reciprocal_N = np.where(answers.rank_N <= CUT, 1.0 / answers.rank_N, 0.0)
    item_N = np.arange(len(right_N))
    return {
        "accuracy": Measure(mean_of(right_N), item_N),
        "balanced_accuracy": Measure(balanced_of(right_N, answers.label_N), item_N),
        "mAP@10": Measure(mean_of(reciprocal_N), item_N),
    }


@dataclass(frozen=True, slots=True)
class ClassificationMetrics:
    """The figures of a classification; `mean_average_precision` is mAP@10: the mean of 1/rank within 10."""

    accuracy: float
    balanced_accuracy: float
    mean_average_precision: float
    confusion_CC: Ints


def classification_metrics(scores_NC: ArrayLike, label_N: ArrayLike) -> ClassificationMetrics:
    """Accuracy, balanced accuracy, mAP@10 and the confusion table of scores (N, C) against labels in
    0..C-1.
    """
    answers = classify(scores_NC, label_N)
    figures = {name: measure.value for name, measure in classification_measures(answers).items()}
    return ClassificationMetrics(
        figures["accuracy"], figures["balanced_accuracy"], figures["mAP@10"], answers.confusion()
    )


def per_class(answers: Classified) -> list[ClassRow]:
    """For each class that occurs, in order: how many clips it has, and its recall, precision and F1."""
    table_CC = answers.confusion()
    said_C, true_C, right_C = table_CC.sum(0), table_CC.sum(1), np.diag(table_CC)
    return [
        ClassRow(
            c,
            int(true_C[c]),
            float(right_C[c] / true_C[c]),
            float(right_C[c] / said_C[c]) if said_C[c] else None,
            float(2 * right_C[c] / (said_C[c] + true_C[c])),
        )
        for c in np.flatnonzero(true_C).tolist()
    ]


@dataclass(frozen=True, slots=True)
class ClassRow:
    """How one class fares; `precision` is None where nothing was taken for it."""

    label: int
    clips: int
    recall: float
    precision: float | None
    f1: float


def mean_of(value_N: Floats) -> Statistic:
    """The weighted mean."""
    return lambda weight_RN: (weight_RN @ value_N) / weight_RN.sum(1)


def median_rank_of(rank_N: Ints) -> Statistic:
    """floor(median of 0-based ranks) + 1 under whole-number weights: the median of the list they repeat."""
    order = np.argsort(rank_N, kind="stable")
    sorted_N = rank_N[order]

    def median(weight_RN: Floats) -> Floats:
        upto_RN = weight_RN[:, order].cumsum(1)
        total_R = upto_RN[:, -1]
        low_R = (upto_RN <= ((total_R - 1) // 2)[:, None]).sum(1)
        high_R = (upto_RN <= (total_R // 2)[:, None]).sum(1)
        middle_R: Floats = np.floor((sorted_N[low_R] + sorted_N[high_R]) / 2)
        return middle_R

    return median


def balanced_of(right_N: Floats, label_N: Ints) -> Statistic:
    """The mean over classes of each class's weighted share of right answers; classes of no weight are left
    out.
    """
    one_NC = (label_N[:, None] == np.unique(label_N)).astype(np.float64)
    right_NC = one_NC * right_N[:, None]

    def balanced(weight_RN: Floats) -> Floats:
        total_RC = weight_RN @ one_NC
        share_RC = (weight_RN @ right_NC) / np.maximum(total_RC, 1e-12)
        return np.asarray(share_RC.sum(1) / (total_RC > 0).sum(1), np.float64)

    return balanced


def _rank_measures(task: str, rank_N: Ints, gain_N: Floats, clip_N: Ints) -> dict[str, Measure]:
    recalls = {f"{task}_R@{k}": mean_of((rank_N <= k).astype(np.float64)) for k in RECALL_AT}
    rest = {
        f"{task}_mAP@10": mean_of(gain_N),
        f"{task}_median_rank": median_rank_of(rank_N),
        f"{task}_mean_rank": mean_of(rank_N.astype(np.float64)),
    }
    return {name: Measure(statistic, clip_N) for name, statistic in {**recalls, **rest}.items()}
