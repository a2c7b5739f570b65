"""Keep an index up to date with folders of sound: read what is new, and nothing else.

    report = add(index, ["Sounds"], embed, describe)

A file whose path, size and mtime the index knows is not read. Any other is hashed; a known content gets a
row, and a new one is embedded. Every batch is committed, so a scan that is stopped, or killed, goes on where
it was.
Sounds are read and never written.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from openclap.errors import ConfigError, DataError
from openclap.search.index import Index
from openclap.search.paths import is_gone, prefixes
from openclap.search.rows import FileRow, unit_vectors
from openclap.search.walk import Stamp, Walk, stamp, walk
from openclap.search.writer import Writer
from openclap.types import Window

# Files -> for each, its windows with (D,) vectors, or the exception that says why there are none.
Embed = Callable[[list[Path]], Sequence[Sequence[Window] | Exception]]
# File -> duration in seconds, sample rate in Hz, channels.
Describe = Callable[[Path], tuple[float, int, int]]
# File -> caption, tags, licence; None where nothing is known, and what the index knows stays.
Facts = Callable[[Path], tuple[str | None, Sequence[str], str | None] | None]
# Files done, files to read.
Progress = Callable[[int, int], None]

_CHANGED = "it changed while it was being read: run again when it is finished"


@dataclass(frozen=True, slots=True)
class ScanReport:
    """What a scan did, in files. `added` were new or had new content; `moved` were known under a path that is
    gone; `removed` are gone, or hold something else that could not be read; `skipped` pairs paths and
    reasons."""

    added: int
    unchanged: int
    moved: int
    removed: int
    skipped: list[tuple[str, str]]


def add(
    index: Index,
    roots: str | Path | Iterable[str | Path],
    embed: Embed,
    describe: Describe,
    *,
    facts: Facts | None = None,
    batch: int = 32,
    progress: Progress | None = None,
) -> ScanReport:
    """Bring `index` up to date with `roots`, folders or single files, `batch` files at a time.

    A file that cannot be read, described or embedded is skipped with its reason, and tried again next time.
    Files under a root that are gone leave the index; a root that is missing or holds no sound at all may be
    a drive that is not there, so it is reported in `skipped` and its files stay. `facts` are asked for every
    file, read or not, and replace what the index shows of it.

    Raises ConfigError for batch < 1, DataError when no root exists, none holds a sound, or another process is
    writing to the index, and IndexMismatchError when vectors have another dimension than the index.
    """
    if batch < 1:
        raise ConfigError(f"batch is {batch}, and a scan reads 1 file or more at a time: choose a larger batch")
    found = _found([roots] if isinstance(roots, str | Path) else list(roots))
    with index.writing() as writer:
        readers = _Readers(embed, describe, facts or _no_facts)
        scan = _Scan(writer, index.identity.dim, found, readers)
        scan.refresh()
        paths = scan.to_read
        for first in range(0, len(paths), batch):
            if progress is not None:
                progress(first, len(paths))
            scan.read(paths[first : first + batch])
        if progress is not None:
            progress(len(paths), len(paths))
        return scan.finish()


@dataclass(frozen=True, slots=True)
class _Readers:
    """What reads a sound: the caller's model and tables."""

    embed: Embed
    describe: Describe
    facts: Facts


