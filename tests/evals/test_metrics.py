from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix

from openclap.errors import DataError
from openclap.evals.metrics import (
    TEXT_TO_AUDIO,
    Metric,
    classes_in_detail,
    classification_metrics,
    classify,
    retrieval_measures,
    retrieval_metrics,
)
from openclap.evals.ranks import TIE, QueryRanks, rank_retrieval
from support.errors import raises_naming

GOLDEN = Path(__file__).parent.parent / "golden"
EXACT = {"rtol": 1e-9, "atol": 1e-12}


def golden(clips: int, protocol: str) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """(A, D) audio and (5A, D) text vectors, five captions a clip in order, and the reference's figures."""
    arrays = np.load(GOLDEN / f"retrieval_{clips}.npz")
    wanted = json.loads((GOLDEN / f"retrieval_{clips}.json").read_text())[protocol]
    return arrays["audio"], arrays["text"], {k: v for k, v in wanted.items() if "_to_" in k}


def best_first(similarity: object, owner: object) -> dict[str, float]:
    """The figures that evaluations print, without MRR."""
    measures = retrieval_measures(rank_retrieval(similarity, owner))
    return {metric.key: measure.value for metric, measure in measures.items() if metric.name != "MRR"}


@pytest.mark.parametrize("clips", [37, 120])
def test_one_caption_equals_the_reference(clips: int) -> None:
    audio, text, wanted = golden(clips, "one_caption")
    ours = retrieval_metrics(audio @ text[::5].T, np.arange(clips))
    assert len(wanted) == 12
    for name, value in wanted.items():
        np.testing.assert_allclose(ours[name], value, err_msg=name, **EXACT)


@pytest.mark.parametrize("clips", [37, 120])
def test_five_captions_equal_the_reference(clips: int) -> None:
    audio, text, wanted = golden(clips, "five_captions")
    ours = retrieval_metrics(audio @ text.T, np.repeat(np.arange(clips), 5))
    assert len(wanted) == 10
    for name, value in wanted.items():
        np.testing.assert_allclose(ours[name], value, err_msg=name, **EXACT)


@pytest.mark.parametrize("clips", [37, 120])
def test_published_average_precision_counts_in_listing_order(clips: int) -> None:
    audio, text, wanted = golden(clips, "five_captions")
    ranks = rank_retrieval(audio @ text.T, np.repeat(np.arange(clips), 5)).audio_to_text
    published = ranks.published_average_precision()
    np.testing.assert_allclose(published.mean(), wanted["audio_to_text_mAP@10"], **EXACT)
    assert ranks.average_precision().mean() < published.mean()


def test_published_average_precision_can_pass_one() -> None:
    all_found = QueryRanks(np.array([5, 4, 3, 2, 1]), np.zeros(5, int))
    assert all_found.average_precision().tolist() == [1.0]
    worked = (1 / 5 + 2 / 4 + 3 / 3 + 4 / 2 + 5 / 1) / 5
    assert all_found.published_average_precision()[0] == pytest.approx(worked) and worked > 1


def test_average_precision_does_not_depend_on_the_order_of_captions() -> None:
    audio, text, _ = golden(37, "five_captions")
    owner, order = np.repeat(np.arange(37), 5), np.random.default_rng(0).permutation(185)
    ours = best_first(audio @ text.T, owner)
    shuffled = best_first(audio @ text[order].T, owner[order])
    assert ours == pytest.approx(shuffled, abs=1e-12)


def test_a_small_matrix_by_hand() -> None:
    # clip 0 has captions 0 and 1, clip 1 has caption 2, clip 2 has captions 3, 4 and 5
    similarity = [
        [0.9, 0.1, 0.5, 0.4, 0.3, 0.2],
        [0.2, 0.6, 0.7, 0.8, 0.1, 0.0],
        [0.1, 0.5, 0.6, 0.9, 0.3, 0.1],
    ]
    ranks = rank_retrieval(similarity, [0, 0, 1, 2, 2, 2])
    # caption 4 ties with clip 0 and so comes second; caption 5 loses to clip 0
    assert ranks.text_to_audio_P.tolist() == [1, 3, 1, 1, 2, 2]
    # clip 0 places its captions first and last; clip 1 finds its own second; clip 2 has 0.9, 0.3 and 0.1
    # against 0.1, 0.5 and 0.6 of others: 1st, 4th (two better), and 6th (the tie at 0.1 stands first)
    assert ranks.audio_to_text_P.tolist() == [1, 6, 2, 1, 4, 6]
    figures = best_first(similarity, [0, 0, 1, 2, 2, 2])
    assert figures["text_to_audio_R@1"] == 3 / 6
    assert figures["text_to_audio_mAP@10"] == pytest.approx((3 + 1 / 3 + 2 / 2) / 6)
    assert figures["text_to_audio_median_rank"] == 1.0  # floor((0 + 1) / 2) + 1
    assert figures["text_to_audio_mean_rank"] == 10 / 6
    assert figures["audio_to_text_R@1"] == pytest.approx(2 / 3)
    precision = [(1 / 1 + 2 / 6) / 2, 1 / 2, (1 / 1 + 2 / 4 + 3 / 6) / 3]
    assert figures["audio_to_text_mAP@10"] == pytest.approx(np.mean(precision))
    assert figures["audio_to_text_mean_rank"] == pytest.approx(4 / 3)


