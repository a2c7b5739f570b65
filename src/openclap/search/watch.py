"""Keep an index up to date while its sounds change, by the notifications of the file system."""

from __future__ import annotations

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

_SETTLE_MS, _TICK_MS = 400, 1000
"""Changes of this long are handled together; how often a writer that was busy is tried again."""


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
    for polling in (False, True):
        try:
            for changed in watchfiles.watch(
                *roots,
                watch_filter=None,
                debounce=_SETTLE_MS,
                rust_timeout=_TICK_MS,
                yield_on_timeout=True,
                stop_event=stop,
                force_polling=polling or None,
                ignore_permission_denied=True,
            ):
                yield {path for _, path in changed}
            return
        except (OSError, RuntimeError) as error:  # no notifications: network drives, or the limit of inotify
            if polling:
                raise DataError(f"The sounds cannot be watched ({error}). Run 'openclap index update'.") from error
            note(f"The file system sends no notifications ({error}), so the folders are listed again and again.")


def _matters(path: str, index: Path) -> bool:
    """Whether a change may change the index: sounds, and folders, of which a removed one cannot be told from a file."""
    if path.startswith(prefixes([str(index)])):
        return False
    return Path(path).suffix.lower() in AUDIO_SUFFIXES or not Path(path).is_file()
