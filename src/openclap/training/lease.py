"""A heartbeat lease, for stores that have no locks: one run at a time writes to an address.

A later run watches for a while whether the heartbeat goes on, and takes the lease over when it does not. A run that was
suspended notices this before it writes again. Clocks of two machines are never compared.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any
from uuid import uuid4

from openclap.errors import CheckpointError, ConfigError
from openclap.storage import Place

RUNNING = "running.json"
BEAT_S, WATCH_S, SETTLE_S = 5.0, 20.0, 1.0
"""Between two signs of life; how long they are watched for; until of two that come at once one has seen the other."""


class Lease:
    """The right to write in `place`."""

    def __init__(self, place: Place) -> None:
        self.place, self.file = place, place / RUNNING
        self.who = {"run": uuid4().hex, "host": socket.gethostname(), "process": os.getpid()}
        self.stop = Event()
        self.beating: Thread | None = None

    def take(self) -> None:
        """Raises ConfigError while another run has it, and what the store raises where it cannot be written."""
        found = self._read()
        if found is not None and self._goes_on(found):
            raise ConfigError(_refusal(self.place, found))
        self._write(0)
        time.sleep(SETTLE_S)
        if other := self._other():
            raise ConfigError(_refusal(self.place, other))
        self.beating = Thread(target=self._beat, name="lease", daemon=True)
        self.beating.start()

    def check(self) -> None:
        """Raises CheckpointError when another run has taken it."""
        if self._other():
            raise CheckpointError(
                f"{self.place}: another run has taken this place, so this one stops. Its own states are whole; when "
                "the other has ended, the same command goes on."
            )

    def release(self) -> None:
        """Leave the place to whoever comes next."""
        if self.beating is None:
            return
        self.stop.set()
        self.beating.join()
        self.beating = None
        with suppress(Exception):  # the next one has to watch, then
            if not self._other():
                self.file.unlink()

    def _beat(self) -> None:
        beats = 0
        while not self.stop.wait(BEAT_S):
            with suppress(Exception):  # what keeps the store from being written is told when a state is sent
                if self._other():
                    return
                self._write(beats := beats + 1)

    def _goes_on(self, found: bytes) -> bool:
        """Does its owner give another sign of life?"""
        until = time.monotonic() + WATCH_S
        while time.monotonic() < until:
            time.sleep(min(1.0, WATCH_S / 10))
            now = self._read()
            if now != found:
                return now is not None
        return False

    def _other(self) -> bytes | None:
        """What another run has written there."""
        found = self._read()
        return found if found and _facts(found).get("run") not in (None, self.who["run"]) else None

    def _read(self) -> bytes | None:
        """Past what file systems keep of a store's listings."""
        try:
            if isinstance(self.file, Path):
                return self.file.read_bytes()
            content: bytes = self.file.fs.cat_file(self.file.path)
            return content
        except FileNotFoundError:
            return None

    def _write(self, beat: int) -> None:
        self.file.write_bytes(json.dumps(self.who | {"beat": beat}).encode())


def _refusal(place: Place, other: bytes) -> str:
    return f"states {place}: {_named(other)} is writing there. Wait until it ends, stop it, or choose another place."


def _named(other: bytes) -> str:
    facts = _facts(other)
    return f"another run (process {facts.get('process')} on {facts.get('host')})"


def _facts(content: bytes) -> dict[str, Any]:
    """Nothing of what is half written."""
    try:
        return dict(json.loads(content))
    except (TypeError, ValueError):
        return {}
