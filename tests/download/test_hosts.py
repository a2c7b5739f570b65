"""Limits of each host, pauses, and how many requests are drawn ahead."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from openclap.download import AHEAD, FailedFetch, FetchedFile, FetchLimits, FileRequest, fetch
from openclap.download.hosts import Host
from openclap.locks import open_alone
from openclap.storage import partial_of
from support.fetching import QUICK
from support.http_server import most_concurrent
from support.misbehaving import Misbehaving

LONG_BACKOFF = replace(QUICK, backoff_s=60.0, idle_s=60.0, timeout_s=120.0)
"""A retry would come long after the test. Answers may take their time, so that a busy machine causes no retry."""


@pytest.fixture
def servers() -> Iterator[tuple[Misbehaving, Misbehaving]]:
    """Two that count as two hosts."""
    with Misbehaving() as one, Misbehaving("localhost") as other:
        yield one, other


def test_concurrent_requests_are_bounded_per_host(servers: tuple[Misbehaving, Misbehaving], tmp_path: Path) -> None:
    for server in servers:
        server.pause_s = 0.03
    wanted = [
        FileRequest(server.url("ok", f"{100 + n}.wav"), tmp_path / f"{n}-{server.port}.wav")
        for n in range(12)
        for server in servers
    ]
    results = list(fetch(wanted, limits=replace(QUICK, concurrency=8, per_host=3)))
    assert all(isinstance(result, FetchedFile) for result in results)
    assert [server.most_concurrent for server in servers] == [3, 3]


def test_concurrent_requests_are_bounded_in_total(servers: tuple[Misbehaving, Misbehaving], tmp_path: Path) -> None:
    one, other = servers
    one.pause_s = other.pause_s = 0.03
    wanted = [FileRequest(server.url("ok", f"{100 + n}.wav"), tmp_path / f"{n}-{server.port}.wav")
              for n in range(6) for server in servers]  # fmt: skip
    assert len(list(fetch(wanted, limits=replace(QUICK, concurrency=2, per_host=9)))) == 12
    # A server notices the end of a response a moment after its client has begun the next request.
    assert most_concurrent(one, other) <= 3


def test_redirects_count_for_their_target_host(servers: tuple[Misbehaving, Misbehaving], tmp_path: Path) -> None:
    one, other = servers
    other.pause_s = 0.03
    wanted = [
        FileRequest(one.url("redirect", f"{n}.wav", to=other.url("ok", f"{100 + n}.wav")), tmp_path / f"{n}.wav")
        for n in range(8)
    ]
    results = list(fetch(wanted, limits=replace(QUICK, per_host=2)))
    assert all(isinstance(result, FetchedFile) for result in results)
    assert other.most_concurrent == 2


def test_requests_per_second_are_bounded(servers: tuple[Misbehaving, Misbehaving], tmp_path: Path) -> None:
    server = servers[0]
    wanted = [FileRequest(server.url("ok", f"{100 + n}.wav"), tmp_path / f"{n}.wav") for n in range(6)]
    begin = time.monotonic()
    list(fetch(wanted, limits=replace(QUICK, requests_per_second=20.0)))
    assert server.requests[-1].started - begin >= 5 * 0.05


@pytest.mark.parametrize(("behaviour", "least"), [("once-429", 1.0), ("once-429-date", 0.9)])
def test_retry_after_pauses_its_host_alone(
    servers: tuple[Misbehaving, Misbehaving], tmp_path: Path, behaviour: str, least: float
) -> None:
    one, other = servers
    wanted = [FileRequest(one.url(behaviour), tmp_path / "paused.wav")]
    wanted += [FileRequest(server.url("ok", f"{100 + n}.wav"), tmp_path / f"{n}-{server.port}.wav")
               for n in range(10) for server in (other, one)]  # fmt: skip
    results = list(fetch(wanted, limits=replace(QUICK, per_host=1)))
    assert all(isinstance(result, FetchedFile) for result in results)
    refused = [request.path for request in one.requests].index(f"/{behaviour}/30000.wav")
    first, second = one.requests[refused : refused + 2]
    assert second.started - first.started >= least
    assert max(request.started for request in other.requests) < second.started


def test_pause_holds_for_requests_that_wait_for_a_free_slot(
    servers: tuple[Misbehaving, Misbehaving], tmp_path: Path
) -> None:
    paused, slow = servers
    slow.pause_s = 0.3
    requests = [FileRequest(slow.url("ok"), tmp_path / "slow.wav")]
    requests += [FileRequest(paused.url("once-429"), tmp_path / "refused.wav")]
    requests += [FileRequest(paused.url("ok", f"{100 + n}.wav"), tmp_path / f"{n}.wav") for n in range(3)]
    results = list(fetch(requests, limits=replace(QUICK, concurrency=1, per_host=4)))
    assert all(isinstance(result, FetchedFile) for result in results)
    refused = [request.path for request in paused.requests].index("/once-429/30000.wav")
    first, second = paused.requests[refused : refused + 2]
    assert second.started - first.started >= 1.0


def test_rate_limit_holds_for_requests_that_wait_for_a_free_slot(
    servers: tuple[Misbehaving, Misbehaving], tmp_path: Path
) -> None:
    limited, slow = servers
    slow.pause_s = 0.5
    requests = [FileRequest(slow.url("ok"), tmp_path / "slow.wav")]
    requests += [FileRequest(limited.url("ok", f"{100 + n}.wav"), tmp_path / f"{n}.wav") for n in range(4)]
    list(fetch(requests, limits=replace(QUICK, concurrency=1, per_host=4, requests_per_second=8.0)))
    starts = [request.started for request in limited.requests]
    # 0.375 s without delays on the way; without the limit, a few milliseconds.
    assert starts[-1] - starts[0] >= 0.2


def test_file_of_another_process_does_not_renew_the_patience_with_its_host(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        root = f"http://127.0.0.1:{closed.getsockname()[1]}"
    locked = open_alone(partial_of(tmp_path / "locked.wav"))
    assert locked is not None
    with locked:
        requests = [FileRequest(f"{root}/{name}", tmp_path / name) for name in ("locked.wav", "refused.wav")]
        limits = replace(QUICK, attempts=1000, backoff_s=0.05, patience_s=1.2)
        results = {result.request.to.name: result for result in fetch(requests, limits=limits)}
    refused = results["refused.wav"]
    assert isinstance(refused, FailedFetch)
    assert refused.kind == "no connection" and not refused.permanent and refused.attempts < 100


def test_requests_are_drawn_as_needed(servers: tuple[Misbehaving, Misbehaving], tmp_path: Path) -> None:
    drawn = 0

    def endless() -> Iterator[FileRequest]:
        nonlocal drawn
        while True:
            drawn += 1
            yield FileRequest(servers[drawn % 2].url("ok", f"{drawn}.wav"), tmp_path / f"{drawn}.wav")

    results = fetch(endless(), limits=QUICK)
    ahead = [drawn - taken for taken, _ in zip(range(1, 100), results, strict=False)]
    results.close()  # type: ignore[attr-defined]
    assert max(ahead) <= AHEAD + 2 * QUICK.concurrency


def test_invalid_requests_are_drawn_one_by_one(tmp_path: Path) -> None:
    drawn = 0

    def nonsense() -> Iterator[FileRequest]:
        nonlocal drawn
        for drawn in range(1, 10_001):  # noqa: B007
            yield FileRequest("nonsense", tmp_path / "a.wav")

    for taken, result in enumerate(fetch(nonsense(), limits=QUICK), 1):
        assert isinstance(result, FailedFetch) and drawn == taken
    assert drawn == 10_000


def test_pausing_host_does_not_hold_up_others(servers: tuple[Misbehaving, Misbehaving], tmp_path: Path) -> None:
    paused, fine = servers
    drawn = 0

    def wanted() -> Iterator[FileRequest]:
        nonlocal drawn
        while True:
            drawn += 1
            server, behaviour = (fine, "ok") if drawn in (500, 700) else (paused, "429")
            yield FileRequest(server.url(behaviour, f"{drawn}.wav"), tmp_path / f"{drawn}.wav")

    results = fetch(wanted(), limits=LONG_BACKOFF)
    assert {next(results).request.to.name for _ in range(2)} == {"500.wav", "700.wav"}
    results.close()  # type: ignore[attr-defined]
    assert drawn <= AHEAD + QUICK.concurrency
    assert len(paused.requests) <= QUICK.per_host


def test_request_waiting_for_its_retry_does_not_hold_up_its_host(
    servers: tuple[Misbehaving, Misbehaving], tmp_path: Path
) -> None:
    server = servers[0]
    requests = [FileRequest(server.url("500"), tmp_path / "failing.wav")]
    requests += [FileRequest(server.url("ok", f"{100 + n}.wav"), tmp_path / f"{n}.wav") for n in range(5)]
    results = fetch(requests, limits=replace(LONG_BACKOFF, per_host=1))
    assert all(isinstance(next(results), FetchedFile) for _ in range(5))
    results.close()  # type: ignore[attr-defined]


def test_hosts_take_turns(servers: tuple[Misbehaving, Misbehaving], tmp_path: Path) -> None:
    one, other = servers
    requests = [
        FileRequest(server.url("ok", f"{100 + n}.wav"), tmp_path / f"{server.port}-{n}.wav")
        for server in servers
        for n in range(10)
    ]
    assert len(list(fetch(requests, limits=replace(QUICK, concurrency=1, per_host=1)))) == 20
    # The second host is served long before the first one is done.
    assert other.requests[2].started < one.requests[7].started


# -- one host, on a clock that does not run


def host(**limits: float | None) -> Host:
    return Host(replace(FetchLimits(per_host=2, backoff_s=1.0), **limits), random.Random(0))  # type: ignore[arg-type]


def test_rate_limit_spaces_requests() -> None:
    limited, free = host(requests_per_second=2.0), host()
    for each in (limited, free):
        each.start(10.0)
    assert (limited.delay(10.0), limited.delay(10.25), limited.delay(11.0)) == (0.5, 0.25, 0.0)
    assert free.delay(10.0) == 0.0


def test_longer_pause_wins_and_has_a_limit() -> None:
    paused = host()
    paused.fail("rate limited", 1.0, 30.0)
    paused.fail("rate limited", 1.0, 20.0)  # a shorter pause does not shorten it
    assert paused.delay(1.0) == 30.0
    assert paused.delay(31.0) == 0.0
    paused.fail("rate limited", 31.0, 1e9)
    assert paused.delay(31.0) == 300.0


def test_concurrent_failures_count_once_and_later_ones_double_the_pause() -> None:
    failing = host(per_host=9)
    for _ in range(9):
        failing.fail("no connection", 0.0)
    assert 0.5 <= failing.delay(0.0) <= 1.5
    failing.fail("no connection", 2.0)
    assert 1.0 <= failing.delay(2.0) <= 3.0
    failing.succeed()
    failing.fail("no connection", 10.0)
    assert 0.5 <= failing.delay(10.0) <= 1.5


def test_patience_ends_and_success_renews_it() -> None:
    failing = host(patience_s=100.0)
    failing.fail("rate limited", 0.0)
    failing.succeed()
    failing.fail("no connection", 50.0)
    assert failing.given_up(149.0) is None
    assert failing.given_up(151.0) == "no connection"
    failing.fail("rate limited", 151.0, 300.0)
    assert failing.given_up(152.0) == "rate limited"


def test_host_with_trouble_is_remembered() -> None:
    failing = host()
    assert failing.is_forgettable(0.0)
    failing.fail("no connection", 0.0)
    assert not failing.is_forgettable(1000.0)
    failing.succeed()
    assert failing.is_forgettable(1000.0)
