"""Search over HTTP: by text, by an uploaded sound, by an indexed sound or a part of one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, File, Form, Request, UploadFile

from openclap.server.batching import Task
from openclap.server.errors import ApiError
from openclap.server.inputs import Upload
from openclap.server.schemas import (
    HitObject,
    IndexesResponse,
    IndexObject,
    SearchRequest,
    SearchResponse,
    check_part,
)
from openclap.server.service import ServedIndex, Service
from openclap.server.sounds import Peaker, indexed_file, part_of
from openclap.types import Hit


def router(service: Service, peaker: Peaker) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(tags=["Search"])

    @routes.get("/v1/indexes", operation_id="list_indexes")
    async def list_indexes(request: Request) -> IndexesResponse:
        """List the served indexes; the first is the default."""

        def work(task: Task) -> IndexesResponse:
            return IndexesResponse(data=[_index_object(index) for index in service.indexes.values()])

        return await service.run(request, "text", work)

    @routes.post("/v1/search", operation_id="search")
    async def search(body: SearchRequest, request: Request) -> SearchResponse:
        """Find sounds by describing them, or sounds that are similar to an indexed one."""
        index = service.index(body.index)
        if body.text is not None and len(body.text) > service.limits.characters:
            raise ApiError(400, f"The text has more than {service.limits.characters:,} characters.", param="text")

        def work(task: Task) -> list[Hit]:
            count = body.k + body.offset
            if body.text is not None:
                return index.library_of(task).search(body.text, count)
            with indexed_file(index, body.path or "") as (row, file):
                part = part_of(file, row.path, body.start_s, body.end_s, service.limits.audio_s)
                vector_D = index.model.embedder_of(task, service.limits.audio_s).embed_audio([part])[0]
            return index.library.index.search(vector_D, count, include=lambda other: other.path != row.path)

        hits = await service.run(request, "text" if body.text is not None else "audio", work)
        return _answer(index, hits[body.offset :], peaker)

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
    ) -> SearchResponse:
        """Find sounds that are similar to an uploaded one, or to a part of it. The upload is not stored."""
        served = service.index(index)
        try:
            check_part(start_s, end_s)
        except ValueError as error:
            raise ApiError(400, f"{error}.", param="start_s") from None

        def work(task: Task) -> list[Hit]:
            upload = Upload(file.file, file.filename)
            part = part_of(upload, upload.name, start_s, end_s, service.limits.audio_s)
            vector_D = served.model.embedder_of(task, service.limits.audio_s).embed_audio([part])[0]
            return served.library.index.search(vector_D, k + offset)

        hits = await service.run(request, "audio", work)
        return _answer(served, hits[offset:], peaker)

    return routes


def _answer(index: ServedIndex, hits: list[Hit], peaker: Peaker) -> SearchResponse:
    peaker.prepare(index, [hit.path for hit in hits])
    return SearchResponse(index=index.name, hits=[HitObject(**asdict(hit)) for hit in hits])


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
        folders=[str(folder) for folder in index.folders],
    )
