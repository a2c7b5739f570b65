"""Find duplicates in an index: identical bytes, identical samples, and the same recording in another form.

Files of equal hashes have identical bytes. Of the other contents, the nearest windows of each window, by blocked
products of all vectors, name candidates. A cosine alone calls takes of one session duplicates, so the sounds of each
candidate pair are compared by a function of the caller, which decodes and aligns them. Nothing is deleted.

N windows, B of them in a block, D embedding.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openclap.errors import DataError, OpenClapError
from openclap.search.index import FileRow, Index
from openclap.types import Progress

KINDS = ("identical bytes", "identical samples", "same recording")
"""Kinds of duplicates, the surest first."""
NEIGHBOURS = 10
"""Windows of other contents whose files are compared with that of a window."""
LEAST_COSINE = 0.7
"""Windows with a lower cosine are not of the same recording."""
_BLOCK = 1024


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
        progress: receives the number of compared pairs and of all pairs.
    """
    files = _files_by_hash(index)
    pairs = candidate_pairs(index, files)
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


def _files_by_hash(index: Index) -> dict[str, list[FileRow]]:
    files: dict[str, list[FileRow]] = defaultdict(list)
    for row in sorted(index._rows(["true"]), key=lambda row: row.path):
        files[row.hash].append(row)
    return files


def candidate_pairs(index: Index, files: Mapping[str, Sequence[FileRow]]) -> list[SamePart]:
    """Pairs of contents of which a window of one is among the nearest windows of one of the other."""
    parts = index._candidates(index._windows.search().select(["hash", "start_s", "end_s", "vector"]))
    number = {digest: place for place, digest in enumerate(sorted(files, key=lambda digest: files[digest][0].path))}
    content, start, vectors = [np.zeros(0, np.int64)], [np.zeros(0)], [np.zeros((0, index.identity.dim), np.float32)]
    for part in parts:
        known = np.array([digest in number for digest in part.hashes], bool)
        content.append(np.array([number[digest] for digest in part.hashes if digest in number], np.int64))
        start.append(np.array(part.start_s)[known])
        vectors.append(part.vectors[known].astype(np.float32))
    content_N, start_N, vector_ND = np.concatenate(content), np.concatenate(start), np.concatenate(vectors)
    best = _nearest_contents(vector_ND, content_N)
    rows = [files[digest][0] for digest in number]
    return [
        SamePart(rows[first], rows[second], float(start_N[one]), float(start_N[other]))
        for (first, second), (_, one, other) in sorted(best.items())
    ]


def _nearest_contents(vector_ND: np.ndarray, content_N: np.ndarray) -> dict[tuple[int, int], tuple[float, int, int]]:
    """By pair of contents, the highest cosine of two of their windows, and these windows."""
    best: dict[tuple[int, int], tuple[float, int, int]] = {}
    for begin in range(0, len(vector_ND), _BLOCK):
        cosine_BN = vector_ND[begin : begin + _BLOCK] @ vector_ND.T
        cosine_BN[content_N[begin : begin + _BLOCK, None] == content_N] = -1
        columns = min(NEIGHBOURS, len(vector_ND) - 1)
        near_BK = np.argpartition(-cosine_BN, columns, axis=1)[:, :columns] if columns > 0 else np.zeros((0, 0), int)
        for row, near_K in enumerate(near_BK):
            for other in near_K[cosine_BN[row, near_K] >= LEAST_COSINE]:
                pair = sorted([(int(content_N[begin + row]), begin + row), (int(content_N[other]), int(other))])
                (first, one), (second, another) = pair
                cosine = float(cosine_BN[row, other])
                best[first, second] = max(best.get((first, second), (-1.0, 0, 0)), (cosine, one, another))
    return best


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


# Judged groups --------------------------------------------------------------------------------------------------------


def read_judged(path: Path) -> list[frozenset[str]]:
    """The contents of each group in a file of judged groups; an absent file has none. Raises DataError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [frozenset(map(str, json.loads(line)["hashes"])) for line in lines if line.strip()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is not a file of judged groups ({type(error).__name__}). Choose another.") from None


def is_judged(group: DuplicateGroup, judged: Iterable[frozenset[str]]) -> bool:
    """Whether one judgement covers the group: all its contents, or more that are gone by now."""
    return any(group.hashes <= hashes for hashes in judged)


def as_judgement(group: DuplicateGroup) -> dict[str, Any]:
    """A line of a file of judged groups. The paths are for people."""
    paths = [each.file.path for each in group.files]
    return {"id": group.id, "hashes": sorted(group.hashes), "paths": paths}
