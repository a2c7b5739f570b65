"""From records to shards, step by step; every step can be stopped and goes on, and equal input gives equal bytes.

    plan      every record with its captions, and what already speaks against it
    gather    sounds that have an address are fetched; then every sound is decoded once, to know what it is
    mark      clips that sound alike are found (only where it is asked for)
    caption   a model writes a sentence of the keywords of each (only where one is given)
    write     what is left is laid out in tars, and these are written
    finish    one table of everything packed, one list of everything left out

`gather` and `write` take a share of the work, so that many jobs can do them side by side on one folder.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from openclap.captions import CaptionMaker
from openclap.captions.check import CaptionCheck
from openclap.data.captioning import caption
from openclap.data.config import DataConfig
from openclap.data.decode import examine, forget_failures, waiting
from openclap.data.fetch import Limits
from openclap.data.fetched import fetch_all
from openclap.data.held import Held
from openclap.data.layout import CHUNK, alone, check_claim, identity, work, write_table
from openclap.data.manifest import PackReport, finish
from openclap.data.near_duplicates import Near, mark
from openclap.data.plan import plan
from openclap.data.select import missed, select
from openclap.data.split import TRAIN_AND_TEST
from openclap.data.work import ALL, Each, Share, each
from openclap.data.write import SELECTION, packed_so_far, tars, write
from openclap.errors import DataError
from openclap.sources.record import Record
from openclap.storage import Place, place_of

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

Progress = Callable[[int, int], None]
"""Called with (records done, records in all); each record is done twice, when it is decoded and when it is packed."""


def pack(
    records: Iterable[Record],
    out: str | os.PathLike[str],
    *,
    splits: Mapping[str, float] = TRAIN_AND_TEST,
    seed: int = 0,
    shard_size: int = 512,
    processes: int = 1,
    progress: Progress | None = None,
) -> PackReport:
    """Split by group, decode, encode and write shards under `out`; go on where an earlier run stopped.

    A second run over the same input finishes the first one, or finds nothing to do; what was left out stays left
    out, so repaired sounds need a new folder. Records that cannot be used are listed, and are no error.

    Raises DataError when `out` holds anything else, another process is packing there, the disk is full (what
    is complete stays, and the same call goes on), or nothing at all could be packed; ConfigError for
    impossible splits or sizes.
    """
    config = DataConfig(splits=splits, seed=seed, shard_size=shard_size)
    return build(records, place_of(out), config, processes=processes, progress=progress)


def build(
    records: Iterable[Record],
    folder: Place,
    config: DataConfig,
    *,
    held: Callable[[], Sequence[Held]] = tuple,
    limits: Limits = Limits(),
    near: Near | None = None,
    maker: Callable[[], CaptionMaker] | None = None,
    check: CaptionCheck | None = None,
    every_split: bool = False,
    processes: int = 1,
    progress: Progress | None = None,
) -> PackReport:
    """All steps, one after the other, as the only one who writes in `folder`. Raises as `pack`, with `every_split`
    where a split would be empty, and whatever `check` raises of captions."""
    tell = progress or (lambda done, total: None)
    with told_when_stopped(folder):
        check_claim(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder):
            count = plan(records, folder, config, held=held, check=check)
            tell(0, 2 * count)
            gather(
                folder,
                limits=limits,
                processes=processes,
                progress=lambda done, total: tell(count * done // total, 2 * count),
            )
            if near is not None:
                mark(folder, near)
            if maker is not None:
                caption(folder, maker())
            write_tars(
                folder,
                every_split=every_split,
                processes=processes,
                progress=lambda done: tell(count + done, 2 * count),
            )
            tell(2 * count, 2 * count)
            return finish(folder)


def gather(
    folder: Place,
    share: Share = ALL,
    *,
    limits: Limits = Limits(),
    processes: int = 1,
    each: Each = each,
    again: bool = False,
    progress: Progress = lambda done, total: None,
) -> None:
    """Fetch and decode a share of the records; `again`, also those that could not be. `each` is who does the work:
    processes of this machine, or a cluster (`openclap.data.on_ray`). A sound to be fetched counts twice in
    `progress`: when it is there, and when it is decoded."""
    if again:
        forget_failures(folder, share)
    left, fetched = waiting(folder, share), [0]
    whole = identity(folder)["records"]
    records = sum(min(CHUNK, whole - chunk * CHUNK) for chunk in left)

    def told(done: int, total: int) -> None:
        fetched.append(total)
        progress(done, total + records)

    fetch_all(folder, left, share, limits=limits, again=again, progress=told)
    done = fetched[-1]
    for count in each(examine, [(str(folder), chunk) for chunk in left], processes):
        done += count
        progress(done, fetched[-1] + records)


def write_tars(
    folder: Place,
    share: Share = ALL,
    *,
    processes: int = 1,
    each: Each = each,
    every_split: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Write a share of the tars. Raises DataError while records are still to be gathered, and, with `every_split`,
    where a split would be empty."""
    config = DataConfig(**identity(folder)["config"])
    selection = select(folder, config)
    if every_split and (empty := [each for each in missed(folder, selection, config) if each.empty]):
        raise DataError(f"{folder}: {empty[0].sentence} Nothing was packed.")
    write_table(work(folder) / SELECTION, selection)
    done = 0
    for count in each(write, share(tars(folder, selection)), processes):
        done += count
        progress(done)


@contextmanager
def told_when_stopped(folder: Place) -> Iterator[None]:
    """A full disk or a lost folder is told in one sentence, with what is complete."""
    try:
        yield
    except OSError as error:
        count, samples = packed_so_far(folder)
        why, remedy = f"writing failed ({error.strerror or error})", "once that is mended"
        if error.errno in _FULL:
            why, remedy = f"the disk is full or the file too large ({error.strerror})", "once there is room"
        raise DataError(
            f"{folder}: {why}; {count} tars with {samples} samples are complete, "
            f"and running the same again goes on from there {remedy}."
        ) from error
