"""Find duplicates in an index: identical bytes, identical samples, and the same recording in another form.

Files of equal hashes have identical bytes. Of the other contents, the nearest windows of each window, by blocked
products of all vectors, name candidates. A cosine alone calls takes of one session duplicates, so the sounds of each
candidate pair are compared by a function of the caller, which decodes and aligns them. Nothing is deleted.

The time of the products grows with the square of the number of windows. Vectors stay in the mapped snapshot, and memory
holds two blocks of them, their products, and the nearest windows of each window.

N windows, B and M of them in two blocks, K nearest windows, C contents, D embedding.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openclap import paths
from openclap.arrays import Ints
from openclap.errors import DataError, OpenClapError
from openclap.search.index import FileRow, Index
from openclap.search.ranking import View
from openclap.search.rows import FloatArray, file_rows
from openclap.storage import append_line
from openclap.types import Progress

KINDS = ("identical bytes", "identical samples", "same recording")
"""Kinds of duplicates, the surest first."""
NEIGHBOURS = 10
"""Windows of other contents whose files are compared with that of a window."""
LEAST_COSINE = 0.7
"""Windows with a lower cosine are not of the same recording."""
_BLOCK = 2048
"""Windows in a block: 16 MB of products of two blocks."""


@dataclass(frozen=True, slots=True)
class SamePart:
    """Two contents with the starts, in seconds, of two windows that resemble each other."""

    first: FileRow
    second: FileRow
    first_s: float
    second_s: float


@dataclass(frozen=True, slots=True)
class PairComparison:
    """What a comparison of two sounds found: a kind ("" for different recordings), the similarity from 0 to 1, and
    where the second sound begins, in seconds of the first."""

    kind: str
    similarity: float
    offset_s: float


Compare = Callable[[SamePart], PairComparison]
"""Compares the sounds of two files. Raises AudioError or OSError where one of them cannot be read."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A file of a group; `comparison` is with the group's first file, or with the file that joins it to the group."""

    file: FileRow
    comparison: PairComparison


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Files that are duplicates of each other, the longest recording first.

    Attributes:
        id: of the contents, whatever the files are called.
        kind: that of its least sure duplicate.
    """

    id: str
    kind: str
    files: tuple[Duplicate, ...]

    @property
    def hashes(self) -> frozenset[str]:
        """The contents of the files."""
        return frozenset(each.file.hash for each in self.files)


def find_duplicates(
    index: Index, compare: Compare, *, progress: Progress = lambda done, total: None
) -> tuple[list[DuplicateGroup], list[tuple[str, str]]]:
    """(groups, the surest kinds first; the pairs of files that could not be compared, with the reason).

    Args:
        progress: receives the number of compared pairs and of all pairs; (0, 0) while the pairs are being found.
    """
    view = index.view()
    files = _files_by_hash(index.with_present_paths(view.live_facts))
    pairs = candidate_pairs(view, files, lambda: progress(0, 0))
    found: dict[tuple[str, str], PairComparison] = {}
    failed: dict[str, str] = {}
    for done, pair in enumerate(pairs, start=1):
        try:
            comparison = compare(pair)
        except (OpenClapError, OSError) as error:
            failed.setdefault(f"{pair.first.path} and {pair.second.path}", str(error))
        else:
            if comparison.kind:
                found[pair.first.hash, pair.second.hash] = comparison
        progress(done, len(pairs))
    groups = [_group(hashes, files, found) for hashes in _components(files, found)]
    return sorted(groups, key=lambda group: (KINDS.index(group.kind), group.files[0].file.path)), list(failed.items())


def _files_by_hash(facts: Any) -> dict[str, list[FileRow]]:
    files: dict[str, list[FileRow]] = defaultdict(list)
    for row in sorted(file_rows(facts), key=lambda row: row.path):
        files[row.hash].append(row)
    return files


def candidate_pairs(
    view: View, files: Mapping[str, Sequence[FileRow]], advance: Callable[[], object] = lambda: None
) -> list[SamePart]:
    """Pairs of contents of which a window of one is among the nearest windows of one of the other.

    Args:
        files: those of `view`, by hash.
        advance: called after each block, so that a caller can stop.
    """
    place = {digest: number for number, digest in enumerate(sorted(files, key=lambda digest: files[digest][0].path))}
    content_F = view.content_F[view.is_live_F]
    place_F = np.array([place[digest] for digest in view.live_facts["hash"].to_pylist()], np.int64)
    place_C = np.full(view.contents, -1)  # contents whose files are gone have none
    place_C[content_F[content_F >= 0]] = place_F[content_F >= 0]
    content_N = place_C[np.concatenate([view.stored.content_N, view.newer.content_N])]
    ids = np.flatnonzero(content_N >= 0)
    nearest = _NearestWindows(content_N[ids])
    for first in range(0, len(ids), _BLOCK):
        own_BD = _vectors(view, ids[first : first + _BLOCK])
        for other in range(first, len(ids), _BLOCK):
            cosine_BM: FloatArray = own_BD @ _vectors(view, ids[other : other + _BLOCK]).T
            nearest.add(first, other, cosine_BM)
            if other > first:
                nearest.add(other, first, cosine_BM.T)
            advance()
    rows = [files[digest][0] for digest in place]
    start_N = view.take(ids, "times_N2")[:, 0]
    return [
        SamePart(rows[first], rows[second], float(start_N[one]), float(start_N[another]))
        for first, second, one, another in nearest.pairs().tolist()
    ]


def _vectors(view: View, ids: Ints) -> FloatArray:
    vector_BD: FloatArray = view.take(ids, "vectors_ND").astype(np.float32)
    return vector_BD


class _NearestWindows:
    """The nearest windows of other contents of each window, from cosines that come block by block."""

    def __init__(self, content_N: Ints) -> None:
        self._content_N = content_N
        below = np.nextafter(np.float32(LEAST_COSINE), np.float32(0))
        self._cosine_NK = np.full((len(content_N), NEIGHBOURS), below, np.float32)
        self._other_NK = np.full((len(content_N), NEIGHBOURS), -1)

    def add(self, first: int, other: int, cosine_BM: FloatArray) -> None:
        """Take in the cosines of the windows from number `first` on with those from number `other` on."""
        # Few cosines exceed the K-th best of their row after the first blocks, so only these are sorted.
        own, column = np.nonzero(cosine_BM > self._cosine_NK[first : first + len(cosine_BM), -1:])
        is_other = self._content_N[first + own] != self._content_N[other + column]
        own, column = own[is_other], column[is_other]
        rows, size = np.unique(own), self._cosine_NK.shape[1]
        row = np.concatenate([np.repeat(rows, size), own])
        cosine = np.concatenate([self._cosine_NK[first + rows].ravel(), cosine_BM[own, column]])
        others = np.concatenate([self._other_NK[first + rows].ravel(), other + column])
        order = np.lexsort((others, -cosine, row))
        best = order[np.searchsorted(row[order], rows)[:, None] + np.arange(size)]
        self._cosine_NK[first + rows], self._other_NK[first + rows] = cosine[best], others[best]

    def pairs(self) -> Ints:
        """(P, 4): two contents in order, and their two windows with the highest cosine."""
        one, place = np.nonzero(self._other_NK >= 0)
        another, cosine = self._other_NK[one, place], self._cosine_NK[one, place]
        swapped = self._content_N[one] > self._content_N[another]
        one, another = np.where(swapped, another, one), np.where(swapped, one, another)
        pair_P4 = np.stack([self._content_N[one], self._content_N[another], one, another], axis=1)
        pair_P4 = pair_P4[np.lexsort((another, one, -cosine, pair_P4[:, 1], pair_P4[:, 0]))]
        is_first = np.ones(len(pair_P4), bool)
        is_first[1:] = (pair_P4[1:, :2] != pair_P4[:-1, :2]).any(axis=1)
        return pair_P4[is_first]


def _components(files: Mapping[str, Sequence[FileRow]], found: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Contents that duplicates connect; a content alone counts where several files have it."""
    root = {digest: digest for digest in files}

    def find(digest: str) -> str:
        while root[digest] != digest:
            root[digest] = root[root[digest]]
            digest = root[digest]
        return digest

    for one, other in found:
        root[find(one)] = find(other)
    groups: dict[str, list[str]] = defaultdict(list)
    for digest in files:
        groups[find(digest)].append(digest)
    return [group for group in groups.values() if len(group) > 1 or len(files[group[0]]) > 1]


