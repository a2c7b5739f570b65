"""The figures of every task: pure functions from ranks and class scores to numbers.

Letters in names: A clips, T captions, N items (captions, clips or answers), C classes, R resamples.

Every figure is a *weighted* statistic: a function from weights (R, N) to values (R,). With weights of one it is the
figure itself; with the counts of a bootstrap it is the figure of every resample at once, so that a figure and its
interval cannot drift apart (`openclap.evals.bootstrap`).

Ties are broken against the model everywhere: a wrong candidate with the same score ranks first. A model that gives
every pair one score therefore scores 0, and no figure depends on the order of the clips.

To add a metric, add a `Measure` to the dict that `retrieval_measures`, `classification_measures` or
`tagging.tagging_measures` returns. To show it in tables, name it in `shown` of its kind of task in
`openclap.evals.tasks.KINDS`.

Protocol: LAION-CLAP's evaluation (Wu et al. 2023, arXiv:2211.06687), extended to any number of captions per clip.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from openclap.arrays import Floats, Ints
from openclap.errors import DataError
from openclap.evals.ranks import CUT, QueryRanks, Ranks, as_indices, as_numpy, rank_retrieval

Statistic = Callable[[Floats], Floats]
"""Weights (R, N) to values (R,)."""

TEXT_TO_AUDIO, AUDIO_TO_TEXT = "text_to_audio", "audio_to_text"
DIRECTION_LABELS = {TEXT_TO_AUDIO: "text→audio", AUDIO_TO_TEXT: "audio→text"}
# As papers report them.
RECALL_AT = (1, 5, 10)
MRR = "MRR"
RANK_METRICS = ("median_rank", "mean_rank")
"""Metrics that count from 1 and are better when lower. All others are shares of 1 and better when higher."""


@dataclass(frozen=True, slots=True)
class Metric:
    """The name of a figure, such as "R@1" or "accuracy".

    Attributes:
        name: without the direction of retrieval.
        direction: TEXT_TO_AUDIO or AUDIO_TO_TEXT for retrieval; None for all other tasks.
    """

    name: str
    direction: str | None = None

    @property
    def is_rank(self) -> bool:
        """Whether lower is better and the value counts from 1."""
        return self.name in RANK_METRICS

    @property
    def key(self) -> str:
        """One word for both parts, such as "text_to_audio_R@1"."""
        return f"{self.direction}_{self.name}" if self.direction else self.name

    @property
    def label(self) -> str:
        """The metric for a table, such as "text→audio R@1"."""
        return f"{DIRECTION_LABELS[self.direction]} {self.short_label}" if self.direction else self.short_label

    @property
    def short_label(self) -> str:
        """The name without the direction, such as "median rank"."""
        return self.name.replace("_", " ")


def map_metric(k: int, direction: str | None = None) -> Metric:
    """Mean average precision of the first k, such as "mAP@10"."""
    return Metric(f"mAP@{k}", direction)


ACCURACY, BALANCED_ACCURACY, MAP_AT_10 = Metric("accuracy"), Metric("balanced_accuracy"), map_metric(CUT)
MEAN_AVERAGE_PRECISION, ROC_AUC = Metric("mAP"), Metric("AUC")


@dataclass(frozen=True, slots=True)
class Measure:
    """A weighted statistic over N items, and the position `clip_N` of the clip that each item belongs to."""

    statistic: Statistic
    clip_N: Ints

    @property
    def value(self) -> float:
        """The figure itself: every item once."""
        return float(self.statistic(np.ones((1, len(self.clip_N))))[0])


def retrieval_measures(ranks: Ranks, map_at: Sequence[int] = (CUT,)) -> dict[Metric, Measure]:
    """Build every retrieval figure as a measure. Items are captions from text to audio, and clips from audio to text.

    Args:
        map_at: the k of every mAP@k.

    R@k, the two ranks and MRR (the mean of 1/rank without a cut) take the best-placed of the right candidates. mAP@k is
    the sum of i/rank_i over the right candidates within k, best first, divided by the number of all of them, also
    where that is larger than k (DCASE 2025, task 6, with k = 16).
    """
    return {
        # The clip of each item is that by which the bootstrap finds its group: of a caption with several clips, the
        # first.
        **_rank_measures(TEXT_TO_AUDIO, ranks.text_to_audio, map_at, ranks.relevance.first_clips()),
        **_rank_measures(AUDIO_TO_TEXT, ranks.audio_to_text, map_at, ranks.audio_to_text.queries),
    }


def retrieval_metrics(similarity_AT: ArrayLike, owner_T: Any, *, map_at: Sequence[int] = (CUT,)) -> dict[str, float]:
    """Compute the figures of retrieval: with one clip per caption as LAION-CLAP publishes them, with several as DCASE.

    Args:
        similarity_AT: the similarity of every clip with every caption; numpy arrays, torch tensors or lists.
        owner_T: the clip that each caption describes; or, where captions are right for several clips, a matrix (A, T)
            of true and false (dense, or sparse as scipy has it), or a `Relevance`.
        map_at: the k of every mAP@k.

    Returns:
        Twelve figures: {text_to_audio,audio_to_text}_{R@1,R@5,R@10,mAP@10,median_rank,mean_rank}.

    Text → audio queries with every caption: R@k is the share whose clip ranks within k, mAP@10 the mean of 1/rank
    within 10. Audio → text queries with every clip: R@k and the two ranks take its best-placed caption, mAP@10 is the
    sum of i/rank_i over its captions within 10, divided by the count of its captions. With one caption per clip this
    is the plain form. A caption with several right clips is measured as a clip with several captions is. Captions
    without a right clip are candidates, but no queries. The median rank is floor(median of 0-based ranks) + 1. Ties
    count against the model. Raises DataError as `rank_retrieval` does.

    One surprise: with owners and several captions per clip, the published mAP@10 of audio → text depends on the order
    in which the captions are listed (see `QueryRanks.published_average_precision`). `retrieval_measures`, which
    evaluations print, numbers them best first, and so does this function for a relevance of any other form.
    """
    ranks = rank_retrieval(similarity_AT, owner_T)
    # MRR is not among the published figures.
    measures = retrieval_measures(ranks, map_at)
    figures = {metric.key: measure.value for metric, measure in measures.items() if metric.name != MRR}
    if not ranks.relevance.is_of_owners:
        return figures
    listed = ranks.audio_to_text
    return figures | {
        map_metric(k, AUDIO_TO_TEXT).key: float(listed.published_average_precision(k).mean()) for k in map_at
    }


@dataclass(frozen=True, slots=True)
class Classified:
    """N clips scored against C classes: the scores, the true class `label_N`, its `rank_N` from 1, and the class
    `predicted_N`."""

    score_NC: NDArray[Any]
    label_N: Ints
    rank_N: Ints
    predicted_N: Ints

    def confusion(self) -> Ints:
        """(C, C) counts: rows are true classes, columns predicted ones."""
        table_CC = np.zeros((self.score_NC.shape[1],) * 2, np.int64)
        # Not +=, which counts a repeated pair of indices once.
        np.add.at(table_CC, (self.label_N, self.predicted_N), 1)
        return table_CC


def classify(scores_NC: ArrayLike, label_N: ArrayLike, *, tie: float = 0.0) -> Classified:
    """Rank the true class of every clip. On a tie (scores within `tie`) the wrong class is the prediction.

    Raises DataError where shapes, labels or scores do not fit or are not numbers."""
    score_NC, labels = as_numpy(scores_NC), as_indices(label_N, "Labels")
    if score_NC.ndim != 2 or labels.shape != score_NC.shape[:1] or not labels.size:
        raise DataError(
            f"Scores {score_NC.shape} and labels {labels.shape} do not fit: expected (N, C) and (N,), N ≥ 1."
        )
    items, classes = score_NC.shape
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"Labels run from {labels.min()} to {labels.max()}, but the scores name {classes} classes.")
    if np.isnan(score_NC).any():
        raise DataError("The class scores hold NaN, so nothing can be ranked. Check the embeddings they come from.")
    own_N = score_NC[np.arange(items), labels]
    # The classes that reach the true one's score, itself included: rank 1 where it alone does.
    rank_N = (score_NC >= own_N[:, None] - tie).sum(1).astype(np.int64)
    # For a wrong answer, the best of the other classes: on a tie the true class may also have the highest score.
    others_NC = np.where(np.arange(classes) == labels[:, None], -np.inf, score_NC)
    return Classified(score_NC, labels, rank_N, np.where(rank_N == 1, labels, others_NC.argmax(1)))


def classification_measures(answers: Classified) -> dict[Metric, Measure]:
    """Accuracy (top-1), balanced accuracy (mean recall of the classes that occur) and mAP@10, as measures."""
    right_N = (answers.rank_N == 1).astype(np.float64)
    reciprocal_N = np.where(answers.rank_N <= CUT, 1.0 / answers.rank_N, 0.0)
    item_N = np.arange(len(right_N))
    return {
        ACCURACY: Measure(mean_of(right_N), item_N),
        # Beside accuracy, which a set with one frequent class makes easy.
        BALANCED_ACCURACY: Measure(balanced_of(right_N, answers.label_N), item_N),
        MAP_AT_10: Measure(mean_of(reciprocal_N), item_N),
    }


def classification_metrics(scores_NC: ArrayLike, label_N: ArrayLike) -> dict[str, float]:
    """Accuracy, balanced accuracy and mAP@10 (the mean of 1/rank within 10) of scores (N, C) against labels in 0..C-1.

    Raises DataError as `classify` does.
    """
    return {
        metric.key: measure.value for metric, measure in classification_measures(classify(scores_NC, label_N)).items()
    }


def classes_in_detail(answers: Classified) -> list[ClassFigures]:
    """For each class that occurs, in order: the number of its clips, and its recall, precision and F1."""
    table_CC = answers.confusion()
    # Classes without clips have no recall; they are left out below.
    predicted_C, true_C, right_C = table_CC.sum(0), table_CC.sum(1), np.diag(table_CC)
    return [
        ClassFigures(
            c,
            int(true_C[c]),
            float(right_C[c] / true_C[c]),
            float(right_C[c] / predicted_C[c]) if predicted_C[c] else None,
            float(2 * right_C[c] / (predicted_C[c] + true_C[c])),
        )
        for c in np.flatnonzero(true_C).tolist()
    ]


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """The figures of one class; `precision` is None where no clip was predicted to be of it."""

    label: int
    clips: int
    recall: float
    precision: float | None
    f1: float


def mean_of(value_N: Floats) -> Statistic:
    """The weighted mean."""
    # One matrix product for all resamples.
    return lambda weight_RN: (weight_RN @ value_N) / weight_RN.sum(1)


def median_rank_of(rank_N: Ints) -> Statistic:
    """floor(median of 0-based ranks) + 1 under whole-number weights: the median of the list they repeat."""
    # A weighted median: cumulated weights are positions in the list in which each rank is repeated by its weight.
    order = np.argsort(rank_N, kind="stable")
    sorted_N = rank_N[order]

    def median(weight_RN: Floats) -> Floats:
        upto_RN = weight_RN[:, order].cumsum(1)
        total_R = upto_RN[:, -1]
        # The positions of the two middle entries of the repeated list, which are one and the same for an odd length.
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
        # Counts are whole numbers, so the bound only replaces 0 / 0 by 0, for classes outside the resample.
        share_RC = (weight_RN @ right_NC) / np.maximum(total_RC, 1e-12)
        return np.asarray(share_RC.sum(1) / (total_RC > 0).sum(1), np.float64)

    return balanced


def _rank_measures(direction: str, ranks: QueryRanks, map_at: Sequence[int], clip_N: Ints) -> dict[Metric, Measure]:
    rank_N = ranks.best()
    statistics = {f"R@{k}": mean_of((rank_N <= k).astype(np.float64)) for k in RECALL_AT} | {
        **{map_metric(k).name: mean_of(ranks.average_precision(k)) for k in map_at},
        "median_rank": median_rank_of(rank_N),
        "mean_rank": mean_of(rank_N.astype(np.float64)),
        MRR: mean_of(1.0 / rank_N),
    }
    return {Metric(name, direction): Measure(statistic, clip_N) for name, statistic in statistics.items()}
