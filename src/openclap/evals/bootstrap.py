"""How sure a figure is, and what chance alone would reach.

Letters in names: A clips, T captions, N items, C classes or different counts, K places, R resamples, G
groups.

An interval resamples *groups*: takes of one recording are one piece of evidence, not many. The pool that is
searched stays whole; only the askers are resampled. All randomness comes from the seed that is passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from openclap.errors import DataError
from openclap.evals.metrics import (
    Classified,
    Measure,
    Statistic,
    classification_measures,
    classify,
    retrieval_measures,
)
from openclap.evals.ranks import CUT, Floats, Ints, Ranks

RESAMPLES = 1000
DRAWS = 200
LEVEL = 0.95
BLOCK = 4_000_000  # weights held at once


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
    """The statistic of N items, and its percentile interval when whole groups are drawn with replacement. Resamples in
    which it is not defined (NaN) are left out.

    `group_N` holds any values that can be sorted; equal values are one group. About 0.1 s for 1,000
    resamples of 300 items. With a single group the interval is NaN: there is nothing to resample. Raises
    DataError on no items.
    """
    names, group_index_N = np.unique(np.asarray(group_N), return_inverse=True)
    items, groups = len(group_index_N), len(names)
    if not items:
        raise DataError("There is nothing to resample: an interval needs at least one item.")
    value = float(statistic(np.ones((1, items)))[0])
    if groups == 1:
        return Estimate(value, float("nan"), float("nan"))
    rng, step, values = np.random.default_rng(seed), max(1, BLOCK // max(items, groups)), []
    for start in range(0, resamples, step):
        count_RG = rng.multinomial(groups, np.full(groups, 1 / groups), size=min(step, resamples - start))
        values.append(statistic(count_RG[:, group_index_N].astype(np.float64)))
    low, high = _percentiles(np.concatenate(values), level)
    return Estimate(value, low, high)


def measure_interval(measure: Measure, group_A: Sequence[str], *, seed: int = 0) -> Estimate:
    """`bootstrap_interval` of a measure whose items belong to clips, given each clip's group."""
    return bootstrap_interval(measure.statistic, np.asarray(group_A)[measure.clip_N], seed=seed)


@dataclass(frozen=True, slots=True)
class Difference:
    """By how much one model's figure is above another's on the same clips: the value, its 95 % interval, and how often
    (of two sides) resamples contradict its sign. Interval and p are NaN where there is one group alone."""

    estimate: Estimate
    p: float


def paired_difference(a: Measure, b: Measure, group_A: Sequence[str], *, seed: int = 0) -> Difference:
    """Of a's figure and b's, under the same resamples of the groups of their clips.

    `p` is twice the smaller share of resamples on a side of 0, those on it counted to both; at least 1 / RESAMPLES.
    Raises DataError when the two were not asked the same.
    """
    if not np.array_equal(a.clip_N, b.clip_N):
        raise DataError("The two models were not asked about the same clips, so they cannot be compared in pairs.")
    values: list[Floats] = []

    def difference(weight_RN: Floats) -> Floats:
        values.append(a.statistic(weight_RN) - b.statistic(weight_RN))
        return values[-1]

    estimate = bootstrap_interval(difference, np.asarray(group_A)[a.clip_N], seed=seed)
    drawn = np.concatenate(values[1:]) if len(values) > 1 else np.zeros(0)
    if not len(drawn):
        return Difference(estimate, float("nan"))
    side = min(float((drawn <= 0).mean()), float((drawn >= 0).mean()))
    return Difference(estimate, min(1.0, max(2 * side, 1 / len(drawn))))


def chance_retrieval(owner_T: ArrayLike, clips: int, *, draws: int = DRAWS, seed: int = 0) -> dict[str, Estimate]:
    """What random similarities of this shape and these owners reach: means and 95 % intervals."""
    owners, rng = np.asarray(owner_T, np.int64), np.random.default_rng(seed)
    tables = [retrieval_measures(random_ranks(owners, clips, rng)) for _ in range(draws)]
    return {name: _spread(np.array([table[name].value for table in tables])) for name in tables[0]}