def _group(
    hashes: Sequence[str], files: Mapping[str, Sequence[FileRow]], found: Mapping[tuple[str, str], PairComparison]
) -> DuplicateGroup:
    ordered = sorted(hashes, key=lambda digest: (-files[digest][0].duration_s, -files[digest][0].rate, digest))
    whole = PairComparison("", 1.0, 0.0)
    duplicates: list[Duplicate] = []
    for place, digest in enumerate(ordered):
        comparison = _comparison(digest, ordered, found) if place else whole
        duplicates.append(Duplicate(files[digest][0], comparison))
        duplicates += [Duplicate(file, PairComparison(KINDS[0], 1.0, 0.0)) for file in files[digest][1:]]
    kinds = [each.comparison.kind for each in duplicates[1:]]
    group_id = hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()[:12]
    return DuplicateGroup(group_id, max(kinds, key=KINDS.index), tuple(duplicates))


def _comparison(digest: str, ordered: Sequence[str], found: Mapping[tuple[str, str], PairComparison]) -> PairComparison:
    """That with the first content of the group, or else the one with the highest similarity."""
    own: list[tuple[bool, float, PairComparison]] = []
    for other in ordered:
        for pair, sign in (((other, digest), 1), ((digest, other), -1)):
            if (each := found.get(pair)) is not None:
                turned = PairComparison(each.kind, each.similarity, sign * each.offset_s)
                own.append((other == ordered[0], each.similarity, turned))
    return max(own, key=lambda item: item[:2])[2]