def test_ties_count_against_the_model() -> None:
    figures = retrieval_metrics(np.zeros((20, 40)), np.repeat(np.arange(20), 2))
    assert figures["text_to_audio_R@10"] == 0.0
    assert figures["text_to_audio_median_rank"] == 20.0
    assert figures["audio_to_text_mAP@10"] == 0.0
    assert figures["audio_to_text_mean_rank"] == 39.0


def test_one_clip_finds_itself() -> None:
    figures = retrieval_metrics([[0.3]], [0])
    assert set(figures.values()) == {1.0}
    assert best_first([[0.1, 0.2, 0.2]], [0, 0, 0])["audio_to_text_mAP@10"] == 1.0


def test_clips_without_captions_are_candidates_but_no_queries() -> None:
    figures = retrieval_metrics([[0.1], [0.5], [0.9]], [1])
    assert figures["text_to_audio_mean_rank"] == 2.0
    assert figures["audio_to_text_R@1"] == 1.0


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Few different scores, so that ties abound; one to seven captions a clip, in any order."""
    counts = draw(st.lists(st.integers(1, 7), min_size=1, max_size=9))
    owner = np.array(draw(st.permutations([clip for clip, n in enumerate(counts) for _ in range(n)])))
    scores = st.lists(st.integers(-3, 3), min_size=len(owner), max_size=len(owner))
    rows = draw(st.lists(scores, min_size=len(counts), max_size=len(counts)))
    return np.array(rows, np.float32) / 4, owner


def by_hand(similarity: np.ndarray, owner: np.ndarray) -> dict[str, float]:
    """The same figures by sorting lists, one query at a time."""
    clips, captions = similarity.shape
    to_audio = []
    for t in range(captions):
        order = sorted(range(clips), key=lambda a, t=t: (-similarity[a, t], a == owner[t]))
        to_audio.append(order.index(owner[t]) + 1)
    best, precision = [], []
    for a in range(clips):
        order = sorted(range(captions), key=lambda t, a=a: (-similarity[a, t], owner[t] == a))
        places = sorted(order.index(t) + 1 for t in range(captions) if owner[t] == a)
        best.append(places[0])
        precision.append(sum(i / p for i, p in enumerate(places, 1) if p <= 10) / len(places))
    figures = {
        "text_to_audio_mAP@10": np.mean([1 / r if r <= 10 else 0 for r in to_audio]),
        "audio_to_text_mAP@10": np.mean(precision),
    }
    for task, ranks in (("text_to_audio", np.array(to_audio)), ("audio_to_text", np.array(best))):
        figures |= {f"{task}_R@{k}": np.mean(ranks <= k) for k in (1, 5, 10)}
        figures[f"{task}_median_rank"] = np.floor(np.median(ranks - 1)) + 1
        figures[f"{task}_mean_rank"] = ranks.mean()
    return {name: float(value) for name, value in figures.items()}


@settings(max_examples=150, deadline=None)
@given(problems())
def test_figures_equal_sorting_by_hand(problem: tuple[np.ndarray, np.ndarray]) -> None:
    assert best_first(*problem) == pytest.approx(by_hand(*problem), abs=1e-12)


def test_torch_tensors_and_lists_are_accepted() -> None:
    similarity = torch.randn(6, 12, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    owner = torch.arange(6).repeat_interleave(2)
    assert retrieval_metrics(similarity, owner) == retrieval_metrics(
        similarity.detach().float().numpy(), owner.tolist()
    )


def test_figures_do_not_depend_on_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    similarity, owner = np.random.default_rng(1).random((31, 90)), np.arange(90) % 31
    whole = retrieval_metrics(similarity, owner)
    monkeypatch.setattr("openclap.evals.ranks.ROWS", 7)
    monkeypatch.setattr("openclap.evals.ranks.COLUMNS", 11)
    assert retrieval_metrics(similarity, owner) == whole


def test_the_input_is_not_changed() -> None:
    similarity, owner = np.random.default_rng(1).random((5, 9)), np.arange(9) % 5
    before = similarity.copy(), owner.copy()
    retrieval_metrics(similarity, owner)
    np.testing.assert_array_equal(similarity, before[0])
    np.testing.assert_array_equal(owner, before[1])


@pytest.mark.parametrize(
    ("similarity", "owner", "value"),
    [
        (np.zeros((2, 3)), [0, 1], "(2, 3)"),
        (np.zeros((0, 0)), [], "(0, 0)"),
        (np.zeros((2, 2)), [0, 2], "2 clips"),
        (np.array([[0.0, np.nan]]), [0, 0], "NaN"),
        (np.zeros((2, 2)), [0.0, 0.5], "float64"),
    ],
)
def test_invalid_retrieval_input_is_refused(similarity: np.ndarray, owner: list[float], value: str) -> None:
    with raises_naming(DataError, value):
        retrieval_metrics(similarity, owner)


def test_whole_number_weights_repeat_items() -> None:
    rng = np.random.default_rng(3)
    measures = retrieval_measures(rank_retrieval(rng.random((9, 9)), np.arange(9)))
    weights = rng.integers(0, 4, size=(5, 9))
    ranks = rank_retrieval(np.random.default_rng(3).random((9, 9)), np.arange(9)).text_to_audio_P
    for weight in weights:
        repeated = np.repeat(ranks, weight)
        median = measures[Metric("median_rank", TEXT_TO_AUDIO)].statistic(weight[None].astype(float))[0]
        mean = measures[Metric("mean_rank", TEXT_TO_AUDIO)].statistic(weight[None].astype(float))[0]
        assert median == np.floor(np.median(repeated - 1)) + 1
        assert mean == pytest.approx(repeated.mean())


def test_classification_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 5, 200)
    score = rng.random((200, 7)) + 0.3 * (np.arange(7) == label[:, None])
    ours, predicted = classification_metrics(score, label), score.argmax(1)
    assert ours["accuracy"] == pytest.approx(accuracy_score(label, predicted))
    recalls = [np.mean(predicted[label == c] == c) for c in range(5)]
    assert ours["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    both = np.isin(predicted, np.arange(5))
    assert balanced_accuracy_score(label[both], predicted[both]) >= ours["balanced_accuracy"]
    np.testing.assert_array_equal(
        classify(score, label).confusion(), confusion_matrix(label, predicted, labels=range(7))
    )
    rank = 1 + (score > score[np.arange(200), label][:, None]).sum(1)
    assert ours["mAP@10"] == pytest.approx(np.mean(1 / rank))


def test_equal_class_scores_count_as_wrong() -> None:
    score, label = np.zeros((4, 12)), [0, 1, 2, 3]
    ours = classification_metrics(score, label)
    assert ours["accuracy"] == 0.0
    assert ours["mAP@10"] == 0.0  # rank 12 is beyond 10
    assert np.trace(classify(score, label).confusion()) == 0


@pytest.mark.parametrize(
    ("score", "label", "value"),
    [
        (np.zeros((2, 3)), [0], "(2, 3)"),
        (np.zeros((1, 3)), [3], "3 classes"),
        (np.array([[np.nan, 0]]), [0], "NaN"),
        (np.zeros((1, 3)), ["dog"], "<U3"),
    ],
)
def test_invalid_classification_input_is_refused(score: np.ndarray, label: list[int] | list[str], value: str) -> None:
    with raises_naming(DataError, value):
        classify(score, label)


def test_precision_of_a_class_never_predicted() -> None:
    rows = classes_in_detail(classify(np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]), [0, 0, 1]))
    assert (rows[0].precision, rows[1].precision, rows[1].recall, rows[1].f1) == (2 / 3, None, 0.0, 0.0)


def test_figures_of_each_class() -> None:
    rows = classes_in_detail(classify([[2, 1, 0], [0, 2, 1], [2, 1, 0], [0, 1, 2]], [0, 1, 1, 1]))
    assert [(row.label, row.clips) for row in rows] == [(0, 1), (1, 3)]
    assert (rows[0].recall, rows[0].precision) == (1.0, 0.5)
    assert (rows[1].recall, rows[1].precision, rows[1].f1) == pytest.approx((1 / 3, 1.0, 0.5))


def test_close_class_scores_are_a_tie() -> None:
    assert classify([[1.0, 1.0 - 1e-6]], [0]).rank_N.tolist() == [1]
    answers = classify([[1.0, 1.0 - 1e-6]], [0], tie=TIE)
    assert answers.rank_N.tolist() == [2] and answers.predicted_N.tolist() == [1]
