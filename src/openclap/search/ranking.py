"""Rank the windows of a snapshot: candidates by an estimate, exact scores of the best, hits by file.

Every candidate has an upper bound of its score: an estimate plus the error that the estimate may have. Candidates are
scored exactly in the order of these bounds, until the k-th best score is higher than the next bound. So the depth
follows from the query: one file with 500 near-equal windows, or noisy data, take more exact scores, not a setting.

N windows, F files, C contents, D embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclap.arrays import Floats, Ints
from openclap.search.exact import Include, cosines
from openclap.search.rows import FileRow, FloatArray, file_rows
from openclap.search.sketch import Halves, Sketch
from openclap.types import Hit

Bools = NDArray[np.bool_]
Numbers = NDArray[np.int32]

DEVIATIONS = 3.0
"""Standard deviations by which an estimate may be too low: a window beyond is missed in 1 of 740 cases."""
_ROUNDING = 1e-3
"""Bound of what else the sketch rounds: lengths of stored vectors, and FAISS's tables of 8 bits."""
_FLOAT32_SLACK = 1e-5
"""Bound of the rounding of a cosine in float32."""
_FIRST_DEPTH = 1024
_PER_HIT = 16
"""Candidates taken from the sketch at first: at least 1024, and 16 for each hit."""
_GROWTH = 8
"""Factor by which their number grows when they were not enough."""
_FIRST_SCORED = 128
"""Candidates scored exactly at first, then twice as many, and so on."""
_FEW = 4096
"""Windows that a filter leaves from which on the sketch is faster than exact scores of all of them."""
_QUERIES = 64
"""Queries that are compared with all windows at once."""
_BLOCK = 16_384
"""Windows compared at once without a sketch: 32 MB in float32 at 512 dimensions."""


@dataclass(frozen=True)
class Windows:
    """Windows in order: unit vectors (N, D), start and end in seconds (N, 2), and the number of their content (N,)."""

    vectors_ND: Halves
    times_N2: Floats
    content_N: Numbers

    def __len__(self) -> int:
        return len(self.content_N)

    @cached_property
    def _unit_ND(self) -> FloatArray:
        return _unit(self.vectors_ND)

    def estimates(self, query_D: FloatArray) -> FloatArray:
        """The cosines with a unit vector, or those with each column of a matrix, up to _FLOAT32_SLACK."""
        if len(self) <= _BLOCK:
            return self._unit_ND @ query_D
        parts = (self.vectors_ND[first : first + _BLOCK] for first in range(0, len(self), _BLOCK))
        return np.concatenate([_unit(part_ND) @ query_D for part_ND in parts])


def _unit(vectors_ND: Halves) -> FloatArray:
    vector_ND = vectors_ND.astype(np.float32)
    vector_ND /= np.linalg.norm(vector_ND, axis=1, keepdims=True)
    return vector_ND


@dataclass(frozen=True)
class _Candidates:
    """Windows with upper bounds of their scores, best first, and the bound of all windows that are not among them."""

    ids: Ints
    bounds: FloatArray
    rest: float


@dataclass(frozen=True)
class Ranked:
    """Hits, and how many windows were scored exactly."""

    hits: list[Hit]
    scored: int


