"""Ranks, and the figures made of them: pure functions of numpy arrays.

Letters in names: A clips, T captions, N items (captions, clips or answers), C classes, R resamples.

Every figure is a *weighted* statistic: a function from weights (R, N) to values (R,). With weights of one
it is the figure itself; with the counts of a bootstrap it is the figure of every resample at once, so the
two cannot drift apart (`openclap.evals.uncertainty`).

Ties are broken against us everywhere: what is wrong and scores the same stands first. A model that gives
every pair one score therefore scores nothing, and no figure depends on the order of the clips.

Protocol: LAION-CLAP's evaluation (Wu et al. 2023, arXiv:2211.06687), opened to any number of captions a clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from openclap.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Statistic = Callable[[Floats], Floats]

RECALL_AT = (1, 5, 10)
CUT = 10  # mAP@10: a rank beyond it earns nothing
BLOCK = 4_000_000  # comparisons held at once


@dataclass(frozen=True, slots=True)
class Measure:
    """A weighted statistic over N items, and the clip `clip_N` that each item belongs to."""

    statistic: Statistic
    clip_N: Ints

    @property
    def value(self) -> float:
        """The figure itself: every item once."""
        return float(self.statistic(np.ones((1, len(self.clip_N))))[0])


@dataclass(frozen=True, slots=True)
class Ranks:
    """Where everything was found, counted from 1.

    `text_to_audio_T`: the rank of a caption's own clip among the `clips` clips.
    `audio_to_text_T`: the rank of a caption among all T captions, when its own clip asks.
    """

    text_to_audio_T: Ints
    audio_to_text_T: Ints
    owner_T: Ints
    clips: int

    @property
    def asked(self) -> Ints:
        """The clips that have captions, ascending: the askers of audio → text."""
        return np.unique(self.owner_T).astype(np.int64)

    def best(self) -> Ints:
        """(len(asked),) the rank of each clip's best-placed caption."""
        best_A = np.full(self.clips, np.iinfo(np.int64).max)
        np.minimum.at(best_A, self.owner_T, self.audio_to_text_T)
        return best_A[self.asked]

    def average_precision(self) -> Floats:
        """(len(asked),) sum of i / rank_i over a clip's captions within 10, divided by their whole count."""
        best_first = np.lexsort((self.audio_to_text_T, self.owner_T))
        return self._precision(best_first)

    def published_average_precision(self) -> Floats:
        """(len(asked),) the same as LAION-CLAP's code counts it: with captions in the order they are listed.

        Only for comparing with published audio → text mAP@10 of several captions a clip.
        """
        # LAION: evaluate_clotho_audiocaps announces "sort", but numbers the captions within 10 in listing
        # order: the value depends on that order and can pass 1
        # (test_published_average_precision_can_pass_one)
        return self._precision(np.argsort(self.owner_T, kind="stable"))

    def _precision(self, order: Ints) -> Floats:
        found = order[self.audio_to_text_T[order] <= CUT]
        gain = _place_in_run(self.owner_T[found]) / self.audio_to_text_T[found]
        gain_A = np.bincount(self.owner_T[found], weights=gain, minlength=self.clips)
        return (gain_A / np.maximum(np.bincount(self.owner_T, minlength=self.clips), 1))[self.asked]


