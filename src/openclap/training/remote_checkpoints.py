"""Copies of a run's checkpoints elsewhere, for a machine that may be taken away, and the lease on that place.

    config.json       the run's identity
    running.json      the lease: which process writes there now
    step-00000050/    state/, log.jsonl, best/ while a validation chooses, and, written last, progress.json

A copy without progress.json is incomplete and is ignored.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any
from uuid import uuid4

from openclap.errors import CheckpointError, ConfigError
from openclap.formatting import first_line
from openclap.storage import Place, place_of, remove_folder, sync_tree, write_bytes
from openclap.training.checkpointing import (
    BEST,
    CHECKPOINTS,
    CONFIG,
    DRAFT,
    PREFIX,
    PROGRESS,
    RunIdentity,
    holds_run,
    identity_json,
    list_checkpoints,
)
from openclap.training.logging import LOG

STATE, LEASE = "state", "running.json"
# Bytes of one read or write: 16 MB, since object stores are slow at small ones.
BLOCK_BYTES = 1 << 24
HEARTBEAT_S, WATCH_S, SETTLE_S = 5.0, 20.0, 1.0
"""The heartbeat's interval; how long a foreign lease is watched for a heartbeat; the wait after which one of two runs
that take the lease at the same moment sees the other's."""


class RemoteCheckpoints:
    """The copies of one run's checkpoints.

    Args:
        address: a folder, or any address that fsspec reads: "s3://bucket/run".
        out: the run folder.
        keep: how many of the newest copies stay.

    Raises ConfigError for an invalid address, MissingExtraError where the package that reads it is not installed.
    """

    def __init__(self, address: str, out: Path, keep: int) -> None:
        self.out, self.keep = out, keep
        self.place = place_of(address)
        self.lease = Lease(self.place)
        if _is_within(self.place, out):
            raise ConfigError(f"remote_checkpoints {address}: is in the run's own folder. Choose another place.")

    def acquire(self, identity: RunIdentity) -> None:
        """Take the lease on the place for this run.

        Raises ConfigError where the place cannot be written, belongs to another run, or another process writes there.
        """
        try:
            if self.place.is_file():
                raise ConfigError(f"remote_checkpoints {self.place}: is a file, expected a folder or an address.")
            self.place.mkdir(parents=True, exist_ok=True)
            is_known = holds_run(self.place, identity)
            if not is_known and self._list():
                raise ConfigError(
                    f"remote_checkpoints {self.place}: holds checkpoints of another kind. Choose another place."
                )
            self.lease.acquire()
            if not is_known:
                write_bytes(self.place / CONFIG, identity_json(identity))
        except ConfigError:
            raise
        except Exception as error:  # each kind of store raises its own types
            raise ConfigError(
                f"remote_checkpoints {self.place}: cannot be written ({first_line(error)}). Check the address and your "
                "permissions there."
            ) from None

    def release(self) -> None:
        """Give up the lease."""
        self.lease.release()

    def upload(self, checkpoint: Path) -> None:
        """Copy a checkpoint, with the log and the best model as they are now; `prune` removes older copies.

        Raises CheckpointError where that fails, or another run holds the lease; the checkpoint itself is whole.
        """
        target = self.place / checkpoint.name
        try:
            self.lease.check()  # a run that was suspended must not overwrite its successor's copies
            _remove(target)
            _copy_files(checkpoint, target / STATE, leave_out=PROGRESS)
            _copy_files(self.out / BEST, target / BEST)
            _copy(self.out / LOG, target / LOG)
            _copy(checkpoint / PROGRESS, target / PROGRESS)  # last: it marks the copy as complete
        except CheckpointError:
            raise
        except Exception as error:
            raise CheckpointError(
                f"{target}: the checkpoint could not be copied there ({first_line(error)}). It is whole in "
                f"{checkpoint}; run the same command to continue."
            ) from None

    def prune(self) -> None:
        """Remove all copies except the newest `keep` complete ones. Raises CheckpointError where that fails."""
        try:
            complete = [copy.name for copy in self._list_complete()][-self.keep :]
            for copy in self._list():
                # An incomplete copy newer than all complete ones may still be on its way.
                if complete and copy.name < complete[-1] and copy.name not in complete:
                    _remove(copy)
        except Exception as error:
            raise CheckpointError(
                f"{self.place}: old checkpoints could not be removed there ({first_line(error)}). Run the same command "
                "to continue."
            ) from None

    def download(self) -> None:
        """Copy the newest complete checkpoint into the run folder, unless that has one as new.

        Raises CheckpointError where it cannot be read.
        """
        newest = None
        try:
            newest = next(iter(self._list_complete()[-1:]), None)
            local = list_checkpoints(self.out / CHECKPOINTS)
            if newest is not None and not (local and local[-1].name >= newest.name):
                self._restore(newest)
        except Exception as error:
            raise CheckpointError(
                f"{newest or self.place}: cannot be read ({first_line(error)}). Run the same command again, or delete "
                "it there to continue from the one before."
            ) from None

    def _restore(self, copy: Place) -> None:
        """Copy best model, log and state into the run folder; the checkpoint gets its name last, so that a download
        that was stopped starts again."""
        # Local files of an older state must not mix with the copy.
        shutil.rmtree(self.out / BEST, ignore_errors=True)
        draft = self.out / CHECKPOINTS / f"{DRAFT}{copy.name}"
        shutil.rmtree(draft, ignore_errors=True)
        _copy_files(copy / BEST, self.out / BEST)
        _copy_files(copy / STATE, draft)
        _copy(copy / LOG, self.out / LOG)
        _copy(copy / PROGRESS, draft / PROGRESS)
        sync_tree(draft)
        draft.rename(self.out / CHECKPOINTS / copy.name)

    def _list(self) -> list[Place]:
        """List every copy, complete or not, oldest first."""
        if not self.place.is_dir():  # stores without folders: an empty one does not exist
            return []
        return sorted((path for path in self.place.iterdir() if path.name.startswith(PREFIX)), key=lambda p: p.name)

    def _list_complete(self) -> list[Place]:
        return [path for path in self._list() if (path / PROGRESS).is_file()]