@dataclass(frozen=True)
class View:
    """The windows and files of an index at one moment.

    Attributes:
        stored, newer: windows of the snapshot, and those that were added since.
        sketch: of the first windows of `stored`; None for small indexes.
        facts: Arrow table of all files, those that are gone included.
        content_F: the content of each file; -1 without windows.
        is_live_F: False for files that are gone.
        contents: the number of contents.
    """

    stored: Windows
    newer: Windows
    sketch: Sketch | None
    facts: Any
    content_F: Numbers
    is_live_F: Bools
    contents: int

    @cached_property
    def _live_counts_C(self) -> Ints:
        return self._counts(self.is_live_F)

    @cached_property
    def _all_contents_live(self) -> bool:
        return bool((self._live_counts_C > 0).all())

    @cached_property
    def live_facts(self) -> Any:
        """Arrow table of the files, in the order of masks."""
        return self.facts if self.is_live_F.all() else self.facts.filter(arrow_booleans(self.is_live_F))

    @property
    def windows(self) -> int:
        """The number of windows that belong to a file."""
        if self._all_contents_live:
            return len(self.stored) + len(self.newer)
        return int(self._allowed(self._live_counts_C).sum())

    @property
    def sketched(self) -> int:
        """The number of windows in the sketch."""
        return self.sketch.count if self.sketch else 0

    def best_hits(
        self,
        query_D: FloatArray,
        k: int,
        *,
        one_per_file: bool,
        mask_F: Bools | None = None,
        include: Include | None = None,
    ) -> Ranked:
        """The k best hits for a unit vector (D,), best first, equal ones in the order of paths.

        Args:
            mask_F: for each of `live_facts`, whether it may be a hit.
        """
        allowed_F, counts_C = self.is_live_F, self._live_counts_C
        if mask_F is not None:
            allowed_F = self.is_live_F.copy()
            allowed_F[allowed_F] = mask_F
            counts_C = self._counts(allowed_F)
        search = _Search(self, query_D, k, one_per_file, allowed_F, counts_C, include)
        return search.run(None if mask_F is None and self._all_contents_live else self._allowed(counts_C))

    def best_scores(self, queries_BD: FloatArray) -> FloatArray:
        """The best cosine (B,) of each unit vector (B, D), without the hits; exact up to rounding in float32.

        Raises ValueError when no window belongs to a file.
        """
        if self.sketch:
            ranked = (self.best_hits(query_D, 1, one_per_file=True).hits for query_D in queries_BD)
            return np.array([hits[0].score for hits in ranked], np.float32)
        live_N = slice(None) if self._all_contents_live else self._allowed(self._live_counts_C)
        parts = []
        for first in range(0, len(queries_BD), _QUERIES):
            queries_DB = queries_BD[first : first + _QUERIES].T
            scores_NB = np.concatenate([self.stored.estimates(queries_DB), self.newer.estimates(queries_DB)])
            parts.append(scores_NB[live_N].max(axis=0))
        return np.concatenate(parts)

    def _counts(self, allowed_F: Bools) -> Ints:
        """The number of allowed files of each content."""
        content_F = self.content_F[allowed_F]
        return np.bincount(content_F[content_F >= 0], minlength=self.contents)

    def _allowed(self, counts_C: Ints) -> Bools:
        is_used_C = counts_C > 0
        return np.concatenate([is_used_C[self.stored.content_N], is_used_C[self.newer.content_N]])

    def nearest(self, query_D: FloatArray, n: int, allowed_N: Bools | None) -> _Candidates:
        """About n candidates of the sketch, and n of the windows that it lacks."""
        total = len(self.stored) + len(self.newer)
        if allowed_N is not None and np.count_nonzero(allowed_N) <= _FEW:
            ids = np.flatnonzero(allowed_N)
            return _Candidates(ids, np.full(len(ids), np.inf, np.float32), -np.inf)
        sketched = self.sketched if n < self.sketched // 4 else 0
        parts = [self._by_product(query_D, n, allowed_N, sketched, total)]
        if sketched:
            parts.append(self._by_sketch(query_D, n, allowed_N))
        ids, bounds = np.concatenate([part.ids for part in parts]), np.concatenate([part.bounds for part in parts])
        order = np.argsort(-bounds, kind="stable")
        return _Candidates(ids[order], bounds[order], max(part.rest for part in parts))

    def _by_sketch(self, query_D: FloatArray, n: int, allowed_N: Bools | None) -> _Candidates:
        assert self.sketch is not None
        allowed_S = None if allowed_N is None else allowed_N[: self.sketched]
        ids, estimates, deviation = self.sketch.nearest(query_D, n, allowed_S)
        bounds = estimates + np.float32(DEVIATIONS * deviation + _ROUNDING)
        return _Candidates(ids, bounds, float(bounds[-1]) if len(ids) == n else -np.inf)

    def _by_product(self, query_D: FloatArray, n: int, allowed_N: Bools | None, first: int, total: int) -> _Candidates:
        """The n best of windows `first` to `total`, by the product of all of them with the query."""
        stored = self.stored if not first else self._after_sketch
        estimates = np.concatenate([stored.estimates(query_D), self.newer.estimates(query_D)])
        ids = np.arange(first, total)
        if allowed_N is not None:
            ids, estimates = ids[allowed_N[first:]], estimates[allowed_N[first:]]
        rest = -np.inf
        if n < len(ids):
            best = np.argpartition(-estimates, n)
            rest = float(estimates[best[n]]) + _FLOAT32_SLACK
            ids, estimates = ids[best[:n]], estimates[best[:n]]
        return _Candidates(ids, estimates + np.float32(_FLOAT32_SLACK), rest)

    @cached_property
    def _after_sketch(self) -> Windows:
        first = self.sketched
        return Windows(self.stored.vectors_ND[first:], self.stored.times_N2[first:], self.stored.content_N[first:])

    def take(self, ids: Ints, column: str) -> Any:
        """Values of a column of `Windows`, by the numbers of windows."""
        stored, newer = getattr(self.stored, column), getattr(self.newer, column)
        is_stored = ids < len(self.stored)
        values = np.empty((len(ids), *stored.shape[1:]), stored.dtype)
        values[is_stored] = stored[ids[is_stored]]
        values[~is_stored] = newer[ids[~is_stored] - len(self.stored)]
        return values


@dataclass(frozen=True)
class _Scored:
    """Windows, best first, each with at least one hit; of equal scores the earlier one first."""

    score: FloatArray
    times_N2: Floats
    content: Numbers

    def take(self, order: Any) -> _Scored:
        return _Scored(self.score[order], self.times_N2[order], self.content[order])