def random_ranks(owner_T: Ints, clips: int, rng: np.random.Generator) -> Ranks:
    """The ranks of one random similarity, drawn without making the (A, T) matrix.

    With independent continuous scores every column orders the clips at random, so a caption's clip is
    anywhere in 1..A; and every row orders the captions at random, so a clip's n captions are any n places
    of 1..T. (test_random_ranks_follow_random_matrices)
    """
    captions = len(owner_T)
    order = np.argsort(owner_T, kind="stable")
    count_T = np.bincount(owner_T, minlength=clips)[owner_T[order]]
    rank_T = np.empty(captions, np.int64)
    for count in np.unique(count_T):
        slots = order[count_T == count].reshape(-1, count)
        rank_T[slots] = _distinct(rng, len(slots), int(count), captions) + 1
    return Ranks(rng.integers(1, clips + 1, size=captions), rank_T, owner_T, clips)


def chance_recall(count_A: Ints, pool: int, k: Ints) -> Floats:
    """The exact chance that k random places of `pool` hold one of a clip's `count` wanted ones; mean over
    clips.

    Text → audio: counts of 1, pool A. Audio → text: captions of each clip, pool T. Returns one value for
    each k.
    """
    different, weight = np.unique(count_A, return_counts=True)
    missed_CK = np.ones((len(different), len(k)))
    for place in range(int(np.max(k))):
        left_C = np.maximum(pool - different - place, 0) / max(pool - place, 1)
        missed_CK *= np.where(place < k, left_C[:, None], 1.0)
    return np.asarray(1.0 - np.average(missed_CK, axis=0, weights=weight), np.float64)


def chance_classification(
    answers: Classified, group_N: Sequence[str], *, draws: int = DRAWS, seed: int = 0
) -> dict[str, Estimate]:
    """What can be reached without listening.

    The value is the best that one fixed answer for every clip reaches: for accuracy the share of the most
    frequent class, for balanced accuracy 1/C, for mAP@10 the classes named from most to least frequent. The
    interval is what these very predictions get against permuted labels (runs of one group stay together),
    widened to hold the value; NaN where there is one group alone, which permutes to itself.
    """
    if len(set(group_N)) == 1:
        undefined = float("nan")
        return {name: Estimate(value, undefined, undefined) for name, value in fixed_answer(answers.label_N).items()}
    rng, tables = np.random.default_rng(seed), []
    for _ in range(draws):
        order = _permuted_by_group(np.asarray(group_N), rng)
        measures = classification_measures(classify(answers.score_NC, answers.label_N[order]))
        tables.append({name: measure.value for name, measure in measures.items()})
    fixed = fixed_answer(answers.label_N)
    estimates = {}
    for name, value in fixed.items():
        spread = _spread(np.array([table[name] for table in tables]))
        estimates[name] = Estimate(value, min(spread.low, value), max(spread.high, value))
    return estimates


def fixed_answer(label_N: Ints) -> dict[str, float]:
    """The figures of the best fixed answer, given only how often each class occurs."""
    share_C = np.sort(np.unique(label_N, return_counts=True)[1])[::-1] / len(label_N)
    return {
        "accuracy": float(share_C[0]),
        "balanced_accuracy": 1.0 / len(share_C),
        "mAP@10": float((share_C[:CUT] / np.arange(1, len(share_C[:CUT]) + 1)).sum()),
    }


def _permuted_by_group(group_N: NDArray[np.str_], rng: np.random.Generator) -> Ints:
    """An order of the items in which whole groups have changed places."""
    names, index_N = np.unique(group_N, return_inverse=True)
    place_G = rng.permutation(len(names))
    order = np.empty(len(group_N), np.int64)
    order[np.argsort(index_N, kind="stable")] = np.argsort(place_G[index_N], kind="stable")
    return order


def _distinct(rng: np.random.Generator, rows: int, count: int, top: int) -> Ints:
    """(rows, count) whole numbers below `top`, all different within a row, in any order."""
    chosen = np.empty((rows, count), np.int64)
    for place in range(count):
        drawn = rng.integers(0, top - place, size=rows)
        for taken in range(place):
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
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
