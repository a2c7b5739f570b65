"""All requests: drawn as they are needed, spread over threads, repeated where that may help."""

from __future__ import annotations

import random
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

from openclap.data.fetch.nouns import Failed, Fetched, Limits, Wanted
from openclap.data.fetch.polite import DISK, Hosts, backoff
from openclap.errors import require

if TYPE_CHECKING:
    from openclap.data.fetch.attempt import Again, Job, Moved, Outcome
    from openclap.data.fetch.wire import Wire

AHEAD = 1000
"""Files that may wait for their host while others are looked for that need not."""
HOPS = 10
"""Redirects for one file."""
BUSY_S = 0.5
"""Between two looks at a file that another process is fetching."""


def fetch(
    wanted: Iterable[Wanted],
    *,
    limits: Limits = Limits(),
    headers: Mapping[str, str] | None = None,
    progress: Callable[[int], None] | None = None,
    seed: int = 0,
) -> Iterator[Fetched | Failed]:
    """Fetch files, and yield what came of each as soon as it is known, in no order.

    `wanted` is drawn from in the caller's thread and only as far as there is room to begin (`AHEAD` at most), so it
    may be of any length. Files that stand already and fit are not fetched again, but read, for their hash: leave out
    those that are known to be done. Whatever stops this (closing the iterator, Ctrl-C, a kill), the same call goes on
    with the bytes that are there.

    Args:
        headers: for the host of each wanted address; never sent on to where it redirects.
        progress: called with the number of bytes of each piece that arrives, from several threads.
        seed: of the jitter of waits. Give each of several processes another one.

    Raises DataError when the disk is full, ConfigError for a proxy of an unknown kind, and MissingExtraError without
    httpx2.
    """
    require("httpx2", "data")
    run = _Run(wanted, limits, headers or {}, progress or (lambda count: None), seed)
    try:
        yield from run
    finally:
        run.stop()


