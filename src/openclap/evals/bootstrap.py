"""Bootstrap intervals, paired comparisons, and the figures that chance alone would reach.

Letters in names: A clips, T captions, N items, C classes or different counts, K places, R resamples, G groups.

An interval resamples *groups*: takes of one recording are one independent observation, not many. The pool that is
searched stays whole; only the queries are resampled. All randomness comes from the seed that is passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from openclap.arrays import Floats, Ints
from openclap.errors import DataError
from openclap.evals.metrics import (
    ACCURACY,
    BALANCED_ACCURACY,
    MAP_AT_10,
    Classified,
    Measure,
    Metric,
    Statistic,
    classification_measures,
    classify,
    retrieval_measures,
)
from openclap.evals.ranks import CUT, Ranks, Relevance

RESAMPLES = 1000
DRAWS = 200
"""Random rankings, or permutations of labels, that chance is estimated from."""
LEVEL = 0.95
BLOCK = 4_000_000  # weights in memory at once: 32 MB
MANY = 50  # ranks of one query that are drawn one by one: the time of that grows with their square


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its 95 % interval. `low` and `high` are NaN where there is one group alone."""

    value: float
    low: float
    high: float


def bootstrap_interval(
    statistic: Statistic,
    group_N: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Estimate:
    """Compute a statistic of N items, and its percentile interval when whole groups are drawn with replacement.

    Args:
        group_N: any values that can be sorted; equal values are one group.

    Resamples in which the statistic is undefined (NaN) are left out. With a single group the interval is NaN. About
    0.1 s for 1,000 resamples of 300 items. Raises DataError on no items.
    """
    names, group_index_N = np.unique(np.asarray(group_N), return_inverse=True)
    items, groups = len(group_index_N), len(names)
    if not items:
        raise DataError("An interval needs at least one item, but there is none.")
    value = float(statistic(np.ones((1, items)))[0])
    if groups == 1:
        # Every resample of one group is that group: the interval would have no width, which says nothing about other
        # groups.
        return Estimate(value, float("nan"), float("nan"))
    # Blocks bound the memory; the generator is read in the same order whatever their size.
    rng, step, values = np.random.default_rng(seed), max(1, BLOCK // max(items, groups)), []
    for start in range(0, resamples, step):
        # Drawing G of G groups with replacement is one multinomial draw of how often each group occurs.
        count_RG = rng.multinomial(groups, np.full(groups, 1 / groups), size=min(step, resamples - start))
        values.append(statistic(count_RG[:, group_index_N].astype(np.float64)))
    low, high = _percentiles(np.concatenate(values), level)
    return Estimate(value, low, high)


def measure_interval(measure: Measure, group_A: Sequence[str], *, seed: int = 0) -> Estimate:
    """`bootstrap_interval` of a measure whose items belong to clips, given each clip's group."""
    return bootstrap_interval(measure.statistic, np.asarray(group_A)[measure.clip_N], seed=seed)


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference of two models' figures on the same clips, its 95 % interval, and a two-sided p.

    Interval and p are NaN with a single group.
    """

    estimate: Estimate
    p: float


def paired_difference(a: Measure, b: Measure, group_A: Sequence[str], *, seed: int = 0) -> Difference:
    """Subtract the figure of `b` from that of `a`, under the same resamples of the groups of their clips.

    `p` is twice the smaller share of resamples on one side of 0 (those equal to 0 count on both), and at least
    1 / RESAMPLES. Raises DataError when the two measures are not of the same clips.
    """
    if not np.array_equal(a.clip_N, b.clip_N):
        raise DataError("The two models were not measured on the same clips, so they cannot be compared in pairs.")
    values: list[Floats] = []

    def difference(weight_RN: Floats) -> Floats:
        values.append(a.statistic(weight_RN) - b.statistic(weight_RN))
        return values[-1]

    estimate = bootstrap_interval(difference, np.asarray(group_A)[a.clip_N], seed=seed)
    drawn = np.concatenate(values[1:]) if len(values) > 1 else np.zeros(0)  # the first value is the figure itself
    if not len(drawn):
        return Difference(estimate, float("nan"))
    side = min(float((drawn <= 0).mean()), float((drawn >= 0).mean()))
    # No fewer than one in all resamples: a p of 0 would claim more than the draws can show.
    return Difference(estimate, min(1.0, max(2 * side, 1 / len(drawn))))


def chance_retrieval(
    relevance: Relevance, *, map_at: Sequence[int] = (CUT,), draws: int = DRAWS, seed: int = 0
) -> dict[Metric, Estimate]:
    """Estimate the figures of random similarities of these clips and captions: means and 95 % intervals."""
    rng = np.random.default_rng(seed)
    # By the same measures as a model's figures, so both follow one protocol.
    tables = [retrieval_measures(random_ranks(relevance, rng), map_at) for _ in range(draws)]
    return {metric: _spread(np.array([table[metric].value for table in tables])) for metric in tables[0]}


def random_ranks(relevance: Relevance, rng: np.random.Generator) -> Ranks:
    """Draw the ranks of one random similarity, without making the (A, T) matrix.

    With independent continuous scores every column orders the clips at random, so the n right clips of a caption have
    any n ranks of 1..A; and every row orders the captions at random, so the n captions of a clip have any n ranks of
    1..T. (test_random_ranks_follow_random_matrices)
    """
    audio_to_text_P = _random_places(relevance.clip_P, relevance.captions, rng)
    return Ranks(relevance, _random_places(relevance.caption_P, relevance.clips, rng), audio_to_text_P)


def _random_places(query_P: Ints, candidates: int, rng: np.random.Generator) -> Ints:
    """(P,) ranks from 1, different for the pairs of one query."""
    order = np.argsort(query_P, kind="stable")
    # Queries with equally many right candidates are drawn together.
    count_P = np.bincount(query_P)[query_P[order]]
    rank_P = np.empty(len(query_P), np.int64)
    for count in np.unique(count_P):
        slots = order[count_P == count].reshape(-1, count)
        rank_P[slots] = _distinct(rng, len(slots), int(count), candidates) + 1
    return rank_P


def chance_preference(count: int, *, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """One half, with the 95 % interval of the share of heads in `count` tosses of a fair coin."""
    heads = np.random.default_rng(seed).binomial(count, 0.5, size=draws) / count
    spread = _spread(heads)
    return Estimate(0.5, min(spread.low, 0.5), max(spread.high, 0.5))


def chance_recall(count_A: Ints, pool: int, k: Ints) -> Floats:
    """The exact probability that k random candidates of `pool` hold one of a clip's `count` right ones; mean over
    clips, one value for each k.

    Text → audio: counts of 1, pool A. Audio → text: the number of captions of each clip, pool T.
    """
    different, weight = np.unique(count_A, return_counts=True)
    # The probability that none of the first k is right: a product over places, drawn without replacement.
    missed_CK = np.ones((len(different), len(k)))
    for place in range(int(np.max(k))):
        left_C = np.maximum(pool - different - place, 0) / max(pool - place, 1)
        missed_CK *= np.where(place < k, left_C[:, None], 1.0)
    return np.asarray(1.0 - np.average(missed_CK, axis=0, weights=weight), np.float64)


def chance_classification(
    answers: Classified, group_N: Sequence[str], *, draws: int = DRAWS, seed: int = 0
) -> dict[Metric, Estimate]:
    """Compute the figures that need no skill.

    The value is that of the best constant answer: for accuracy the share of the most frequent class, for balanced
    accuracy 1/C, for mAP@10 the classes in order of frequency. The interval is that of these predictions against
    permuted labels (runs of one group stay together),
    widened to hold the value; NaN where there is one group alone, which permutes to itself.
    """
    if len(set(group_N)) == 1:
        undefined = float("nan")
        return {
            metric: Estimate(value, undefined, undefined) for metric, value in constant_answer(answers.label_N).items()
        }
    rng, tables = np.random.default_rng(seed), []
    for _ in range(draws):
        order = _permuted_by_group(np.asarray(group_N), rng)
        measures = classification_measures(classify(answers.score_NC, answers.label_N[order]))
        tables.append({metric: measure.value for metric, measure in measures.items()})
    estimates = {}
    for metric, value in constant_answer(answers.label_N).items():
        spread = _spread(np.array([table[metric] for table in tables]))
        # The best constant answer is no permutation, and may lie outside their range.
        estimates[metric] = Estimate(value, min(spread.low, value), max(spread.high, value))
    return estimates


def constant_answer(label_N: Ints) -> dict[Metric, float]:
    """Compute the figures of the best constant answer, which depend only on the frequencies of the classes."""
    share_C = np.sort(np.unique(label_N, return_counts=True)[1])[::-1] / len(label_N)
    return {
        ACCURACY: float(share_C[0]),
        BALANCED_ACCURACY: 1.0 / len(share_C),
        MAP_AT_10: float((share_C[:CUT] / np.arange(1, len(share_C[:CUT]) + 1)).sum()),
    }


def _permuted_by_group(group_N: NDArray[np.str_], rng: np.random.Generator) -> Ints:
    """Permute the items so that whole groups change places."""
    names, index_N = np.unique(group_N, return_inverse=True)
    place_G = rng.permutation(len(names))
    order = np.empty(len(group_N), np.int64)
    # The items in order of their group get the labels of the items in order of their group's new place.
    order[np.argsort(index_N, kind="stable")] = np.argsort(place_G[index_N], kind="stable")
    return order


def _distinct(rng: np.random.Generator, rows: int, count: int, top: int) -> Ints:
    """(rows, count) whole numbers below `top`, all different within a row, in any order."""
    if count > MANY:
        return np.stack([rng.choice(top, count, replace=False) for _ in range(rows)]).astype(np.int64)
    chosen = np.empty((rows, count), np.int64)
    for place in range(count):
        drawn = rng.integers(0, top - place, size=rows)
        for taken in range(place):
            # `chosen` is sorted, so stepping over each taken number in turn maps 0..top-place-1 onto the numbers that
            # are left.
            drawn += drawn >= chosen[:, taken]
        chosen[:, place] = drawn
        chosen[:, : place + 1].sort(axis=1)
    return rng.permuted(chosen, axis=1)


def _spread(values: Floats) -> Estimate:
    return Estimate(float(values.mean()), *_percentiles(values, LEVEL))


def _percentiles(values: Floats, level: float) -> tuple[float, float]:
    """NaN where no value is defined."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    # The percentile method: no assumption about the distribution, and never outside the possible values.
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
