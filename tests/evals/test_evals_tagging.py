"""Several labels a clip, and calibration, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from openclap.errors import DataError
from openclap.evals.calibration import reliability, sure_of
from openclap.evals.metrics import classify
from openclap.evals.tagging import areas, average_precisions, tag, tagging_measures


def problem(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random((60, 7)) < 0.3
    return rng.standard_normal((60, 7)) + truth, truth


def test_figures_equal_scikit_learn() -> None:
    score, truth = problem()
    tagged = tag(score, truth)
    measures = tagging_measures(tagged)
    assert measures["mAP"].value == pytest.approx(average_precision_score(truth, score, average="macro"))
    assert measures["AUC"].value == pytest.approx(roc_auc_score(truth, score, average="macro"))
    for c in range(7):
        assert average_precisions(tagged)[c] == pytest.approx(average_precision_score(truth[:, c], score[:, c]))
        assert areas(tagged)[c] == pytest.approx(roc_auc_score(truth[:, c], score[:, c]))


def test_resamples_equal_scikit_learn_with_weights() -> None:
    score, truth = problem(1)
    weight = np.random.default_rng(2).multinomial(60, np.full(60, 1 / 60), size=3).astype(float)
    measures = tagging_measures(tag(score, truth))
    for name, theirs in (("mAP", average_precision_score), ("AUC", roc_auc_score)):
        wanted = [theirs(truth, score, average="macro", sample_weight=row) for row in weight]
        np.testing.assert_allclose(measures[name].statistic(weight), wanted)


def test_ties_stand_against_us() -> None:
    measures = tagging_measures(tag(np.zeros((4, 1)), [[True], [False], [True], [False]]))
    assert measures["AUC"].value == 0.0
    assert measures["mAP"].value == pytest.approx((1 / 3 + 2 / 4) / 2)
    close = tagging_measures(tag([[0.5000001], [0.5]], [[True], [False]], tie=1e-5))
    assert close["AUC"].value == 0.0 and close["mAP"].value == 0.5


def test_a_class_that_all_or_none_have_is_left_out() -> None:
    score, truth = problem()
    more = np.concatenate([truth, np.ones((60, 1), bool), np.zeros((60, 1), bool)], axis=1)
    tagged = tag(np.concatenate([score, score[:, :2]], axis=1), more)
    assert tagged.occurring.tolist() == list(range(7)) and np.isnan(average_precisions(tagged)[7:]).all()
    assert tagging_measures(tagged)["mAP"].value == pytest.approx(tagging_measures(tag(score, truth))["mAP"].value)


@pytest.mark.parametrize(
    ("score", "truth", "says"),
    [
        (np.zeros((2, 3)), np.zeros((2, 2)), "do not fit"),
        (np.full((2, 1), np.nan), [[1], [0]], "NaN"),
        (np.zeros((2, 1)), [[1], [1]], "nothing to tell apart"),
    ],
)
def test_what_cannot_be_judged(score: np.ndarray, truth: object, says: str) -> None:
    with pytest.raises(DataError, match=says):
        tag(score, np.asarray(truth))


def test_reliability_by_hand() -> None:
    found = reliability([0.05, 0.95, 0.95, 1.0], [0, 1, 0, 1], bins=10)
    assert found.count_B.tolist() == [1, *[0] * 8, 3]
    assert found.accuracy_B[9] == pytest.approx(2 / 3) and found.confidence_B[9] == pytest.approx(2.9 / 3)
    assert found.error == pytest.approx((0.05 + 3 * (2.9 / 3 - 2 / 3)) / 4)


def test_a_model_that_is_right_as_often_as_it_is_sure() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(40_000)
    assert reliability(confidence, rng.random(40_000) < confidence).error < 0.015


def test_sureness_is_the_softmax_of_scaled_cosines() -> None:
    found = sure_of(classify([[0.3, 0.1], [0.2, 0.1]], [0, 1]), scale=10.0)
    chances = 1 / (1 + np.exp([-2.0, -1.0]))
    assert np.nansum(found.confidence_B * found.count_B) == pytest.approx(chances.sum())
    assert np.nansum(found.accuracy_B * found.count_B) == 1


@pytest.mark.parametrize(("confidence", "right"), [([0.5, 1.2], [1, 0]), ([], []), ([0.5], [1, 0])])
def test_confidences_that_cannot_be(confidence: list[float], right: list[int]) -> None:
    with pytest.raises(DataError, match="Confidences"):
        reliability(confidence, right)
