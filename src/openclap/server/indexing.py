"""Bring served indexes up to date with their folders, and show the progress as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from sse_starlette import EventSourceResponse, ServerSentEvent

from openclap.embedder import Embedder
from openclap.library import Library
from openclap.search.index import Index
from openclap.server.batching import BatchedRuntime, ModelTask
from openclap.server.duplicates import DuplicatesJobs
from openclap.server.errors import ApiError
from openclap.server.index_schemas import IndexingState, JobState
from openclap.server.inputs import IndexName
from openclap.server.jobs import Job
from openclap.server.page_schemas import SkippedFiles, SkippedSound
from openclap.server.service import ServedIndex, Service

EVENT_S = 0.25
"""Least time between two events."""
MOST_SKIPPED = 1000
"""Skipped files in an answer: the first ones."""


class IndexingJob(Job[IndexingState]):
    """The latest run over the folders of an index, and its `skipped`: files that could not be read, and why."""

    def __init__(self, index: ServedIndex) -> None:
        idle = IndexingState(index=index.name, state="idle")
        super().__init__(index, idle, f"The index {index.name} is being brought up to date already.")
        self.skipped: list[tuple[str, str]] = []

    def start(self) -> IndexingState:
        """Start a run. Raises ApiError when one is running, or the index has no folders."""
        if not self.index.folders and not self.index.library.index.header().roots:
            raise ApiError(409, f"No folder was added to the index {self.index.name}. Add one with openclap index add.")
        return super().start()

    def work(self, task: ModelTask) -> dict[str, Any]:
        """Bring the index up to date; what was committed stays after a stop."""
        served, model = self.index.library.index, self.index.model
        embedder = Embedder(BatchedRuntime(model.thread, task), mono=model.embedder.mono)
        # Tables of its own: those of the served index are read by requests meanwhile. The identity is checked, since
        # the index may have been rebuilt with another model, whose embeddings must not be mixed with those of this one.
        library = Library(Index.open(served.address, served.identity), embedder)

        def seconds(more: float) -> None:
            self.update(seconds=self.state.seconds + more)

        if self.index.folders:
            report = library.add(self.index.folders, progress=self.advance(task), seconds=seconds)
        else:
            report = library.update(progress=self.advance(task), seconds=seconds)
        counts = {name: getattr(report, name) for name in ("added", "unchanged", "moved", "removed")}
        self.skipped = list(report.skipped)
        skipped = len(report.skipped)
        first = f"{report.skipped[0][0]}: {report.skipped[0][1]}" if skipped else None
        return counts | {"skipped": skipped, "message": first}


class IndexingJobs:
    """The jobs of a service, one an index."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._jobs = {name: IndexingJob(index) for name, index in service.indexes.items()}

    def of(self, index: str | None) -> IndexingJob:
        """The job of an index by the name in a request. Raises ApiError."""
        return self._jobs[self._service.index(index).name]

    def start_all(self) -> list[IndexingJob]:
        """Start a run for every index that was served by its folders, and return these jobs."""
        jobs = [job for job in self._jobs.values() if job.index.folders]
        for job in jobs:
            job.start()
        return jobs

    def close(self) -> None:
        """Stop all runs."""
        for job in self._jobs.values():
            job.stop()


def router(jobs: IndexingJobs, duplicates: DuplicatesJobs) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(tags=["Indexing"])

    @routes.get("/v1/indexing", operation_id="indexing_state")
    async def indexing_state(index: IndexName = None) -> IndexingState:
        """The state of the latest run."""
        return jobs.of(index).state

    @routes.post("/v1/indexing", operation_id="start_indexing", status_code=202)
    async def start_indexing(index: IndexName = None) -> IndexingState:
        """Bring an index up to date with the folders that it was served with."""
        return jobs.of(index).start()

    @routes.delete("/v1/indexing", operation_id="stop_indexing")
    async def stop_indexing(index: IndexName = None) -> IndexingState:
        """Stop the run; the next one goes on from there."""
        return await asyncio.to_thread(jobs.of(index).stop)

    @routes.get("/v1/indexing/skipped", operation_id="skipped_files")
    async def skipped_files(index: IndexName = None) -> SkippedFiles:
        """The files that the latest run could not index, and why."""
        skipped = jobs.of(index).skipped
        listed = [SkippedSound(path=path, reason=reason) for path, reason in skipped[:MOST_SKIPPED]]
        return SkippedFiles(count=len(skipped), files=listed)

    @routes.get("/v1/indexing/events", operation_id="indexing_events", response_class=EventSourceResponse)
    async def indexing_events(request: Request, index: IndexName = None) -> EventSourceResponse:
        """The states of indexing and of the search for duplicates, and each change of them, as server-sent events
        `indexing` and `duplicates`; an endless stream."""
        named: dict[str, Job[Any]] = {"indexing": jobs.of(index), "duplicates": duplicates.of(index)}

        async def events() -> AsyncIterator[ServerSentEvent]:
            sent: dict[str, JobState] = {}
            while True:
                for name, job in named.items():
                    if (state := job.state) is not sent.get(name):
                        sent[name] = state
                        yield ServerSentEvent(state.model_dump_json(), event=name)
                await asyncio.sleep(EVENT_S)

        return EventSourceResponse(events(), ping=15)

    return routes
