"""Doing the same to many things: in this process, in several, or in one of many jobs."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Protocol, TypeVar

from openclap.errors import ConfigError, DataError
from openclap.malloc import retain_some_freed_memory

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Share:
    """What one job of several does: every `of`-th thing, from the `number`-th on, counted from 1."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Share:
        """ "3/100" is the third of a hundred. Raises ConfigError for anything else."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        share = cls(int(found[1]), int(found[2])) if found else cls(0, 0)
        if not 1 <= share.number <= share.of:
            raise ConfigError(f"--part is {text!r}, expected I/N with I from 1 to N, such as 3/100.")
        return share

    def __call__(self, things: Sequence[T]) -> Sequence[T]:
        return things[self.number - 1 :: self.of]

    def __str__(self) -> str:
        return f"{self.number}-of-{self.of}"


ALL = Share()


class Each(Protocol):
    """Who does the same to many things: `each` here, or a cluster."""

    def __call__(self, work: Callable[[T], R], things: Sequence[T], processes: int = 1) -> Iterator[R]: ...


def each(work: Callable[[T], R], things: Sequence[T], processes: int = 1) -> Iterator[R]:
    """The result for each thing, as they come. `work` and what it takes and gives are picklable.

    With one process everything is done here. An error in one ends the rest; what they were at is left as a kill
    would leave it.
    """
    if processes < 1:
        raise ConfigError(f"processes is {processes}, expected 1 or more.")
    retain_some_freed_memory()
    if processes == 1 or len(things) < 2:
        yield from map(work, things)
        return
    context = multiprocessing.get_context("spawn")  # threads of this process may hold locks that a fork would keep
    pool = ProcessPoolExecutor(min(processes, len(things)), mp_context=context, initializer=_belong)
    try:
        for done in as_completed([pool.submit(work, thing) for thing in things]):
            yield done.result()
    except BrokenProcessPool:
        raise DataError(
            "A process that was at work ended at once: out of memory, killed, or brought down by a file. Run the same "
            "again; should it come to this again, --processes 1 needs less memory and stops at the file itself."
        ) from None
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _belong() -> None:
    """Leave it to the first process when to end: Ctrl-C reaches every process of a terminal, and a kill of the first
    one no other."""
    retain_some_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_first, daemon=True).start()


def _end_with_the_first() -> None:
    first = multiprocessing.parent_process()
    assert first is not None
    first.join()
    os._exit(1)
