"""Connections that never reach a forbidden address, keep to a deadline, and end when they are told to.

A name is resolved here, each of its addresses is judged, and the connection is made to an address that was judged:
a name that answers differently the second time (DNS rebinding) gains nothing. Connections that were made where
private addresses are allowed are kept apart from the others, so that none is used again where they are not.

Proxies of the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY) are used. A proxy resolves names itself, so
behind one a name can only be judged as it is written.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpcore2
import httpx2

import openclap
from openclap.data.fetch.addresses import kind_of_address, kind_of_host
from openclap.errors import ConfigError

KEEP_ALIVE_S = 15.0
OURS = {"User-Agent": f"openclap/{openclap.__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}
"""Headers of every request: files are wanted as they lie on the server."""
CONNECT_S = 10.0
"""For a connection to stand, at most: while one is made it cannot be broken off."""
_PEER = "openclap.peer"
"""What a connection is asked for the address that it was made to; a proxy's says nothing."""


class PrivateAddressError(Exception):
    """A host that may not be asked."""


class TimeIsOverError(httpcore2.ReadTimeout):
    """All the seconds that a request had are spent."""


class StoppedError(Exception):
    """The run has ended; what was on its way is to be left as it is."""


class Wire:
    """All connections of a run. `at_once` threads may ask at the same time."""

    def __init__(self, at_once: int) -> None:
        self._lines = _Lines()
        self._at_once = at_once
        self._proxies = urllib.request.getproxies()
        self._clients: dict[tuple[str, str | None, bool], httpx2.Client] = {}
        self._lock = threading.Lock()

    @contextmanager
    def ask(
        self, url: httpx2.URL, headers: Mapping[str, str], *, private: bool, idle_s: float, seconds: float
    ) -> Iterator[httpx2.Response]:
        """GET `url`: its answer, of which the body is still to be read, within `seconds` from now.

        Raises PrivateAddressError, StoppedError, httpx2.InvalidURL and the exceptions of httpcore2.
        """
        if (kind := kind_of_host(url.host)) == "never" or (kind == "private" and not private):
            raise PrivateAddressError(f"{url.host} is not a public host")
        self._lines.clock.end = time.monotonic() + seconds
        client = self._client(url, private)
        with client.stream(
            "GET", url, headers=headers, timeout=httpx2.Timeout(idle_s, connect=min(idle_s, CONNECT_S))
        ) as response:
            yield response

    def end(self) -> None:
        """Break every connection, in whatever thread it is read; later reads and requests raise StoppedError."""
        self._lines.end()

    def close(self) -> None:
        """Give everything back, once no thread asks any more."""
        for client in self._clients.values():
            client.close()

    def _client(self, url: httpx2.URL, private: bool) -> httpx2.Client:
        proxy = self._proxies.get(url.scheme) or self._proxies.get("all")
        if proxy and urllib.request.proxy_bypass(url.host):
            proxy = None
        key = (url.scheme, proxy, private)
        with self._lock:
            if key not in self._clients:
                self._clients[key] = self._new_client(*key)
            return self._clients[key]

    def _new_client(self, scheme: str, proxy: str | None, private: bool) -> httpx2.Client:
        pool = httpcore2.ConnectionPool(
            ssl_context=httpx2.create_ssl_context() if scheme == "https" else None,
            proxy=_proxy(proxy) if proxy else None,
            max_connections=None,  # threads are what limits them
            max_keepalive_connections=self._at_once,
            keepalive_expiry=KEEP_ALIVE_S,
            network_backend=_Backend(self._lines, checked=not proxy, private=private),
        )
        no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        return httpx2.Client(transport=_Transport(pool), headers=OURS, cookies=no_cookies, trust_env=False)


def peer_is_private(response: httpx2.Response) -> bool:
    """Did the answer come straight, through no proxy, from an address that is not public?"""
    peer: str | None = response.extensions["network_stream"].get_extra_info(_PEER)
    return peer is not None and kind_of_address(peer) != "public"


