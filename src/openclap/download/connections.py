"""HTTP connections for URLs from strangers: never to a forbidden address.

A host name is resolved here, each of its addresses is classified, and the connection is made to an address that was
classified. Checking the name first and letting an HTTP client resolve it again would reopen DNS rebinding: a name
server that gives a harmless address first and an internal one afterwards.

Connections made with private addresses allowed have a pool of their own, so that none is reused where they are not
allowed. Proxies of the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY) are used. A proxy resolves names
itself, so behind one only the name as written can be checked.
"""

from __future__ import annotations

import asyncio
import socket
import urllib.request
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from threading import Thread

import httpcore2
import httpx2

from openclap.download.addresses import is_allowed, kind_of_address, kind_of_host
from openclap.errors import ConfigError
from openclap.http import USER_AGENT

KEEP_ALIVE_S = 15.0
CONNECT_S = 10.0
"""Longest wait for a connection to be established."""
# Identity: the bytes must be those of the file, or lengths, ranges and digests would not match.
_HEADERS = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}


class PrivateAddressError(Exception):
    """The host is not public, and private addresses are not allowed; or it must never be contacted."""


class Connections:
    """Pools of connections, one for each combination of scheme, proxy and permission. For one event loop."""

    def __init__(self) -> None:
        self._proxies = urllib.request.getproxies()
        self._clients: dict[tuple[str, str | None, bool], httpx2.AsyncClient] = {}

    @asynccontextmanager
    async def get(
        self, url: httpx2.URL, headers: Mapping[str, str], *, allow_private: bool, idle_s: float
    ) -> AsyncIterator[httpx2.Response]:
        """Send GET and yield the response, its body still unread.

        Raises PrivateAddressError, httpx2.InvalidURL and the exceptions of httpcore2.
        """
        if not is_allowed(kind_of_host(url.host), allow_private=allow_private):
            raise PrivateAddressError(f"{url.host} is not a public host.")
        timeout = httpx2.Timeout(idle_s, connect=min(idle_s, CONNECT_S))
        async with self._client(url, allow_private).stream("GET", url, headers=headers, timeout=timeout) as response:
            yield response

    def is_private_peer(self, response: httpx2.Response) -> bool:
        """Return whether the response came directly, through no proxy, from an address that is not public."""
        if self._proxy_for(response.url):
            return False
        peer = response.extensions["network_stream"].get_extra_info("server_addr")
        return peer is not None and kind_of_address(peer[0]) != "public"

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()

    def _proxy_for(self, url: httpx2.URL) -> str | None:
        proxy = self._proxies.get(url.scheme) or self._proxies.get("all")
        return None if proxy and urllib.request.proxy_bypass(url.host) else proxy

    def _client(self, url: httpx2.URL, allow_private: bool) -> httpx2.AsyncClient:
        key = (url.scheme, self._proxy_for(url), allow_private)
        if key not in self._clients:
            self._clients[key] = _new_client(*key)
        return self._clients[key]


def _new_client(scheme: str, proxy: str | None, allow_private: bool) -> httpx2.AsyncClient:
    pool = httpcore2.AsyncConnectionPool(
        ssl_context=httpx2.create_ssl_context() if scheme == "https" else None,
        proxy=_parse_proxy(proxy) if proxy else None,
        max_connections=None,  # the semaphores of `fetching` bound them
        keepalive_expiry=KEEP_ALIVE_S,
        # A proxy is named by this machine's owner, so its own address is not checked.
        network_backend=httpcore2.AnyIOBackend() if proxy else _CheckedBackend(allow_private),
    )
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    return httpx2.AsyncClient(transport=_Transport(pool), headers=_HEADERS, cookies=no_cookies, trust_env=False)


def _parse_proxy(text: str) -> httpcore2.Proxy:
    url = httpx2.URL(text if "://" in text else f"http://{text}")
    if url.scheme not in ("http", "https"):
        raise ConfigError(f"The proxy of this environment uses {url.scheme}. Set one that uses http or https.")
    place = httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=b"/")
    return httpcore2.Proxy(place, auth=(url.username, url.password) if url.userinfo else None)


class _CheckedBackend(httpcore2.AsyncNetworkBackend):
    """Connect only to addresses that were classified here."""

    def __init__(self, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._plain = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        failure: Exception | None = None
        for address in await self._allowed_addresses(host, port):
            try:
                # The numeric address, never the name: nothing may resolve it a second time.
                return await self._plain.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore2.ConnectError(f"{host} has no address")

    async def _allowed_addresses(self, host: str, port: int) -> list[str]:
        try:
            addresses = await _look_up(host, port)
        except socket.gaierror as error:
            raise httpcore2.ConnectError(f"{host} cannot be found ({error.strerror})") from error
        except UnicodeError as error:
            raise httpx2.InvalidURL(f"{host!r} is not a host name") from error
        allowed = [text for text in addresses if is_allowed(kind_of_address(text), allow_private=self._allow_private)]
        if addresses and not allowed:
            raise PrivateAddressError(f"{host} is not a public host: {', '.join(addresses)}.")
        return allowed


async def _look_up(host: str, port: int) -> list[str]:
    """Resolve a name to numeric addresses, in the resolver's order.

    In a daemon thread: a lookup cannot be cancelled, and the end of the program waits for the threads of an executor,
    which for an unresponsive name server is half a minute. Raises as `socket.getaddrinfo`.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[list[str]] = loop.create_future()

    def settle(addresses: list[str], error: Exception | None) -> None:
        if result.done():  # cancelled
            return
        if error is None:
            result.set_result(addresses)
        else:
            result.set_exception(error)

    def look_up() -> None:
        addresses: list[str] = []
        failure: Exception | None = None
        try:
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            addresses = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
        except Exception as error:  # raised again where the result is awaited
            failure = error
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(settle, addresses, failure)

    Thread(target=look_up, name="fetch-lookup", daemon=True).start()
    return await result


class _Transport(httpx2.AsyncBaseTransport):
    """Run an httpx2 client over a given pool.

    httpx2's own transport takes no network backend. Replacing its private pool would be shorter, but a release that
    renames the attribute would then silently drop the address check.
    """

    def __init__(self, pool: httpcore2.AsyncConnectionPool) -> None:
        self._pool = pool

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        answer = await self._pool.handle_async_request(
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

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Body(httpx2.AsyncByteStream):
    def __init__(self, answer: httpcore2.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._answer.aiter_stream():
            yield piece

    async def aclose(self) -> None:
        await self._answer.aclose()
