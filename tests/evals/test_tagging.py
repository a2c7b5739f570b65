"""Average precision and AUC of any number of labels per clip, against scikit-learn and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from openclap.errors import DataError
from openclap.evals.bootstrap import bootstrap_interval
from openclap.evals.metrics import MEAN_AVERAGE_PRECISION, ROC_AUC
from openclap.evals.tagging import areas, average_precisions, tag, tagging_measures
from support.errors import raises_naming


def problem(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random((60, 7)) < 0.3
    return rng.standard_normal((60, 7)) + truth, truth


def test_figures_equal_scikit_learn() -> None:
    score, truth = problem()
    tagged = tag(score, truth)
    measures = tagging_measures(tagged)
    assert measures[MEAN_AVERAGE_PRECISION].value == pytest.approx(
        average_precision_score(truth, score, average="macro")
    )
    assert measures[ROC_AUC].value == pytest.approx(roc_auc_score(truth, score, average="macro"))
    for c in range(7):
        assert average_precisions(tagged)[c] == pytest.approx(average_precision_score(truth[:, c], score[:, c]))
        assert areas(tagged)[c] == pytest.approx(roc_auc_score(truth[:, c], score[:, c]))


def test_resamples_equal_scikit_learn_with_weights() -> None:
    score, truth = problem(1)
    weight = np.random.default_rng(2).multinomial(60, np.full(60, 1 / 60), size=3).astype(float)
    measures = tagging_measures(tag(score, truth))
    for name, theirs in ((MEAN_AVERAGE_PRECISION, average_precision_score), (ROC_AUC, roc_auc_score)):
        wanted = [theirs(truth, score, average="macro", sample_weight=row) for row in weight]
        np.testing.assert_allclose(measures[name].statistic(weight), wanted)


def test_ties_count_against_the_model() -> None:
    measures = tagging_measures(tag(np.zeros((4, 1)), [[True], [False], [True], [False]]))
    assert measures[ROC_AUC].value == 0.0
    assert measures[MEAN_AVERAGE_PRECISION].value == pytest.approx((1 / 3 + 2 / 4) / 2)
    close = tagging_measures(tag([[0.5000001], [0.5]], [[True], [False]], tie=1e-5))
    assert close[ROC_AUC].value == 0.0 and close[MEAN_AVERAGE_PRECISION].value == 0.5


def test_a_class_of_all_or_no_clips_is_left_out() -> None:
    score, truth = problem()
    more = np.concatenate([truth, np.ones((60, 1), bool), np.zeros((60, 1), bool)], axis=1)
    tagged = tag(np.concatenate([score, score[:, :2]], axis=1), more)
    assert tagged.occurring.tolist() == list(range(7)) and np.isnan(average_precisions(tagged)[7:]).all()
    assert tagging_measures(tagged)[MEAN_AVERAGE_PRECISION].value == pytest.approx(
        tagging_measures(tag(score, truth))[MEAN_AVERAGE_PRECISION].value
    )


@pytest.mark.parametrize(
    ("score", "truth", "values"),
    [
        (np.zeros((2, 3)), np.zeros((2, 2)), ["(2, 3)", "(2, 2)"]),
        (np.full((2, 1), np.nan), [[1], [0]], ["NaN"]),
        (np.zeros((2, 1)), [[1], [1]], []),
    ],
)
def test_invalid_input_is_refused(score: np.ndarray, truth: object, values: list[str]) -> None:
    with raises_naming(DataError, *values):
        tag(score, np.asarray(truth))


def test_resamples_without_a_class_are_left_out() -> None:
    """Of two clips one has the class: a resample that draws either of them twice has no figure."""
    measure = tagging_measures(tag(np.array([[0.9], [0.1]]), np.array([[True], [False]])))[MEAN_AVERAGE_PRECISION]
    assert math.isnan(measure.statistic(np.array([[2.0, 0.0]]))[0])
    found = bootstrap_interval(measure.statistic, ["a", "b"])
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
