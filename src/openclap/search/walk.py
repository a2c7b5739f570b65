"""List the sound files under folders, by their suffixes and without opening them.

Hidden files and folders are skipped, and those that match a pattern of exclusion: a pattern without a slash (`*.tmp`,
`Trash`) is compared with each name, and one with a slash (`Field/old*`) with the path below the root. Links to folders
are followed, each folder once. A root that is a file is listed whatever its suffix.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from openclap.search.paths import absolute, is_gone, is_storable, prefixes, printable
from openclap.types import AUDIO_SUFFIXES

if TYPE_CHECKING:
    from openclap.data.parallel import Share

_FolderId = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Stamp:
    """Size in bytes and mtime in nanoseconds: a file with the same stamp counts as unchanged."""

    size: int
    mtime_ns: int


Excludes = Callable[[str], bool]
"""Whether a path below a root, relative to it, is excluded."""


def excludes(patterns: Iterable[str]) -> Excludes:
    """A function that says whether one of the patterns matches a relative path or a folder above it, whatever the case
    of letters."""
    listed = [pattern.strip("/").casefold() for pattern in patterns]
    names = [fnmatch.translate(pattern) for pattern in listed if "/" not in pattern]
    paths = [fnmatch.translate(pattern) for pattern in listed if "/" in pattern]
    is_name, is_path = (re.compile("|".join(group) or r"(?!)").match for group in (names, paths))

    def matches(relative: str) -> bool:
        parts = PurePath(relative.casefold()).parts
        above = ("/".join(parts[:end]) for end in range(1, len(parts) + 1))
        return any(map(is_name, parts)) or any(map(is_path, above))

    return matches if listed else lambda _: False


@dataclass(slots=True)
class Walk:
    """Result of a walk.

    Attributes:
        files: sound files by absolute path.
        skipped: paths and reasons.
        is_excluded: whether a path relative to its root was left out.
        given: the roots that exist.
        is_of_changes: the roots are files and folders that changed, and those that are missing were removed.
        part: the files that are listed, by their paths relative to the root; by default all.
        roots, empty, missing: the roots that are folders with sounds, folders without, and those that do not exist.
    """

    files: dict[str, Stamp] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    is_excluded: Excludes = field(default=lambda _: False, repr=False)
    is_of_changes: bool = False
    part: Share | None = None
    roots: list[str] = field(default_factory=list)
    given: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def is_in_part(self, path: str) -> bool:
        """Whether a file below the given roots belongs to the part: by its path below the first root that has it, so
        that processes on machines that see the sounds at different places agree."""
        for root in self.given:
            if path == root or path.startswith(prefixes([root])):
                relative = path[len(prefixes([root])[0]) :] or PurePath(root).name
                return self.part is None or self.part.has(PurePath(relative).as_posix())
        return False


def stamp(path: str) -> Stamp:
    """The stamp of a file as it is now. Raises OSError when there is none."""
    status = Path(path).stat()
    return Stamp(status.st_size, status.st_mtime_ns)


def walk(roots: Iterable[str | Path], exclude: Iterable[str] = (), part: Share | None = None) -> Walk:
    """Every sound under `roots` (folders or files), or those of a part, folders in the order of names; files that are
    roots are never excluded."""
    result = Walk(is_excluded=excludes(exclude), part=part)
    visited: set[_FolderId] = set()
    for root in dict.fromkeys(absolute(root) for root in roots):
        if is_gone(root):
            result.missing.append(root)
            continue
        result.given.append(root)
        if Path(root).is_dir():
            _walk_folder(root, visited, result)
        else:
            _take(root, result)
    return result


def walk_changed(roots: Iterable[str], paths: Iterable[str], exclude: Iterable[str] = ()) -> Walk:
    """The sounds among `paths` and below, as far as a walk of `roots` would list them.

    Paths below a root that is gone are left out: it may be a drive that is not mounted.
    """
    result = Walk(is_excluded=excludes(exclude), is_of_changes=True)
    visited: set[_FolderId] = set()
    present = [root for root in roots if not is_gone(root)]
    for path in sorted({absolute(path) for path in paths}):
        root = next((root for root in present if path.startswith(prefixes([root])) or path == root), None)
        if root is None or (path != root and _is_left_out(path[len(prefixes([root])[0]) :], result)):
            continue
        if is_gone(path):
            result.missing.append(path)
        elif Path(path).is_dir():
            _walk_folder(path, visited, result, root)
        elif path == root or is_sound(path):
            _take(path, result)
    result.roots += [folder for folder in result.empty if folder not in present]  # its last sound was removed
    result.empty = []
    return result


def _is_left_out(relative: str, result: Walk) -> bool:
    """Whether a path relative to its root is hidden or excluded."""
    return any(part.startswith(".") for part in PurePath(relative).parts) or result.is_excluded(relative)


def _walk_folder(root: str, visited: set[_FolderId], result: Walk, above: str | None = None) -> None:
    """Take the sounds under `root`; patterns are compared with paths relative to `above`, by default the root."""
    is_new = _folder_id(root) not in visited  # a root below an earlier root gives no new files, but is not empty
    skipped, sounds = len(result.skipped), 0
    for entry in _listing(root, visited, result, above or root):
        sounds += 1
        _take(entry.path, result, entry)
    is_empty = is_new and not sounds and len(result.skipped) == skipped
    (result.empty if is_empty else result.roots).append(root)


def _listing(root: str, visited: set[_FolderId], result: Walk, above: str) -> Iterator[os.DirEntry[str]]:
    """Yield the sounds under `root`. Real folders come before links, so that a folder that is reached in both
    ways is listed by its own path."""
    folders, links, below = [root], list[str](), len(prefixes([above])[0])
    while folders or links:
        folder = (folders or links).pop()
        try:
            if (identity := _folder_id(folder)) in visited:
                continue
            visited.add(identity)
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            result.skipped.append((printable(folder), f"the folder cannot be listed ({error.strerror})."))
            continue
        visible = [
            entry for entry in entries if not (entry.name.startswith(".") or result.is_excluded(entry.path[below:]))
        ]
        folders += [entry.path for entry in reversed(visible) if entry.is_dir(follow_symlinks=False)]
        links += [entry.path for entry in reversed(visible) if entry.is_symlink() and _is_folder(entry)]
        for entry in visible:
            if is_sound(entry.name) and not _is_folder(entry):
                yield entry


def is_sound(name: str) -> bool:
    """Whether the suffix of a file is that of sounds. A `Path` for each of 100,000 files would take a second."""
    return name[name.rfind(".") :].lower() in AUDIO_SUFFIXES


def _take(path: str, result: Walk, entry: os.DirEntry[str] | None = None) -> None:
    if result.part is not None and not result.is_in_part(path):
        return
    if not is_storable(path):
        result.skipped.append((printable(path), "its name is not valid UTF-8. Rename it."))
        return
    try:
        status = (entry or Path(path)).stat()
    except OSError as error:
        result.skipped.append((path, f"it cannot be read ({error.strerror})."))
        return
    if stat.S_ISREG(status.st_mode):
        result.files[path] = Stamp(status.st_size, status.st_mtime_ns)
    else:
        result.skipped.append((path, "it is not a regular file."))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _folder_id(folder: str) -> _FolderId:
    """Device and inode, which recognise a folder behind any link."""
    status = Path(folder).stat()
    return status.st_dev, status.st_ino