class _Scan:
    """One run over what a walk found, batch by batch."""

    def __init__(self, writer: Writer, dim: int, found: Walk, readers: _Readers) -> None:
        self._writer = writer
        self._dim = dim
        self._found = found
        self._readers = readers
        self._known = writer.known()
        self._gone = _gone(self._known, found)
        self._moved_from = {self._known[path].hash: self._known[path] for path in self._gone}
        self._homeless = Counter(self._known[path].hash for path in self._gone)
        self._skipped = found.skipped + [(root, "it does not exist") for root in found.missing]
        self._skipped += [(root, "it holds no sound; what is indexed of it stays") for root in found.empty]
        self.to_read = [path for path in found.files if self._is_new(path)]
        self._added = self._moved = 0
        self._unchanged = len(found.files) - len(self.to_read)

    def _is_new(self, path: str) -> bool:
        now, known = self._found.files[path], self._known.get(path)
        return known is None or (known.size, known.mtime_ns) != (now.size, now.mtime_ns)

    def read(self, paths: Sequence[str]) -> None:
        """Hash, embed where the content is new, and commit these files."""
        hashes = self._hash(paths)
        windows, failed = self._embed_new(hashes)
        rows: list[FileRow] = []
        for path, digest in hashes.items():
            row = failed.get(digest) or self._row(path, digest)
            if isinstance(row, FileRow):
                rows.append(row)
                self._count(row)
            else:
                self._skip(path, digest, row)
        used = {row.hash for row in rows}
        self._writer.put(rows, {digest: found for digest, found in windows.items() if digest in used})

    def finish(self) -> ScanReport:
        """Take out what is gone and tidy up."""
        self._writer.drop(self._gone)
        self._writer.prune()
        self._writer.compact()
        removed = len(self._gone) - self._moved
        return ScanReport(self._added, self._unchanged, self._moved, removed, self._skipped)

    def _hash(self, paths: Sequence[str]) -> dict[str, str]:
        hashes: dict[str, str] = {}
        for path in paths:
            try:
                with Path(path).open("rb") as file:
                    hashes[path] = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                self._skipped.append((path, f"it cannot be read: {error.strerror}"))
        return hashes

    def _embed_new(self, hashes: dict[str, str]) -> tuple[dict[str, Sequence[Window]], dict[str, str]]:
        """Windows of the contents that are new, and of those without, the reason; both by hash."""
        sources = {digest: path for path, digest in hashes.items() if digest not in self._writer.contents}
        results = self._readers.embed([Path(path) for path in sources.values()]) if sources else ()
        if len(results) != len(sources):
            raise DataError(
                f"embed was given {len(sources)} files and returned {len(results)} results: "
                "return one list of windows, or one exception, for each file"
            )
        windows: dict[str, Sequence[Window]] = {}
        failed: dict[str, str] = {}
        for (digest, path), result in zip(sources.items(), results, strict=True):
            if reason := self._objection(path, result):
                failed[digest] = reason
            elif not isinstance(result, Exception):
                windows[digest] = result
        return windows, failed

    def _objection(self, path: str, result: Sequence[Window] | Exception) -> str | None:
        if isinstance(result, Exception):
            return _sentence(result)
        try:
            unit_vectors(result, self._dim)
        except DataError as error:
            return _sentence(error)
        return None if _is_same(path, self._found.files[path]) else _CHANGED

    def _row(self, path: str, digest: str) -> FileRow | str:
        """The row of a file, or why it has none. What its header does to a reader stops this file alone."""
        try:
            duration_s, rate, channels = self._readers.describe(Path(path))
            now = self._found.files[path]
            row = FileRow(path, digest, now.size, now.mtime_ns, float(duration_s), int(rate), int(channels))
            return self._with_facts(self._with_past(row))
        except Exception as error:
            return _sentence(error)

    def _with_past(self, row: FileRow) -> FileRow:
        """What the index shows of this content, at this path or at one that is gone, still holds."""
        past = self._known.get(row.path)
        if past is None or past.hash != row.hash:
            past = self._moved_from.get(row.hash)
        return replace(row, caption=past.caption, tags=past.tags, licence=past.licence) if past else row

    def _with_facts(self, row: FileRow) -> FileRow:
        facts = self._readers.facts(Path(row.path))
        if facts is None:
            return row
        caption, tags, licence = facts
        return replace(row, caption=caption, tags=tuple(tags), licence=licence)

    def refresh(self) -> None:
        """Give files that did not change the facts that did."""
        rows = []
        for path in self._found.files:
            if not self._is_new(path):
                try:
                    rows.append(self._with_facts(self._known[path]))
                except Exception as error:
                    self._skipped.append((path, _sentence(error)))
        if changed := [row for row in rows if row != self._known[row.path]]:
            self._writer.put(changed, {})

    def _count(self, row: FileRow) -> None:
        known = self._known.get(row.path)
        if known is not None and known.hash == row.hash:
            self._unchanged += 1
        elif self._homeless[row.hash] > 0:
            self._homeless[row.hash] -= 1
            self._moved += 1
        else:
            self._added += 1

    def _skip(self, path: str, digest: str, reason: str) -> None:
        self._skipped.append((path, reason))
        known = self._known.get(path)
        if known is not None and known.hash != digest:
            self._gone.append(path)  # what the index has of it is no longer there


def _found(roots: Sequence[str | Path]) -> Walk:
    found = walk(roots)
    names = ", ".join(str(root) for root in roots) or "nothing"
    if len(found.missing) == len(roots):
        raise DataError(f"there is nothing to index at {names}: give folders or files that exist")
    if not found.files:
        why = f" ({found.skipped[0][0]}: {found.skipped[0][1]})" if found.skipped else ""
        raise DataError(
            f"no sound was found in {names}{why}: give folders with audio files; "
            "what is indexed of them stays until it is removed by name"
        )
    return found


def _gone(known: dict[str, FileRow], found: Walk) -> list[str]:
    """Paths of the index that were under the folders walked, and are certainly gone."""
    under = prefixes(found.roots)
    return [path for path in known if path not in found.files and path.startswith(under) and is_gone(path)]


def _is_same(path: str, then: Stamp) -> bool:
    try:
        return stamp(path) == then
    except OSError:
        return False


def _no_facts(_: Path) -> None:
    return None


def _sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
