"""Whose turn it is: few requests at once to one host, not too often, pauses where a host asks for them.

Every wait is counted on a clock that the caller reads, and every jitter drawn from its generator, so the order of
things can be tested without waiting.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, TypeVar

from openclap.data.fetch.nouns import Limits, Reason

Item = TypeVar("Item")

DISK = ""
"""The host that is no host: steps that ask nobody. It has no limits."""
LONGEST_WAIT_S = 60.0
"""Of our own accord."""
LONGEST_PAUSE_S = 300.0
"""Where a host asks for one (Retry-After)."""


def backoff(limits: Limits, failures: int, rng: random.Random) -> float:
    """Seconds to wait after so many failures: doubling, up to a minute, and anything from half to one and a half."""
    return min(LONGEST_WAIT_S, limits.wait_s * 2.0 ** min(failures - 1, 30)) * (0.5 + rng.random())


@dataclass(slots=True)
class _Host(Generic[Item]):
    """Waiting items as a heap of (when, number, item); since when nothing but trouble came, and of which kind."""

    waiting: list[tuple[float, int, Item]] = field(default_factory=list)
    running: int = 0
    spaced_until: float = 0.0
    paused_until: float = 0.0
    failures: int = 0
    since: float | None = None
    trouble: Reason = "no connection"


class Hosts(Generic[Item]):
    """The queues of all hosts. For one thread."""

    def __init__(self, limits: Limits, rng: random.Random) -> None:
        self._limits, self._rng = limits, rng
        self._hosts: dict[str, _Host[Item]] = {}
        self._number = count()
        self.waiting = 0

    def add(self, name: str, item: Item, at: float = 0.0) -> None:
        """Queue an item for a host, not to be begun before `at`."""
        heapq.heappush(self._hosts.setdefault(name, _Host()).waiting, (at, next(self._number), item))
        self.waiting += 1

    def next(self, now: float) -> tuple[str, Item] | None:
        """The next item that may begin, which counts as running until `done`; hosts take turns."""
        for name, host in self._hosts.items():
            begins = self._begins(name, host, now)
            if begins is None or begins > now:
                continue
            _, _, item = heapq.heappop(host.waiting)
            self.waiting -= 1
            host.running += 1
            if name != DISK and self._limits.per_second:
                host.spaced_until = now + 1.0 / self._limits.per_second
            self._hosts[name] = self._hosts.pop(name)  # to the end of the line
            return name, item
        return None

    def due(self, now: float) -> float | None:
        """Seconds until time alone lets another item begin; None where it never does."""
        times = [begins for name, host in self._hosts.items() if (begins := self._begins(name, host, now)) is not None]
        return max(0.0, min(times) - now) if times else None

    def done(self, name: str, now: float) -> None:
        """An item of this host is no longer running."""
        host = self._hosts[name]
        host.running -= 1
        memory = host.since is not None or max(host.spaced_until, host.paused_until) > now
        if not host.running and not host.waiting and not memory:
            del self._hosts[name]

    def well(self, name: str) -> None:
        """The host answered as hosts should."""
        host = self._hosts[name]
        host.failures, host.since = 0, None

    def refused(self, name: str, reason: Reason, now: float, pause_s: float | None = None) -> None:
        """The host could not be reached, or asked for a pause: it gets one, of `pause_s` or by back-off.

        What fails together counts once: several requests were on their way when the trouble began.
        """
        host = self._hosts[name]
        host.trouble = reason
        if host.since is None:
            host.since = now
        first = host.paused_until <= now
        host.failures += first
        if pause_s is None and first:
            pause_s = backoff(self._limits, host.failures, self._rng)
        host.paused_until = max(host.paused_until, now + min(pause_s or 0.0, LONGEST_PAUSE_S))

    def given_up(self, name: str, now: float) -> Reason | None:
        """Why this host is not asked any more; None for one that is."""
        host = self._hosts[name]
        return host.trouble if self._is_given_up(host, now) else None

    def _is_given_up(self, host: _Host[Item], now: float) -> bool:
        return host.since is not None and now - host.since > self._limits.patience_s

    def _begins(self, name: str, host: _Host[Item], now: float) -> float | None:
        """When the first item of this host may begin; None while there is none, or too many are running."""
        if not host.waiting:
            return None
        if self._is_given_up(host, now):
            return now
        if name != DISK and host.running >= self._limits.per_host:
            return None
        return max(host.waiting[0][0], host.spaced_until, host.paused_until)