def _proxy(text: str) -> httpcore2.Proxy:
    url = httpx2.URL(text if "://" in text else f"http://{text}")
    if url.scheme not in ("http", "https"):
        raise ConfigError(f"The proxy of this environment is of the kind {url.scheme}, expected http or https.")
    place = httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=b"/")
    return httpcore2.Proxy(place, auth=(url.username, url.password) if url.userinfo else None)


class _Lines:
    """What all connections share: whether the run has ended, and until when the thread that reads may go on."""

    def __init__(self) -> None:
        self.clock = threading.local()
        self._open: set[_Stream] = set()
        self._lock = threading.Lock()
        self._ended = False

    def add(self, stream: _Stream) -> None:
        with self._lock:
            self._open.add(stream)

    def remove(self, stream: _Stream) -> None:
        with self._lock:
            self._open.discard(stream)

    def end(self) -> None:
        with self._lock:
            self._ended = True
            for stream in self._open:
                with suppress(OSError):
                    stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    def left(self, timeout: float | None) -> float:
        """Seconds that this thread may wait. Raises StoppedError, or TimeIsOverError when there are none."""
        if self._ended:
            raise StoppedError
        left = float(self.clock.end - time.monotonic())
        if left <= 0:
            raise TimeIsOverError
        return left if timeout is None else min(left, timeout)


class _Backend(httpcore2.NetworkBackend):
    """Connects to addresses that were judged; to any, if not `checked` (a proxy's)."""

    def __init__(self, lines: _Lines, *, checked: bool, private: bool) -> None:
        self._lines, self._checked, self._private = lines, checked, private
        self._plain = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        self._lines.left(timeout)
        error: Exception | None = None
        for address in self._addresses(host, port):
            try:
                left = self._lines.left(timeout)
                stream = self._plain.connect_tcp(address, port, left, local_address, socket_options)
                return _Stream(stream, self._lines, address if self._checked else None)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as failure:
                error = failure
        raise error or httpcore2.ConnectError(f"{host} has no address")

    def _addresses(self, host: str, port: int) -> list[str]:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise httpcore2.ConnectError(f"{host} cannot be found ({error.strerror})") from error
        except UnicodeError as error:
            raise httpx2.InvalidURL(f"{host!r} is no host name") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        allowed = [address for address in addresses if not self._checked or self._may(address)]
        if addresses and not allowed:
            raise PrivateAddressError(f"{host} is not a public host: {', '.join(addresses)}")
        return allowed

    def _may(self, address: str) -> bool:
        kind = kind_of_address(address)
        return kind == "public" or (kind == "private" and self._private)


class _Stream(httpcore2.NetworkStream):
    """A connection that keeps to the deadline of the thread that uses it, however slowly single bytes come."""

    def __init__(self, plain: httpcore2.NetworkStream, lines: _Lines, peer: str | None) -> None:
        self._plain, self._lines, self._peer = plain, lines, peer
        lines.add(self)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            content = self._plain.read(max_bytes, self._lines.left(timeout))
        except httpcore2.ReadTimeout:
            self._lines.left(timeout)  # was it the time for all, rather than for this piece?
            raise
        self._lines.left(timeout)  # a connection that was broken off looks like one that ended
        return content

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._plain.write(buffer, self._lines.left(timeout))

    def close(self) -> None:
        self._lines.remove(self)
        self._plain.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        left = self._lines.left(timeout)
        self._lines.remove(self)
        return _Stream(self._plain.start_tls(ssl_context, server_hostname, left), self._lines, self._peer)

    def get_extra_info(self, info: str) -> Any:
        return self._peer if info == _PEER else self._plain.get_extra_info(info)


class _Transport(httpx2.BaseTransport):
    """httpx2's client over a pool of our own, which its own transport has no argument for."""

    def __init__(self, pool: httpcore2.ConnectionPool) -> None:
        self._pool = pool

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        answer = self._pool.handle_request(
            httpcore2.Request(
                request.method,
                httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                extensions=request.extensions,
            )
        )
        return httpx2.Response(
            answer.status, headers=answer.headers, stream=_Body(answer), extensions=answer.extensions
        )

    def close(self) -> None:
        self._pool.close()


class _Body(httpx2.SyncByteStream):
    def __init__(self, answer: httpcore2.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        yield from self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()