# Reports --------------------------------------------------------------------------------------------------------------


def group_object(group: DuplicateGroup) -> dict[str, Any]:
    """A group as a JSON object: `id`, `kind`, and `files` with their facts and comparisons."""
    files = [asdict(each.file) | asdict(each.comparison) for each in group.files]
    return {"id": group.id, "kind": group.kind, "files": files}


@dataclass(frozen=True, slots=True)
class DuplicatesPage:
    """A page of groups.

    Attributes:
        groups, judged: the numbers of groups that are not judged and that are.
        listed: the groups of the page.
    """

    groups: int
    judged: int
    page: int
    page_size: int
    listed: tuple[DuplicateGroup, ...]
    skipped: tuple[tuple[str, str], ...]

    def as_object(self) -> dict[str, Any]:
        """The page as a JSON object."""
        counts = {"groups": self.groups, "judged": self.judged, "page": self.page, "page_size": self.page_size}
        skipped = [{"path": path, "reason": reason} for path, reason in self.skipped]
        return counts | {"listed": [group_object(group) for group in self.listed], "skipped": skipped}


def page_of(
    groups: Sequence[DuplicateGroup],
    skipped: Sequence[tuple[str, str]],
    judged: Sequence[frozenset[str]],
    page: int = 1,
    page_size: int = 20,
    *,
    with_judged: bool = False,
) -> DuplicatesPage:
    """A page of groups, from page 1 on, in their order; without those that are judged, unless `with_judged`."""
    rest = [group for group in groups if not is_judged(group, judged)]
    listed = (groups if with_judged else rest)[(page - 1) * page_size : page * page_size]
    return DuplicatesPage(len(rest), len(groups) - len(rest), page, page_size, tuple(listed), tuple(skipped))


# Judged groups --------------------------------------------------------------------------------------------------------


def judged_file(index: Index) -> Path:
    """The file of judged groups of an index, under openclap's home: the index may be on a read-only disk.

    An index that has moved has the file of the folder where it was made.
    """
    folder = Path(os.path.realpath(index.key_at_home()))
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    return paths.home() / "judged" / f"{folder.name}-{digest}.jsonl"


def read_judged(path: Path) -> list[frozenset[str]]:
    """The contents of each judged group; none of an absent file. A line that a crash cut short is left out.

    Raises DataError for a file without any judgement.
    """
    try:
        lines = [line for line in path.read_bytes().splitlines() if line.strip()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Check the path and its permissions.") from None
    judged: list[frozenset[str]] = []
    read = 0
    for line in lines:
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            stored = json.loads(line)
            hashes = frozenset(map(str, stored["hashes"]))
            if stored.get("judged", True):
                judged.append(hashes)
            else:  # taken back
                judged = [each for each in judged if not hashes <= each]
            read += 1
    if lines and not read:
        raise DataError(f"{path}: is not a file of judged groups. Choose another with --judged, or move it away.")
    return judged


def add_judgement(path: Path, group: DuplicateGroup, *, judged: bool = True) -> None:
    """Append a judgement of a group to a file: that it is judged, or no longer. Raises DataError."""
    line = as_judgement(group) if judged else as_judgement(group) | {"judged": False}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        append_line(path, json.dumps(line, ensure_ascii=False).encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}). Check its folder and the disk.") from None


def is_judged(group: DuplicateGroup, judged: Iterable[frozenset[str]]) -> bool:
    """Whether one judgement covers the group: all its contents, or more that are gone by now."""
    return any(group.hashes <= hashes for hashes in judged)


def as_judgement(group: DuplicateGroup) -> dict[str, Any]:
    """A line of a file of judged groups. The paths are for people."""
    names = [each.file.path for each in group.files]
    return {"id": group.id, "hashes": sorted(group.hashes), "paths": names}
