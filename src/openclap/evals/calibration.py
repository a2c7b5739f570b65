"""Whether a model is right as often as it is sure: reliability, and the expected calibration error.

Letters in names: N answers, C classes, B bins. Equal bins of confidence, as in Guo et al. 2017 (arXiv:1706.04599).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from openclap.errors import DataError
from openclap.evals.metrics import Classified
from openclap.evals.ranks import Floats, Ints, as_numpy

BINS = 15


@dataclass(frozen=True, slots=True)
class Reliability:
    """Answers by how sure they were: `confidence_B` and `accuracy_B` are means of the `count_B` in each bin, NaN in an
    empty one."""

    count_B: Ints
    confidence_B: Floats
    accuracy_B: Floats

    @property
    def error(self) -> float:
        """ECE: the mean over answers of how far their bin's accuracy is from its confidence."""
        there = self.count_B > 0
        gap_B = np.abs(self.accuracy_B[there] - self.confidence_B[there])
        return float((self.count_B[there] * gap_B).sum() / self.count_B.sum())


def reliability(confidence_N: ArrayLike, right_N: ArrayLike, *, bins: int = BINS) -> Reliability:
    """How often answers of each confidence (0 to 1) are right. Raises DataError where these cannot be."""
    confidence, right = as_numpy(confidence_N).astype(np.float64), as_numpy(right_N).astype(np.float64)
    if confidence.ndim != 1 or confidence.shape != right.shape or not confidence.size:
        raise DataError(f"Confidences {confidence.shape} and answers {right.shape} do not fit: expected (N,) twice.")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise DataError("Confidences lie outside 0 to 1: expected probabilities.")
    bin_N = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    count_B = np.bincount(bin_N, minlength=bins)
    sums = [np.bincount(bin_N, weights=values, minlength=bins) for values in (confidence, right)]
    mean_confidence, mean_right = (
        np.divide(total, count_B, out=np.full(bins, np.nan), where=count_B > 0) for total in sums
    )
    return Reliability(count_B, mean_confidence, mean_right)


def sure_of(answers: Classified, scale: float) -> Reliability:
    """The reliability of zero-shot answers: the softmax over classes of cosines times the model's logit scale."""
    logit_NC = answers.score_NC.astype(np.float64) * scale
    chance_NC = np.exp(logit_NC - logit_NC.max(1, keepdims=True))
    confidence_N = chance_NC.max(1) / chance_NC.sum(1)
    return reliability(confidence_N, answers.rank_N == 1)