@dataclass
class _Search:
    """One search in a view."""

    view: View
    query_D: FloatArray
    k: int
    one_per_file: bool
    allowed_F: Bools
    counts_C: Ints
    include: Include | None

    def run(self, allowed_N: Bools | None) -> Ranked:
        n, windows = max(_FIRST_DEPTH, _PER_HIT * self.k), len(self.view.stored) + len(self.view.newer)
        while True:
            candidates = self.view.nearest(self.query_D, min(n, windows), allowed_N)
            scored = self._empty()
            for first, last in _chunks(len(candidates.ids)):
                scored = self._merged(scored, candidates.ids[first:last])
                next_bound = candidates.bounds[last] if last < len(candidates.ids) else -np.inf
                if self._lowest(scored) > max(next_bound, candidates.rest):
                    return Ranked(self._hits(scored), last)
                if next_bound <= candidates.rest:
                    break
            if candidates.rest == -np.inf:
                return Ranked(self._hits(scored), len(candidates.ids))
            n *= _GROWTH

    def _empty(self) -> _Scored:
        return _Scored(np.empty(0, np.float32), np.empty((0, 2)), np.empty(0, np.int32))

    def _merged(self, scored: _Scored, ids: Ints) -> _Scored:
        """Score windows and sort them in; of those with one file each, one window of each content remains."""
        view = self.view
        content = view.take(ids, "content_N")
        self._apply_include(content)
        is_used = self.counts_C[content] > 0
        ids, content = ids[is_used], content[is_used]
        score = np.concatenate([scored.score, cosines(view.take(ids, "vectors_ND"), self.query_D)])
        times_N2 = np.concatenate([scored.times_N2, view.take(ids, "times_N2")])
        merged = _Scored(score, times_N2, np.concatenate([scored.content, content]))
        merged = merged.take(np.lexsort((merged.times_N2[:, 0], -merged.score)))
        if self.one_per_file:
            merged = merged.take(np.sort(np.unique(merged.content, return_index=True)[1]))
        return merged

    def _apply_include(self, content: Numbers) -> None:
        """Ask the caller about the files of contents that come up for the first time."""
        if self.include is None:
            return
        if not hasattr(self, "_is_asked_C"):
            self._is_asked_C = np.zeros(self.view.contents, bool)
            self.allowed_F, self.counts_C = self.allowed_F.copy(), self.counts_C.copy()
        new = np.unique(content[~self._is_asked_C[content]])
        self._is_asked_C[new] = True
        files = self._files_of(new)
        refused = [file for file, row in zip(files, self._rows(files), strict=True) if not self.include(row)]
        self.allowed_F[refused] = False
        np.subtract.at(self.counts_C, self.view.content_F[refused], 1)

    def _lowest(self, scored: _Scored) -> float:
        """The score of the k-th hit; -infinity when there are fewer."""
        hits = np.cumsum(self.counts_C[scored.content])
        if not len(hits) or hits[-1] < self.k:
            return -np.inf
        return float(scored.score[np.searchsorted(hits, self.k)])

    def _hits(self, scored: _Scored) -> list[Hit]:
        """The k best hits. All windows that share the k-th score take part: paths decide between them."""
        scored = scored.take(scored.score >= self._lowest(scored))
        files = self._files_of(np.unique(scored.content))
        paths = self.view.facts["path"].take(arrow_integers(files)).to_pylist()
        by_content: dict[int, list[tuple[str, int]]] = {}
        for content, file, path in zip(self.view.content_F[files].tolist(), files.tolist(), paths, strict=True):
            by_content.setdefault(content, []).append((path, file))
        found = [
            (-score, path, start_s, end_s, file)
            for score, (start_s, end_s), content in zip(
                scored.score.tolist(), scored.times_N2.tolist(), scored.content.tolist(), strict=True
            )
            for path, file in by_content.get(content, ())
        ]
        best = sorted(found)[: self.k]
        rows = self._rows([file for *_, file in best])
        return [row.hit(start_s, end_s, -score) for row, (score, _, start_s, end_s, _) in zip(rows, best, strict=True)]

    def _files_of(self, contents: Numbers) -> Ints:
        """The allowed files of contents."""
        is_wanted_C = np.zeros(self.view.contents + 1, bool)  # one more, for files without windows: -1
        is_wanted_C[contents] = True
        return np.flatnonzero(is_wanted_C[self.view.content_F] & self.allowed_F)

    def _rows(self, files: Ints | Sequence[int]) -> list[FileRow]:
        return file_rows(self.view.facts.take(arrow_integers(np.asarray(files, np.int64))))


def _chunks(count: int) -> Iterator[tuple[int, int]]:
    """Split `count` candidates into groups of growing size."""
    first, size = 0, _FIRST_SCORED
    while first < count:
        last = min(count, first + size)
        yield first, last
        first, size = last, 2 * size


def arrow_booleans(values: Bools) -> Any:
    """Booleans as an Arrow array. Arrow's own conversion of numpy arrays imports pandas where it is installed."""
    import pyarrow as pa

    bits = pa.py_buffer(np.packbits(values, bitorder="little"))
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, bits])


def arrow_integers(values: Ints) -> Any:
    import pyarrow as pa

    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])
