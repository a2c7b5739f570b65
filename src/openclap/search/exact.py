"""Find the best windows of an index exactly: by cosine in float32, ties in the order of paths.

LanceDB returns the n windows nearest to a query that it rounds to float16. They are scored again in float32, and n
grows until no omitted window could change the result.

N windows, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from openclap.search.rows import FileRow, FloatArray
from openclap.types import Hit

_FIRST_FETCH = 64
_PER_HIT = 4
"""Windows fetched at first: at least 64, and 4 for each hit, since a file has several windows but shows one."""
_GROWTH = 8
"""Factor by which the number of windows grows when they were not enough."""
_FIRST_GROUP = 512
"""Windows whose files are looked up first."""
_FLOAT32_SLACK = 1e-5
"""Bound of the rounding of a cosine in float32."""


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
"""Returns the n windows nearest to the query, in any order; all windows when n reaches their total."""
FilesOf = Callable[[Sequence[str]], Mapping[str, Sequence[FileRow]]]
"""Returns the files of each content, by hash."""
Include = Callable[[FileRow], bool]
"""Whether a file may be a hit."""


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
    """The k best hits for a unit vector (D,), best first; fewer only when there are fewer.

    Args:
        total: the number of windows in the index.
        one_per_file: show each file once, with its best window.
    """
    # Twice: the rounding may lower the score of an omitted window and raise that of a fetched one.
    slack = 2 * _rounding(query_D) + _FLOAT32_SLACK
    n = min(total, max(_FIRST_FETCH, _PER_HIT * k))
    while True:
        scored = _score(fetch(n), query_D)
        hits = _hits(_best_of_each(scored) if one_per_file else scored, k, files_of, include)
        # No omitted window scores higher than the last fetched one, up to the rounding.
        if n >= total or (len(hits) == k and hits[-1].score > scored[-1].score + slack):
            return hits
        n = _next(n, total)


def _next(n: int, total: int) -> int:
    """A larger n; the total as soon as that is at most twice the work."""
    grown = n * _GROWTH
    return total if 2 * grown >= total else grown


def _rounding(query_D: FloatArray) -> float:
    """Upper bound of the change of a cosine when the query is rounded to float16."""
    rounded_D = query_D.astype(np.float16).astype(np.float32)
    return float(np.linalg.norm(rounded_D / np.linalg.norm(rounded_D) - query_D))


def _score(parts: Iterable[Candidates], query_D: FloatArray) -> list[_Scored]:
    """Compute the cosines and sort, best first; of equal cosines the earlier window first."""
    scored: list[_Scored] = []
    for part in parts:
        score_N = cosines(part.vectors, query_D)
        scored += map(_Scored, score_N.tolist(), part.hashes, part.start_s, part.end_s)
    return sorted(scored, key=_rank)


def cosines(vectors_ND: Any, query_D: FloatArray) -> FloatArray:
    """The cosines (N,) of stored vectors with a unit vector, in float32."""
    vector_ND = vectors_ND.astype(np.float32)
    # Sums along rows instead of a matrix product, whose blocks round equal vectors differently in different rows.
    length_N = np.sqrt((vector_ND * vector_ND).sum(axis=1))
    score_N: FloatArray = np.clip((vector_ND * query_D).sum(axis=1) / length_N, -1.0, 1.0)
    return score_N


def _rank(window: _Scored) -> tuple[float, float, str]:
    return (-window.score, window.start_s, window.hash)


def _best_of_each(scored: Sequence[_Scored]) -> list[_Scored]:
    """The first, best window of each content."""
    best: dict[str, _Scored] = {}
    for window in scored:
        best.setdefault(window.hash, window)
    return list(best.values())


def _hits(windows: Sequence[_Scored], k: int, files_of: FilesOf, include: Include) -> list[Hit]:
    """The first k hits of `windows` (best first). Files of equal content are separate hits."""
    hits: list[Hit] = []
    for group in _groups(windows):
        # Go on while the scores equal that of the last hit: paths decide between them.
        if len(hits) >= k and group[0].score < hits[k - 1].score:
            break
        files = files_of(sorted({window.hash for window in group}))
        hits += [
            row.hit(window.start_s, window.end_s, window.score)
            for window in group
            for row in files.get(window.hash, ())
            if include(row)
        ]
    return sorted(hits, key=lambda hit: (-hit.score, hit.path, hit.start_s))[:k]


def _groups(windows: Sequence[_Scored]) -> Iterator[Sequence[_Scored]]:
    """Split into groups of growing size: the first is usually enough, and the rest takes only a few queries."""
    first, size = 0, _FIRST_GROUP
    while first < len(windows):
        yield windows[first : first + size]
        first, size = first + size, size * _GROWTH
