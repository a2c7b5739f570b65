"""The figures of tagging, where a clip has any number of labels: average precision and area under the ROC curve.

Letters in names: N clips, C classes, R resamples.

Ties count against the model: of equal scores, clips without the label rank first. Where no two scores of a class are
equal, both figures are scikit-learn's (`average_precision_score`, `roc_auc_score`), weights included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from openclap.arrays import Floats, Ints
from openclap.errors import DataError
from openclap.evals.metrics import MEAN_AVERAGE_PRECISION, ROC_AUC, Measure, Metric, Statistic
from openclap.evals.ranks import as_numpy

ClassFigure = Callable[[Floats, NDArray[np.bool_]], Floats]
"""(R, N) weights and (N,) truth, both best first, to (R,)."""


@dataclass(frozen=True, slots=True)
class Tagged:
    """Scores and labels of N clips for C classes, and the ranking of the clips by each class, best first."""

    score_NC: Floats
    truth_NC: NDArray[np.bool_]
    order_NC: Ints

    @property
    def occurring(self) -> Ints:
        """The classes that some clips have and some do not: those with figures."""
        share_C = self.truth_NC.mean(0)
        return np.flatnonzero((share_C > 0) & (share_C < 1))


def tag(scores_NC: ArrayLike, truth_NC: ArrayLike, *, tie: float = 0.0) -> Tagged:
    """Rank the clips by every class, best first, with scores rounded to multiples of `tie`.

    Raises DataError where shapes do not fit, scores are NaN, or no class has both kinds of clips.
    """
    score_NC, truth = as_numpy(scores_NC).astype(np.float64), as_numpy(truth_NC).astype(bool)
    if score_NC.ndim != 2 or score_NC.shape != truth.shape or not score_NC.size:
        raise DataError(f"Scores {score_NC.shape} and truth {truth.shape} do not fit: expected (N, C) twice, N ≥ 1.")
    if np.isnan(score_NC).any():
        raise DataError("The class scores hold NaN, so nothing can be ranked. Check the embeddings they come from.")
    if tie:
        # Rounded instead of compared with a tolerance, which would not be transitive and so give no order.
        score_NC = np.round(score_NC / tie) * tie
    # By score, and where it is equal, clips without the label first: ties count against the model.
    tagged = Tagged(score_NC, truth, np.lexsort((truth, -score_NC), axis=0).astype(np.int64))
    if not len(tagged.occurring):
        raise DataError("No class has both clips with it and clips without it, so no figure is defined.")
    return tagged


def tagging_measures(tagged: Tagged) -> dict[Metric, Measure]:
    """mAP (the mean over classes of average precision) and AUC, as measures; items are clips."""
    item_N = np.arange(len(tagged.truth_NC))
    return {
        MEAN_AVERAGE_PRECISION: Measure(_mean_over_classes(tagged, _precision), item_N),
        ROC_AUC: Measure(_mean_over_classes(tagged, _area), item_N),
    }


def average_precisions(tagged: Tagged) -> Floats:
    """(C,) average precision; NaN for a class that all clips have, or none."""
    return _of_each_class(tagged, _precision)


def areas(tagged: Tagged) -> Floats:
    """(C,) area under the ROC curve; NaN as above."""
    return _of_each_class(tagged, _area)


def _of_each_class(tagged: Tagged, figure: ClassFigure) -> Floats:
    found_C = np.full(tagged.truth_NC.shape[1], np.nan)
    for c in tagged.occurring:
        order_N = tagged.order_NC[:, c]
        found_C[c] = figure(np.ones((1, len(order_N))), tagged.truth_NC[order_N, c])[0]
    return found_C


def _mean_over_classes(tagged: Tagged, figure: ClassFigure) -> Statistic:
    """Average a figure over classes, under weights. Classes without clips of both kinds in a resample are left out;
    where none remains, the mean is NaN."""

    def mean(weight_RN: Floats) -> Floats:
        sum_R, count_R = np.zeros(len(weight_RN)), np.zeros(len(weight_RN))
        # Class by class: an array of resamples × clips × classes would not fit in memory.
        for c in tagged.occurring:
            order_N = tagged.order_NC[:, c]
            value_R = figure(weight_RN[:, order_N], tagged.truth_NC[order_N, c])
            there_R = ~np.isnan(value_R)
            sum_R[there_R] += value_R[there_R]
            count_R += there_R
        return _share(sum_R, count_R)

    return mean


def _precision(weight_RN: Floats, truth_N: NDArray[np.bool_]) -> Floats:
    """(R,) average precision: the mean over clips with the class of the precision at their rank."""
    at = np.flatnonzero(truth_N)
    wanted_RP = weight_RN[:, at]
    # Weights count clips, so cumulated weights are ranks. The bound replaces 0 / 0 where a resample begins without
    # clips.
    share_RP = wanted_RP.cumsum(1) / np.maximum(weight_RN.cumsum(1)[:, at], 1e-12)
    # 0, so that the figure is undefined, where all clips of a resample have the class.
    total_R = wanted_RP.sum(1) * (weight_RN.sum(1) > wanted_RP.sum(1))
    return _share((wanted_RP * share_RP).sum(1), total_R)


def _area(weight_RN: Floats, truth_N: NDArray[np.bool_]) -> Floats:
    """(R,) area under the ROC curve: the share of pairs (with, without the class) that are in this order."""
    # Weights of clips without the class, 0 elsewhere.
    other_RN = np.where(truth_N, 0.0, weight_RN)
    total_R = other_RN.sum(1)
    # For each clip with the class, the clips without it that rank behind.
    behind_RP = total_R[:, None] - other_RN.cumsum(1)[:, truth_N]
    wanted_RP = weight_RN[:, truth_N]
    return _share((wanted_RP * behind_RP).sum(1), wanted_RP.sum(1) * total_R)


def _share(part_R: Floats, whole_R: Floats) -> Floats:
    return np.asarray(np.divide(part_R, whole_R, out=np.full(len(part_R), np.nan), where=whole_R > 0))
