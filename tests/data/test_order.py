"""The order of training: a pure function without loss or repetition."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from openclap.data.order import batches_per_epoch, epoch_order, neighbour, rank_batches, sample_rng

tars = st.lists(st.integers(0, 30), max_size=60).map(lambda counts: np.repeat(np.arange(len(counts)), counts))


@given(tars, st.integers(0, 2**32), st.integers(0, 100), st.integers(1, 9), st.integers(1, 5))
def test_each_sample_occurs_once_over_all_ranks(
    tar_S: NDArray[np.int64], seed: int, epoch: int, batch: int, world: int
) -> None:
    order_S = epoch_order(tar_S, seed, epoch)
    assert sorted(order_S.tolist()) == list(range(len(tar_S)))
    ranks = [rank_batches(order_S, batch, rank, world) for rank in range(world)]
    steps = batches_per_epoch(len(tar_S), batch, world)
    assert {part.shape for part in ranks} == {(steps, batch)}
    read = np.concatenate([part.ravel() for part in ranks])
    assert len(set(read.tolist())) == len(read) == steps * batch * world
    assert len(tar_S) - len(read) < batch * world


@given(tars, st.integers(0, 1000))
def test_order_is_a_pure_function(tar_S: NDArray[np.int64], seed: int) -> None:
    np.testing.assert_array_equal(epoch_order(tar_S, seed, 3), epoch_order(tar_S.copy(), seed, 3))


@given(tars, st.integers(0, 1000), st.integers(1, 9))
def test_consecutive_samples_are_in_few_files(tar_S: NDArray[np.int64], seed: int, together: int) -> None:
    """Shards of a group are not read again after the next group has begun."""
    order_S = epoch_order(tar_S, seed, 0, together)
    _, first = np.unique(tar_S[order_S], return_index=True)
    last = len(order_S) - 1 - np.unique(tar_S[order_S][::-1], return_index=True)[1]
    for begin in first:
        assert np.count_nonzero((first <= begin) & (last >= begin)) <= together


def test_epochs_and_seeds_differ_and_permute_shards() -> None:
    tar_S = np.repeat(np.arange(20), 30)
    orders = [epoch_order(tar_S, seed, epoch).tolist() for seed in range(2) for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 6
    assert {int(tar_S[number]) for number in orders[0][:240]} != set(range(8))


def test_order_and_samples_have_separate_random_streams() -> None:
    order_S = epoch_order(np.zeros(50, np.int64), 5, 2)
    assert order_S.tolist() != sample_rng(5, 2, 0).permutation(50).tolist()


def test_neighbour_is_drawn_uniformly_from_the_same_shard() -> None:
    tar_S = np.repeat([0, 1, 2, 4], [5, 1, 7, 2])
    for sample in range(len(tar_S)):
        drawn = [neighbour(tar_S, sample, np.random.default_rng(seed)) for seed in range(1200)]
        others = [other for other in np.flatnonzero(tar_S == tar_S[sample]).tolist() if other != sample]
        if not others:
            assert set(drawn) == {None}
        for other in others:
            assert abs(drawn.count(other) - 1200 / len(others)) < 75
