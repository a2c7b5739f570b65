"""The right to write an index in object storage, by a lease: a row that names its owner.

Stores have no locks. But LanceDB commits by conditional puts, and tries an update again on the result of another one of
the same row; so an update on the condition that nobody has the lease succeeds for one process only.
"""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from threading import Event, Lock, Thread
from typing import Any
from uuid import uuid4

from openclap.errors import LockedError
from openclap.search.rows import quoted

HEARTBEAT_S, STALE_S = 5.0, 20.0
"""The heartbeat's interval; how long a lease without one is watched before it is taken over."""
POLL_S = 0.3
"""Mean wait between two attempts."""
_LEASES_PER_CLEANUP = 50


def lease_schema() -> Any:
    """The Arrow schema of the table with the lease."""
    import pyarrow as pa

    return pa.schema([("owner", pa.string()), ("host", pa.string()), ("process", pa.int64()), ("beat", pa.int64())])


FREE: dict[str, Any] = {"owner": "", "host": "", "process": 0, "beat": 0}
"""The row of a lease that nobody has."""


class IndexLease:
    """The right to write an index in object storage: the owner in the row of a table, who renews a heartbeat.

    A lease whose heartbeat has stopped for STALE_S is taken over. Its former owner, if it was only suspended, notices
    that before its next commit. Clocks of two machines are never compared.
    """

    def __init__(self, address: str, table: Any) -> None:
        self._address, self._table = address, table
        self._owner = {"owner": uuid4().hex, "host": socket.gethostname(), "process": os.getpid()}
        self._stop, self._beating, self._renewed_s = Event(), Lock(), 0.0
        self._heartbeat: Thread | None = None

    def acquire(self, timeout_s: float) -> None:
        """Take the lease, and start the heartbeat.

        Raises LockedError while another process has it: once its heartbeat was seen, but not before `timeout_s`.
        """
        until = time.monotonic() + timeout_s
        seen, seen_s = self._state(), time.monotonic()
        while not self._take(seen, is_stale=time.monotonic() - seen_s >= STALE_S):
            time.sleep(POLL_S * random.uniform(0.5, 1.5))
            found = self._state()
            is_alive = found != seen
            if is_alive:
                seen, seen_s = found, time.monotonic()
            if is_alive and found["owner"] and time.monotonic() >= until:
                raise LockedError(
                    f"{self._address}: another process ({found['process']} on {found['host']}) is writing here. Wait "
                    "until it has finished, or choose another index."
                )
        self._renewed_s = time.time()
        self._heartbeat = Thread(target=self._beat, name="lease", daemon=True)
        self._heartbeat.start()

    def _take(self, seen: Mapping[str, Any], *, is_stale: bool) -> bool:
        """Take the lease if it is free or stale; False also when another process took it first."""
        if seen["owner"] == self._owner["owner"]:  # the answer to an earlier attempt was lost
            return True
        if seen["owner"] and not is_stale:
            return False
        where = f"owner = {quoted(seen['owner'])} AND beat = {int(seen['beat'])}"
        return self._update(where, {**self._owner, "beat": int(seen["beat"]) + 1})

    def check(self) -> None:
        """Raise LockedError when another process has taken the lease over, since this one was suspended."""
        if not 0 <= time.time() - self._renewed_s < STALE_S / 2:  # the clock of the system also counts a suspension
            self._renew()
        if self._stop.is_set():
            raise LockedError(
                f"{self._address}: another process has taken over the right to write here, so this one stops. What it "
                "stored is there; run it again when the other has finished."
            )

    def release(self) -> None:
        """Stop the heartbeat and give up the lease."""
        self._stop.set()
        if self._heartbeat is not None:
            self._heartbeat.join()
        with suppress(RuntimeError, ValueError, OSError):  # a lease that stays only makes the next process watch it
            if self._update(self._own, {"owner": ""}) and self._table.version % _LEASES_PER_CLEANUP == 0:
                self._table.optimize(cleanup_older_than=timedelta(minutes=10))

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            with suppress(RuntimeError, ValueError, OSError):  # a store that fails is reported by the next commit
                self._renew()

    def _renew(self) -> None:
        with self._beating:
            if self._table.update(where=self._own, values_sql={"beat": "beat + 1"}).rows_updated:
                self._renewed_s = time.time()
            else:
                self._stop.set()

    @property
    def _own(self) -> str:
        return f"owner = {quoted(str(self._owner['owner']))}"

    def _state(self) -> dict[str, Any]:
        rows: list[dict[str, Any]] = self._table.search().to_arrow().to_pylist()
        return rows[0] if rows else FREE

    def _update(self, where: str, values: Mapping[str, Any]) -> bool:
        try:
            return bool(self._table.update(where=where, values=dict(values)).rows_updated)
        except RuntimeError as error:
            if "conflict" in str(error).lower() or "concurrent" in str(error).lower():
                return False
            raise
