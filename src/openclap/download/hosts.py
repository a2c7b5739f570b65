"""Retry downloads politely: turns of each host, pauses, back-off and redirects, on one event loop."""

from __future__ import annotations

import asyncio
import errno
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import httpx2
import tenacity

from openclap.download.connections import Connections
from openclap.download.partial import Partial, digest_of, existing_file
from openclap.download.transfer import Redirect, Transfer, TransferError, in_thread
from openclap.download.types import FailedFetch, FailureKind, FetchedFile, FetchLimits, FileRequest
from openclap.errors import DataError
from openclap.http import backoff

LONGEST_PAUSE_S = 300.0
"""Longest pause that a host can impose by Retry-After."""
REDIRECTS = 10
"""For one file."""
LOCKED_S = 0.5
"""Wait between two looks at a file that another process is fetching."""
_DISK_ERRORS = {errno.ENOSPC: "is full", errno.EDQUOT: "is full for you", errno.EROFS: "cannot be written"}


class Host:
    """Requests to one host: how many at the same time, how often, and pauses. Times are of `time.monotonic`."""

    def __init__(self, limits: FetchLimits, rng: random.Random) -> None:
        self._limits, self._rng = limits, rng
        self.slots = asyncio.Semaphore(limits.per_host)
        self.users = 0
        self._next_start = self._paused_until = 0.0
        self._failures = 0
        self._failing_since: float | None = None
        self._trouble: FailureKind = "no connection"

    def delay(self, now: float) -> float:
        """Seconds until the next request may start."""
        return max(0.0, self._next_start - now, self._paused_until - now)

    def start(self, now: float) -> None:
        """Count a request for the rate limit."""
        if self._limits.requests_per_second:
            # From the start of a request, not its end: long downloads do not add to the wait.
            self._next_start = now + 1.0 / self._limits.requests_per_second

    def succeed(self) -> None:
        """The host responded properly: forget earlier trouble."""
        self._failures, self._failing_since = 0, None

    def fail(self, kind: FailureKind, now: float, pause_s: float | None = None) -> None:
        """Pause: the host asked for `pause_s`, or could not be reached and gets a pause by back-off.

        Requests that fail during a pause were already under way when the trouble began, and count once.
        """
        self._trouble = kind
        if self._failing_since is None:
            self._failing_since = now
        first = self._paused_until <= now
        self._failures += first
        if pause_s is None and first:
            pause_s = backoff(self._limits.backoff_s, self._failures, self._rng)
        self._paused_until = max(self._paused_until, now + min(pause_s or 0.0, LONGEST_PAUSE_S))

    def given_up(self, now: float) -> FailureKind | None:
        """The kind of trouble of a host that has failed for longer than the patience; None otherwise."""
        failing = self._failing_since is not None and now - self._failing_since > self._limits.patience_s
        return self._trouble if failing else None

    def is_forgettable(self, now: float) -> bool:
        return not self.users and self._failing_since is None and not self.delay(now)


