"""Keep an index up to date with folders of sound: read new and changed files, and no others.

    report = add(index, ["Sounds"], embed, describe)

A file with the path, size and mtime that the index has is not read. Any other is read once: its bytes are hashed; a
known content gets a row, and a new one is decoded and embedded from the same bytes. A folder that the index knows under
a path that is gone, such as a drive that is mounted elsewhere, is recognised by its files, which are not read. Files
are committed in batches, so a scan that is stopped, or killed, resumes where it was. Sounds are read and never written.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from openclap.errors import ConfigError, DataError
from openclap.malloc import without_garbage_collection
from openclap.search.index import Index
from openclap.search.paths import is_gone, prefixes
from openclap.search.rows import ENDS_EARLY, METADATA_VERSION, FileRow, check_windows
from openclap.search.walk import Stamp, Walk, stamp, walk, walk_changed
from openclap.search.writer import IndexWriter
from openclap.types import FileContent, FileMetadata, Progress, Recording

if TYPE_CHECKING:
    from openclap.data.parallel import Share

EmbedRecordings = Callable[[Iterable[Path | FileContent]], Iterable[Recording | Exception]]
"""Embeds sounds: yields, in order, the recording with (D,) embeddings of its windows, or the exception that explains
why there is none. It must read its argument lazily, a few sounds ahead."""
Describe = Callable[[Path], tuple[float, int, int]]
"""Returns (duration in seconds, sample rate in Hz, channels) of a file."""
FileFacts = Callable[[Path], tuple[str | None, Sequence[str], str | None] | None]
"""Returns (caption, tags, licence) of a file; for None the index keeps its facts of the file."""
ReadMetadata = Callable[[Path | FileContent], FileMetadata]
"""Reads the metadata that a sound file carries."""

READ_WHOLE = 4 << 20
"""Bytes of the largest file that is read into memory at once. With 16 sounds decoded ahead these are 64 MB."""
COMMIT_EVERY_S = 10.0
"""Seconds after which finished files are committed, however few they are: long recordings take minutes each."""

_COMMIT_SHARE = 0.1
"""Part of its time that one of several processes spends on commits, waiting for its turn included: in object storage,
and beside many others, a commit takes seconds, and fewer and larger ones follow."""
_MOST_BATCHES = 8
"""Batches in one commit, at most."""
_FACTS_PER_COMMIT = 4096
"""Unchanged files with new facts that are committed together."""

_CHANGED = "it changed while it was being read. Run again when it is finished."


@dataclass(frozen=True, slots=True)
class ScanReport:
    """Result of a scan, in numbers of files.

    Attributes:
        added: files that are new or have new content.
        moved: files with a content that the index had under a path that no longer exists.
        removed: files that no longer exist, or whose new content could not be read.
        skipped: paths and reasons.
        ends_early: files that were read now and lack their end; the index has what is there.
    """

    added: int
    unchanged: int
    moved: int
    removed: int
    skipped: list[tuple[str, str]]
    ends_early: int = 0


def add(
    index: Index,
    roots: str | Path | Iterable[str | Path],
    embed: EmbedRecordings,
    describe: Describe,
    *,
    facts: FileFacts | None = None,
    metadata: ReadMetadata | None = None,
    exclude: Iterable[str] = (),
    part: Share | None = None,
    batch: int = 128,
    progress: Progress | None = None,
) -> ScanReport:
    """Bring `index` up to date with `roots`, folders or single files. The index remembers the roots.

    A file that cannot be read or embedded is skipped with its reason, and tried again by the next scan. Files under a
    root that no longer exist are removed from the index. A root that is missing or holds no sound at all may be a drive
    that is not mounted, so it is reported in `skipped` and its files stay.

    Args:
        describe: called for contents with stored vectors but without a row: a scan was killed between the two.
        facts: called for every file, read or not; the result replaces the facts in the index.
        metadata: called for new contents, and once for files of an index that was made before metadata were read.
        exclude: patterns of names or paths that are left out from now on (see `walk`); matching files are removed.
        part: the files of this process, one of several that add the same roots, at once or one after another. Each
            commits in turn. Contents without files stay until a run without parts or `Index.optimize`: a file may have
            moved from one part to another. A drive that is mounted elsewhere is not recognised.
        batch: the largest number of files in a commit; after 10 s there are fewer. Of one of several processes, fewer
            commits may come with more files.

    Raises ConfigError for batch < 1, DataError when no root exists, none holds a sound, or another process is
    writing to the index, and IndexMismatchError when vectors have another dimension than the index.
    """
    if batch < 1:
        raise ConfigError(f"batch is {batch}, expected 1 or more files.")
    patterns = tuple(dict.fromkeys((*index.header().exclude, *exclude)))
    with without_garbage_collection():
        listing = _list_sounds([roots] if isinstance(roots, str | Path) else list(roots), patterns, part)
    with index.writing(shared=part is not None) as writer:
        relocated = _relocate(index, writer, listing) if part is None else []
        with writer.turn():
            header = index.header()
            with_roots = replace(header.with_roots(index.place.own_folder, listing.given), exclude=patterns)
            if with_roots != header:
                index.write_header(with_roots)
        readers = _Readers(embed, describe, facts, metadata)
        with without_garbage_collection():
            known = writer.known(only=listing.is_in_part if part else None)
            scan = _Scan(writer, known, index.identity.dim, listing, readers, batch=batch, progress=progress)
        scan.count_moved(relocated)
        scan.refresh_facts()
        scan.read_new()
        return scan.finish()


def add_changed(
    index: Index,
    paths: Iterable[str],
    embed: EmbedRecordings,
    describe: Describe,
    *,
    metadata: ReadMetadata | None = None,
) -> ScanReport:
    """Bring `index` up to date with files and folders below its roots that were added, changed or removed.

    Nothing else is looked at, so it takes seconds however large the index is. Raises DataError when another process is
    writing to the index.
    """
    header = index.header()
    roots = [root.found(index.place.own_folder) for root in header.roots]
    listing = walk_changed(roots, paths, header.exclude)
    with index.writing() as writer:
        readers = _Readers(embed, describe, None, metadata)
        known = writer.known([*listing.files, *listing.roots, *listing.missing])
        scan = _Scan(writer, known, index.identity.dim, listing, readers, batch=128, progress=None)
        scan.read_new()
        return scan.finish()


@dataclass(frozen=True, slots=True)
class _Readers:
    """The functions of the caller: its model and its tables."""

    embed: EmbedRecordings
    describe: Describe
    facts: FileFacts | None
    metadata: ReadMetadata | None


@dataclass(frozen=True, slots=True)
class _HashedFile:
    """A file on its way into the index."""

    path: str
    digest: str
    is_embedded: bool
    """Whether the embedder returns a result for this file; other files have a known content, or the content of an
    earlier file."""


class _Scan:
    """One run over the files of a walk.

    Files wait in `_waiting`, in the order of the walk, until the embedder has returned the results of all files before
    them.
    """

    def __init__(
        self,
        writer: IndexWriter,
        known: dict[str, FileRow],
        dim: int,
        listing: Walk,
        readers: _Readers,
        *,
        batch: int,
        progress: Progress | None,
    ) -> None:
        self._writer, self._dim, self._listing, self._readers = writer, dim, listing, readers
        self._batch, self._progress = batch, progress or (lambda done, total: None)
        self._known = known
        self._gone = _gone(self._known, listing)
        self._moved_from = {self._known[path].hash: self._known[path] for path in self._gone}
        # By hash, how many vanished files may still turn up under another path, and then count as moved.
        self._movable = Counter(self._known[path].hash for path in self._gone)
        self._skipped = listing.skipped + [
            (root, "it does not exist.") for root in listing.missing if not listing.is_of_changes
        ]
        self._skipped += [(root, "it holds no sound; its files in the index stay.") for root in listing.empty]
        self._to_read = [path for path in listing.files if self._is_new(path)]
        self._added = self._moved = self._relocated = self._ends_early = 0
        self._unchanged = len(listing.files) - len(self._to_read)
        # By hash: (duration, rate, channels); windows to be committed; reasons of failures.
        self._described = {row.hash: (row.duration_s, row.rate, row.channels) for row in self._known.values()}
        self._damage = {row.hash: row.damage for row in self._known.values() if row.damage}
        self._metadata = {row.hash: row.metadata for row in self._known.values() if _has_metadata(row)}
        self._new_windows: dict[str, Recording] = {}
        self._failed: dict[str, str] = {}
        self._waiting: deque[_HashedFile] = deque()
        self._rows: list[FileRow] = []
        self._done, self._committed_s, self._pause_s = 0, time.monotonic(), 0.0

    def _is_new(self, path: str) -> bool:
        now, known = self._listing.files[path], self._known.get(path)
        return known is None or (known.size, known.mtime_ns) != (now.size, now.mtime_ns)

    def count_moved(self, relocated: Collection[str]) -> None:
        """Count files of a folder that was recognised under its new path as moved."""
        moved = sum(path in self._listing.files and not self._is_new(path) for path in relocated)
        self._moved += moved
        self._unchanged -= moved
        self._relocated = moved

    def read_new(self) -> None:
        """Hash the files that are new, embed new contents, and commit."""
        self._progress(0, len(self._to_read))
        sounds = self._new_sounds()
        results = 0
        for result in self._readers.embed(sounds):
            results += 1
            self._take_known()
            if not self._waiting:
                raise DataError(
                    "The function embed returned more results than it was given files, expected one for each file."
                )
            self._take_result(self._waiting[0], result)
            self._waiting.popleft()
            self._take_known()
        if next(sounds, None) is not None or any(file.is_embedded for file in self._waiting):
            given = results + sum(file.is_embedded for file in self._waiting)
            raise DataError(
                f"The function embed was given {given} files and returned {results} results, expected one recording, "
                "or one exception, for each file."
            )
        self._commit()

    def finish(self) -> ScanReport:
        """Remove what is gone and merge small pieces of the tables."""
        self._writer.drop(self._gone)
        if self._listing.part is None:
            self._writer.prune()
        self._writer.compact()
        removed = len(self._gone) - (self._moved - self._relocated)
        return ScanReport(self._added, self._unchanged, self._moved, removed, self._skipped, self._ends_early)

    def _new_sounds(self) -> Iterator[Path | FileContent]:
        """Read and hash the files; yield those with contents that must be embedded.

        The embedder pulls sounds from here while it decodes others, so files and results are interleaved.
        """
        submitted: set[str] = set()
        for path in self._to_read:
            try:
                digest, sound = _hashed(Path(path))
            except OSError as error:
                self._skipped.append((path, f"it cannot be read ({error.strerror})."))
                self._count_done()
                continue
            is_new = digest not in self._writer.contents and digest not in submitted
            self._waiting.append(_HashedFile(path, digest, is_new))
            if is_new:
                submitted.add(digest)
                self._read_metadata(digest, sound)
                yield sound
            else:
                self._take_known()  # or a folder of a million moved files would be committed at the end only

    def _take_known(self) -> None:
        """Take the files at the front that need no result of the embedder."""
        while self._waiting and not self._waiting[0].is_embedded:
            file = self._waiting.popleft()
            self._take_file(file)

    def _take_result(self, file: _HashedFile, result: Recording | Exception) -> None:
        if reason := self._failure(file.path, result):
            self._failed[file.digest] = reason
        elif isinstance(result, Recording):
            self._new_windows[file.digest] = result
            self._described[file.digest] = (result.duration_s, result.rate, result.channels)
            if result.ends_early:
                self._damage[file.digest] = ENDS_EARLY
        self._take_file(file)

    def _failure(self, path: str, result: Recording | Exception) -> str | None:
        """Why a result cannot be stored, or None."""
        if isinstance(result, Exception):
            return _sentence(result)
        try:
            check_windows(result.windows, self._dim)
        except DataError as error:
            return _sentence(error)
        # Checked after decoding: otherwise the hash of one version could get the embedding of another.
        return None if _is_same(path, self._listing.files[path]) else _CHANGED

    def _take_file(self, file: _HashedFile) -> None:
        """Make the row of a file, or skip it with the reason."""
        row = self._failed.get(file.digest) or self._row(file.path, file.digest)
        if isinstance(row, FileRow):
            self._rows.append(row)
            self._count(row)
        else:
            self._skip(file.path, file.digest, row)
        self._count_done()
        if self._is_due(time.monotonic() - self._committed_s):
            self._commit()

    def _is_due(self, elapsed_s: float) -> bool:
        """Whether a commit is due, so long after the last one."""
        is_due = len(self._rows) >= self._batch or elapsed_s >= COMMIT_EVERY_S
        return is_due and (elapsed_s >= self._pause_s or len(self._rows) >= _MOST_BATCHES * self._batch)

    def _count_done(self) -> None:
        self._done += 1
        self._progress(self._done, len(self._to_read))

    def _commit(self) -> None:
        used = {row.hash for row in self._rows}
        windows = {digest: recording.windows for digest, recording in self._new_windows.items() if digest in used}
        started_s = time.monotonic()
        self._writer.put(self._rows, windows)
        self._rows, self._new_windows = [], {}
        self._committed_s = time.monotonic()
        if self._listing.part is not None:
            self._pause_s = (self._committed_s - started_s) / _COMMIT_SHARE

    def _row(self, path: str, digest: str) -> FileRow | str:
        """The row of a file, or the reason why it has none. An error of the caller's functions skips this file only."""
        try:
            if digest not in self._described:
                self._described[digest] = self._readers.describe(Path(path))
            duration_s, rate, channels = self._described[digest]
            now = self._listing.files[path]
            row = FileRow(path, digest, now.size, now.mtime_ns, float(duration_s), int(rate), int(channels))
            row = replace(row, damage=self._damage.get(digest))
            return self._with_facts(self._with_past(self._with_metadata(row)))
        except Exception as error:
            return _sentence(error)

    def _with_metadata(self, row: FileRow) -> FileRow:
        if self._readers.metadata:
            self._read_metadata(row.hash, Path(row.path))
        return row.with_metadata(self._metadata[row.hash]) if row.hash in self._metadata else row

    def _read_metadata(self, digest: str, sound: Path | FileContent) -> None:
        if self._readers.metadata and digest not in self._metadata:
            self._metadata[digest] = self._readers.metadata(sound)

    def _with_past(self, row: FileRow) -> FileRow:
        """Copy the facts that the index has of this content, at this path or at one that is gone."""
        past = self._known.get(row.path)
        if past is None or past.hash != row.hash:
            past = self._moved_from.get(row.hash)
        return replace(row, caption=past.caption, tags=past.tags, licence=past.licence) if past else row

    def _with_facts(self, row: FileRow) -> FileRow:
        facts = self._readers.facts(Path(row.path)) if self._readers.facts else None
        if facts is None:
            return row
        caption, tags, licence = facts
        return replace(row, caption=caption, tags=tuple(tags), licence=licence)

    def refresh_facts(self) -> None:
        """Store changed facts of unchanged files, which `read_new` does not visit."""
        changed: list[FileRow] = []
        to_read = set(self._to_read)
        for path in self._listing.files:
            if path in to_read:
                continue
            known = self._known[path]
            try:
                row = self._with_facts(known if _has_metadata(known) else self._with_metadata(known))
            except Exception as error:
                self._skipped.append((path, _sentence(error)))
                continue
            if row != known:
                changed.append(row)
            if len(changed) >= _FACTS_PER_COMMIT:
                self._writer.put(changed, {})
                changed = []
        if changed:
            self._writer.put(changed, {})

    def _count(self, row: FileRow) -> None:
        self._ends_early += row.damage == ENDS_EARLY
        known = self._known.get(row.path)
        if known is not None and known.hash == row.hash:
            self._unchanged += 1
        elif self._movable[row.hash] > 0:
            self._movable[row.hash] -= 1
            self._moved += 1
        else:
            self._added += 1

    def _skip(self, path: str, digest: str, reason: str) -> None:
        self._skipped.append((path, reason))
        known = self._known.get(path)
        if known is not None and known.hash != digest:
            self._gone.append(path)  # the index has the old content, which is overwritten


