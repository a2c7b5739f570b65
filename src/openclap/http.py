"""HTTP for downloads (`openclap.download`), Freesound's API and chat endpoints: user agent, Retry-After and retries."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import openclap
from openclap.errors import require

if TYPE_CHECKING:
    import httpx2
    from tenacity import RetryCallState

USER_AGENT = f"openclap/{openclap.__version__}"
LONGEST_BACKOFF_S = 60.0
"""Upper bound of a wait that the server has not asked for."""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of the header Retry-After, given as a number or as a date; None without a valid one."""
    # Only digits: int() would accept signs, spaces and underscores.
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    until = http_date(text)
    return None if until is None else max(0.0, (until - datetime.now(UTC)).total_seconds())


def http_date(text: str | None) -> datetime | None:
    """Parse a date of an HTTP header; None for anything else."""
    try:
        date = parsedate_to_datetime(text or "")
    except (ValueError, OverflowError):  # OverflowError: a year or an offset of twenty digits
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def backoff(first_s: float, failures: int, rng: random.Random | None = None) -> float:
    """Seconds to wait after `failures` consecutive failures: `first_s`, doubled each time, up to a minute.

    With `rng` they are multiplied by 0.5 to 1.5 at random, so that clients do not return at the same moment.
    """
    # The exponent is bounded: 2.0 ** 1024 would overflow.
    seconds = min(LONGEST_BACKOFF_S, first_s * 2.0 ** min(failures - 1, 30))
    return seconds if rng is None else seconds * (0.5 + rng.random())


def send_with_retries(
    send: Callable[[], httpx2.Response],
    *,
    attempts: int,
    is_busy: Callable[[int], bool],
    first_wait_s: float,
    longest_wait_s: float = float("inf"),
    patience_s: float = float("inf"),
    sleep: Callable[[float], Any] = time.sleep,
    stopped: Callable[[], bool] = lambda: False,
) -> httpx2.Response:
    """Send a request, repeat it while the server is busy or cannot be reached, and return the last response.

    Between two attempts, wait as long as Retry-After says, or by `backoff`; at most `longest_wait_s`.

    Args:
        send: sends the request once.
        attempts: the largest number of attempts.
        is_busy: whether an HTTP status means that the same request may succeed later.
        patience_s: give up if the next wait is longer.
        stopped: give up if this returns true, checked after each attempt.

    Raises httpx2.TransportError when the last attempt got no response, and MissingExtraError.
    """
    for package in ("httpx2", "tenacity"):
        require(package, "data")
    import httpx2
    import tenacity

    def wait(state: RetryCallState) -> float:
        assert state.outcome is not None
        requested = None if state.outcome.failed else retry_after(state.outcome.result().headers)
        return min(longest_wait_s, backoff(first_wait_s, state.attempt_number) if requested is None else requested)

    def last_outcome(state: RetryCallState) -> Any:
        assert state.outcome is not None
        return state.outcome.result()  # the last response, or raise the last error

    def is_unreachable(error: BaseException) -> bool:
        # A URL with another scheme than http stays wrong however often it is tried.
        return isinstance(error, httpx2.TransportError) and not isinstance(error, httpx2.UnsupportedProtocol)

    def stop(state: RetryCallState) -> bool:
        return state.attempt_number >= attempts or state.upcoming_sleep > patience_s or stopped()

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_unreachable)
        | tenacity.retry_if_result(lambda response: is_busy(response.status_code)),
        wait=wait,
        stop=stop,
        sleep=sleep,
        retry_error_callback=last_outcome,
    )
    response: httpx2.Response = retrying(send)
    return response
