"""The best windows of an index, exactly: cosine in float32, ties in the order of paths.
N windows, D embedding.

LanceDB returns the n nearest windows by a query that it rounds to float16; they are scored again in float32, and n
grows until no omitted window could change the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from openclap.search.rows import FileRow, FloatArray
from openclap.types import Hit

_FIRST_FETCH = 64
_PER_HIT = 4
_GROWTH = 8
_FIRST_GROUP = 512
_FLOAT32_SLACK = 1e-5


@dataclass(frozen=True, slots=True)
class Candidates:
    """Windows as the table stores them: N hashes, times in seconds, and (N, D) vectors."""

    hashes: list[str]
    start_s: list[float]
    end_s: list[float]
    vectors: FloatArray


@dataclass(frozen=True, slots=True)
class _Scored:
    score: float
    hash: str
    start_s: float
    end_s: float


Fetch = Callable[[int], Iterable[Candidates]]
FilesOf = Callable[[Sequence[str]], Mapping[str, Sequence[FileRow]]]
Include = Callable[[FileRow], bool]


def best_hits(
    query_D: FloatArray,
    k: int,
    total: int,
    fetch: Fetch,
    files_of: FilesOf,
    *,
    one_per_file: bool,
    include: Include,
) -> list[Hit]:
    """The k best hits for a unit vector, best first; fewer when there are fewer.

    `fetch(n)` gives the n windows nearest to the query, in any order, and all of them when n reaches `total`;
    `files_of(hashes)` gives the files of each content.
    """
    slack = 2 * _rounding(query_D) + _FLOAT32_SLACK
    n = min(total, max(_FIRST_FETCH, _PER_HIT * k))
    while True:
        scored = _score(fetch(n), query_D)
        hits = _hits(_best_of_each(scored) if one_per_file else scored, k, files_of, include)
        # Windows that were not fetched score at most as much as the last one that was, up to the rounding.
        if n >= total or (len(hits) == k and hits[-1].score > scored[-1].score + slack):
            return hits
        n = _next(n, total)


def _next(n: int, total: int) -> int:
    """A larger n; all windows as soon as that is at most twice the work."""
    grown = n * _GROWTH
    return total if 2 * grown >= total else grown


def _rounding(query_D: FloatArray) -> float:
    """Upper bound of the change of a cosine when the query is rounded to float16."""
    rounded_D = query_D.astype(np.float16).astype(np.float32)
    return float(np.linalg.norm(rounded_D / np.linalg.norm(rounded_D) - query_D))


def _score(parts: Iterable[Candidates], query_D: FloatArray) -> list[_Scored]:
    """The candidates with their cosines, best first, the earlier window first where cosines are equal."""
    scored: list[_Scored] = []
    for part in parts:
        vector_ND = part.vectors.astype(np.float32)
        # Sums along rows, not a matrix product: equal vectors must get equal scores in any row.
        length_N = np.sqrt((vector_ND * vector_ND).sum(axis=1))
        score_N = np.clip((vector_ND * query_D).sum(axis=1) / length_N, -1.0, 1.0)
        scored += map(_Scored, score_N.tolist(), part.hashes, part.start_s, part.end_s)
    return sorted(scored, key=_rank)


def _rank(window: _Scored) -> tuple[float, float, str]:
    return (-window.score, window.start_s, window.hash)


def _best_of_each(scored: Sequence[_Scored]) -> list[_Scored]:
    best: dict[str, _Scored] = {}
    for window in scored:
        best.setdefault(window.hash, window)
    return list(best.values())


def _hits(windows: Sequence[_Scored], k: int, files_of: FilesOf, include: Include) -> list[Hit]:
    """The first k hits of `windows` (best first). Every file of a content is a hit of its own."""
    hits: list[Hit] = []
    for group in _groups(windows):
        if len(hits) >= k and group[0].score < hits[k - 1].score:
            break
        files = files_of(sorted({window.hash for window in group}))
        hits += [_hit(window, row) for window in group for row in files.get(window.hash, ()) if include(row)]
    return sorted(hits, key=lambda hit: (-hit.score, hit.path, hit.start_s))[:k]


def _groups(windows: Sequence[_Scored]) -> Iterator[Sequence[_Scored]]:
    """Groups of growing size: mostly the first is enough, and the rest is looked up in a few queries."""
    first, size = 0, _FIRST_GROUP
    while first < len(windows):
        yield windows[first : first + size]
        first, size = first + size, size * _GROWTH


def _hit(window: _Scored, row: FileRow) -> Hit:
    return Hit(
        path=row.path,
        start_s=window.start_s,
        end_s=window.end_s,
        score=window.score,
        duration_s=row.duration_s,
        caption=row.caption,
        tags=row.tags,
        licence=row.licence,
    )
