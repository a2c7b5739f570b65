"""Metrics of the server in Prometheus' format."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from openclap.server.batching import Modality
    from openclap.server.service import Service

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SIZES = (1, 2, 4, 8, 16, 32, 64)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "openclap_requests_total", "Requests by route and status.", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "openclap_request_seconds",
            "Time until the end of the response.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch_size = Histogram(
            "openclap_batch_size", "Inputs in a forward pass.", ["modality"], buckets=_SIZES, registry=self.registry
        )
        self.batch_seconds = Histogram(
            "openclap_batch_seconds", "Time of a forward pass.", ["modality"], buckets=_SECONDS, registry=self.registry
        )
        self._in_progress = Gauge("openclap_requests_in_progress", "Requests that use threads.", registry=self.registry)
        self._queue = Gauge(
            "openclap_queue_length", "Inputs that wait for a model.", ["model", "modality"], registry=self.registry
        )

    def observe_batch(self, modality: Modality, size: int, seconds: float) -> None:
        """Count a forward pass."""
        self.batch_size.labels(modality).observe(size)
        self.batch_seconds.labels(modality).observe(seconds)

    def watch(self, service: Service) -> None:
        """Read the queues whenever the metrics are."""
        self._in_progress.set_function(lambda: service.in_progress)
        modalities: tuple[Modality, ...] = ("audio", "text", "moments")
        for model in service.models.values():
            for modality in modalities:
                self._queue.labels(model.name, modality).set_function(partial(model.thread.waiting, modality))

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class MetricsMiddleware:
    """Counts requests and their times, by route: refused requests and paths that do not exist share one label, or they
    could fill memory."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, began = 500, time.monotonic()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", "other")  # set by FastAPI
            self.metrics.requests.labels(route, status).inc()
            self.metrics.seconds.labels(route).observe(time.monotonic() - began)