def _hashed(path: Path) -> tuple[str, Path | FileContent]:
    """The SHA-256 of a file, and the sound to decode: small files come with their bytes and are not opened again."""
    with path.open("rb") as file:
        content = file.read(READ_WHOLE + 1)
        if len(content) <= READ_WHOLE:
            return hashlib.sha256(content).hexdigest(), FileContent(content, path.name)
        # Hash a larger file before decoding: if its content is known, nothing needs to be decoded.
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest(), path


def _relocate(index: Index, writer: IndexWriter, listing: Walk) -> list[str]:
    """Give files of roots that are gone the paths of a listed folder with the same files, and return these paths.

    A folder counts as the same when at least half of the files that the index has of a root are there, at the same
    relative path, of the same size and mtime.
    """
    header, found = index.header(), list[str]()
    stored = {root.path for root in header.roots}
    new_roots = [root for root in listing.roots if root not in stored]
    missing = [root.path for root in header.roots if new_roots and is_gone(root.path)]
    known = writer.known() if missing else {}
    for old in missing:
        [old_prefix] = prefixes([old])
        rows = {path.removeprefix(old_prefix): row for path, row in known.items() if path.startswith(old_prefix)}
        for new in new_roots:
            [prefix] = prefixes([new])
            same = sum(listing.files.get(prefix + name) == Stamp(row.size, row.mtime_ns) for name, row in rows.items())
            if rows and 2 * same >= len(rows) and not any(prefix + name in known for name in rows):
                writer.relocate(old_prefix, prefix)
                header = header.without_roots([old]).with_roots(index.place.own_folder, [new])
                index.write_header(header)
                found += [prefix + name for name in rows]
                break
    return found + _relocate_files(index, writer, listing)


