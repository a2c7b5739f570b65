"""The HTTP application: routes, errors, middleware."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

import openclap
from openclap.errors import OpenClapError
from openclap.server import (
    collection_links,
    combined,
    duplicates,
    embeddings,
    errors,
    indexing,
    locating,
    overview,
    page,
    playback,
    search,
    sound_map,
    sounds,
    store,
)
from openclap.server.metrics import CONTENT_TYPE, MetricsMiddleware
from openclap.server.schemas import ErrorResponse, Health, SessionRequest, Status
from openclap.server.security import Access, SecurityMiddleware
from openclap.server.service import Service

ERRORS: dict[int | str, dict[str, object]] = {
    status: {"model": ErrorResponse, "description": description}
    for status, description in {
        400: "The request is invalid.",
        401: "The token is missing or wrong.",
        403: "The request comes from a page of another web site.",
        404: "There is no such model, index or sound.",
        408: "The body came too slowly.",
        409: "The sound or the index has changed.",
        413: "The body is too large.",
        415: "The body has another type.",
        421: "The header Host names another server.",
        429: "Too many requests are in progress; Retry-After says when to try again.",
        503: "The index or the model cannot be read.",
        504: "The answer took too long.",
    }.items()
}
"""The errors of every route, for OpenAPI."""


def create_app(service: Service, access: Access) -> FastAPI:
    """The ASGI application of a service. It closes the service when it stops."""
    jobs, duplicates_jobs = indexing.IndexingJobs(service), duplicates.DuplicatesJobs(service)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        jobs.close()
        duplicates_jobs.close()
        service.close()

    app = FastAPI(
        title="openclap",
        summary="Find sounds by describing them.",
        version=openclap.__version__,
        lifespan=lifespan,
        redoc_url=None,
        responses=ERRORS,
        exception_handlers={
            HTTPException: errors.answer_http_error,
            OpenClapError: errors.answer_library_error,
            RequestValidationError: errors.answer_invalid,
            Exception: errors.answer_failure,
        },
    )
    peaker = sounds.Peaker(service)
    app.include_router(embeddings.router(service))
    app.include_router(locating.router(service))
    app.include_router(search.router(service, peaker))
    app.include_router(sounds.router(service, peaker))
    app.include_router(store.router(service))
    app.include_router(collection_links.router(service, is_local=access.is_local))
    app.include_router(indexing.router(jobs, duplicates_jobs))
    app.include_router(duplicates.router(duplicates_jobs))
    app.include_router(combined.router(service, peaker))
    app.include_router(overview.router(service))
    app.include_router(sound_map.router(service))
    app.include_router(playback.router(service, can_reveal=access.is_local))
    app.include_router(page.router(service, can_reveal=access.is_local))
    _add_basics(app, service, access)
    app.add_middleware(SecurityMiddleware, access=access, limits=service.limits.body)
    app.add_middleware(MetricsMiddleware, metrics=service.metrics)
    app.state.jobs = jobs
    return app


def _add_basics(app: FastAPI, service: Service, access: Access) -> None:
    @app.get("/health", tags=["Server"], operation_id="health")
    async def health() -> Health:
        """Whether the server runs; needs no token."""
        return Health(unix=time.time())

    @app.get("/metrics", tags=["Server"], operation_id="metrics", response_class=Response)
    def metrics() -> Response:
        """Counters and times in Prometheus' text format."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    @app.post("/session", tags=["Server"], response_model=Status, operation_id="open_session")
    async def open_session(body: SessionRequest, request: Request) -> JSONResponse:
        """Exchange the token for a cookie, which audio elements and event streams send by themselves."""
        if access.token is not None and not access.is_token(body.token):
            raise errors.ApiError(401, "The token is wrong.", "authentication_error")
        response = JSONResponse({"status": "ok"})
        response.set_cookie(
            access.cookie_name(request.scope),
            access.cookie,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    @app.delete("/session", tags=["Server"], response_model=Status, operation_id="close_session")
    async def close_session(request: Request) -> JSONResponse:
        """Delete the cookie."""
        response = JSONResponse({"status": "ok"})
        response.delete_cookie(access.cookie_name(request.scope), httponly=True, samesite="strict")
        return response
