"""Write a checkpoint to a path without ever losing what is there.

Only a checkpoint of the same kind is replaced, and only when its successor is complete and reads back. Foreign files
and the sources of a conversion are never replaced, and an interrupted write leaves nothing behind.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from openclap.errors import CheckpointError
from openclap.formatting import join_first

MARKER = "config.json"
"""The file by which a folder is recognised as a model; it is moved into place last."""


@dataclass(frozen=True, slots=True)
class CheckpointKind:
    """The output of one writer.

    Attributes:
        title: its name in errors.
        files: names of all files that the writer puts in a folder; empty where it writes a single file.
        matches: returns whether a path holds such a checkpoint.
    """

    title: str
    files: Collection[str]
    matches: Callable[[Path], bool]


@contextmanager
def drafted(
    place: Path, kind: CheckpointKind, check: Callable[[Path], object], inputs: Iterable[Path | None] = ()
) -> Iterator[Path]:
    """Yield a draft path to write a file or folder to; it replaces `place` when the block ends.

    The old checkpoint stays until then, and is put back if it cannot be replaced. The draft is removed whatever ends
    the block early. It lies in a hidden folder beside `place`, or inside `place` where that is an empty folder (which
    may be a mount point or the user's working directory, and must keep its identity). Links are followed.

    Args:
        check: reads the draft as a loader would. It raises CheckpointError where that fails or differs from what was to
            be written (see `tensors.check_equal`); nothing is replaced then.
        inputs: files and folders that the checkpoint was read from.

    Raises CheckpointError, before and after the block, where anything but a checkpoint of this kind would be replaced,
    where `place` lies inside an input, and where replacing it would delete an input.
    """
    sources = [path for path in inputs if path is not None]
    place = _check_replaceable(place, kind, sources)
    is_empty_folder = place.is_dir() and not any(place.iterdir())
    scratch = _make_scratch(place, place if is_empty_folder else place.parent)
    draft = scratch / place.name
    try:
        yield draft
        _verify(draft, place, check)
        _apply_umask(draft)
        if is_empty_folder:
            _move_files(draft, place)
        else:
            # Checked again: writing may have taken minutes, during which the path may have been used.
            _swap(draft, _check_replaceable(place, kind, sources))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _make_scratch(place: Path, parent: Path) -> Path:
    """Make a hidden folder in `parent` (itself made if missing), on the disk that the draft will be renamed on."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{place.name}.partial-", dir=parent))
    except OSError as error:
        raise CheckpointError(
            f"{place}: cannot be written ({error.strerror}). Check the path, its permissions and the disk."
        ) from None


def _verify(draft: Path, place: Path, check: Callable[[Path], object]) -> None:
    try:
        check(draft)
    except CheckpointError as error:
        reason = str(error).replace(str(draft), place.name)
        raise CheckpointError(f"{place}: does not read back as it should, and was not written: {reason}") from error


def _check_replaceable(place: Path, kind: CheckpointKind, inputs: Collection[Path]) -> Path:
    """Resolve `place`.

    Raises CheckpointError unless it is absent, an empty folder, or a checkpoint of this kind without foreign files.
    """
    place = _resolve(place)
    _check_outside(place, inputs)
    entries = sorted(place.iterdir()) if place.is_dir() else []
    is_taken = bool(entries) or (place.exists() and not (place.is_dir() and kind.files))
    if is_taken and not kind.matches(place):
        contents = f" (found {join_first(entry.name for entry in entries)})" if entries else ""
        raise CheckpointError(f"{place}: exists already and is no {kind.title}{contents}. Choose another place.")
    foreign = [entry.name for entry in entries if entry.name not in kind.files or not _is_regular_file(entry)]
    holds_input = any(place in path.parents for path in _real_paths(inputs))
    if foreign or holds_input:
        raise CheckpointError(
            f"{place}: holds {join_first(foreign) or 'the source'} beside the {kind.title} that would be replaced. "
            "Choose another place, or move them away."
        )
    return place


def _check_outside(place: Path, inputs: Collection[Path]) -> None:
    """Raise CheckpointError where `place` is an input or lies in one."""
    for source in inputs:
        if source.resolve() in place.parents:
            raise CheckpointError(f"{place}: lies inside the source, {source}. Choose a place outside of it.")
    if place in _real_paths(inputs):
        raise CheckpointError(f"{place}: is the source itself. Choose another place.")


def _real_paths(inputs: Collection[Path]) -> set[Path]:
    """Resolve the inputs and the files in them.

    Both may be links: the hub's cache has folders of links to files elsewhere, which replacing a folder would delete.
    """
    files = [file for source in inputs if source.is_dir() for file in source.iterdir()]
    return {path.resolve() for path in (*inputs, *files)}


def _resolve(place: Path) -> Path:
    try:
        end = place.expanduser().resolve()
    except RuntimeError:  # a loop of links: Python 3.11 and 3.12 raise, 3.13 returns the link
        end = place
    if end.is_symlink():
        raise CheckpointError(f"{place}: is a link that leads to itself. Choose another place.")
    return end


def _is_regular_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _move_files(draft: Path, place: Path) -> None:
    """Move the draft's files into an empty folder, the one that makes it a model last."""
    if others := [entry.name for entry in place.iterdir() if entry != draft.parent]:
        raise CheckpointError(f"{place}: was empty and now holds {join_first(others)}. Choose another place.")
    moved: list[Path] = []
    try:
        for file in sorted(draft.iterdir(), key=lambda file: (file.name == MARKER, file.name)):
            moved.append(file.rename(place / file.name))
    except BaseException:
        for file in moved:
            file.unlink(missing_ok=True)
        raise


def _swap(draft: Path, place: Path) -> None:
    """Put the draft in `place`.

    A file is replaced in one step. No system call replaces a folder that has files, so the old folder is set aside
    until the draft bears its name.
    """
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
        raise CheckpointError(f"{place}: could not be replaced ({error}). The old one is in {old}.") from error


def _apply_umask(draft: Path) -> None:
    """Give the draft the permissions of any new file: safetensors and mkdtemp write for the owner only."""
    mask = os.umask(0)  # the umask can only be read by setting it
    os.umask(mask)
    for path in (draft, *(draft.iterdir() if draft.is_dir() else ())):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
