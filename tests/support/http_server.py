"""A configurable HTTP server on this machine's loopback, for all tests that need one.

A test server is a subclass of `HttpServer` with a method `handle`, which gets one `Exchange` a request: it reads
`exchange.request` and answers with `send`, `send_json`, or piece by piece with `head` and `trickle`.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Request:
    """One request: unquoted path without the query, headers by lower-case name, and when it began and ended."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    started: float
    ended: float | None = None

    @property
    def start(self) -> int:
        """The first requested byte."""
        return int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])

    def json(self) -> Any:
        return json.loads(self.body)


class Exchange(BaseHTTPRequestHandler):
    """One request with the means to answer it."""

    protocol_version = "HTTP/1.1"
    owner: HttpServer
    request_: Request

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)  # a proxy is sent a whole URL
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length") or 0))
        self.request_ = Request(self.command, unquote(url.path), query, headers, body, time.monotonic())
        self.owner.begin(self.request_)
        try:
            time.sleep(self.owner.pause_s)
            with suppress(ConnectionError):  # clients that go away are part of the tests
                self.owner.handle(self)
        finally:
            self.owner.end(self.request_)

    do_HEAD = do_POST = do_PUT = do_GET

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def send(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.head(status, {"Content-Length": str(len(body)), **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_json(self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def trickle(self, body: bytes, size: int = 4096, wait_s: float = 0.0) -> None:
        """Write part of a body in pieces, `wait_s` apart."""
        for start in range(0, len(body), size):
            self.wfile.write(body[start : start + size])
            time.sleep(wait_s)


class HttpServer:
    """A server in background threads; `with Subclass() as server:` runs it. With `tls` it speaks https.

    Attributes:
        host: how its URLs name it: "localhost" is another host to whoever counts by name.
        requests: all requests so far.
        pause_s: wait before each response.
        most_concurrent: the largest number of requests under way at the same time.
    """

    def __init__(self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.pause_s = 0.0
        self.most_concurrent = self._open = 0
        self._lock = threading.Lock()
        handler = type("Handler", (Exchange,), {"owner": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        self.root = f"{'https' if tls else 'http'}://{host}:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def handle(self, exchange: Exchange) -> None:
        """Answer one request; called from several threads."""
        raise NotImplementedError

    def begin(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)
            self._open += 1
            self.most_concurrent = max(self.most_concurrent, self._open)

    def end(self, request: Request) -> None:
        with self._lock:
            self._open -= 1
            request.ended = time.monotonic()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: clients that go away are part of the tests."""


def most_concurrent(*servers: HttpServer) -> int:
    """The largest number of requests that were under way at the same time at all servers together."""
    requests = [request for server in servers for request in server.requests]
    changes = [(request.started, 1) for request in requests] + [(request.ended or 0.0, -1) for request in requests]
    running = most = 0
    for _, change in sorted(changes):
        running += change
        most = max(most, running)
    return most
