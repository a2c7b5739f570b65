"""Where a checkpoint is written: what is the user's stays, and what is replaced goes when the new one is whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from openclap.checkpoints.names import few
from openclap.errors import CheckpointError

LAST = "config.json"
"""The file by which a folder is known for a model."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What one writer writes.

    Attributes:
        what: what it is called.
        files: the names of all files that the writer puts in a folder; none where it writes one file.
        is_one: does a path hold one?
    """

    what: str
    files: Collection[str]
    is_one: Callable[[Path], bool]


@contextmanager
def drafted(place: Path, kind: Kind, source: Path | None = None) -> Iterator[Path]:
    """A path to write a file or folder to, which takes `place` when the block ends. Links to `place` are followed.

    What stood there stays until then, and comes back when it cannot be replaced. Whatever ends the block early, the
    draft goes. It lies in a hidden folder named after `place`: beside it, or in it where it is an empty folder (which
    may be a disk of its own, or where the user is).

    Raises CheckpointError, before and after the block, where anything but a checkpoint of this kind would be replaced,
    and where `source`, what is being written was read from, would go with it.
    """
    place = _free(place, kind, source)
    inside = place.is_dir() and not any(place.iterdir())
    scratch = _hidden(place, place if inside else place.parent)
    draft = scratch / place.name
    try:
        yield draft
        _readable(draft)
        if inside:
            _fill(draft, place)
        else:
            _swap(draft, _free(place, kind, source))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _hidden(place: Path, parent: Path) -> Path:
    """A folder in `parent`, made if it is not there, to write the draft in."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{place.name}.partial-", dir=parent))
    except OSError as error:
        raise CheckpointError(
            f"{place}: cannot be written ({error.strerror}). Check the path, its permissions and the disk."
        ) from None


def _free(place: Path, kind: Kind, source: Path | None) -> Path:
    """Where `place` leads. Raises CheckpointError unless nothing stands there, an empty folder, or a checkpoint of
    this kind with no file that its writer does not write."""
    place = _followed(place)
    sources = [] if source is None else [source.resolve(), *source.resolve().parents]
    if place in sources[:1]:
        raise CheckpointError(f"{place}: is the source itself. Choose another place.")
    entries = sorted(place.iterdir()) if place.is_dir() else []
    taken = bool(entries) or (place.exists() and not (place.is_dir() and kind.files))
    if taken and not kind.is_one(place):
        found = f" (found {few([entry.name for entry in entries])})" if entries else ""
        raise CheckpointError(f"{place}: is there already and is no {kind.what}{found}. Choose another place.")
    strange = [entry.name for entry in entries if entry.name not in kind.files or not _is_plain(entry)]
    if strange or place in sources:
        what = few(strange) or "the source"
        raise CheckpointError(
            f"{place}: holds {what} beside the {kind.what} that would be replaced. Choose another place, or move "
            "them away."
        )
    return place


def _followed(place: Path) -> Path:
    try:
        end = place.expanduser().resolve()
    except RuntimeError:  # Python 3.11 and 3.12; 3.13 gives the link
        end = place
    if end.is_symlink():
        raise CheckpointError(f"{place}: is a link that leads to itself. Choose another place.")
    return end


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _fill(draft: Path, place: Path) -> None:
    """Move the draft's files into an empty folder, the one that makes a model of it last."""
    if others := [entry.name for entry in place.iterdir() if entry != draft.parent]:
        raise CheckpointError(f"{place}: was empty and now holds {few(others)}. Choose another place.")
    moved: list[Path] = []
    try:
        for file in sorted(draft.iterdir(), key=lambda file: (file.name == LAST, file.name)):
            moved.append(file.rename(place / file.name))
    except BaseException:
        for file in moved:
            file.unlink(missing_ok=True)
        raise


def _swap(draft: Path, place: Path) -> None:
    """Put the draft in `place`. A file is replaced in one step; a folder is set aside until the draft has its name."""
    if not place.is_dir():
        draft.replace(place)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{place.name}.replaced-", dir=place.parent))
    old = aside / place.name
    try:
        place.rename(old)
        draft.rename(place)
    except BaseException as error:
        if old.exists():
            _put_back(old, place, error)
        aside.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _put_back(old: Path, place: Path, error: BaseException) -> None:
    try:
        old.rename(place)
    except OSError:
        raise CheckpointError(f"{place}: could not be replaced ({error}). What stood there lies in {old}.") from error


def _readable(draft: Path) -> None:
    """Give the draft the rights that any new file has: safetensors and mkdtemp write for the owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    for path in (draft, *(draft.iterdir() if draft.is_dir() else ())):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
