"""Run one function over many items: in this process, in several, on a Ray cluster, or as one of many jobs."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import pickle
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Protocol, TypeVar

from openclap.errors import ConfigError, DataError, require
from openclap.malloc import retain_some_freed_memory

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Share:
    """The share of one job among several: every `of`-th item from the `number`-th on, counted from 1."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Share:
        """Parse "3/100", the third of a hundred. Raises ConfigError for anything else."""
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        share = cls(int(match[1]), int(match[2])) if match else cls(0, 0)
        if not 1 <= share.number <= share.of:
            raise ConfigError(f"--part is {text!r}, expected I/N with I from 1 to N, such as 3/100.")
        return share

    def of_items(self, items: Sequence[T]) -> Sequence[T]:
        # Every n-th and not a contiguous part: slow records, such as those of one source, are spread over the jobs.
        return items[self.number - 1 :: self.of]

    def has(self, name: str) -> bool:
        """Whether an item belongs to the share, by a hash of its name: it does not depend on which others there are."""
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % self.of == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}-of-{self.of}"


ALL = Share()
"""All items: the share of a single job."""


class Runner(Protocol):
    """A way to run a function over many items: `run` on this machine, `run_on_ray` on a cluster."""

    def __call__(self, work: Callable[[T], R], items: Sequence[T], processes: int = 1) -> Iterator[R]: ...


def run(work: Callable[[T], R], items: Sequence[T], processes: int = 1) -> Iterator[R]:
    """Yield the result for each item as it is ready. `work`, items and results must be picklable.

    With one process, everything runs in the current one, in order. An error in one item ends the
    others as a kill would. Raises DataError where a process dies.
    """
    if processes < 1:
        raise ConfigError(f"processes is {processes}, expected 1 or more.")
    retain_some_freed_memory()
    # Starting processes takes seconds, because each imports everything afresh.
    if processes == 1 or len(items) < 2:
        yield from map(work, items)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy locks that threads of this process hold
    pool = ProcessPoolExecutor(min(processes, len(items)), mp_context=context, initializer=_set_up_worker)
    try:
        # As they are ready, so that progress moves; results do not depend on their order.
        for done in as_completed([pool.submit(work, item) for item in items]):
            yield done.result()
    except BrokenProcessPool:
        raise DataError(
            "A worker process ended unexpectedly: it ran out of memory, was killed, or a file brought it down. Run the "
            "same again; should it happen again, --processes 1 needs less memory and stops at the file itself."
        ) from None
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.terminate()  # shutting the pool down alone would wait for the items under way
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _set_up_worker() -> None:
    """Tie a worker's end to the main process.

    Ctrl-C reaches every process of a terminal, so workers ignore it; a kill of the main process reaches no other, so
    they watch it.
    """
    retain_some_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    # Returns when the parent has ended, in whatever way.
    parent.join()
    os._exit(1)


def run_on_ray(work: Callable[[T], R], items: Sequence[T], processes: int = 1) -> Iterator[R]:
    """As `run`, on the Ray cluster that RAY_ADDRESS names, or on a new one on this machine without it.

    Every machine of the cluster must see the data set's folder under the same path and have openclap installed.
    `processes` is ignored: Ray gives each item a core. Raises ConfigError without a cluster, and whatever `work`
    raises.
    """
    ray = require("ray", "scale")
    require("ray.data", "scale")
    if not items:
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # otherwise a new cluster reports its use to Ray's makers
    try:
        _check_reachable(os.environ.get("RAY_ADDRESS", ""))
        ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"No Ray cluster can be reached ({reason}). Run 'ray start --head'.") from None
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)

    def process(row: Mapping[str, bytes]) -> dict[str, bytes]:
        """Pass items and results as bytes: in columns, Ray would turn numbers in tuples into text."""
        try:
            return {"result": pickle.dumps((work(pickle.loads(row["item"])), None))}
        except Exception as error:  # raised again in the calling process
            return {"result": pickle.dumps((None, error))}

    # A block for each item, so that Ray distributes them one by one: an item is a tar or 256 sounds.
    rows = ray.data.from_items([{"item": pickle.dumps(item)} for item in items], override_num_blocks=len(items))
    for row in rows.map(process).iter_rows():
        result, failure = pickle.loads(row["result"])
        if failure is not None:
            raise failure
        yield result


def _check_reachable(address: str) -> None:
    """Raise OSError where nothing answers: Ray itself would wait for a quarter of an hour."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()
