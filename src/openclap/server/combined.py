"""Search by several texts and sounds at once, with weights; and the embeddings of uploads for such a search.

D embedding.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import PurePath
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, File, Form, Request, UploadFile

from openclap.audio.io import describe
from openclap.library import combined_vector
from openclap.search.filters import Where
from openclap.search.fit import Background, read_background
from openclap.search.index import Hits, Index, SearchInfo
from openclap.search.keywords import FUNCTION_WORDS, split_words
from openclap.search.labels import labels_of
from openclap.search.queries import SearchQuery, as_found, find, mask_of_files
from openclap.search.ranking import Bools
from openclap.search.rows import FloatArray, file_rows, unit_vector
from openclap.server.batching import ModelTask
from openclap.server.errors import ApiError
from openclap.server.index_schemas import SearchInfoObject, where_of
from openclap.server.inputs import Upload, check_texts
from openclap.server.page_schemas import CombinedHit, CombinedRequest, CombinedResponse, SoundEmbedding, Term
from openclap.server.search import vector_of_sound, warning_of
from openclap.server.service import ServedIndex, Service
from openclap.server.sounds import Peaker, row_of, waveform
from openclap.types import Hit

UPLOAD_COLUMNS = 200
"""Columns of the waveform of an upload."""
_ENDING, _LONG_WORD = 3, 6
"""Letters at the end of a long word that may differ in a match: "barking" and "barks"."""


def router(service: Service, peaker: Peaker) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(tags=["Search"])

    @routes.post("/v1/search/combined", operation_id="search_combined")
    async def search_combined(body: CombinedRequest, request: Request) -> CombinedResponse:
        """Find sounds by several texts and sounds with weights, in pages of the whole ranking."""
        index, where = service.index(body.index), where_of(body.where) or ()
        check_texts(body.texts, "text", service)

        def work(task: ModelTask) -> tuple[Hits, int, Background | None, dict[str, tuple[str, ...]]]:
            hits, total, background = found(task)
            return hits, total, background, labels_of(index.library.index, [hit.path for hit in hits])

        def found(task: ModelTask) -> tuple[Hits, int, Background | None]:
            facts = index.library.index.facts()
            mask_F = mask_of_files(index.library.index, facts, where) & ~own_sounds(index.library.index, facts, body)
            total = int(mask_F.sum())
            if not body.terms:
                return browse(index, where, body.k, body.offset), total, None
            hits = _search(index, task, body, where, service.limits.audio_s)
            if body.keywords == "only":
                found = index.library.index.find_by_keywords(body.words, len(facts) or 1)
                allowed = set(facts.filter(mask_F).column("path").to_pylist())
                total = len(allowed.intersection(found))
            has_fit = len(body.texts) == len(body.terms) and body.keywords != "only"
            return hits, total, read_background(index.library.index) if has_fit else None

        has_sounds = any(term.path is not None for term in body.terms)
        hits, total, background, labels = await service.run(request, "audio" if has_sounds else "text", work)
        peaker.prepare(index, hits)
        return CombinedResponse(
            index=index.name,
            total=total,
            hits=[_hit_object(hit, body.words, background, labels.get(hit.path, ())) for hit in hits],
            info=SearchInfoObject(**hits.info.as_object()),
        )

    @routes.post("/v1/sounds/embedding", operation_id="embed_sound", tags=["Search"])
    async def embed_sound(
        *,
        request: Request,
        file: Annotated[UploadFile, File(description="A sound in any format.")],
        index: Annotated[str | None, Form()] = None,
    ) -> SoundEmbedding:
        """Embed an uploaded sound, for a search with other terms. The upload is not stored."""
        served = service.index(index)

        def work(task: ModelTask) -> SoundEmbedding:
            upload: Any = Upload(file.file, file.filename)
            embedder = served.model.embedder_of(task, service.limits.audio_s)
            [vector_D] = embedder.embed_audio([upload])  # first, since it bounds the length
            duration_s = describe(upload)[0]
            low_P, high_P = waveform(upload, duration_s, UPLOAD_COLUMNS)
            return SoundEmbedding(
                vector=vector_D.tolist(),
                duration_s=duration_s,
                low=low_P.tolist(),
                high=high_P.tolist(),
                warning=warning_of(upload, embedder.sample_rate, embedder.mono),
            )

        return await service.run(request, "audio", work)

    return routes


def browse(index: ServedIndex, where: Where, k: int, offset: int) -> Hits:
    """Files that fulfil the conditions, in the order of their paths; each as a hit of score 0 that covers the file."""
    import pyarrow.compute as pc

    facts = index.library.index.facts()
    chosen = facts.filter(mask_of_files(index.library.index, facts, where)) if where else facts
    order = pc.sort_indices(chosen.column("path"))[offset : offset + k]
    rows = file_rows(chosen.take(order))
    hits = as_found(index.library.index, [row.hit(0.0, row.duration_s, 0.0) for row in rows])
    return Hits(hits, SearchInfo("keywords", 0, 0))


def own_sounds(index: Index, facts: Any, body: CombinedRequest) -> Bools:
    """Which files of the table of an index are sounds of the query, which are no hits: (F,) booleans.

    A sound may be there under several paths, by links; then all have its content.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    sounds = _sounds_of(body)
    hashes = pa.array({row.hash for row in index.files(sounds).values()} if sounds else [], pa.string())
    same_F: Bools = pc.is_in(facts.column("hash"), value_set=hashes).to_numpy()
    places = np.flatnonzero(same_F)
    paths = index.with_present_paths(facts.take(places)).column("path").to_pylist()
    own = frozenset(map(os.path.realpath, sounds))
    same_F[places] = [os.path.realpath(path) in own for path in paths]
    return same_F