def _relocate_files(index: Index, writer: IndexWriter, listing: Walk) -> list[str]:
    """Give files that are roots, and moved together with the index, their present paths, and return these."""
    moved = {old: new for old, new in index.moved_roots().items() if new in listing.given}
    known = writer.known(list(moved))
    files = {old: new for old, new in moved.items() if old in known}
    if files:
        writer.put([replace(known[old], path=new) for old, new in files.items()], {})
        writer.drop(list(files))
        header = index.header().without_roots(files)
        index.write_header(header.with_roots(index.place.own_folder, files.values()))
    return list(files.values())


def _has_metadata(row: FileRow) -> bool:
    return row.metadata_version >= METADATA_VERSION


def _list_sounds(roots: Sequence[str | Path], exclude: Iterable[str], part: Share | None) -> Walk:
    """List the sounds under `roots`. Raises DataError when no root exists or none holds a sound."""
    listing = walk(roots, exclude, part)
    names = ", ".join(str(root) for root in roots) or "nothing"
    if len(listing.missing) == len(roots):
        raise DataError(f"There is nothing to index at {names}. Give folders or files that exist.")
    if not listing.files and part is None:
        why = f" ({listing.skipped[0][0]}: {listing.skipped[0][1].rstrip('.')})" if listing.skipped else ""
        raise DataError(
            f"There is no sound in {names}{why}. Give folders with audio files. Files that the index has of them stay "
            "until they are removed by name."
        )
    return listing


def _gone(known: dict[str, FileRow], listing: Walk) -> list[str]:
    """Paths of the index below the listed folders that are excluded, or certainly no longer exist."""
    found = []
    vanished = prefixes(listing.missing) if listing.is_of_changes else ()
    for path in known:
        if path not in listing.files:
            if listing.is_of_changes and f"{path}{os.sep}".startswith(vanished):
                found.append(path)
                continue
            below = [path.removeprefix(root) for root in prefixes(listing.roots) if path.startswith(root)]
            if below and (any(map(listing.is_excluded, below)) or is_gone(path)):
                found.append(path)
    return found


def _is_same(path: str, then: Stamp) -> bool:
    try:
        return stamp(path) == then
    except OSError:
        return False


def _sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