def rank_retrieval(similarity_AT: ArrayLike, owner_T: ArrayLike) -> Ranks:
    """Rank both ways, given every clip's score with every caption and each caption's clip `owner_T`.

    numpy arrays or torch tensors. Clips without captions are found, never asked. Memory: one (A, T) mask and
    blocks of a few million comparisons. Raises DataError where shapes, owners or scores cannot be.
    """
    score_AT, owners = as_numpy(similarity_AT), as_numpy(owner_T).astype(np.int64)
    _check_retrieval(score_AT, owners)
    clips, captions = score_AT.shape
    own_T = score_AT[owners, np.arange(captions)]
    clip_rank_T = np.zeros(captions, np.int64)
    for rows in _blocks(clips, captions):
        clip_rank_T += (score_AT[rows] >= own_T).sum(0)
    wrong_T = np.empty(captions, np.int64)
    for asks in _blocks(captions, captions):
        not_worse = score_AT[owners[asks]] >= own_T[asks, None]
        wrong_T[asks] = (not_worse & (owners[asks, None] != owners)).sum(1)
    order = np.lexsort((-own_T.astype(np.float64), owners))
    caption_rank_T = np.empty(captions, np.int64)
    caption_rank_T[order] = wrong_T[order] + _place_in_run(owners[order])
    return Ranks(clip_rank_T, caption_rank_T, owners, clips)


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


def retrieval_metrics(similarity_AT: ArrayLike, owner_T: ArrayLike) -> dict[str, float]:
    """The figures of retrieval as LAION-CLAP publishes them, named
    {text_to_audio,audio_to_text}_{R@1,R@5,R@10,mAP@10,median_rank,mean_rank}.

    Text → audio asks with every caption: R@k is the share whose clip ranks within k, mAP@10 the mean of
    1/rank within 10. Audio → text asks with every clip: R@k and the two ranks take its best-placed caption,
    mAP@10 is the sum of i/rank_i over its captions within 10, divided by the count of its captions. With
    one caption a clip this is the plain form. The median rank is floor(median of 0-based ranks) + 1. Ties
    stand against us. Raises DataError as `rank_retrieval` does.

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


def classify(scores_NC: ArrayLike, label_N: ArrayLike) -> Classified:
    """Rank the true class of every item. On a tie the wrong class is the prediction. Raises DataError."""
    score_NC, labels = as_numpy(scores_NC), as_numpy(label_N).astype(np.int64)
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
    rank_N = (score_NC >= own_N[:, None]).sum(1).astype(np.int64)
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


def as_numpy(values: Any) -> NDArray[Any]:
    """A numpy view of an array, a list or a torch tensor (on any device, with or without gradients)."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if str(values.dtype) == "torch.bfloat16" else values
    return np.asarray(values)


def _rank_measures(task: str, rank_N: Ints, gain_N: Floats, clip_N: Ints) -> dict[str, Measure]:
    recalls = {f"{task}_R@{k}": mean_of((rank_N <= k).astype(np.float64)) for k in RECALL_AT}
    rest = {
        f"{task}_mAP@10": mean_of(gain_N),
        f"{task}_median_rank": median_rank_of(rank_N),
        f"{task}_mean_rank": mean_of(rank_N.astype(np.float64)),
    }
    return {name: Measure(statistic, clip_N) for name, statistic in {**recalls, **rest}.items()}


def _check_retrieval(score_AT: NDArray[Any], owner_T: Ints) -> None:
    if score_AT.ndim != 2 or owner_T.shape != score_AT.shape[1:] or not score_AT.size:
        raise DataError(
            f"Similarities {score_AT.shape} and owners {owner_T.shape} do not fit: "
            "expected (clips, captions) and (captions,), with at least one of each."
        )
    if owner_T.min() < 0 or owner_T.max() >= len(score_AT):
        raise DataError(f"Owners run from {owner_T.min()} to {owner_T.max()}, but there are {len(score_AT)} clips.")
    if np.isnan(score_AT).any():
        raise DataError("The similarities hold NaN, so nothing can be ranked. Check the vectors they come from.")


def _place_in_run(sorted_N: Ints) -> Ints:
    """1, 2, 3, … within each run of equal values."""
    start_N = np.searchsorted(sorted_N, sorted_N, side="left")
    return np.arange(1, len(sorted_N) + 1) - start_N


def _blocks(rows: int, width: int) -> Iterator[slice]:
    step = max(1, BLOCK // width)
    return (slice(start, start + step) for start in range(0, rows, step))
