"""Refuse requests that come from other web sites, without the token, or with bodies that are too large or too slow.

Any web site that a browser shows can send requests to this machine's loopback address. So a request must name this
server as its host (against DNS rebinding), must not come from a page of another origin, and, where there is a token,
must bring it, as `Authorization: Bearer TOKEN` or as the cookie that `POST /session` exchanges it for. Audio elements
and event streams cannot send headers, but do send cookies.

See docs/decisions/0018-a-server-on-loopback.md.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import secrets
import socket
import time
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openclap.errors import ConfigError
from openclap.server.errors import ApiError

LEAST_TOKEN = 16
"""Characters of the shortest token: a shorter one could be found by trying."""
OPEN_PATHS = frozenset({"/health", "/session"})
"""Paths that need no token: whether the server runs, and the exchange of the token for a cookie."""
PAGE_PATH, PAGE_FILES = "/", "/static/"
"""The page, and the beginning of its files' paths: they say nothing of the sounds, and need no token. Other sites may
link to the page."""
DOCS_PATHS = frozenset({"/docs"})
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""Headers of every response."""
POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
DOCS_POLICY = (
    "default-src 'self'; script-src 'unsafe-inline' https://cdn.jsdelivr.net; "
    "style-src 'unsafe-inline' https://cdn.jsdelivr.net; img-src data: https://fastapi.tiangolo.com; "
    "object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of all pages, and of /docs: FastAPI's page loads Swagger UI from a content network."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who may send requests.

    Attributes:
        token: what requests must bring; None for a server on loopback that needs none.
        hosts: further names of this server, besides localhost, this machine's name and all numeric addresses.
        cookie: the value of the cookie; a new one each time that the server starts.
        is_local: whether the server listens on loopback only, so that requests come from this machine.
    """

    token: str | None = None
    hosts: frozenset[str] = frozenset()
    cookie: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    is_local: bool = False

    def __post_init__(self) -> None:
        """Raise ConfigError for a token that is short, or that a header cannot carry."""
        if self.token is None:
            return
        if len(self.token) < LEAST_TOKEN or not self.token.isascii() or not self.token.isprintable():
            raise ConfigError(
                f"The token has {len(self.token)} characters, expected {LEAST_TOKEN} or more printable ones of ASCII. "
                'Make one with: python -c "import secrets; print(secrets.token_urlsafe())".'
            )
        if self.token != self.token.strip():
            raise ConfigError("The token begins or ends with a space, which headers cannot carry. Leave it out.")

    def check(self, scope: Scope) -> None:
        """Raise ApiError for a request that is refused."""
        headers = Headers(scope=scope)
        host = self._check_host(headers)
        if not _opens_page(scope, headers):
            _check_origin(headers, f"{scope.get('scheme', 'http')}://{host}".lower())
        is_open = scope["path"] in OPEN_PATHS or is_page(scope["path"])
        if self.token is not None and not is_open and not self._has_token(headers, scope):
            raise ApiError(
                401,
                "The token is missing or wrong. Send it as Authorization: Bearer TOKEN, or exchange it for a cookie "
                "with POST /session.",
                "authentication_error",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def is_token(self, text: str) -> bool:
        """Whether `text` is the token, in constant time."""
        return self.token is not None and hmac.compare_digest(text.encode(), self.token.encode())

    def cookie_name(self, scope: Scope) -> str:
        """The name of the cookie: browsers send cookies to all ports of a host, so it names the port."""
        return f"openclap-{(scope.get('server') or ('', 0))[1]}"

    def _check_host(self, headers: Headers) -> str:
        given = headers.getlist("host")
        name = _host_name(given[0]) if len(given) == 1 else ""
        if not self._is_own(name):
            raise ApiError(
                421, f"This server is not {name!r}. Use its address, or name it with --host-name.", "permission_error"
            )
        return given[0]

    def _is_own(self, name: str) -> bool:
        if name in _LOCAL_NAMES or name in self.hosts or (self.token and name == socket.gethostname().lower()):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True  # DNS rebinding needs a name

    def _has_token(self, headers: Headers, scope: Scope) -> bool:
        given = headers.getlist("authorization")
        if given:  # a wrong one is not made good by a cookie, and of two none is chosen
            kind, _, token = given[0].partition(" ")
            return len(given) == 1 and kind.lower() == "bearer" and self.is_token(token.strip())
        cookies = [value for text in headers.getlist("cookie") for value in _cookies(text, self.cookie_name(scope))]
        return len(cookies) == 1 and hmac.compare_digest(cookies[0].encode(), self.cookie.encode())


def is_page(path: str) -> bool:
    """Whether a path is the page, or one of its files."""
    return path == PAGE_PATH or path.startswith(PAGE_FILES)


def _opens_page(scope: Scope, headers: Headers) -> bool:
    """Whether a browser opens the page in a window of its own, by a link or an address. The origin does not matter
    then: the page says nothing of the sounds, and its own requests have its own origin."""
    is_document = headers.getlist("sec-fetch-dest") == ["document"] and headers.getlist("sec-fetch-mode") == [
        "navigate"
    ]
    return scope["path"] == PAGE_PATH and scope["method"] == "GET" and is_document and "origin" not in headers


def _cookies(text: str, name: str) -> list[str]:
    """The values of a cookie in a header; SimpleCookie alone would hide a second one."""
    values = []
    for part in text.split(";"):
        try:
            cookie = SimpleCookie(part.strip())
        except CookieError:
            continue
        values += [morsel.value for key, morsel in cookie.items() if key == name]
    return values


def _host_name(host: str) -> str:
    """The name in a Host header, without its port; the address in brackets of IPv6."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].rstrip(".").lower()


def _check_origin(headers: Headers, own: str) -> None:
    """Raise ApiError for a request from a page of another origin, by Origin and by Sec-Fetch-Site (which browsers also
    send where they send no Origin)."""
    origins, sites = headers.getlist("origin"), headers.getlist("sec-fetch-site")
    # The scheme is not compared: behind a proxy that adds TLS, pages have https and this server sees http.
    is_own = all(origin.lower().partition("://")[2] == own.partition("://")[2] for origin in origins)
    if not is_own or not set(sites) <= {"same-origin", "none"}:
        raise ApiError(403, "Requests from pages of other web sites are refused.", "permission_error")


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Limits of a request's body.

    Attributes:
        most_bytes: of the body.
        idle_s: longest wait for its next piece.
        total_s: longest time for all of it.
        most_in_memory: bytes of all bodies that are being received or used; a request beyond gets 429.
        most_values: numbers, texts, lists and objects in JSON. It is read in the thread of all connections, where a
            million take seconds, and a list takes thirty times the memory of its two brackets.
    """

    most_bytes: int = 64 << 20
    most_values: int = 250_000
    idle_s: float = 20.0
    total_s: float = 120.0
    most_in_memory: int = 256 << 20


class SecurityMiddleware:
    """Checks each request before the application sees it, bounds its body, and adds the headers of `HEADERS`."""

    def __init__(self, app: ASGIApp, access: Access, limits: BodyLimits) -> None:
        self.app, self.access, self.limits = app, access, limits
        self._in_memory = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers, started = Headers(scope=scope), False

        def release() -> None:
            self._in_memory -= body.reserved
            body.reserved = 0

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                release()  # and not after the answer, which a client may never read
                _add_headers(message, scope["path"])
            await send(message)

        body = _LimitedBody(receive, self.limits, self._reserve, is_json="json" in headers.get("content-type", ""))
        try:
            self.access.check(scope)
            self._check_length(headers)
            await self.app(scope, body, send_with_headers)
        except ApiError as error:
            if started:
                raise
            await error.response()(scope, receive, send_with_headers)
        finally:
            release()

    def _reserve(self, size: int) -> None:
        """Count the bytes of a body. Raises ApiError when all bodies together have too many."""
        if self._in_memory + size > self.limits.most_in_memory:
            raise ApiError(
                429,
                "Many large requests are in progress. Send it again a little later.",
                "rate_limit_error",
                headers={"Retry-After": "1", "Connection": "close"},
            )
        self._in_memory += size

    def _check_length(self, headers: Headers) -> None:
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit() and len(length) < 20):  # int() refuses thousands of digits
            raise ApiError(400, "The header Content-Length is no number of bytes.")
        if int(length) > self.limits.most_bytes:
            raise too_large(self.limits.most_bytes)


def _add_headers(message: Message, path: str) -> None:
    headers = MutableHeaders(scope=message)
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
    headers.setdefault("Content-Security-Policy", DOCS_POLICY if path in DOCS_PATHS else POLICY)
    headers.setdefault("Cache-Control", "no-store")


def too_large(most_bytes: int) -> ApiError:
    """The error of a body over the limit."""
    return ApiError(
        413,
        f"The request has more than {most_bytes:,} bytes, the limit of this server.",
        headers={"Connection": "close"},
    )


class _LimitedBody:
    """Receives a request's body within its limits. Raises ApiError."""

    def __init__(
        self, receive: Receive, limits: BodyLimits, reserve: Callable[[int], None], *, is_json: bool = False
    ) -> None:
        self._receive, self._limits, self._reserve, self._is_json = receive, limits, reserve, is_json
        self.reserved, self._end_s = 0, time.monotonic() + limits.total_s
        self._size, self._values = 0, 0
        self._is_complete = False

    async def __call__(self) -> Message:
        if self._is_complete:  # from here on, it waits for the client to go away
            return await self._receive()
        left_s = self._end_s - time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, min(self._limits.idle_s, left_s)))
        except TimeoutError:
            raise ApiError(
                408, "The request's body came too slowly. Send it again.", headers={"Connection": "close"}
            ) from None
        if message["type"] == "http.request":
            piece = message.get("body", b"")
            self._is_complete = not message.get("more_body", False)
            self._check(piece)
            self._reserve(len(piece))
            self.reserved += len(piece)
        return message

    def _check(self, piece: bytes) -> None:
        """Count the bytes and values of a piece. Raises ApiError where the body has too many."""
        self._size += len(piece)
        if self._size > self._limits.most_bytes:
            raise too_large(self._limits.most_bytes)
        if self._is_json:
            self._values += sum(piece.count(mark) for mark in (b",", b"[", b"{"))
            if self._values > self._limits.most_values:
                raise ApiError(
                    413,
                    f"The request has more than {self._limits.most_values:,} values, the limit of this server.",
                    headers={"Connection": "close"},
                )


def host_names(names: Iterable[str]) -> frozenset[str]:
    """Names for `Access.hosts`. Raises ConfigError for one with a scheme, a path or a port."""
    wrong = [name for name in names if not name or set(name) & set("/: ")]
    if wrong:
        raise ConfigError(f"--host-name is {wrong[0]!r}, expected a name such as sounds.example.org.")
    return frozenset(name.lower().rstrip(".") for name in names)
