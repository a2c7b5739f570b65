"""Who may send requests, and how much: other web sites, wrong hosts, tokens, and bodies that are large or slow."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from openclap.errors import ConfigError
from openclap.library import Library
from openclap.paths import is_loopback
from openclap.server.security import Access, BodyLimits, host_names
from openclap.server.service import Limits
from support.serving import LiveServer, Served

TOKEN = "a-token-of-24-characters"


@pytest.fixture
def guarded(serve: Callable[..., Served]) -> Any:
    return serve(access=Access(TOKEN, host_names(["sounds.example.org"]))).client


def status(client: Any, **headers: str) -> int:
    return int(
        client.get("/v1/indexes", headers={name.replace("_", "-"): text for name, text in headers.items()}).status_code
    )


def test_pages_of_other_sites_are_refused(client: Any) -> None:
    own = "http://127.0.0.1:7007"
    assert status(client) == status(client, origin=own) == status(client, sec_fetch_site="same-origin") == 200
    assert status(client, sec_fetch_site="none") == 200  # typed into the address bar
    others = ("http://evil.example", "null", "http://127.0.0.1:8000", "http://localhost:7007", "http://127.0.0.1", "")
    for origin in others:
        assert status(client, origin=origin) == 403, origin
    for site in ("cross-site", "same-site", "anything"):
        assert status(client, sec_fetch_site=site) == 403
    assert status(client, origin=own, sec_fetch_site="cross-site") == 403
    assert client.options("/v1/search", headers={"origin": "http://evil.example"}).status_code == 403
    assert "access-control-allow-origin" not in client.get("/v1/indexes").headers


def test_two_origins_are_refused(client: Any) -> None:
    both = [("Origin", "http://127.0.0.1:7007"), ("Origin", "http://evil.example")]
    assert client.get("/v1/indexes", headers=both).status_code == 403


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost:7007", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1", 200),
        ("[::1]:7007", 200),
        ("192.168.1.5:7007", 200),
        ("evil.example:7007", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421),
        ("", 421),
        ("[::1", 200),
        ("[evil]", 421),
    ],
)
def test_other_hosts_are_refused(client: Any, host: str, expected: int) -> None:
    assert status(client, host=host) == expected


def test_named_hosts_are_accepted(guarded: Any) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    assert status(guarded, host="sounds.example.org", **headers) == 200
    assert status(guarded, host="other.example.org", **headers) == 421
    with pytest.raises(ConfigError):
        host_names(["http://sounds.example.org"])


def test_requests_need_the_token(guarded: Any) -> None:
    assert status(guarded, authorization=f"Bearer {TOKEN}") == status(guarded, authorization=f"bearer  {TOKEN}") == 200
    wrong = ("", "Bearer", "Bearer x", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}")
    for text in wrong:
        assert status(guarded, authorization=text) == 401, text
    assert status(guarded) == 401
    assert guarded.get("/openapi.json").status_code == guarded.get("/docs").status_code == 401
    assert guarded.get("/metrics").status_code == guarded.get("/nothing").status_code == 401
    assert guarded.get("/health").status_code == 200
    both = [("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer other")]
    assert guarded.get("/v1/indexes", headers=both).status_code == 401
    assert guarded.get("/v1/indexes", headers=both[::-1]).status_code == 401


def test_the_token_is_exchanged_for_a_cookie(guarded: Any) -> None:
    assert guarded.post("/session", json={"token": "wrong"}).status_code == 401
    answer = guarded.post("/session", json={"token": TOKEN})
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and TOKEN not in cookie
    assert status(guarded) == 200  # the client sends it by itself
    assert status(guarded, authorization="Bearer wrong") == 401  # a wrong token is not made good by it
    assert status(guarded, origin="http://evil.example") == 403
    assert guarded.delete("/session").status_code == 200
    assert status(guarded) == 401
    name = cookie.partition("=")[0]
    value = cookie.partition("=")[2].partition(";")[0]
    assert status(guarded, cookie=f"{name}={value}") == 200
    assert status(guarded, cookie=f"{name}=x; {name}={value}") == 401
    assert status(guarded, cookie=f"{name}={TOKEN}") == 401


def test_another_server_does_not_take_the_cookie(guarded: Any, serve: Callable[..., Served]) -> None:
    cookie = guarded.post("/session", json={"token": TOKEN}).headers["set-cookie"].partition(";")[0]
    assert status(guarded, cookie=cookie) == 200
    assert status(serve(access=Access(TOKEN)).client, cookie=cookie) == 401


@pytest.mark.parametrize(
    "token", ["short", "ümläute sind hier nicht", "with a newline in it\n", " begins with a space"]
)
def test_tokens_that_cannot_be_sent_are_refused(token: str) -> None:
    with pytest.raises(ConfigError, match="token"):
        Access(token)


def test_responses_have_protective_headers(client: Any) -> None:
    for path in ("/health", "/nothing", "/docs"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
    refused = client.get("/health", headers={"host": "evil.example"})
    assert refused.headers["x-content-type-options"] == "nosniff"


def test_loopback_addresses() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.5", "example.org", "")))


@pytest.fixture(scope="module")
def strict(library: Library) -> Iterator[LiveServer]:
    """A real server with small limits."""
    body = BodyLimits(most_bytes=100_000, idle_s=0.3, total_s=1.0, most_in_memory=250_000)
    with LiveServer(library, limits=Limits(body=body, audio_s=5.0)) as server:
        yield server


def is_alive(server: LiveServer) -> bool:
    answer = httpx.post(f"{server.url}/v1/search", json={"text": "noise", "k": 1}, timeout=20)
    return answer.status_code == 200 and len(answer.json()["hits"]) == 1


def raw(server: LiveServer, head: str, *pieces: bytes, pause_s: float = 0.0) -> bytes:
    """Send bytes as they are, and return what the server sends until it closes the connection."""
    received = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode())
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause_s)
            while block := connection.recv(65536):
                received += block
        except OSError:  # the server closed it while we were sending
            with suppress(OSError):
                received += connection.recv(65536)
    return received


POST = "POST /v1/embeddings HTTP/1.1\nHost: 127.0.0.1\nContent-Type: application/json\nConnection: close\n"


def test_a_large_body_is_refused_by_its_length(strict: LiveServer) -> None:
    assert b"413" in raw(strict, f"{POST}Content-Length: 1000000000000\n\n", b"{").split(b"\r\n")[0]
    assert is_alive(strict)


def test_an_endless_body_is_cut_off(strict: LiveServer) -> None:
    block = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    answer = raw(strict, f"{POST}Transfer-Encoding: chunked\n\n", *[block] * 100)
    assert answer == b"" or b"413" in answer.split(b"\r\n")[0]
    assert is_alive(strict)


def test_a_slow_body_is_cut_off(strict: LiveServer) -> None:
    began = time.monotonic()
    answer = raw(strict, f"{POST}Content-Length: 1000\n\n", b"{")
    assert b"408" in answer.split(b"\r\n")[0] and time.monotonic() - began < 5
    answer = raw(strict, f"{POST}Content-Length: 1000\n\n", *[b"x"] * 12, pause_s=0.1)
    assert b"408" in answer.split(b"\r\n")[0]  # never idle for long, but it takes too long in all
    assert is_alive(strict)


def test_many_bodies_at_once_are_bounded(strict: LiveServer) -> None:
    connections = []
    for _ in range(6):
        connection = socket.create_connection(("127.0.0.1", strict.port), timeout=20)
        connection.sendall(f"{POST}Content-Length: 99000\n\n".replace("\n", "\r\n").encode() + b"x" * 80_000)
        connections.append(connection)
    heads = [connection.recv(65536).split(b"\r\n")[0] for connection in connections]
    for connection in connections:
        connection.close()
    assert any(b"429" in head for head in heads) and all(b"429" in head or b"408" in head for head in heads)
    assert is_alive(strict)


def test_half_a_head_hinders_nobody(strict: LiveServer) -> None:
    with socket.create_connection(("127.0.0.1", strict.port), timeout=20) as connection:
        connection.sendall(b"GET /health HTT")
        assert is_alive(strict)


@pytest.mark.parametrize(
    "content", [b"", b"no sound", b"RIFF\xff\xff\xff\xffWAVEfmt ", b"\0" * 50_000, b"PK\x03\x04" * 99]
)
def test_uploads_without_audio_are_sentences(strict: LiveServer, content: bytes) -> None:
    answer = httpx.post(f"{strict.url}/v1/search/sound", files={"file": ("../../<b>.wav", content)}, timeout=20)
    assert answer.status_code == 400 and "../" not in answer.json()["error"]["message"]
    assert is_alive(strict)


def test_an_hour_of_silence_in_a_small_upload_is_refused(strict: LiveServer) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(3600 * 8000, np.int16), 8000, format="FLAC")
    assert len(buffer.getvalue()) < 100_000
    for path in ("/v1/search/sound",):
        answer = httpx.post(f"{strict.url}{path}", files={"file": ("quiet.flac", buffer.getvalue())}, timeout=20)
        assert answer.status_code == 400 and "longer than 5 s" in answer.json()["error"]["message"]
    assert is_alive(strict)


def test_deep_json_and_many_form_fields_are_refused(strict: LiveServer) -> None:
    deep = b'{"input": ' + b"[" * 40_000
    answer = httpx.post(f"{strict.url}/v1/embeddings", content=deep, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    fields = {f"field{number}": "x" for number in range(2000)}
    answer = httpx.post(f"{strict.url}/v1/search/sound", data=fields, files={"file": b"x"}, timeout=20)
    assert answer.status_code in (400, 413)
    assert is_alive(strict)


def test_too_many_requests_are_told_when_to_return(library: Library) -> None:
    """One request is held in its thread; the next one is refused, and works once the first is done."""
    with LiveServer(library, limits=Limits(requests=1)) as server:
        release, entered = threading.Event(), threading.Event()
        embed_texts = server.service.models["tiny"].thread.runtime.embed_texts

        def slow(texts: Any, batch_size: int) -> Any:
            entered.set()
            assert release.wait(20)
            return embed_texts(texts, batch_size)

        runtime = server.service.models["tiny"].thread.runtime
        runtime.embed_texts = slow  # type: ignore[method-assign]
        try:
            holder = threading.Thread(target=is_alive, args=[server])
            holder.start()
            assert entered.wait(20)
            refused = httpx.post(f"{server.url}/v1/search", json={"text": "noise"}, timeout=20)
            assert refused.status_code == 429 and int(refused.headers["retry-after"]) > 0
            assert refused.json()["error"]["type"] == "rate_limit_error"
            release.set()
            holder.join()
            assert is_alive(server)
        finally:
            release.set()
            del runtime.embed_texts  # type: ignore[method-assign]


def test_a_client_that_goes_away_leaves_the_queue(library: Library) -> None:
    with LiveServer(library) as server:
        release, entered = threading.Event(), threading.Event()
        runtime = server.service.models["tiny"].thread.runtime
        embed_texts, seen = runtime.embed_texts, []

        def slow(texts: Any, batch_size: int) -> Any:
            seen.extend(texts)
            entered.set()
            assert release.wait(20)
            return embed_texts(texts, batch_size)

        runtime.embed_texts = slow  # type: ignore[method-assign]
        try:
            holder = threading.Thread(target=is_alive, args=[server])
            holder.start()
            assert entered.wait(20)
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{server.url}/v1/search", json={"text": "gone"}, timeout=0.3)
            thread, end = server.service.models["tiny"].thread, time.monotonic() + 20
            while server.service.in_progress > 1:
                assert time.monotonic() < end
                time.sleep(0.01)
            release.set()
            holder.join()
            assert is_alive(server) and thread.waiting("text") == 0
            assert "gone" not in seen
        finally:
            release.set()
            del runtime.embed_texts  # type: ignore[method-assign]
