"""Answer a query from an index: by embedding, by words, or by both; with filters, pages, and windows that overlap.

D embedding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np

from openclap.errors import ConfigError
from openclap.search.filters import Where, facets, is_labels, mask_of
from openclap.search.fit import with_fit
from openclap.search.hits import Hits, SearchInfo
from openclap.search.index import Index
from openclap.search.keywords import split_words
from openclap.search.labels import with_labels
from openclap.search.paths import relocated
from openclap.search.ranking import Bools
from openclap.search.rows import FloatArray
from openclap.types import Hit, KeywordUse

FUSION_CONSTANT = 60
"""k of reciprocal rank fusion: Cormack, Clarke and Büttcher, SIGIR 2009, https://doi.org/10.1145/1571941.1572114."""
_FUSED_AT_LEAST = 1024
"""Hits of each ranking that are fused; a power of two above twice the wanted hits, so that pages rarely change it."""


RARE = 0.005
"""Share of the files that have a word up to which it is rare: then it also ranks them, unless a search says otherwise.
Chosen by the recall of captions with names that have their words, and with names that do not (docs/benchmarks.md)."""


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """A query.

    Attributes:
        vector: a unit vector (D,); None for a query by words alone.
        words: of a text, for the keywords; a text has a fit.
        where: conditions on facts; see `filters`.
        every_window: whether a file may be several hits.
        without: real paths of files that are no hits.
    """

    vector: FloatArray | None = None
    words: str = ""
    where: Where = ()
    keywords: KeywordUse = "auto"
    every_window: bool = False
    without: frozenset[str] = frozenset()


def find(index: Index, query: SearchQuery, k: int, offset: int = 0, *, exact: bool = False) -> Hits:
    """The hits from number `offset` on, at most k, best first.

    `score` is always the cosine; hits by words alone have 0, and cover their file.

    Args:
        exact: compare with every window, see `Index.search`.

    Raises ConfigError for a condition or a use of keywords that cannot be read, and IndexMismatchError when the index
    was rebuilt with another model.
    """
    if query.keywords not in get_args(KeywordUse):
        raise ConfigError(f"keywords is {query.keywords!r}, expected one of {', '.join(get_args(KeywordUse))}.")
    index.check(index.header().identity)
    wanted = offset + k
    if query.vector is None or query.keywords == "only":
        hits = _by_words(index, query, wanted)
    elif words := _words_to_fuse(index, query):
        hits = _fused(index, query, query.vector, words, wanted, exact=exact)
    else:
        hits = _nearest(index, query, query.vector, wanted, exact=exact)
    return Hits(as_found(index, hits[offset:wanted]), hits.info)


def count_facets(index: Index, fact: str, where: Where = ()) -> list[tuple[Any, int]]:
    """The values of a fact and the number of files with each, the most frequent first; see `filters.facets`."""
    files = with_labels(index, index.facts(), where, always=is_labels(fact))
    present = index.with_present_paths(files)
    return facets(present, fact, mask_of(files, where, present) if where else None)


def count_files(index: Index, where: Where) -> int:
    """The number of files that fulfil the conditions."""
    return int(mask_of_files(index, index.facts(), where).sum())


def paths_of_files(index: Index, where: Where) -> list[str]:
    """The present paths of the files that fulfil the conditions, in order."""
    files = index.facts()
    chosen = files.filter(mask_of_files(index, files, where))
    return sorted(index.with_present_paths(chosen).column("path").to_pylist())


def mask_of_files(index: Index, files: Any, where: Where) -> Bools:
    """Which files of the table of an index fulfil the conditions, those on labels included; see `filters.mask_of`.

    Where a root moved together with the index, paths and folders may be the present ones or those of the table.
    """
    labelled = with_labels(index, files, where)
    return mask_of(labelled, where, index.with_present_paths(labelled))


def without_overlaps(hits: Iterable[Hit]) -> list[Hit]:
    """Hits, the best first, without those that overlap a better one in their file."""
    kept: list[Hit] = []
    of_file: dict[str, list[Hit]] = {}
    for hit in hits:
        others = of_file.setdefault(hit.path, [])
        if all(hit.end_s <= other.start_s or other.end_s <= hit.start_s for other in others):
            others.append(hit)
            kept.append(hit)
    return kept


def _allowed(index: Index, where: Where) -> set[str] | None:
    """The stored paths of files that fulfil the conditions; None for all."""
    if not where:
        return None
    files = index.facts()
    return set(files.filter(mask_of_files(index, files, where)).column("path").to_pylist())


