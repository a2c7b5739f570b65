"""Batches read by somebody else while the caller works: a thread, or processes that may die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from ctypes import Array, c_int64
from multiprocessing.sharedctypes import RawArray
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

Asked = TypeVar("Asked")
Read = TypeVar("Read")
NOTHING = -1


class InHand:
    """Which sample each worker process is at, told to the process that waits for them."""

    def __init__(self, workers: int) -> None:
        self._pid_sample: Array[c_int64] = RawArray(c_int64, [NOTHING] * (2 * workers))

    def take(self, sample: int) -> None:
        """Called by a worker before it reads a sample; elsewhere it does nothing."""
        if (worker := get_worker_info()) is not None:
            self._pid_sample[2 * worker.id : 2 * worker.id + 2] = [os.getpid(), sample]

    def dropped(self) -> list[int]:
        """What those workers were at that are no more; they get a second to be gone, for their pipes break first."""
        for _ in range(10):
            if found := self._of_the_dead():
                return found
            time.sleep(0.1)
        return []

    def _of_the_dead(self) -> list[int]:
        alive = {child.pid for child in multiprocessing.active_children()}
        pairs = zip(self._pid_sample[::2], self._pid_sample[1::2], strict=True)
        return [sample for pid, sample in pairs if pid not in alive and sample != NOTHING]


class WorkersError(Exception):
    """A worker process ended before its work did; `samples` are those it was at, if that is known."""

    def __init__(self, samples: Sequence[int], reason: str) -> None:
        super().__init__(reason)
        self.samples = samples


def read_by_workers(
    read: Callable[[Asked], Read], plan: Iterable[Asked], workers: int, in_hand: InHand
) -> Iterator[Read]:
    """What `read` makes of each of the plan, in its order, by processes; each is two ahead.

    Raises WorkersError when a process is killed; outside the main thread torch notices within five seconds.
    """
    loader = DataLoader(
        _Indexed(read),
        batch_size=None,
        sampler=plan,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_leave_interrupts,
        generator=torch.Generator(),  # of its own, or every epoch would draw from the global one
    )
    try:
        yield from loader
    except (RuntimeError, OSError, EOFError) as error:  # the last two where it dies while its batch is handed over
        reason = str(error).split("\n", 1)[0] or type(error).__name__
        raise WorkersError(in_hand.dropped(), reason) from error


class _Indexed(Dataset[Read], Generic[Asked, Read]):
    """A function as torch wants it."""

    def __init__(self, read: Callable[[Asked], Read]) -> None:
        self.read = read

    def __getitem__(self, asked: Asked) -> Read:
        return self.read(asked)


def _leave_interrupts(worker: int) -> None:
    """Ctrl-C in a terminal reaches every process; what happens then is for the one that trains to say."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _as_it_is(read: Read) -> Read:
    return read


def one_ahead(batches: Iterator[Read]) -> Iterator[Read]:
    """The same batches, the next one made in a thread while the caller is at this one."""
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        coming = thread.submit(next, batches, end)
        while (batch := coming.result()) is not end:
            coming = thread.submit(next, batches, end)
            yield batch  # type: ignore[misc]
