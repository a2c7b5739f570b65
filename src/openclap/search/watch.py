"""Keep an index up to date while its sounds change, by the notifications of the file system.

Where there are none, folders are listed again and again: on network drives, of which a system does not learn what other
machines change, and where the system's limit of watched folders is reached.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event

from openclap.errors import DataError, require
from openclap.search.index import Index
from openclap.search.paths import is_gone, prefixes
from openclap.search.scan import ScanReport
from openclap.types import AUDIO_SUFFIXES

Update = Callable[[Sequence[str] | None], ScanReport]
"""Brings the index up to date with changed paths; with all of its roots for None."""

_SETTLE_MS, _TICK_MS, _POLL_MS = 400, 1000, 1000
"""Changes of this long are handled together; how often a writer that was busy is tried again; the pause between two
listings where there are no notifications."""
_NETWORK = frozenset("9p afs ceph cifs davfs fuse.davfs fuse.rclone fuse.s3fs fuse.sshfs nfs nfs4 smb3 smbfs".split())  # noqa: SIM905
"""Types of file systems whose contents other machines change."""


def watch(
    index: Index,
    update: Update,
    report: Callable[[ScanReport], None],
    note: Callable[[str], None],
    *,
    stop: Event | None = None,
) -> None:
    """Bring the index up to date now and after every change below its roots, until `stop` is set or Ctrl-C.

    Changes that cannot be stored, since another process is writing, are tried again every second. Raises DataError when
    no root exists, and as `update` at first.
    """
    roots = [root.found(index.place.own_folder) for root in index.header().roots]
    present = [root for root in roots if not is_gone(root)]
    if not present:
        raise DataError(f"{index.place} has no folder that exists to watch. Add one with 'openclap index add'.")
    changes = _changes(present, stop, note)
    next(changes, None)  # watch before the first scan, so that no change falls between the two
    report(update(None))
    pending: set[str] = set()
    why = ""
    for paths in changes:
        pending |= {path for path in paths if _matters(path, index.folder)}
        if not pending:
            continue
        try:
            done = update(sorted(pending))
        except DataError as error:
            if str(error) != why:
                note(why := str(error))
            continue
        why = ""
        pending.clear()
        report(done)


def _changes(roots: Sequence[str], stop: Event | None, note: Callable[[str], None]) -> Iterator[set[str]]:
    """Paths that changed, every time that some did and at least once a second."""
    watchfiles = require("watchfiles", "watch")
    ways = [False, True]
    mounts = _mounts()
    if drive := next((root for root in roots if _is_on_network(root, mounts)), None):
        note(f"{drive} is on a network drive, which sends no notifications, so the folders are listed again and again.")
        ways = [True]
    for polling in ways:
        try:
            for changed in watchfiles.watch(
                *roots,
                watch_filter=None,
                debounce=_SETTLE_MS,
                rust_timeout=_TICK_MS,
                yield_on_timeout=True,
                stop_event=stop,
                force_polling=polling or None,  # None: as the variable WATCHFILES_FORCE_POLLING says
                poll_delay_ms=_POLL_MS,
                ignore_permission_denied=True,
            ):
                yield {path for _, path in changed}
            return
        except (OSError, RuntimeError) as error:  # the limit of inotify
            if polling:
                raise DataError(f"The sounds cannot be watched ({error}). Run 'openclap index update'.") from error
            note(f"The file system sends no notifications ({error}), so the folders are listed again and again.")


def _mounts() -> str:
    """The table of mounted file systems, where the system is Linux."""
    try:
        return Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def _is_on_network(folder: str, mounts: str) -> bool:
    """Whether a folder is on a network drive, by the table of mounts (see proc_pid_mountinfo(5))."""
    place, kind = "", ""
    real = os.path.realpath(folder)
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        point = re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), left.split(" ")[4])
        if (real == point or real.startswith(prefixes([point]))) and len(point) >= len(place):
            place, kind = point, right.split(" ")[0]
    return kind in _NETWORK


def _matters(path: str, index: Path) -> bool:
    """Whether a change may change the index: sounds, and folders, of which a removed one cannot be told from a file."""
    if path.startswith(prefixes([str(index)])):
        return False
    return Path(path).suffix.lower() in AUDIO_SUFFIXES or not Path(path).is_file()
