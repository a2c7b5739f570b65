"""Bring served indexes up to date with their folders, and show the progress as server-sent events."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import CancelledError

from fastapi import APIRouter, Request
from sse_starlette import EventSourceResponse, ServerSentEvent

from openclap.embedder import Embedder
from openclap.errors import OpenClapError
from openclap.library import Library
from openclap.search.index import Index
from openclap.search.scan import ScanReport
from openclap.server.batching import BatchedRuntime, ModelTask
from openclap.server.errors import ApiError
from openclap.server.inputs import IndexName
from openclap.server.schemas import IndexingState
from openclap.server.service import ServedIndex, Service

EVENT_S = 0.25
"""Least time between two events."""


class IndexingJob:
    """The latest run over the folders of an index, in a thread of its own."""

    def __init__(self, index: ServedIndex) -> None:
        self.index = index
        self.state = IndexingState(index=index.name, state="idle")
        self._task = ModelTask()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> IndexingState:
        """Start a run. Raises ApiError when one is running, or the index has no folders."""
        if not self.index.folders and not self.index.library.index.header().roots:
            raise ApiError(409, f"No folder was added to the index {self.index.name}. Add one with openclap index add.")
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                raise ApiError(409, f"The index {self.index.name} is being brought up to date already.")
            self._task = ModelTask()
            self.state = IndexingState(index=self.index.name, state="running")
            self._thread = threading.Thread(target=self._run, args=(self._task,), name="indexing", daemon=True)
            self._thread.start()
        return self.state

    def stop(self) -> IndexingState:
        """Stop the run after the files that are being embedded; what was committed stays."""
        self._task.cancel()
        if self._thread is not None:
            self._thread.join()
        return self.state

    def _run(self, task: ModelTask) -> None:
        try:
            report = self._add(task)
        except CancelledError:
            self._update(state="stopped", message="It was stopped; the next run goes on from here.")
        except OpenClapError as error:
            self._update(state="failed", message=str(error))
        except Exception:
            self._update(state="failed", message="The server failed. Its log says why.")
            raise
        else:
            counts = {name: getattr(report, name) for name in ("added", "unchanged", "moved", "removed")}
            skipped = len(report.skipped)
            first = f"{report.skipped[0][0]}: {report.skipped[0][1]}" if skipped else None
            self._update(state="done", skipped=skipped, message=first, **counts)

    def _add(self, task: ModelTask) -> ScanReport:
        # Tables of its own: those of the served index are read by requests meanwhile.
        model = self.index.model
        embedder = Embedder(BatchedRuntime(model.thread, task), mono=model.embedder.mono)
        library = Library(Index.open(self.index.library.index.folder), embedder)

        def progress(done: int, total: int) -> None:
            if task.is_cancelled:
                raise CancelledError
            self._update(done=done, total=total)

        def seconds(more: float) -> None:
            self._update(seconds=self.state.seconds + more)

        if self.index.folders:
            return library.add(self.index.folders, progress=progress, seconds=seconds)
        return library.update(progress=progress, seconds=seconds)

    def _update(self, **changes: object) -> None:
        self.state = self.state.model_copy(update=changes)


class IndexingJobs:
    """The jobs of a service, one an index."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._jobs = {name: IndexingJob(index) for name, index in service.indexes.items()}

    def of(self, index: str | None) -> IndexingJob:
        """The job of an index by the name in a request. Raises ApiError."""
        return self._jobs[self._service.index(index).name]

    def start_all(self) -> None:
        """Start a run for every index that has folders."""
        for job in self._jobs.values():
            if job.index.folders:
                job.start()

    def close(self) -> None:
        """Stop all runs."""
        for job in self._jobs.values():
            job.stop()


def router(jobs: IndexingJobs) -> APIRouter:
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

    @routes.get("/v1/indexing/events", operation_id="indexing_events", response_class=EventSourceResponse)
    async def indexing_events(request: Request, index: IndexName = None) -> EventSourceResponse:
        """The state, and each change of it, as server-sent events `indexing`; an endless stream."""
        job = jobs.of(index)

        async def events() -> AsyncIterator[ServerSentEvent]:
            sent: IndexingState | None = None
            while True:
                if (state := job.state) is not sent:
                    sent = state
                    yield ServerSentEvent(state.model_dump_json(), event="indexing")
                await asyncio.sleep(EVENT_S)

        return EventSourceResponse(events(), ping=15)

    return routes
