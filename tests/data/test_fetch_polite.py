"""Limits for each host, pauses, and how much is drawn of what is wanted; and the queues themselves, without waiting."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fetching import QUICK
from misbehaving import Misbehaving

from openclap.data.fetch import AHEAD, Failed, Fetched, Limits, Wanted, fetch
from openclap.data.fetch.polite import DISK, Hosts, backoff


@pytest.fixture
def servers() -> Iterator[tuple[Misbehaving, Misbehaving]]:
    """Two that count as two hosts."""
    with Misbehaving() as one, Misbehaving("localhost") as other:
        yield one, other


def test_few_requests_at_once_to_one_host_and_more_to_several(
    servers: tuple[Misbehaving, Misbehaving], tmp_path: Path
) -> None:
    for server in servers:
        server.pause_s = 0.03
    wanted = [
        Wanted(server.url("ok", f"{100 + n}.wav"), tmp_path / f"{n}-{server.port}.wav")
        for n in range(12)
        for server in servers
    ]
    results = list(fetch(wanted, limits=replace(QUICK, at_once=8, per_host=3)))
    assert all(isinstance(result, Fetched) for result in results)
    assert [server.most_at_once for server in servers] == [3, 3]


def test_never_more_at_once_than_all_hosts_may(servers: tuple[Misbehaving, Misbehaving], tmp_path: Path) -> None:
    one, other = servers
    one.pause_s = other.pause_s = 0.03
    wanted = [Wanted(server.url("ok", f"{100 + n}.wav"), tmp_path / f"{n}-{server.port}.wav")
              for n in range(6) for server in servers]  # fmt: skip
    assert len(list(fetch(wanted, limits=replace(QUICK, at_once=2, per_host=9)))) == 12
    assert one.most_at_once + other.most_at_once <= 3  # each its own maximum, not at the same time


def test_redirects_count_for_the_host_that_they_lead_to(
    servers: tuple[Misbehaving, Misbehaving], tmp_path: Path
) -> None:
    one, other = servers
    other.pause_s = 0.03
    wanted = [
        Wanted(one.url("redirect", f"{n}.wav", to=other.url("ok", f"{100 + n}.wav")), tmp_path / f"{n}.wav")
        for n in range(8)
    ]
    results = list(fetch(wanted, limits=replace(QUICK, per_host=2)))
    assert all(isinstance(result, Fetched) for result in results)
    assert other.most_at_once == 2


def test_so_many_a_second(servers: tuple[Misbehaving, Misbehaving], tmp_path: Path) -> None:
    server = servers[0]
    wanted = [Wanted(server.url("ok", f"{100 + n}.wav"), tmp_path / f"{n}.wav") for n in range(6)]
    list(fetch(wanted, limits=replace(QUICK, per_second=20.0)))
    times = [asked.at for asked in server.asked]
    assert times[-1] - times[0] >= 5 * 0.05 - 0.02


@pytest.mark.parametrize(("behaviour", "least"), [("once-429", 1.0), ("once-429-date", 0.9)])
def test_a_host_that_asks_for_a_pause_gets_it_and_the_others_go_on(
    servers: tuple[Misbehaving, Misbehaving], tmp_path: Path, behaviour: str, least: float
) -> None:
    one, other = servers
    wanted = [Wanted(one.url(behaviour), tmp_path / "paused.wav")]
    wanted += [Wanted(server.url("ok", f"{100 + n}.wav"), tmp_path / f"{n}-{server.port}.wav")
               for n in range(10) for server in (other, one)]  # fmt: skip
    results = list(fetch(wanted, limits=replace(QUICK, per_host=1)))
    assert all(isinstance(result, Fetched) for result in results)
    refused = [asked.path for asked in one.asked].index(f"/{behaviour}/30000.wav")
    first, second = one.asked[refused : refused + 2]
    assert second.at - first.at >= least
    assert max(asked.at for asked in other.asked) < second.at


def test_what_is_wanted_is_drawn_as_it_is_needed(servers: tuple[Misbehaving, Misbehaving], tmp_path: Path) -> None:
    drawn = 0

    def endless() -> Iterator[Wanted]:
        nonlocal drawn
        while True:
            drawn += 1
            yield Wanted(servers[drawn % 2].url("ok", f"{drawn}.wav"), tmp_path / f"{drawn}.wav")

    results = fetch(endless(), limits=QUICK)
    ahead = [drawn - taken for taken, _ in zip(range(1, 100), results, strict=False)]
    results.close()  # type: ignore[attr-defined]
    assert max(ahead) <= AHEAD + 2 * QUICK.at_once


def test_a_table_of_nonsense_is_not_drawn_at_once(tmp_path: Path) -> None:
    drawn = 0

    def nonsense() -> Iterator[Wanted]:
        nonlocal drawn
        for drawn in range(1, 10_001):  # noqa: B007
            yield Wanted("nonsense", tmp_path / "a.wav")

    for taken, result in enumerate(fetch(nonsense(), limits=QUICK), 1):
        assert isinstance(result, Failed) and drawn == taken
    assert drawn == 10_000


def test_others_are_looked_for_behind_a_host_that_pauses(
    servers: tuple[Misbehaving, Misbehaving], tmp_path: Path
) -> None:
    paused, fine = servers
    drawn = 0

    def wanted() -> Iterator[Wanted]:
        nonlocal drawn
        while True:
            drawn += 1
            server, behaviour = (fine, "ok") if drawn in (500, 700) else (paused, "429")
            yield Wanted(server.url(behaviour, f"{drawn}.wav"), tmp_path / f"{drawn}.wav")

    results = fetch(wanted(), limits=replace(QUICK, wait_s=60.0))
    assert [next(results).wanted.to.name for _ in range(2)] == ["500.wav", "700.wav"]
    results.close()  # type: ignore[attr-defined]
    assert drawn <= AHEAD + QUICK.at_once
    assert len(paused.asked) <= QUICK.per_host


# -- the queues


def hosts(**limits: float | None) -> Hosts[str]:
    return Hosts(replace(Limits(per_host=2, wait_s=1.0), **limits), random.Random(0))  # type: ignore[arg-type]


def test_hosts_take_turns() -> None:
    queue = hosts()
    for item in ("a1", "a2", "a3", "b1", "b2"):
        queue.add(item[0], item)
    assert [queue.next(0.0) for _ in range(5)] == [("a", "a1"), ("b", "b1"), ("a", "a2"), ("b", "b2"), None]
    assert queue.waiting == 1 and queue.due(0.0) is None
    queue.done("a", 0.0)
    assert queue.next(0.0) == ("a", "a3")


def test_the_disk_has_no_limits() -> None:
    queue = hosts(per_second=1.0)
    for number in range(5):
        queue.add(DISK, str(number))
    assert [queue.next(0.0) for _ in range(5)] == [(DISK, str(number)) for number in range(5)]


def test_what_waits_does_not_hold_up_what_need_not() -> None:
    queue = hosts()
    queue.add("a", "late", at=10.0)
    queue.add("a", "early", at=5.0)
    queue.add("a", "now")
    assert queue.next(0.0) == ("a", "now")
    assert queue.next(0.0) is None and queue.due(1.0) == 4.0
    assert queue.next(6.0) == ("a", "early")


def test_pauses() -> None:
    queue = hosts()
    for number in range(4):
        queue.add("a", str(number))
        queue.add("b", str(number))
    assert {queue.next(0.0), queue.next(0.0), queue.next(0.0)} == {("a", "0"), ("b", "0"), ("a", "1")}
    queue.refused("a", "rate limited", 1.0, 30.0)
    queue.refused("a", "rate limited", 1.0, 20.0)  # a shorter one does not shorten it
    queue.done("a", 1.0)
    queue.done("a", 1.0)
    assert queue.next(1.0) == ("b", "1")
    assert queue.next(1.0) is None and queue.due(1.0) == 30.0
    assert queue.next(31.0) == ("a", "2")
    queue.refused("a", "rate limited", 31.0, 1e9)
    assert queue.due(31.0) == 300.0


def test_trouble_that_comes_together_counts_once_and_then_doubles() -> None:
    queue = hosts(per_host=9)
    for number in range(9):
        queue.add("a", str(number))
        queue.next(0.0)
    queue.add("a", "next")
    for _ in range(9):
        queue.refused("a", "no connection", 0.0)
        queue.done("a", 0.0)
    first = queue.due(0.0)
    assert first is not None and 0.5 <= first <= 1.5
    queue.add("a", "more")
    queue.next(2.0)
    queue.refused("a", "no connection", 2.0)
    second = queue.due(2.0)
    assert second is not None and 1.0 <= second <= 3.0
    queue.well("a")
    queue.refused("a", "no connection", 10.0)
    again = queue.due(10.0)
    assert again is not None and 0.5 <= again <= 1.5


def test_patience_ends_and_a_good_answer_renews_it() -> None:
    queue = hosts(patience_s=100.0)
    for number in range(5):
        queue.add("a", str(number))
    queue.next(0.0)
    queue.refused("a", "rate limited", 0.0)
    queue.well("a")
    queue.refused("a", "no connection", 50.0)
    assert queue.given_up("a", 149.0) is None
    assert queue.given_up("a", 151.0) == "no connection"
    queue.refused("a", "rate limited", 151.0, 300.0)
    assert [queue.next(152.0) for _ in range(4)] == [("a", str(number)) for number in range(1, 5)]  # to be let go


def test_back_off_doubles_up_to_a_minute_and_differs() -> None:
    rng, limits = random.Random(1), Limits(wait_s=1.0)
    for failures, middle in [(1, 1.0), (2, 2.0), (5, 16.0), (7, 60.0), (1000, 60.0)]:
        waits = {backoff(limits, failures, rng) for _ in range(50)}
        assert len(waits) == 50 and 0.5 * middle <= min(waits) < max(waits) <= 1.5 * middle
    assert backoff(limits, 1, random.Random(3)) == backoff(limits, 1, random.Random(3))
