"""When descriptions are heard in a recording, over HTTP."""

from __future__ import annotations

from dataclasses import asdict, replace

from fastapi import APIRouter, Request

from openclap import location
from openclap.server.batching import ModelTask
from openclap.server.inputs import check_texts, sound_of
from openclap.server.schemas import LocateRequest, LocateResponse, SpanObject
from openclap.server.service import Service
from openclap.text.prompts import LABEL


def router(service: Service) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(tags=["Embeddings"])

    @routes.post("/v1/locate", operation_id="locate")
    async def locate(body: LocateRequest, request: Request) -> LocateResponse:
        """Find when each label is heard in a recording.

        It needs the model in torch, which the first request loads where the server has it in another runtime.
        """
        model = service.model(body.model)
        check_texts(body.labels, "labels", service)

        def work(task: ModelTask) -> location.Location:
            sound = sound_of(body.input, "input", service)
            embedder = model.locator_of(task, service.limits.audio_s)
            rule = location.rule_of(embedder, is_present=body.present)
            if body.threshold is not None:
                rule = replace(rule, threshold=body.threshold)
            return location.locate(embedder, sound, body.labels, template=body.template or LABEL, rule=rule)

        found = await service.run(request, "audio", work)
        return LocateResponse(
            data=[SpanObject(**asdict(span)) for span in found.spans],
            duration_s=found.timeline.duration_s,
            unit=found.unit,
            model=model.name,
        )

    return routes
