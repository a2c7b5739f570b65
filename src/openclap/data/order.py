"""The order of training samples: a pure function of (seed, epoch, world).

Every rank computes the whole order and takes its part, so nothing is communicated, and the position in the data is one
integer. S samples, B samples in a batch of one rank.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SHARDS_TOGETHER = 8
"""Shards whose samples are shuffled together, so that samples read at one time are in few files."""

_ORDER, _POOLS = 1, 2  # separate these random streams from those of `sample_rng`: numpy pads short seeds with zeros


def epoch_order(tar_S: NDArray[np.int64], seed: int, epoch: int, together: int = SHARDS_TOGETHER) -> NDArray[np.int64]:
    """Compute the order of one epoch: (S,) sample numbers, from `tar_S` (S,), the shard number of each sample.

    Shards are permuted, then samples are shuffled within groups of `together` shards. Each sample occurs once.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, epoch), spawn_key=(_ORDER,)))
    if not len(tar_S):
        return np.empty(0, np.int64)
    rank_of_tar = rng.permutation(int(tar_S.max()) + 1)
    group_S = rank_of_tar[tar_S] // together
    # A stable sort of shuffled samples by group keeps them shuffled within each group.
    shuffled_S = rng.permutation(len(tar_S))
    return shuffled_S[np.argsort(group_S[shuffled_S], kind="stable")].astype(np.int64, copy=False)


def batches_per_epoch(samples: int, batch_size: int, world: int) -> int:
    """Number of full batches of each rank in an epoch. The samples left over differ from epoch to epoch."""
    return samples // (batch_size * world)


def rank_batches(order_S: NDArray[np.int64], batch_size: int, rank: int, world: int) -> NDArray[np.int64]:
    """Sample numbers of one rank, (batches, B): its own B of each step's world * B samples."""
    steps = batches_per_epoch(len(order_S), batch_size, world)
    return order_S[: steps * world * batch_size].reshape(steps, world, batch_size)[:, rank]


def sort_in_pools(
    order_S: NDArray[np.int64], seconds_S: NDArray[np.float64], step: int, pool: int, *, seed: int, epoch: int
) -> NDArray[np.int64]:
    """Rearrange an epoch's order so that the `step` samples of a step have similar lengths.

    The samples of `pool` steps are sorted by length and cut into steps, which follow in random order. Samples that fill
    no step stay last. With a pool of one step the order is unchanged.
    """
    if pool == 1:
        return order_S
    rng = np.random.default_rng(np.random.SeedSequence((seed, epoch), spawn_key=(_POOLS,)))
    whole = len(order_S) // step * step
    parts = []
    for start in range(0, whole, pool * step):
        pool_P = order_S[start : min(start + pool * step, whole)]
        steps = pool_P[np.argsort(seconds_S[pool_P], kind="stable")].reshape(-1, step)
        parts.append(rng.permutation(steps).ravel())
    return np.concatenate([*parts, order_S[whole:]])


def deal_by_length(
    order_S: NDArray[np.int64], seconds_S: NDArray[np.float64], batch_size: int, rank: int, world: int
) -> NDArray[np.int64]:
    """Sample numbers of one rank, (batches, B), by ascending length, each step's seconds spread evenly over the ranks.

    A step has the samples that `rank_batches` gives it, and each rank has B of them. Sorted by length they are dealt
    out in turns, every second turn backwards: ranks then wait little for each other.
    """
    steps = batches_per_epoch(len(order_S), batch_size, world)
    step_SN = order_S[: steps * world * batch_size].reshape(steps, world * batch_size)
    sorted_SN = np.take_along_axis(step_SN, np.argsort(seconds_S[step_SN], axis=1, kind="stable"), axis=1)
    dealt_SBW = sorted_SN.reshape(steps, batch_size, world)
    dealt_SBW[:, 1::2] = dealt_SBW[:, 1::2, ::-1].copy()
    return dealt_SBW[:, :, rank]


def neighbour(tar_S: NDArray[np.int64], sample: int, rng: np.random.Generator) -> int | None:
    """Draw another sample of the same shard uniformly; None where there is no other. `tar_S` must ascend.

    The same shard, because a sample elsewhere would need another file to be read.
    """
    first, end = np.searchsorted(tar_S, tar_S[sample] + np.arange(2))
    if end - first < 2:
        return None
    # One number fewer than there are samples, and a step over the sample itself: every other one is equally likely.
    drawn = int(first + rng.integers(end - first - 1))
    return drawn + (drawn >= sample)


def sample_rng(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """The generator of one sample's captions, crop and augmentation, the same whichever process reads it, and when."""
    return np.random.default_rng((seed, epoch, sample))