class _Run:
    """One call of `fetch`. Everything here happens in the caller's thread, except `look` and `ask`."""

    def __init__(
        self,
        wanted: Iterable[Wanted],
        limits: Limits,
        headers: Mapping[str, str],
        progress: Callable[[int], None],
        seed: int,
    ) -> None:
        from openclap.data.fetch.wire import Wire

        self._wanted, self._drained = iter(wanted), False
        self._limits, self._headers, self._progress = limits, headers, progress
        self._rng = random.Random(seed)
        self._hosts: Hosts[Job] = Hosts(limits, self._rng)
        self._wire: Wire = Wire(limits.at_once)
        self._threads = _Threads(limits.at_once)
        self._running: dict[Future[Outcome], tuple[str, Job]] = {}
        self._results: deque[Fetched | Failed] = deque()

    def __iter__(self) -> Iterator[Fetched | Failed]:
        while True:
            self._begin()
            if self._results:
                yield self._results.popleft()
            elif self._running:
                finished, _ = wait(self._running, self._hosts.due(time.monotonic()), FIRST_COMPLETED)
                for future in finished:
                    self._settle(*self._running.pop(future), future.result())
            elif self._hosts.waiting:
                time.sleep(self._hosts.due(time.monotonic()) or 0.0)
            else:
                return

    def stop(self) -> None:
        """Break off what is on its way; its bytes stay."""
        self._wire.end()
        self._threads.stop()
        self._wire.close()

    def _begin(self) -> None:
        """Give every idle thread a job, as far as hosts allow and results do not wait to be taken."""
        from openclap.data.fetch.attempt import ask, look

        while len(self._running) < self._limits.at_once and not self._results:
            now = time.monotonic()
            turn = self._hosts.next(now)
            if turn is None:
                if self._drained or self._hosts.waiting >= AHEAD:
                    return
                self._draw()
                continue
            host, job = turn
            if host == DISK:
                future = self._threads.submit(partial(look, job))
            elif reason := self._hosts.given_up(host, now):
                self._hosts.done(host, now)
                detail = (
                    f"{host} has not answered otherwise for {self._limits.patience_s:g} s. Run the same again later"
                )
                self._results.append(Failed(job.wanted, reason, detail, job.attempts, False))
                continue
            else:
                future = self._threads.submit(
                    partial(ask, job, self._wire, self._limits, self._headers, self._progress)
                )
            self._running[future] = turn

    def _draw(self) -> None:
        """Take the next wanted file into a queue: the disk's if it may stand already."""
        import httpx2

        from openclap.data.fetch.attempt import Job

        try:
            wanted = next(self._wanted)
        except StopIteration:
            self._drained = True
            return
        try:
            url = httpx2.URL(wanted.url)
            problem = None if url.scheme in ("http", "https") and url.host else "expected http://… or https://…"
        except (httpx2.InvalidURL, ValueError) as error:
            problem = str(error)
        if problem:
            self._results.append(Failed(wanted, "bad address", f"{_shown(wanted.url)}: {problem}", 0, True))
        elif wanted.size is not None and wanted.size > self._limits.bytes:
            self._results.append(Failed(wanted, "too large", f"{wanted.size:,} bytes", 0, True))
        else:
            self._hosts.add(DISK, Job(wanted, url, self._limits.private))

    def _settle(self, host: str, job: Job, outcome: Outcome) -> None:
        from openclap.data.fetch.attempt import Again, Busy, Missing, Moved

        now = time.monotonic()
        if isinstance(outcome, Again) and outcome.host_wide:
            self._hosts.refused(host, outcome.reason, now, outcome.pause_s)
        elif not isinstance(outcome, Busy):
            self._hosts.well(host)
        self._hosts.done(host, now)
        if isinstance(outcome, Missing):
            self._hosts.add(job.url.host, job)
        elif isinstance(outcome, Busy):
            self._hosts.add(DISK, job, now + BUSY_S)
        elif isinstance(outcome, Moved):
            self._follow(job, outcome)
        elif isinstance(outcome, Again):
            self._repeat(job, outcome, now)
        else:
            self._results.append(outcome)

    def _follow(self, job: Job, moved: Moved) -> None:
        """Ask where it redirects to, when it is that host's turn."""
        job.url, job.private, job.hops = moved.url, moved.private, job.hops + 1
        if job.hops > HOPS:
            detail = f"redirected more than {HOPS} times"
            self._results.append(Failed(job.wanted, "redirect loop", detail, job.attempts + 1, True))
        else:
            self._hosts.add(job.url.host, job)

    def _repeat(self, job: Job, again: Again, now: float) -> None:
        """Begin again at the wanted address (a redirect's target may have gone stale), after a while."""
        import httpx2

        job.attempts += 1
        if job.attempts >= self._limits.attempts:
            self._results.append(Failed(job.wanted, again.reason, again.detail, job.attempts, False))
            return
        job.url, job.private, job.hops = httpx2.URL(job.wanted.url), self._limits.private, 0
        self._hosts.add(job.url.host, job, now + backoff(self._limits, job.attempts, self._rng))


class _Threads:
    """Threads that the end of the program does not wait for: what they write may be cut off anywhere.

    Those of a ThreadPoolExecutor would finish their downloads first, however long they take.
    """

    def __init__(self, count: int) -> None:
        self._calls: SimpleQueue[tuple[Future[Outcome], Callable[[], Outcome]] | None] = SimpleQueue()
        self._threads = [Thread(target=self._work, name=f"fetch-{n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, call: Callable[[], Outcome]) -> Future[Outcome]:
        future: Future[Outcome] = Future()
        self._calls.put((future, call))
        return future

    def stop(self) -> None:
        """Wait until the calls at hand have returned; not when Python itself ends, and no thread runs any more."""
        if sys.is_finalizing():
            return
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (given := self._calls.get()) is not None:
            future, call = given
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)


def _shown(url: str) -> str:
    """A URL without what it may keep secret."""
    place = re.sub(r"//[^/]*@", "//", re.split(r"[?#]", url, maxsplit=1)[0])
    return ascii(place[:200]) if place else "(no URL)"
