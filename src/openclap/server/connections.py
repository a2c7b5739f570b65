"""uvicorn's connections, bounded in time: a client that sends half a request, or reads no answer, would keep one for
ever, and there are `CONNECTIONS` of them."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS = 1000
"""Most connections at once; further ones get 503."""
HEAD_S = 10.0
"""Longest time for the head of a request."""
UNREAD_S = 300.0
"""Longest time for which a client reads nothing of an answer. A player that pauses longer asks for the rest again."""
SHUTDOWN_S = 10
"""Longest wait for requests in progress when the server stops."""


class TimedProtocol(H11Protocol):
    """A connection that is closed after `HEAD_S` without a whole head, and after `UNREAD_S` without progress of an
    answer. `SecurityMiddleware` bounds the time of bodies."""

    _head_timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head."""
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Wait for the rest of a head where its first bytes came; uvicorn's own timer is for no bytes at all."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting_for_head()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S, self.transport.abort)

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._unread_timer = self.loop.call_later(UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client read something."""
        self._stop_waiting_for_reader()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting_for_head()
        self._stop_waiting_for_reader()
        super().connection_lost(exc)

    def _stop_waiting_for_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_waiting_for_reader(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None


def server_of(app: FastAPI, **options: Any) -> uvicorn.Server:
    """The server of an application. `options` are further ones of `uvicorn.Config`."""
    config = uvicorn.Config(
        app,
        http=TimedProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=SHUTDOWN_S,
        **options,
    )
    return uvicorn.Server(config)
