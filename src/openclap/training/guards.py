"""Stop a run when its data are gone or cannot be read."""

from __future__ import annotations

from openclap.data.loader import PairLoader
from openclap.errors import DataError


def check_in_place(loader: PairLoader) -> None:
    """Raise DataError when shards have gone since the run began."""
    shards = loader.shards
    if loader.skipped and (gone := [tar for tar in shards.tars if not (shards.folder / tar).exists()]):
        raise DataError(
            f"{shards.folder}: {len(gone)} of {len(shards.tars)} tars have gone since the run began (the first is "
            f"{gone[0]}). Put them back and run the same command to go on; saved states are whole."
        )


def check_readable(loader: PairLoader, empty: int, *, whole_epoch: bool) -> None:
    """Raise DataError when no process could read anything of EMPTY_STEPS steps running, or of a whole epoch."""
    if empty >= EMPTY_STEPS or whole_epoch:
        last = f" The last one: {loader.skipped[-1].reason}" if loader.skipped else ""
        raise DataError(
            f"{loader.shards.folder}: no sample of {empty} step{'s running' if empty > 1 else ''} could be read."
            f"{last} Run: openclap dataset check"
        )


EMPTY_STEPS = 10
"""So many steps running without a sample are no accident."""
