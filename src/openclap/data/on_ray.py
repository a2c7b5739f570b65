"""The same work on a Ray cluster (`ray start`): one adapter over Ray Data."""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from openclap.errors import ConfigError, require

T = TypeVar("T")
R = TypeVar("R")


def each(work: Callable[[T], R], things: Sequence[T], processes: int = 1) -> Iterator[R]:
    """As `openclap.data.work.each`, on the cluster that RAY_ADDRESS names, or on one of this machine's own without it.

    Every machine of the cluster must see the data set's folder under the same name, and have openclap installed.
    `processes` is not asked for: Ray gives each piece of work a core. Raises ConfigError when no cluster is there, and
    what `work` raises.
    """
    ray = require("ray", "scale")
    require("ray.data", "scale")
    if not things:
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or Ray would tell its makers of a cluster begun here
    try:
        _knock(os.environ.get("RAY_ADDRESS", ""))
        ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"No Ray cluster can be reached ({reason}). Run: ray start --head") from None
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)

    def done(row: Mapping[str, bytes]) -> dict[str, bytes]:
        """Things and results travel as bytes: as columns, Ray would make numbers in tuples text."""
        try:
            return {"done": pickle.dumps((work(pickle.loads(row["thing"])), None))}
        except Exception as error:  # raised where `each` is called
            return {"done": pickle.dumps((None, error))}

    rows = ray.data.from_items([{"thing": pickle.dumps(thing)} for thing in things], override_num_blocks=len(things))
    for row in rows.map(done).iter_rows():
        result, trouble = pickle.loads(row["done"])
        if trouble is not None:
            raise trouble
        yield result


def _knock(address: str) -> None:
    """Raise OSError where nobody answers: Ray itself would wait for a quarter of an hour."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()