class Lease:
    """The right to write in `place`: a heartbeat lease, for stores that have no locks.

    The owner rewrites a file at regular intervals. A later run watches the file for a while and takes the lease over if
    the heartbeat has stopped. The former owner, if it was only suspended, notices that before its next upload. Clocks
    of two machines are never compared.
    """

    def __init__(self, place: Place) -> None:
        self.place, self.file = place, place / LEASE
        # The random part identifies a run; host and process are for the message to a person.
        self.owner = {"run": uuid4().hex, "host": socket.gethostname(), "process": os.getpid()}
        self.stop = Event()
        self.heartbeat: Thread | None = None

    def acquire(self) -> None:
        """Take the lease and start the heartbeat.

        Raises ConfigError while another run has it, and the store's own errors where it cannot be written.
        """
        found = self._read()
        if found is not None and self._is_alive(found):
            raise ConfigError(_refusal(self.place, found))
        # Without a lock, two runs can write at the same moment; the later content wins, for both of them.
        self._write(0)
        time.sleep(SETTLE_S)  # of two runs that write at the same moment, the first now reads the second's file
        if other := self._other_owner():
            raise ConfigError(_refusal(self.place, other))
        self.heartbeat = Thread(target=self._beat, name="lease", daemon=True)
        self.heartbeat.start()

    def check(self) -> None:
        """Raise CheckpointError when another run has taken the lease."""
        if self._other_owner():
            raise CheckpointError(
                f"{self.place}: another run has taken this place, so this one stops. Its own checkpoints are whole; "
                "when the other has ended, the same command continues."
            )

    def release(self) -> None:
        """Stop the heartbeat and delete the lease."""
        if self.heartbeat is None:
            return
        self.stop.set()
        self.heartbeat.join()
        self.heartbeat = None
        with suppress(Exception):  # a file that stays only makes the next run watch it
            if not self._other_owner():
                self.file.unlink()

    def _beat(self) -> None:
        count = 0
        while not self.stop.wait(HEARTBEAT_S):
            with suppress(Exception):  # a store that fails is reported by the next upload
                if self._other_owner():
                    return
                self._write(count := count + 1)

    def _is_alive(self, found: bytes) -> bool:
        """Watch a foreign lease for its next heartbeat."""
        until = time.monotonic() + WATCH_S
        # Four heartbeats long: a slow store may delay one.
        while time.monotonic() < until:
            time.sleep(min(1.0, WATCH_S / 10))
            current = self._read()
            if current != found:
                return current is not None
        return False

    def _other_owner(self) -> bytes | None:
        """Return the lease file if another run has written it."""
        found = self._read()
        return found if found and _parse(found).get("run") not in (None, self.owner["run"]) else None

    def _read(self) -> bytes | None:
        """Read the lease file directly, since fsspec caches directory listings."""
        try:
            if isinstance(self.file, Path):
                return self.file.read_bytes()
            content: bytes = self.file.fs.cat_file(self.file.path)
            return content
        except FileNotFoundError:
            return None

    def _write(self, beat: int) -> None:
        self.file.write_bytes(json.dumps(self.owner | {"beat": beat}).encode())


def _refusal(place: Place, lease: bytes) -> str:
    facts = _parse(lease)
    return (
        f"remote_checkpoints {place}: another run (process {facts.get('process')} on {facts.get('host')}) is writing "
        "there. Wait until it ends, stop it, or choose another place."
    )


def _parse(content: bytes) -> dict[str, Any]:
    """Parse a lease; an incomplete file gives an empty dict."""
    try:
        return dict(json.loads(content))
    except (TypeError, ValueError):
        return {}


def _is_within(place: Place, folder: Path) -> bool:
    if getattr(place, "protocol", "") not in ("", "file", "local"):
        return False
    here = Path(getattr(place, "path", place)).resolve()
    return folder.resolve() in (here, *here.parents)


def _copy_files(source: Place, target: Place, *, leave_out: str = "") -> None:
    """Copy the files of a folder, if it exists. Checkpoints and models have no subfolders."""
    if source.is_dir():
        for path in source.iterdir():
            if path.name != leave_out:
                _copy(path, target / path.name)


def _copy(source: Place, target: Place) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as reader, target.open("wb") as writer:
        shutil.copyfileobj(reader, writer, BLOCK_BYTES)


def _remove(copy: Place) -> None:
    (copy / PROGRESS).unlink(missing_ok=True)  # first: what is left after a kill must not look complete
    remove_folder(copy)
