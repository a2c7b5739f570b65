"""The data of each step, from the loader's batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from openclap.data.loader import PairLoader
from openclap.errors import DataError
from openclap.training.config import TrainConfig
from openclap.training.guards import check_in_place, check_readable
from openclap.training.model_setup import sums
from openclap.types import PairBatch

if TYPE_CHECKING:
    from accelerate import Accelerator

Step = tuple[int, list[PairBatch]]
"""The number of a step, from 1, and its batches on this process."""


def steps_per_epoch(loader: PairLoader, together: int) -> int:
    """How many steps of `together` batches an epoch has. Raises DataError when there are not enough for one."""
    if loader.batches_per_epoch < together:
        raise DataError(
            f"{loader.shards.folder}: {loader.batches_per_epoch} batches are fewer than the {together} that make one "
            "step. Choose a smaller accumulate or batch, or add data."
        )
    return loader.batches_per_epoch // together


def steps(
    loader: PairLoader, accelerator: Accelerator, config: TrainConfig, per_epoch: int, taken: int
) -> Iterator[Step]:
    """The steps that are left when so many are taken; all processes go through them together.

    A batch may be empty where a process could read nothing of it; one that is empty everywhere is left out, and a step
    of such batches alone is passed over. Raises DataError when shards have gone, or nothing can be read for long.
    """
    first, start = divmod(taken, per_epoch)
    empty = 0
    for epoch in range(first, config.epochs):
        held: list[PairBatch] = []
        for batch in loader.batches(epoch, (start if epoch == first else 0) * config.accumulate):
            check_in_place(loader)
            held.append(batch.to(accelerator.device))
            step, rest = divmod(loader.position, config.accumulate)
            if rest:
                continue
            if some := _with_pairs(held, accelerator):
                empty = 0
                yield epoch * per_epoch + step, some
            else:
                empty += 1
                check_readable(loader, empty, whole_epoch=step == per_epoch and empty >= per_epoch)
            held = []
            if step == per_epoch:
                break


def _with_pairs(batches: list[PairBatch], accelerator: Accelerator) -> list[PairBatch]:
    """Those of which some process could read something."""
    counts = sums(accelerator, [len(batch.keys) for batch in batches])
    return [batch for batch, count in zip(batches, counts, strict=True) if count]
