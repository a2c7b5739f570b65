"""Fetch files: draw requests from the caller's iterable, download in the background, yield outcomes."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from openclap.download.types import FailedFetch, FetchedFile, FetchLimits, FileRequest
from openclap.errors import require

T = TypeVar("T")

AHEAD = 1000
"""Requests in progress or waiting for their host, so that one busy host does not hold up the others."""


def fetch(
    requests: Iterable[FileRequest],
    *,
    limits: FetchLimits = FetchLimits(),
    headers: Mapping[str, str] | None = None,
    progress: Callable[[int], None] | None = None,
    seed: int = 0,
) -> Iterator[FetchedFile | FailedFetch]:
    """Fetch files and yield each outcome as soon as it is known, in no particular order.

    `requests` is iterated in the caller's thread, at most `AHEAD` beyond the outcomes that were taken, so it may be of
    any length. Files that are there already and match are not fetched again, but read for their hash: leave out files
    known to be done. Whatever stops this (closing the iterator, Ctrl-C, a kill), the same call resumes from the bytes
    that are there.

    Args:
        headers: sent to the host of each requested URL; never sent on to where it redirects.
        progress: called with the size of each piece that arrives, from another thread.
        seed: of the random part of waits. Give each of several processes a different one.

    Raises DataError when the disk is full, ConfigError for a proxy of an unknown kind, and MissingExtraError without
    httpx2 or tenacity.
    """
    for package in ("httpx2", "tenacity"):
        require(package, "data")
    from openclap.download.hosts import Session

    loop = _BackgroundLoop(threads=limits.concurrency)  # for the disk; lookups of names have threads of their own
    session = Session(limits, headers or {}, progress or (lambda size: None), seed)
    # The only thing that the event loop's thread and the caller's share.
    outcomes: SimpleQueue[Future[FetchedFile | FailedFetch]] = SimpleQueue()
    source, exhausted, running = iter(requests), False, 0
    try:
        while True:
            # Draw only while no outcome waits: a slow caller must not pile up finished files.
            while not exhausted and running < AHEAD and outcomes.empty():
                request = next(source, None)
                if request is None:
                    exhausted = True
                elif failure := _unusable(request, limits):
                    yield failure
                else:
                    loop.start(session.fetch(request)).add_done_callback(outcomes.put)
                    running += 1
            if not running:
                return
            outcome = outcomes.get().result()
            running -= 1
            yield outcome
    finally:
        loop.stop(session.close)


def _unusable(request: FileRequest, limits: FetchLimits) -> FailedFetch | None:
    """The failure of a request that needs no connection to be refused."""
    import httpx2

    try:
        url = httpx2.URL(request.url)
        problem = None if url.scheme in ("http", "https") and url.host else "expected http://… or https://…"
    except (httpx2.InvalidURL, ValueError) as error:
        problem = str(error)
    if problem:
        return FailedFetch(request, "bad address", f"{_without_secrets(request.url)}: {problem}", 0, True)
    if request.size is not None and request.size > limits.max_bytes:
        return FailedFetch(request, "too large", f"{request.size:,} bytes", 0, True)
    return None


def _without_secrets(url: str) -> str:
    """A URL without user, password and query."""
    place = re.sub(r"//[^/]*@", "//", re.split(r"[?#]", url, maxsplit=1)[0])
    return ascii(place[:200]) if place else "(no URL)"


class _BackgroundLoop:
    """An event loop in a daemon thread, so that downloads continue while the caller works on an outcome.

    A loop of its own, because the caller may already be inside one (a notebook).
    """

    def __init__(self, threads: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(threads, thread_name_prefix="fetch-wait"))
        self._thread = Thread(target=self._loop.run_forever, name="fetch", daemon=True)
        self._thread.start()

    def start(self, call: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(call, self._loop)

    def stop(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Cancel everything and release the connections; partial files stay."""
        if sys.is_finalizing():  # daemon threads have stopped: waiting for one would never end
            return
        self.start(self._cancel_all(close)).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _cancel_all(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await close()
