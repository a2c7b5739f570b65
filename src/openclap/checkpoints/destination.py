"""Where a checkpoint is written: what is the user's stays, and what is replaced goes when the new one is whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

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
def drafted(
    place: Path, kind: Kind, check: Callable[[Path], object], inputs: Iterable[Path | None] = ()
) -> Iterator[Path]:
    """A path to write a file or folder to, which takes `place` when the block ends. Links to `place` are followed.

    What stood there stays until then, and comes back when it cannot be replaced. Whatever ends the block early, the
    draft goes. It lies in a hidden folder named after `place`: beside it, or in it where it is an empty folder (which
    may be a disk of its own, or where the user is).

    Args:
        check: reads the draft as whoever loads it will, and raises CheckpointError where that fails or gives anything
            else than was to be written (see `same`). Nothing is replaced then.
        inputs: the files and folders that the checkpoint was read from.

    Raises CheckpointError, before and after the block, where anything but a checkpoint of this kind would be replaced,
    where `place` lies inside an input, and where an input would go with what is replaced.
    """
    sources = [one for one in inputs if one is not None]
    place = _free(place, kind, sources)
    inside = place.is_dir() and not any(place.iterdir())
    scratch = _hidden(place, place if inside else place.parent)
    draft = scratch / place.name
    try:
        yield draft
        _verify(draft, place, check)
        _readable(draft)
        if inside:
            _fill(draft, place)
        else:
            _swap(draft, _free(place, kind, sources))
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


def _verify(draft: Path, place: Path, check: Callable[[Path], object]) -> None:
    try:
        check(draft)
    except CheckpointError as error:
        reason = str(error).replace(str(draft), place.name)
        raise CheckpointError(f"{place}: does not read back as it should, and was not written: {reason}") from error


def same(found: Mapping[str, Tensor], written: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError unless both hold the same tensors under the same names, bit for bit (NaN equals NaN)."""
    if odd := sorted(found.keys() ^ written.keys()):
        raise CheckpointError(f"{few(odd)} {'is' if len(odd) == 1 else 'are'} on one side alone.")
    if other := [name for name, tensor in written.items() if not _equal(found[name], tensor)]:
        raise CheckpointError(f"{few(other)} came back with other numbers. Is the disk damaged?")


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(_bits(one), _bits(other))


def _bits(tensor: Tensor) -> Tensor:
    """A tensor's numbers as integers of their size, which compare much faster than bytes."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(INTEGERS.get(flat.element_size(), torch.uint8))


INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def _free(place: Path, kind: Kind, inputs: Collection[Path]) -> Path:
    """Where `place` leads. Raises CheckpointError unless nothing stands there, an empty folder, or a checkpoint of
    this kind with no file that its writer does not write."""
    place = _followed(place)
    _check_apart(place, inputs)
    entries = sorted(place.iterdir()) if place.is_dir() else []
    taken = bool(entries) or (place.exists() and not (place.is_dir() and kind.files))
    if taken and not kind.is_one(place):
        found = f" (found {few([entry.name for entry in entries])})" if entries else ""
        raise CheckpointError(f"{place}: is there already and is no {kind.what}{found}. Choose another place.")
    strange = [entry.name for entry in entries if entry.name not in kind.files or not _is_plain(entry)]
    holds_input = any(place in path.parents for path in _all_of(inputs))
    if strange or holds_input:
        what = few(strange) or "the source"
        raise CheckpointError(
            f"{place}: holds {what} beside the {kind.what} that would be replaced. Choose another place, or move "
            "them away."
        )
    return place


def _check_apart(place: Path, inputs: Collection[Path]) -> None:
    """Raises CheckpointError where `place` is one of `inputs` or lies in one."""
    for one in inputs:
        if one.resolve() in place.parents:
            raise CheckpointError(f"{place}: lies inside the source, {one}. Choose a place outside of it.")
    if place in _all_of(inputs):
        raise CheckpointError(f"{place}: is the source itself. Choose another place.")


def _all_of(inputs: Collection[Path]) -> set[Path]:
    """Where the inputs and, of folders, the files in them really lie: both may be links."""
    files = [file for one in inputs if one.is_dir() for file in one.iterdir()]
    return {path.resolve() for path in (*inputs, *files)}


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
