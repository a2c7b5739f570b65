"""Retry-After, back-off, and requests that are repeated while a server is busy."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import pytest

from openclap.http import backoff, retry_after, send_with_retries


def test_retry_after_in_seconds_and_as_a_date() -> None:
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert retry_after({"retry-after": "7"}) == 7
    assert 55 < (retry_after({"retry-after": in_a_minute}) or 0) <= 60
    assert retry_after({"retry-after": "Thu, 01 Jan 2015 00:00:00 GMT"}) == 0
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({"retry-after": "-3"}) is None
    # Numbers that a date cannot have: `email.utils` raises OverflowError for them.
    assert retry_after({"retry-after": "Thu, 01 Jan 99999999999999999999 00:00:00 GMT"}) is None
    assert retry_after({"retry-after": "Thu, 01 Jan 2015 00:00:00 +99999999999999"}) is None
    assert retry_after({}) is None


def test_backoff_doubles_up_to_a_minute_and_is_random() -> None:
    rng = random.Random(1)
    for failures, middle in [(1, 1.0), (2, 2.0), (5, 16.0), (7, 60.0), (1000, 60.0)]:
        assert backoff(1.0, failures) == middle
        waits = {backoff(1.0, failures, rng) for _ in range(50)}
        assert len(waits) == 50 and 0.5 * middle <= min(waits) < max(waits) <= 1.5 * middle
    assert backoff(1.0, 1, random.Random(3)) == backoff(1.0, 1, random.Random(3))


def send(*outcomes: Any, **options: Any) -> tuple[httpx2.Response, list[float]]:
    """Send a request with these outcomes: statuses, (status, Retry-After), errors. The response, and the waits."""
    waits: list[float] = []
    remaining: Iterator[Any] = iter(outcomes)

    def request() -> httpx2.Response:
        outcome = next(remaining)
        if isinstance(outcome, Exception):
            raise outcome
        status, wait = outcome if isinstance(outcome, tuple) else (outcome, None)
        return httpx2.Response(status, headers={"Retry-After": wait} if wait else {})

    options = {"attempts": 4, "is_busy": lambda status: status == 503, "first_wait_s": 1.0} | options
    return send_with_retries(request, sleep=waits.append, **options), waits


def test_busy_server_gets_the_request_again() -> None:
    response, waits = send(503, httpx2.ConnectError("down"), (503, "7"), 200)
    assert (response.status_code, waits) == (200, [1.0, 2.0, 7.0])


def test_last_response_or_error_is_the_outcome() -> None:
    response, waits = send(503, 503, attempts=2)
    assert (response.status_code, waits) == (503, [1.0])
    with pytest.raises(httpx2.ConnectError, match="down"):
        send(503, httpx2.ConnectError("down"), attempts=2)


def test_waits_are_bounded() -> None:
    assert send((503, "100"), 503, 200, longest_wait_s=1.5)[1] == [1.5, 1.5]
    response, waits = send(503, (503, "7200"), 200, patience_s=600.0)
    assert (response.status_code, waits) == (503, [1.0])


def test_errors_of_the_caller_are_not_repeated() -> None:
    with pytest.raises(httpx2.UnsupportedProtocol):
        send(httpx2.UnsupportedProtocol("ftp"), 200)


def test_stopped_run_sends_nothing_more() -> None:
    response, waits = send(503, 200, stopped=lambda: True)
    assert (response.status_code, waits) == (503, [])
