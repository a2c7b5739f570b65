"""Check an index against itself: tables, snapshot, and the recall of its sketch. N windows, D embedding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from openclap.errors import DataError
from openclap.search.index import Index
from openclap.search.rows import FloatArray

_SEED = 0


@dataclass(frozen=True, slots=True)
class IndexCheck:
    """Result of `verify`.

    Attributes:
        files, windows: in the tables.
        snapshot: windows in the snapshot that were compared with the tables, number by number.
        searched: how a search is done now.
        recall_of_sounds: part of the 10 best hits that searches find, when the queries are windows of the index.
        recall_of_far_queries: the same for queries with cosines near 0.4 to a window, as texts have. None where recall
            was not measured.
    """

    files: int
    windows: int
    snapshot: int
    searched: str
    recall_of_sounds: float | None = None
    recall_of_far_queries: float | None = None


def verify(index: Index, *, queries: int = 0, progress: Callable[[int, int], None] | None = None) -> IndexCheck:
    """Read all of an index and compare its snapshot with its tables.

    Args:
        queries: the number of searches of each kind by which recall@10 is measured against exact search.
        progress: receives the numbers of windows and searches done, and of all.

    Raises DataError when the tables cannot be read, a file has no windows, or the snapshot has other vectors.
    """
    advance = progress or (lambda done, total: None)
    files, windows = index.count()
    if missing := index.without_windows():
        raise DataError(
            f"{index.place}: {len(missing)} files have no vectors ({missing[0]}). Remove them from the index and add "
            "them again."
        )
    snapshot = index.compare_snapshot(lambda done: advance(done, windows + 2 * queries))
    found = dict.fromkeys(_KINDS, 0.0)
    rng = np.random.default_rng(_SEED)
    vectors = index.sample(queries, rng) if queries and windows else np.empty((0, index.identity.dim), np.float32)
    for number, vector_D in enumerate(vectors):
        for offset, (kind, make) in enumerate(_KINDS.items()):
            found[kind] += _recall(index, make(vector_D, rng)) / len(vectors)
            advance(windows + 2 * number + offset + 1, windows + 2 * queries)
    recalls = [found[kind] if len(vectors) else None for kind in _KINDS]
    searched = str(index.search(np.ones(index.identity.dim), 1).info)
    return IndexCheck(files, windows, snapshot, searched, *recalls)


def _itself(vector_D: FloatArray, _: np.random.Generator) -> FloatArray:
    return vector_D


def _far(vector_D: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A random direction at a cosine of about 0.4 to `vector_D`."""
    noise_D = rng.standard_normal(len(vector_D))
    return np.asarray(0.44 * vector_D + noise_D / np.linalg.norm(noise_D), np.float32)


_KINDS = {"sounds": _itself, "far queries": _far}


def _recall(index: Index, query_D: FloatArray) -> float:
    """The part of the 10 best hits by exact search whose scores a search reaches: equal windows replace each other."""
    exact, ours = index.search(query_D, 10, exact=True), index.search(query_D, 10)
    if not exact:
        return 1.0
    lowest = exact[-1].score - 1e-6
    return min(1.0, sum(hit.score >= lowest for hit in ours) / len(exact))