def _nearest(index: Index, query: SearchQuery, vector_D: FloatArray, wanted: int, *, exact: bool) -> Hits:
    """The hits by cosine; those of a text with its fit."""
    hits = _by_vector(index, query, vector_D, wanted, exact=exact)
    if not hits or not query.words:
        return hits
    return Hits(hits, with_fit(index, hits.info, hits[0].score))


def _by_vector(index: Index, query: SearchQuery, vector_D: FloatArray, wanted: int, *, exact: bool) -> Hits:
    options: dict[str, Any] = {"one_per_file": not query.every_window, "exact": exact}
    if query.where:
        options["mask_F"] = lambda files: mask_of_files(index, files, query.where)
    if query.without:
        is_other = _is_other(index, query)
        options["include"] = lambda row: is_other(row.path)

    def search(count: int) -> Hits:
        return index.search(vector_D, count, **options)

    hits, fetched = search(wanted), wanted
    while query.every_window:
        kept = without_overlaps(hits)
        if len(kept) >= wanted or len(hits) < fetched:
            return Hits(kept[:wanted], hits.info)
        fetched *= 2
        hits = search(fetched)
    return hits


def _by_words(index: Index, query: SearchQuery, wanted: int) -> Hits:
    paths = _named(index, query, query.words, wanted)
    rows = index.files(paths)
    hits = [rows[path].hit(0.0, rows[path].duration_s, 0.0) for path in paths if path in rows]
    return Hits(hits, SearchInfo("keywords", 0, 0))


def _named(index: Index, query: SearchQuery, words: str, most: int) -> list[str]:
    """The stored paths of the files that the words find, best first."""
    found = index.find_by_keywords(words, most + len(query.without), _allowed(index, query.where))
    return list(filter(_is_other(index, query), found))[:most]


def _is_other(index: Index, query: SearchQuery) -> Callable[[str], bool]:
    """Whether a stored path is none of the files that are no hits."""
    if not query.without:
        return lambda path: True
    moved = index.moved_roots()
    return lambda path: os.path.realpath(relocated(path, moved)) not in query.without


def _words_to_fuse(index: Index, query: SearchQuery) -> str:
    """Words by which files are ranked too; "" for none. A query by a sound has none."""
    if query.keywords == "auto" and query.words:
        return " ".join(index.rare_words(query.words, RARE))
    return query.words if query.keywords == "fused" else ""


def _fused(index: Index, query: SearchQuery, vector_D: FloatArray, words: str, wanted: int, *, exact: bool) -> Hits:
    """Reciprocal rank fusion of the ranking by cosine and the ranking by words. Of a file with several hits the best
    one gets the rank of its words."""
    depth = max(_FUSED_AT_LEAST, 1 << (2 * wanted).bit_length())
    by_vector = _nearest(index, query, vector_D, depth, exact=exact)
    paths = _named(index, query, words, depth)
    by_words = {path: rank for rank, path in enumerate(paths, start=1)}
    only_words = set(by_words) - {hit.path for hit in by_vector}
    more = index.search(vector_D, len(only_words), mask_F=_among(only_words), exact=exact) if only_words else []
    fused: list[tuple[float, int, Hit]] = []
    for rank, hit in enumerate((*by_vector, *more), start=1):
        of_vector = _reciprocal(rank) if rank <= len(by_vector) else 0.0
        of_words = _reciprocal(by_words.pop(hit.path)) if hit.path in by_words else 0.0
        fused.append((-of_vector - of_words, rank, hit))
    # A sound that is named so is there, whatever its cosine.
    info = replace(
        by_vector.info,
        keywords=tuple(split_words(words)),
        probably_nothing=by_vector.info.probably_nothing and not paths,
    )
    return Hits([hit for _, _, hit in sorted(fused, key=lambda entry: entry[:2])][:wanted], info)


def _among(paths: set[str]) -> Callable[[Any], Bools]:
    return lambda files: np.array([path in paths for path in files["path"].to_pylist()], bool)


def _reciprocal(rank: int) -> float:
    return 1.0 / (FUSION_CONSTANT + rank)


def as_found(index: Index, hits: Sequence[Hit]) -> list[Hit]:
    """Hits with the paths that their files have now: those of roots that moved together with the index."""
    moved = index.moved_roots()
    return [replace(hit, path=relocated(hit.path, moved)) for hit in hits] if moved else list(hits)
