"""Search over HTTP: by text, by an uploaded sound, by an indexed sound or a part of one. D embedding."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, File, Form, Query, Request, UploadFile

from openclap.audio.inputs import Sound, blocks
from openclap.audio.io import decoded, to_mono
from openclap.audio.mono import Cancellation, MonoConfig, is_silent
from openclap.library import combined_vector
from openclap.search.index import Hits
from openclap.search.queries import SearchQuery, find
from openclap.search.rows import FloatArray, unit_vector
from openclap.server.batching import ModelTask
from openclap.server.errors import ApiError
from openclap.server.index_schemas import (
    Facets,
    FacetValue,
    HitObject,
    IndexesResponse,
    IndexObject,
    SearchInfoObject,
    SearchRequest,
    SearchResponse,
    where_of,
)
from openclap.server.inputs import IndexName, Upload, check_texts, check_times
from openclap.server.schemas import Expression, Text
from openclap.server.service import ServedIndex, Service
from openclap.server.sounds import Peaker, indexed_file, part_of, read_part, row_of


def router(service: Service, peaker: Peaker) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(tags=["Search"])

    @routes.get("/v1/indexes", operation_id="list_indexes")
    async def list_indexes(request: Request) -> IndexesResponse:
        """List the served indexes; the first is the default."""

        def work(task: ModelTask) -> IndexesResponse:
            return IndexesResponse(data=[_index_object(index) for index in service.indexes.values()])

        return await service.run(request, "text", work)

    @routes.post("/v1/search", operation_id="search")
    async def search(body: SearchRequest, request: Request) -> SearchResponse:
        """Find sounds by describing them, or sounds that are similar to an indexed one."""
        index, where = service.index(body.index), where_of(body.where)
        check_texts(body.texts, "text", service)

        def work(task: ModelTask) -> Hits:
            if body.text is not None:
                return index.library_of(task).search(
                    body.text,
                    body.k,
                    where=where,
                    keywords=body.keywords,
                    every_window=body.every_window,
                    offset=body.offset,
                    exact=body.exact,
                )
            row = row_of(index, body.path or "")
            vector_D = vector_of_sound(
                index, task, row.path, start_s=body.start_s, end_s=body.end_s, longest_s=service.limits.audio_s
            )
            own = frozenset([os.path.realpath(row.path)])
            query = SearchQuery(vector_D, where=where or (), every_window=body.every_window, without=own)
            return find(index.library.index, query, body.k, body.offset, exact=body.exact)

        return _answer(index, await service.run(request, "text" if body.texts else "audio", work), peaker)

    @routes.post("/v1/search/sound", operation_id="search_by_sound")
    async def search_by_sound(
        *,
        request: Request,
        file: Annotated[UploadFile, File(description="A sound in any format.")],
        index: Annotated[str | None, Form()] = None,
        k: Annotated[int, Form(ge=1, le=1000)] = 10,
        offset: Annotated[int, Form(ge=0, le=9000)] = 0,
        start_s: Annotated[float | None, Form(ge=0, le=1e9, allow_inf_nan=False)] = None,
        end_s: Annotated[float | None, Form(ge=0, le=1e9, allow_inf_nan=False)] = None,
        where: Annotated[
            list[Expression] | None, Form(max_length=100, description="Expressions: duration_s<10.")
        ] = None,
        every_window: Annotated[bool, Form()] = False,
        exact: Annotated[bool, Form(description="Compare every window, also in a large index.")] = False,
        without: Annotated[
            list[Text] | None, Form(max_length=100, description="Real paths of sounds that are no hits.")
        ] = None,
    ) -> SearchResponse:
        """Find sounds that are similar to an uploaded one, or to a part of it. The upload is not stored."""
        served = service.index(index)
        check_times(start_s, end_s)

        def work(task: ModelTask) -> tuple[Hits, str | None]:
            upload, longest_s = Upload(file.file, file.filename), service.limits.audio_s
            # What comes before the part is decoded as well, and an upload may decode to days.
            if start_s is not None and start_s >= longest_s:
                raise ApiError(400, f"start_s is {start_s:g}, and the limit is {longest_s:g} s.", param="start_s")
            part = part_of(upload, upload.name, start_s, end_s, longest_s)
            embedder = served.model.embedder_of(task, longest_s)
            query = SearchQuery(
                combined_vector(embedder.embed_audio([part]), {upload.name: 1.0}),  # as `Library.similar`
                where=where or (),
                every_window=every_window,
                without=frozenset(without or ()),
            )
            return find(served.library.index, query, k, offset, exact=exact), warning_of(
                part, embedder.sample_rate, embedder.mono
            )

        hits, warning = await service.run(request, "audio", work)
        return _answer(served, hits, peaker, warning)

    @routes.get("/v1/facets", operation_id="facets")
    async def facets(
        request: Request,
        fact: Annotated[str, Query(description="The name of a fact: tags, category, folder, rate, licence, …")],
        index: IndexName = None,
        where: Annotated[
            list[Expression] | None, Query(max_length=100, description="Expressions: duration_s<10.")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
    ) -> Facets:
        """Count the values of a fact over the files that fulfil the conditions."""
        served = service.index(index)
        counts = await service.run(request, "files", lambda task: served.library.facets(fact, where))
        return Facets(fact=fact, values=[FacetValue(value=value, count=count) for value, count in counts[:limit]])

    return routes


def _answer(index: ServedIndex, hits: Hits, peaker: Peaker, warning: str | None = None) -> SearchResponse:
    peaker.prepare(index, hits)
    objects = [HitObject(**asdict(hit)) for hit in hits]
    return SearchResponse(
        index=index.name, hits=objects, info=SearchInfoObject(**hits.info.as_object()), warning=warning
    )


def vector_of_sound(
    index: ServedIndex, task: ModelTask, path: str, *, start_s: float | None, end_s: float | None, longest_s: float
) -> FloatArray:
    """The unit vector (D,) of an indexed sound, or of a part of it. Those of whole sounds and of windows are stored, so
    only other parts are decoded and embedded. Raises as `read_part`."""
    stored = index.library.index
    if start_s is None and end_s is None:
        return stored.vector_of(path)
    vector_D = stored.window_vector(path, start_s or 0.0, end_s)
    if vector_D is not None:
        return vector_D
    with indexed_file(index, path) as (row, file):
        part = read_part(file, row.path, start_s or 0.0, end_s, longest_s)
    embedded_D = index.model.embedder_of(task, longest_s).embed_audio([part])[0]
    return unit_vector(embedded_D, stored.identity.dim)


def warning_of(sound: Sound, rate: int, mono: MonoConfig) -> str | None:
    """The sentence of a sound whose hits mean little, since it is silent or its channels cancel each other."""
    cancellation = Cancellation()
    for wave_NC, _ in [sound] if isinstance(sound, tuple) else decoded(sound):
        cancellation.add(wave_NC, to_mono(wave_NC))
    if cancellation.found and mono.channels == "mean":
        return cancellation.sentence
    if all(is_silent(wave_N) for wave_N in blocks(sound, rate, "the sound", mono)):
        return "It is silent (below -80 dBFS)."
    return None


def _index_object(index: ServedIndex) -> IndexObject:
    opened = index.library.index
    files, windows = opened.count()
    return IndexObject(
        name=index.name,
        model=index.model.name,
        files=files,
        windows=windows,
        precision=opened.identity.precision,
        channels=opened.identity.channels,
        trim_silence=opened.identity.trim_silence,
        folders=list(map(str, index.folders)) or [root.path for root in opened.header().roots],
    )
