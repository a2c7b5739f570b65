"""Counts of all filters at once, and suggestions of queries that an index answers well. Both are cached until the index
changes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import APIRouter, Query, Request

from openclap.errors import OpenClapError
from openclap.search.background import descriptions
from openclap.search.filters import facets, mask_of
from openclap.search.fit import read_background
from openclap.search.index import Index
from openclap.search.labels import labels_stamp, update_labels, with_labels
from openclap.search.rows import FloatArray
from openclap.server.batching import ModelTask
from openclap.server.errors import ApiError
from openclap.server.index_schemas import FacetValue, where_of
from openclap.server.inputs import IndexName
from openclap.server.page_schemas import DurationRange, Overview, OverviewRequest, Suggestion, Suggestions
from openclap.server.service import ServedIndex, Service

T = TypeVar("T")

FACTS = ("folder", "category", "labels", "tags", "licence", "rate", "channels", "format")
"""The facts that the page filters by, besides the length."""
MOST_VALUES = 500
"""Values of a fact that are listed: the most frequent."""
DURATIONS = (None, 1.0, 5.0, 15.0, 60.0, 300.0, None)
"""Bounds of the ranges of length, in seconds."""
_MOST_CACHED = 256
_AT_ONCE = 8
"""Descriptions of labels that are embedded at once while others search."""
_WEAKEST = 0.5
"""Part of the background descriptions that are not suggested, since their best hits are weaker than those of others."""


class Cache:
    """Results that are valid until the index changes: its table of facts is then another object."""

    def __init__(self) -> None:
        self._facts: object = None
        self._results: dict[str, Any] = {}
        self._lock = threading.Lock()

    def get(self, index: Index, key: str, compute: Callable[[Any], T]) -> T:
        """The stored result of `compute`, which gets the table of facts."""
        facts = index.facts()
        with self._lock:
            if facts is not self._facts or len(self._results) > _MOST_CACHED:
                self._facts, self._results = facts, {}
            results = self._results
            if key in results:
                return results[key]  # type: ignore[no-any-return]
        result = results[key] = compute(facts)
        return result


def router(service: Service) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(tags=["Search"])
    caches = {name: Cache() for name in service.indexes}
    labelled: set[str] = set()

    @routes.post("/v1/facets/overview", operation_id="facets_overview")
    async def facets_overview(body: OverviewRequest, request: Request) -> Overview:
        """Count the files that fulfil the conditions, by every fact that the page filters by."""
        index = service.index(body.index)
        if isinstance(body.where, list):
            raise ApiError(400, "where is a list here, expected values by fact.", param="where")
        where = body.where or {}
        opened = index.library.index
        key = body.model_dump_json(include={"where"})

        def work(task: ModelTask) -> Overview:
            stamp = labels_stamp(opened)
            if stamp is None and index.name not in labelled:  # of an older version, which had no labels
                labelled.add(index.name)
                if not service.in_background(lambda: _label(index)):
                    labelled.discard(index.name)  # the next request tries again
            return caches[index.name].get(
                opened, f"{stamp} {opened.moved_roots()} {key}", lambda facts: overview(opened, facts, where)
            )

        return await service.run(request, "files", work)

    @routes.get("/v1/suggestions", operation_id="suggestions")
    async def suggestions(
        request: Request,
        index: IndexName = None,
        text: Annotated[str, Query(max_length=200, description="The beginning of a query; empty for any.")] = "",
        limit: Annotated[int, Query(ge=1, le=100)] = 8,
    ) -> Suggestions:
        """Queries that this index answers well: its own captions, tags and categories, and descriptions whose best hit
        is better than those of most others."""
        served = service.index(index)
        values = await service.run(request, "files", lambda task: _suggestions(served, caches[served.name]))
        return Suggestions(values=beginning_with(values, text)[:limit])

    return routes


def _label(index: ServedIndex) -> None:
    """Label the sounds of an index. The page does without where it cannot be written."""
    embedder = index.model.embedder_of(ModelTask())

    def embed(texts: Sequence[str]) -> FloatArray:  # few at once, or queries would wait for all of them
        parts = [embedder.embed_text(texts[first : first + _AT_ONCE]) for first in range(0, len(texts), _AT_ONCE)]
        return np.concatenate(parts)

    with suppress(OpenClapError):
        update_labels(index.library.index, embed, embedder.runtime.logit_scale)


def overview(index: Index, facts: Any, where: Mapping[str, Any]) -> Overview:
    """The counts of all facts over the table of an index. Raises ConfigError for a condition that cannot be read."""
    files = with_labels(index, facts, always=True)
    present = index.with_present_paths(files)

    def mask(without: str) -> Any:
        rest = where_of({fact: value for fact, value in where.items() if fact != without})
        return mask_of(files, rest or {}, present)

    counts = {
        fact: [FacetValue(value=value, count=count) for value, count in facets(present, fact, mask(fact))[:MOST_VALUES]]
        for fact in FACTS
    }
    length_F = facts.column("duration_s").to_numpy()[mask("duration_s")]
    ranges = [
        DurationRange(low=low, high=high, count=int(((length_F >= (low or 0)) & (length_F <= (high or np.inf))).sum()))
        for low, high in pairwise(DURATIONS)
    ]
    return Overview(total=int(mask("").sum()), facets=counts, durations=ranges)


def beginning_with(values: list[Suggestion], text: str) -> list[Suggestion]:
    """The suggestions with a word that begins with `text`; those that begin with it themselves first."""
    wanted = " ".join(text.casefold().split())
    at_start, inside = [], []
    for value in values:
        words = value.text.casefold()
        if words == wanted:
            continue
        if words.startswith(wanted):
            at_start.append(value)
        elif f" {wanted}" in words:
            inside.append(value)
    return at_start + inside


def _suggestions(index: ServedIndex, cache: Cache) -> list[Suggestion]:
    return cache.get(index.library.index, "suggestions", lambda facts: _compute_suggestions(index, facts))


def _compute_suggestions(index: ServedIndex, facts: Any) -> list[Suggestion]:
    """Descriptions and own texts in turn, so that an index of many captions shows both."""
    own: list[Suggestion] = []
    for fact, kind in (("caption", "caption"), ("tags", "tag"), ("category", "category")):
        own += [Suggestion(text=str(value), kind=kind, count=count) for value, count in facets(facts, fact)[:5000]]  # type: ignore[arg-type]
    described = [Suggestion(text=text, kind="description", count=0) for text in _well_answered(index.library.index)]
    mixed = [each for pair in zip(described, own, strict=False) for each in pair]
    rest = described[len(own) :] + own[len(described) :]
    return list({each.text.casefold(): each for each in reversed(mixed + rest)}.values())[::-1]


def _well_answered(index: Index) -> list[str]:
    """Descriptions of the background, the one with the best hit first; none where the index has no background."""
    background = read_background(index)
    best_B = None if background is None else index.best_scores(background.vectors_BD.astype(np.float32))
    if best_B is None:
        return []
    order = np.argsort(-best_B, kind="stable")[: int(len(best_B) * _WEAKEST)]
    texts = descriptions()
    return [texts[number] for number in order]
