from __future__ import annotations

import math
import time

import numpy as np
import pytest

from openclap.errors import DataError
from openclap.evals.bootstrap import (
    bootstrap_interval,
    chance_classification,
    chance_recall,
    chance_retrieval,
    constant_answer,
    measure_interval,
    paired_difference,
    random_ranks,
)
from openclap.evals.metrics import (
    ACCURACY,
    AUDIO_TO_TEXT,
    BALANCED_ACCURACY,
    MRR,
    TEXT_TO_AUDIO,
    Measure,
    Metric,
    classify,
    mean_of,
    retrieval_measures,
    retrieval_metrics,
)
from openclap.evals.ranks import Relevance, rank_retrieval
from support.errors import raises_naming


def test_intervals_cover_the_truth() -> None:
    rng, covered = np.random.default_rng(0), 0
    for _ in range(200):
        hits = (rng.random(150) < 0.3).astype(float)
        interval = bootstrap_interval(mean_of(hits), np.arange(150), resamples=300)
        covered += interval.low <= 0.3 <= interval.high
    assert 180 <= covered <= 199  # 95 % of 200, give or take three standard errors


def test_intervals_equal_the_normal_approximation() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    interval = bootstrap_interval(mean_of(values), np.arange(400))
    spread = 1.96 * values.std() / 20
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - spread, abs=0.04)
    assert interval.high == pytest.approx(values.mean() + spread, abs=0.04)


def test_takes_of_one_recording_count_once() -> None:
    once = np.random.default_rng(2).random(60)
    alone = bootstrap_interval(mean_of(once), np.arange(60))
    takes, group = np.repeat(once, 10), np.repeat(np.arange(60), 10)
    grouped = bootstrap_interval(mean_of(takes), group)
    naive = bootstrap_interval(mean_of(takes), np.arange(600))
    assert grouped.high - grouped.low == pytest.approx(alone.high - alone.low)
    assert naive.high - naive.low < 0.5 * (grouped.high - grouped.low)


def test_the_same_seed_gives_the_same_interval() -> None:
    values, group = np.random.default_rng(3).random(50), [f"g{i // 3}" for i in range(50)]
    first = bootstrap_interval(mean_of(values), group, seed=7)
    assert first == bootstrap_interval(mean_of(values), group, seed=7)
    assert first != bootstrap_interval(mean_of(values), group, seed=8)


def test_intervals_do_not_depend_on_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).random(50)
    whole = bootstrap_interval(mean_of(values), np.arange(50))
    monkeypatch.setattr("openclap.evals.bootstrap.BLOCK", 500)
    assert bootstrap_interval(mean_of(values), np.arange(50)) == whole


def test_one_group_has_no_interval() -> None:
    estimate = bootstrap_interval(mean_of(np.array([0.0, 1.0])), ["same", "same"])
    assert estimate.value == 0.5
    assert math.isnan(estimate.low) and math.isnan(estimate.high)


def test_no_items_have_no_interval() -> None:
    with raises_naming(DataError):
        bootstrap_interval(mean_of(np.zeros(0)), [])


def test_a_thousand_resamples_of_all_figures_take_about_a_second() -> None:
    rng, owner = np.random.default_rng(0), np.repeat(np.arange(300), 5)
    measures = retrieval_measures(rank_retrieval(rng.random((300, 1500)), owner))
    start = time.perf_counter()
    for measure in measures.values():
        measure_interval(measure, [f"g{i // 2}" for i in range(300)])
    assert time.perf_counter() - start < 5  # 0.2 s on two idle cores


def test_random_ranks_follow_random_matrices() -> None:
    rng, owner = np.random.default_rng(0), np.array([0, 0, 0, 1, 2, 2, 3, 3, 3, 3, 5])
    drawn = [random_ranks(Relevance.of_owners(owner, 6), rng) for _ in range(3000)]
    ranked = [rank_retrieval(rng.random((6, 11)), owner) for _ in range(3000)]
    for ranks in drawn[:50]:
        for clip in range(6):
            own = ranks.audio_to_text_P[owner == clip]
            assert len(set(own.tolist())) == len(own)
    for read in (
        lambda r: r.text_to_audio_P,
        lambda r: r.audio_to_text_P,
        lambda r: r.audio_to_text.best(),
        lambda r: r.audio_to_text.average_precision(),
    ):
        ours, theirs = np.stack([read(r) for r in drawn]), np.stack([read(r) for r in ranked])
        error = 4 * theirs.std(0) * math.sqrt(2 / 3000) + 1e-9
        assert (np.abs(ours.mean(0) - theirs.mean(0)) < error).all()
        assert np.abs(ours.std(0) - theirs.std(0)).max() < 0.15 * theirs.std(0).max()


