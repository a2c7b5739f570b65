"""A run's saved states in another place too, for a machine that may be taken away.

    config.json       whose run it is
    running.json      which process writes there now
    step-00000050/    state/, log.jsonl, best/ where a validation chooses, and, written last, progress.json

A copy without progress.json is half of one, and is passed over.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from openclap.errors import CheckpointError, ConfigError
from openclap.storage import Place, place_of, remove_folder, sync_tree, write_bytes
from openclap.storage import first_line as told
from openclap.training.claim import CONFIG, Identity, as_text, is_claimed
from openclap.training.lease import Lease
from openclap.training.leave import BEST
from openclap.training.live import LOG
from openclap.training.state import DRAFT, PREFIX, PROGRESS, STATES, saved

STATE = "state"
PIECE = 1 << 24


class Copies:
    """The copies of one run's states.

    Args:
        address: a folder, or what fsspec knows: "s3://bucket/run".
        out: the run's own folder.
        keep: how many copies stay.

    Raises ConfigError for an address that is none, MissingExtraError where what reads it is not installed.
    """

    def __init__(self, address: str, out: Path, keep: int) -> None:
        self.out, self.keep = out, keep
        self.place = place_of(address)
        self.lease = Lease(self.place)
        if _is_within(self.place, out):
            raise ConfigError(f"states {address}: is in the run's own folder. Choose another place.")

    def claim(self, wanted: Identity) -> None:
        """Make the place this run's, or see that it already is, and that it can be written. Raises ConfigError where it
        cannot, is something else's, or another process is at it."""
        try:
            if self.place.is_file():
                raise ConfigError(f"states {self.place}: is a file, expected a folder or an address.")
            self.place.mkdir(parents=True, exist_ok=True)
            claimed = is_claimed(self.place, wanted)
            if not claimed and self._all():
                raise ConfigError(f"states {self.place}: holds states of another kind. Choose another place.")
            self.lease.take()
            if not claimed:
                write_bytes(self.place / CONFIG, as_text(wanted))
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(
                f"states {self.place}: cannot be written ({told(error)}). Check the address and your rights there."
            ) from None

    def release(self) -> None:
        """Another process may go on there."""
        self.lease.release()

    def send(self, state: Path) -> None:
        """Copy a saved state there, with the log and the best model as they are now; remove none (`prune` does). Raises
        CheckpointError where that fails, or another run is at it; the state itself is whole."""
        target = self.place / state.name
        try:
            self.lease.check()
            _remove(target)
            for path in state.iterdir():
                if path.name != PROGRESS:
                    _copy(path, target / STATE / path.name)
            for path in self._best():
                _copy(path, target / BEST / path.name)
            _copy(self.out / LOG, target / LOG)
            _copy(state / PROGRESS, target / PROGRESS)
        except CheckpointError:
            raise
        except Exception as error:
            raise CheckpointError(
                f"{target}: the state could not be copied there ({told(error)}). It is whole in {state}; run the same "
                "command to go on."
            ) from None

    def prune(self) -> None:
        """Remove all copies but the newest `keep` whole ones. Raises CheckpointError where that fails."""
        try:
            whole = [copy.name for copy in self._whole()][-self.keep :]
            for copy in self._all():
                if whole and copy.name < whole[-1] and copy.name not in whole:
                    _remove(copy)
        except Exception as error:
            raise CheckpointError(
                f"{self.place}: old states could not be removed there ({told(error)}). Run the same command to go on."
            ) from None

    def fetch(self) -> None:
        """Bring the newest whole copy into the run's folder, where that has no state as new. Raises CheckpointError
        where it cannot be read."""
        newest = None
        try:
            newest = next(iter(self._whole()[-1:]), None)
            own = saved(self.out / STATES)
            if newest is not None and not (own and own[-1].name >= newest.name):
                self._bring(newest)
        except Exception as error:
            raise CheckpointError(
                f"{newest or self.place}: cannot be read ({told(error)}). Run the same command again, or delete it "
                "there to go on from the one before."
            ) from None

    def _bring(self, copy: Place) -> None:
        """The state itself comes last, so that what was stopped on the way begins again."""
        shutil.rmtree(self.out / BEST, ignore_errors=True)
        draft = self.out / STATES / f"{DRAFT}{copy.name}"
        shutil.rmtree(draft, ignore_errors=True)
        for part, target in ((BEST, self.out / BEST), (STATE, draft)):
            if (copy / part).is_dir():
                for path in (copy / part).iterdir():
                    _copy(path, target / path.name)
        _copy(copy / LOG, self.out / LOG)
        _copy(copy / PROGRESS, draft / PROGRESS)
        sync_tree(draft)
        draft.rename(self.out / STATES / copy.name)

    def _best(self) -> Iterator[Path]:
        return (self.out / BEST).iterdir() if (self.out / BEST).is_dir() else iter(())

    def _all(self) -> list[Place]:
        """Every copy, whole or half, oldest first."""
        if not self.place.is_dir():  # where folders are but the beginnings of names, an empty one is not there
            return []
        return sorted((path for path in self.place.iterdir() if path.name.startswith(PREFIX)), key=lambda p: p.name)

    def _whole(self) -> list[Place]:
        return [path for path in self._all() if (path / PROGRESS).is_file()]


def _is_within(place: Place, folder: Path) -> bool:
    if getattr(place, "protocol", "") not in ("", "file", "local"):
        return False
    here = Path(getattr(place, "path", place)).resolve()
    return folder.resolve() in (here, *here.parents)


def _copy(source: Place, target: Place) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as here, target.open("wb") as there:
        shutil.copyfileobj(here, there, PIECE)


def _remove(copy: Place) -> None:
    """What makes it whole goes first."""
    (copy / PROGRESS).unlink(missing_ok=True)
    remove_folder(copy)