def _sounds_of(body: CombinedRequest) -> list[str]:
    return [term.path for term in body.terms if term.path is not None]


def _search(index: ServedIndex, task: ModelTask, body: CombinedRequest, where: Where, longest_s: float) -> Hits:
    """The hits of a query. Raises ApiError and as `find`."""
    own = frozenset(map(os.path.realpath, _sounds_of(body)))
    query = SearchQuery(
        vector=None if body.keywords == "only" else _vector(index, task, body.terms, longest_s),
        words=body.words,
        where=where,
        keywords=body.keywords if body.texts else "off",
        without=own,
    )
    hits = find(index.library.index, query, body.k, body.offset)
    if len(body.texts) == len(body.terms):
        return hits
    return Hits(hits, replace(hits.info, fit=None, probably_nothing=False))  # the background is of texts alone


def _vector(index: ServedIndex, task: ModelTask, terms: Sequence[Term], longest_s: float) -> FloatArray:
    """The weighted sum of the terms' unit vectors, (D,) of length 1. Raises ApiError and ConfigError."""
    texts = [term.text for term in terms if term.text is not None]
    embedder = index.model.embedder_of(task, longest_s)
    of_texts = iter(embedder.embed_text(texts) if texts else ())
    vectors = [next(of_texts) if term.text is not None else _of_sound(index, task, term, longest_s) for term in terms]
    return combined_vector(np.stack(vectors), {str(number): term.weight for number, term in enumerate(terms)})


def _of_sound(index: ServedIndex, task: ModelTask, term: Term, longest_s: float) -> FloatArray:
    """The unit vector (D,) of a term that is a sound. Raises ApiError, and as `vector_of_sound`."""
    dim = index.library.index.identity.dim
    if term.vector is not None:
        vector_D = np.asarray(term.vector, np.float32)
        if vector_D.shape != (dim,) or not 0 < float(np.linalg.norm(vector_D)) < np.inf:
            raise ApiError(
                400,
                f"The embedding of the sound has {len(vector_D)} numbers, and the index {index.name} needs "
                f"{dim}: it was made with another model. Give the sound again.",
                param="vector",
            )
        return unit_vector(vector_D, dim)
    path = row_of(index, term.path or "").path
    return vector_of_sound(index, task, path, start_s=term.start_s, end_s=term.end_s, longest_s=longest_s)


def _hit_object(hit: Hit, words: str, background: Background | None, labels: Sequence[str]) -> CombinedHit:
    fit = background.fit(hit.score) if background else None
    return CombinedHit(**asdict(hit), fit=fit, words=matching_words(hit, words), labels=list(labels))


def matching_words(hit: Hit, query: str) -> list[str]:
    """Words of a hit's name and facts that begin as a word of the query does: "barks" for "barking"."""
    single = (PurePath(hit.path).name, hit.title, hit.caption, hit.comment, hit.category, hit.subcategory)
    texts = filter(None, (*single, hit.artist, hit.album, *hit.tags, *hit.keywords))
    wanted = tuple(_stem(word) for word in split_words(query) if word not in FUNCTION_WORDS)
    return [word for word in dict.fromkeys(split_words(" ".join(texts))) if word.startswith(wanted)] if wanted else []


def _stem(word: str) -> str:
    return word[:-_ENDING] if len(word) >= _LONG_WORD else word.rstrip("s") or word