def test_chance_of_retrieval_equals_exact_values() -> None:
    owner = np.repeat(np.arange(80), 3)
    relevance = Relevance.of_owners(owner, 80)
    chance = chance_retrieval(relevance, draws=400)
    for k in (1, 5, 10):
        assert chance[Metric(f"R@{k}", TEXT_TO_AUDIO)].value == pytest.approx(k / 80, abs=0.004)
        exact = 1 - math.comb(237, k) / math.comb(240, k)
        assert chance[Metric(f"R@{k}", AUDIO_TO_TEXT)].value == pytest.approx(exact, abs=0.006)
    assert chance[Metric("mean_rank", TEXT_TO_AUDIO)].value == pytest.approx(40.5, abs=0.3)
    assert chance[Metric("mean_rank", AUDIO_TO_TEXT)].value == pytest.approx(241 / 4, abs=1)  # least of 3 of 240
    assert chance[Metric("mAP@10", TEXT_TO_AUDIO)].value == pytest.approx(
        sum(1 / k for k in range(1, 11)) / 80, abs=0.003
    )
    spread = chance[Metric("R@10", TEXT_TO_AUDIO)]
    assert spread.low < spread.value < spread.high
    published = {metric.key for metric in chance if metric.name != MRR}
    assert published == retrieval_metrics(np.eye(2), [0, 1]).keys()
    assert chance == chance_retrieval(relevance, draws=400)


def test_chance_recall_is_exact() -> None:
    counts, k = np.array([1, 3, 5, 3]), np.array([1, 2, 7, 12])
    wanted = [np.mean([1 - math.comb(12 - n, j) / math.comb(12, j) for n in counts]) for j in k]
    np.testing.assert_allclose(chance_recall(counts, 12, k), wanted, atol=1e-12)


def test_chance_of_labels_is_the_best_constant_answer() -> None:
    label = np.repeat([0, 1, 2], [60, 30, 10])
    constant = {metric.key: value for metric, value in constant_answer(label).items()}
    assert constant == pytest.approx({"accuracy": 0.6, "balanced_accuracy": 1 / 3, "mAP@10": 0.6 + 0.3 / 2 + 0.1 / 3})
    score = np.random.default_rng(0).random((100, 3))
    chance = chance_classification(classify(score, label), [f"g{i}" for i in range(100)], draws=300)
    assert chance[ACCURACY].value == 0.6
    assert chance[BALANCED_ACCURACY].value == pytest.approx(1 / 3)
    assert chance[BALANCED_ACCURACY].low < 1 / 3 < chance[BALANCED_ACCURACY].high
    assert chance[ACCURACY].low < 0.4 < chance[ACCURACY].high  # random answers, and the constant one


def test_permuting_groups_widens_the_chance_of_labels() -> None:
    label = np.repeat(np.arange(4), 50)
    score = 1.0 * (np.arange(4) == np.repeat(np.arange(4), 50)[:, None])
    alone = chance_classification(classify(score, label), [str(i) for i in range(200)])
    grouped = chance_classification(classify(score, label), [str(i // 25) for i in range(200)])
    width = [c[ACCURACY].high - c[ACCURACY].low for c in (alone, grouped)]
    assert width[1] > 2 * width[0]


def test_p_by_hand() -> None:
    """Of two groups a quarter of the resamples are the first one twice, a quarter the second one twice."""
    better, worse = (Measure(mean_of(np.array(right)), np.arange(2)) for right in ([1.0, 1.0], [0.0, 1.0]))
    found = paired_difference(better, worse, ["a", "b"])
    assert found.estimate.value == 0.5 and found.p == pytest.approx(2 * 0.25, abs=0.06)
    alone = paired_difference(better, worse, ["a", "a"])
    assert alone.estimate.value == 0.5 and math.isnan(alone.p) and math.isnan(alone.estimate.low)
