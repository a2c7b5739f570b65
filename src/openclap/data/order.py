"""The order of training: a pure function of (seed, epoch, world).

S samples, B samples in a batch of one rank. Every rank computes the whole order and takes its part.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SHARDS_TOGETHER = 8
"""Samples are shuffled within so many shards, so that what is read at one time stands in few files."""

_ORDER = 1  # keeps the stream of the order apart from those of the samples, which numpy pads to alike


def epoch_order(tar_S: NDArray[np.int64], seed: int, epoch: int, together: int = SHARDS_TOGETHER) -> NDArray[np.int64]:
    """(S,) the number of the shard each sample stands in → (S,) sample numbers in the order of one epoch.

    Shards are permuted, then samples are shuffled within each `together` shards. Each sample comes once.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, epoch), spawn_key=(_ORDER,)))
    if not len(tar_S):
        return np.empty(0, np.int64)
    rank_of_tar = rng.permutation(int(tar_S.max()) + 1)
    group_S = rank_of_tar[tar_S] // together
    shuffled_S = rng.permutation(len(tar_S))
    return shuffled_S[np.argsort(group_S[shuffled_S], kind="stable")].astype(np.int64, copy=False)


def batches_per_epoch(samples: int, batch_size: int, world: int) -> int:
    """Whole batches of each rank in an epoch; what is left over waits for the next epoch's order."""
    return samples // (batch_size * world)


def rank_batches(order_S: NDArray[np.int64], batch_size: int, rank: int, world: int) -> NDArray[np.int64]:
    """(batches, B) sample numbers of one rank: of each step's world * B samples, its own B."""
    steps = batches_per_epoch(len(order_S), batch_size, world)
    return order_S[: steps * world * batch_size].reshape(steps, world, batch_size)[:, rank]


def neighbour(tar_S: NDArray[np.int64], sample: int, rng: np.random.Generator) -> int | None:
    """Another sample of the same shard, drawn evenly, so that a second one is read where the first stands; None for a
    sample that is alone there. `tar_S` ascends, as `ShardIndex` has it."""
    first, end = np.searchsorted(tar_S, tar_S[sample] + np.arange(2))
    if end - first < 2:
        return None
    drawn = int(first + rng.integers(end - first - 1))
    return drawn + (drawn >= sample)


def sample_rng(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """What one sample's captions, crop and augmentation are drawn from, whoever reads it and whenever."""
    return np.random.default_rng((seed, epoch, sample))
