"""Duplicates of an index over HTTP: groups to review, found in the background, and their judgements."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from openclap.recording_comparison import duplicates_of
from openclap.search.duplicates import (
    DuplicateGroup,
    add_judgement,
    is_judged,
    judged_file,
    page_of,
    read_judged,
)
from openclap.search.index import Index
from openclap.server.batching import ModelTask
from openclap.server.errors import ApiError
from openclap.server.index_schemas import DuplicatesResponse, DuplicatesState, GroupJudgement
from openclap.server.inputs import IndexName
from openclap.server.jobs import Job
from openclap.server.schemas import Status
from openclap.server.service import ServedIndex, Service

MOST_SKIPPED = 100
"""Pairs that could not be compared in an answer."""


class DuplicatesJob(Job[DuplicatesState]):
    """The latest search for the duplicates of an index, and its `found`: groups, and pairs that were skipped."""

    def __init__(self, index: ServedIndex) -> None:
        idle = DuplicatesState(index=index.name, state="idle")
        super().__init__(index, idle, f"The sounds of the index {index.name} are being compared already.")
        self.found: tuple[list[DuplicateGroup], list[tuple[str, str]]] = [], []

    def work(self, task: ModelTask) -> dict[str, Any]:
        """Compare the sounds of the index. Results of pairs are cached, so that the next run resumes."""
        # Tables of its own: those of the served index are read by requests meanwhile.
        index = Index.open(self.index.library.index.address)
        self.found = duplicates_of(index, progress=self.advance(task))
        return {}

    def judge(self, group_id: str, *, judged: bool) -> None:
        """Store a judgement. Raises ApiError for an id that the latest run did not find, DataError for a full disk."""
        group = next((group for group in self.found[0] if group.id == group_id), None)
        if group is None:
            raise ApiError(404, "There is no such group. Use an id of GET /v1/duplicates.", param="id")
        add_judgement(judged_file(self.index.library.index), group, judged=judged)

    def answer(self, page: int, page_size: int, *, with_judged: bool) -> DuplicatesResponse:
        """A page of the groups. Raises DataError where the judgements cannot be read."""
        state, (groups, skipped) = self.state, self.found
        judged = read_judged(judged_file(self.index.library.index))
        listed = page_of(groups, skipped[:MOST_SKIPPED], judged, page, page_size, with_judged=with_judged)
        body = listed.as_object()
        for group, each in zip(listed.listed, body["listed"], strict=True):
            each["judged"] = is_judged(group, judged)
        return DuplicatesResponse(state=state, **body)


class DuplicatesJobs:
    """The jobs of a service, one an index."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._jobs = {name: DuplicatesJob(index) for name, index in service.indexes.items()}

    def of(self, index: str | None) -> DuplicatesJob:
        """The job of an index by the name in a request. Raises ApiError."""
        return self._jobs[self.service.index(index).name]

    def close(self) -> None:
        """Stop all runs."""
        for job in self._jobs.values():
            job.stop()


def router(jobs: DuplicatesJobs) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(tags=["Duplicates"])

    @routes.get("/v1/duplicates", operation_id="list_duplicates")
    async def list_duplicates(
        request: Request,
        index: IndexName = None,
        page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
        page_size: Annotated[int, Query(ge=1, le=1000)] = 20,
        judged: Annotated[bool, Query(description="With the judged groups.")] = False,
    ) -> DuplicatesResponse:
        """Groups of indexed files that are the same recording, as the latest run found them, the surest kinds first."""
        job = jobs.of(index)
        return await jobs.service.run(request, "files", lambda task: job.answer(page, page_size, with_judged=judged))

    @routes.post("/v1/duplicates", operation_id="find_duplicates", status_code=202)
    async def find_duplicates(index: IndexName = None) -> DuplicatesState:
        """Compare the sounds of an index in the background. The first run takes minutes, later ones reuse its results;
        `GET /v1/duplicates` and `GET /v1/indexing/events` show the progress."""
        return jobs.of(index).start()

    @routes.delete("/v1/duplicates", operation_id="stop_duplicates")
    async def stop_duplicates(index: IndexName = None) -> DuplicatesState:
        """Stop the run; the next one goes on from there."""
        return await asyncio.to_thread(jobs.of(index).stop)

    @routes.post("/v1/duplicates/judgements", operation_id="judge_duplicates")
    async def judge_duplicates(body: GroupJudgement, request: Request) -> Status:
        """Judge a group, so that it is not listed again, by `openclap duplicates` either. No file is changed."""
        job = jobs.of(body.index)
        await jobs.service.run(request, "files", lambda task: job.judge(body.id, judged=body.judged))
        return Status()

    return routes