class Session:
    """All downloads of one call of `fetch`, each a task on the event loop."""

    def __init__(
        self, limits: FetchLimits, headers: Mapping[str, str], progress: Callable[[int], None], seed: int
    ) -> None:
        self._limits, self._headers, self._progress = limits, headers, progress
        self._rng = random.Random(seed)
        self._connections = Connections()
        self._slots = asyncio.Semaphore(limits.concurrency)
        self._hosts: dict[str, Host] = {}

    async def close(self) -> None:
        await self._connections.close()

    async def fetch(self, request: FileRequest) -> FetchedFile | FailedFetch:
        """Fetch one file, with retries. Raises DataError when the disk is full."""
        attempts, transfer = 0, Transfer(request, self._connections, self._limits, self._headers, self._progress)
        # Attempts of one file. Trouble of a whole host is counted in `Host`, which tenacity has no notion of
        # (docs/decisions/0013).
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, TransferError) and error.retry),
            wait=lambda state: backoff(self._limits.backoff_s, state.attempt_number, self._rng),
            stop=tenacity.stop_after_attempt(self._limits.attempts),
            reraise=True,
        )
        try:
            # Before any turn: existing files need no host.
            if existing := await in_thread(_existing, request):
                return existing
            async for attempt in retrying:
                with attempt:
                    attempts += 1
                    return await self._follow(request, transfer)
        except _HostGivenUpError as error:
            return FailedFetch(request, error.kind, error.detail, attempts - 1, False)
        except TransferError as error:
            return FailedFetch(request, error.kind, error.detail, attempts, error.permanent)
        except (OSError, ValueError) as error:  # ValueError: a name with a null byte
            return _unwritable(request, error, max(0, attempts - 1))
        raise AssertionError("the loop above returns or raises")

    async def _follow(self, request: FileRequest, transfer: Transfer) -> FetchedFile:
        """Follow redirects, always from the requested URL: the target of an earlier redirect may have expired."""
        place = Redirect(httpx2.URL(request.url), self._limits.allow_private)
        for _ in range(1 + REDIRECTS):
            outcome = await self._hop(request, place, transfer)
            if isinstance(outcome, FetchedFile):
                return outcome
            place = outcome
        raise TransferError("redirect loop", f"redirected more than {REDIRECTS} times")

    async def _hop(self, request: FileRequest, place: Redirect, transfer: Transfer) -> FetchedFile | Redirect:
        """Send one request when it is this host's turn."""
        while True:
            async with self._turn(place.url.host) as host:
                partial = await in_thread(
                    Partial.open, request.to, digest_of(request.url), hash_known=request.sha256 is not None
                )
                if partial is not None:
                    with partial:
                        # Another process may have completed the file while this one waited for its turn.
                        if existing := await in_thread(_existing, request):
                            return existing
                        return await self._send(transfer, place, partial, host)
            # Outside of the turn: waiting for another process must not occupy the host's slot.
            await asyncio.sleep(LOCKED_S)
            if existing := await in_thread(_existing, request):
                return existing

    async def _send(self, transfer: Transfer, place: Redirect, partial: Partial, host: Host) -> FetchedFile | Redirect:
        """Send one request, and record whether its host responded."""
        try:
            outcome = await transfer.send(place, partial)
        except TransferError as error:
            if error.host_wide:
                host.fail(error.kind, time.monotonic(), error.pause_s)
            else:  # the host works: only this file cannot be had
                host.succeed()
            raise
        host.succeed()
        return outcome

    @asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[Host]:
        """Wait for a slot of this host, its pauses and a slot of the session."""
        host = self._hosts.setdefault(name, Host(self._limits, self._rng))
        host.users += 1
        try:
            async with host.slots:
                await self._session_slot(name, host)
                try:
                    host.start(time.monotonic())
                    yield host
                finally:
                    self._slots.release()
        finally:
            host.users -= 1
            if host.is_forgettable(time.monotonic()):
                self._hosts.pop(name, None)

    async def _session_slot(self, name: str, host: Host) -> None:
        """Acquire a slot of the session at a time when a request to the host may start."""
        while True:
            # The host's pauses first, then the slot: a paused host must not occupy slots.
            while not (trouble := host.given_up(time.monotonic())) and (delay := host.delay(time.monotonic())):
                await asyncio.sleep(delay)
            if trouble:
                raise _HostGivenUpError(
                    trouble,
                    f"{name} has only failed for {self._limits.patience_s:g} s. Run the same again later.",
                    permanent=False,
                )
            await self._slots.acquire()
            # While this waited for the slot, another request may have made the host ask for a pause.
            if not host.delay(time.monotonic()):
                return
            self._slots.release()


class _HostGivenUpError(TransferError):
    """No request was sent: the host has failed for too long."""


def _existing(request: FileRequest) -> FetchedFile | None:
    facts = existing_file(request.to, request.size, request.sha256)
    return FetchedFile(request, *facts, was_there=True) if facts else None


def _unwritable(request: FileRequest, error: OSError | ValueError, attempts: int) -> FailedFetch:
    number, folder = getattr(error, "errno", None), request.to.parent
    if number in _DISK_ERRORS:
        raise DataError(
            f"{folder}: the disk {_DISK_ERRORS[number]}. Make room or choose another folder, and run the same again: "
            "finished files are kept."
        ) from error
    why = getattr(error, "strerror", None) or str(error)
    return FailedFetch(request, "cannot be written", f"{request.to}: {why}", attempts, True)
