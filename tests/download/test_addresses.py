"""Neither a table of URLs nor a redirect makes this machine contact private or forbidden addresses."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from openclap.download import FailedFetch, FetchedFile, FileRequest
from openclap.download.addresses import kind_of_address, kind_of_host
from support.fetching import QUICK, outcome
from support.misbehaving import Misbehaving

STRICT = replace(QUICK, allow_private=False)


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    with Misbehaving() as server:
        yield server


@pytest.mark.parametrize(
    ("kind", "addresses"),
    [
        ("public", "1.1.1.1 93.184.216.34 192.167.1.1 172.32.0.1 11.0.0.1 2606:4700::1111 2a00:1450:4001::8a"),
        ("public", "64:ff9b::101:101 ::ffff:8.8.8.8"),
        ("private", "127.0.0.1 127.9.9.9 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 198.18.0.1 ::1"),
        ("private", "fc00::1 fd12:3456::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 2002:7f00:1::1 64:ff9b::a00:1 192.0.2.1"),
        ("forbidden", "0.0.0.0 :: 169.254.169.254 169.254.0.1 fe80::1 fe80::1%eth0 224.0.0.1 ff02::1 255.255.255.255"),
        ("forbidden", "240.0.0.1 ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::1 ::ffff:0.0.0.0"),
        ("forbidden", "fd00:ec2::254 100.100.100.200 ::ffff:0:0"),
    ],
)
def test_kinds_of_addresses(kind: str, addresses: str) -> None:
    assert {address: kind_of_address(address) for address in addresses.split()} == dict.fromkeys(
        addresses.split(), kind
    )


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("freesound.org", "public"),
        ("local.example", "public"),
        ("notlocal", "public"),
        ("localhost", "private"),
        ("LOCALHOST.", "private"),
        ("a.localhost", "private"),
        ("printer.local", "private"),
        ("metadata.google.internal", "private"),
        ("nas.home.arpa", "private"),
        ("", "private"),
        ("[::1]", "private"),
        ("127.0.0.1", "private"),
        ("169.254.169.254", "forbidden"),
    ],
)
def test_kinds_of_names(host: str, kind: str) -> None:
    assert kind_of_host(host) == kind


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "0.0.0.0", "[::ffff:127.0.0.1]", "[::1]"],
)
def test_no_notation_of_loopback_is_contacted(server: Misbehaving, tmp_path: Path, host: str) -> None:
    result = outcome(FileRequest(f"http://{host}:{server.port}/ok/30000.wav", tmp_path / "a.wav"), STRICT)
    assert isinstance(result, FailedFetch)
    assert (result.kind, result.attempts, result.permanent) == ("private address", 1, True)
    assert server.requests == []
    assert list(tmp_path.iterdir()) == []


def test_dns_rebinding_is_refused(server: Misbehaving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name server gives a harmless address first and an internal one next (DNS rebinding)."""
    answers = iter(["93.184.216.34", "127.0.0.1"])
    asked = []

    def rebinding(host: str, port: int, *rest: object, **more: object) -> list[object]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1" if len(asked) > 1 else next(answers), port))]

    connected = []

    async def connect(remote_host: str, *rest: object, **more: object) -> None:
        connected.append(remote_host)
        raise OSError("unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(anyio, "connect_tcp", connect)
    result = outcome(FileRequest(f"http://rebind.example:{server.port}/ok/30000.wav", tmp_path / "a.wav"), STRICT)
    assert isinstance(result, FailedFetch) and result.kind == "private address"
    assert connected == ["93.184.216.34"]
    assert server.requests == []


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        ("http://169.254.169.254/latest/meta-data/", "private address"),
        ("http://[fd00:ec2::254]/latest/meta-data/", "private address"),
        ("http://0.0.0.0:{port}/ok/30000.wav", "private address"),
        ("http://[fe80::1]/", "private address"),
        ("file:///etc/passwd", "bad address"),
        ("ftp://example.org/a.wav", "bad address"),
        ("gopher://127.0.0.1:{port}/", "bad address"),
        ("javascript:alert(1)", "bad address"),
    ],
)
def test_redirects_to_forbidden_addresses_are_refused(
    server: Misbehaving, tmp_path: Path, to: str, reason: str
) -> None:
    result = outcome(FileRequest(server.url("redirect", to=to.format(port=server.port)), tmp_path / "a.wav"))
    assert isinstance(result, FailedFetch)
    assert (result.kind, result.attempts, result.permanent) == (reason, 1, True)
    assert len(server.requests) == 1


def test_private_server_may_redirect_to_another(server: Misbehaving, tmp_path: Path) -> None:
    with Misbehaving("localhost") as other:
        assert isinstance(
            outcome(FileRequest(server.url("redirect", to=other.url("ok")), tmp_path / "a.wav")), FetchedFile
        )
        relative = FileRequest(server.url("redirect", to="../ok/40000.wav"), tmp_path / "b.wav")
        assert isinstance(outcome(relative), FetchedFile)
        assert server.count("ok", "40000.wav") == other.count("ok") == 1


def test_public_host_behind_a_proxy_may_not_redirect_to_private_ones(
    server: Misbehaving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server plays a proxy, and thereby a public host: even where private addresses are allowed, it cannot lead
    there; through the proxy neither."""
    monkeypatch.setenv("HTTP_PROXY", server.root)
    monkeypatch.setenv("http_proxy", server.root)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    wanted = FileRequest("http://public.example/ok/30000.wav", tmp_path / "a.wav")
    assert isinstance(outcome(wanted, STRICT), FetchedFile)
    assert server.requests[-1].headers["host"] == "public.example"
    with Misbehaving() as secret:
        for place in (secret.url("ok"), "http://localhost/ok/1.wav", "http://10.0.0.1/ok/1.wav"):
            url = f"http://public.example/redirect/{len(server.requests)}.wav?to={place}"
            result = outcome(FileRequest(url, tmp_path / "b.wav"))
            assert isinstance(result, FailedFetch) and result.kind == "private address"
        assert secret.requests == []
    assert len(server.requests) == 4


def test_headers_are_not_sent_to_other_hosts(server: Misbehaving, tmp_path: Path) -> None:
    secret = {"Authorization": "Token secret", "X-Key": "secret"}
    with Misbehaving("localhost") as other:
        for number, to in enumerate([server.url("echo"), other.url("echo")]):
            wanted = FileRequest(server.url("redirect", f"{number}.wav", to=to), tmp_path / f"{number}.wav")
            assert isinstance(outcome(wanted, headers=secret), FetchedFile)
        assert all(request.headers["authorization"] == "Token secret" for request in server.requests)
        assert len(server.requests) == 3
        [request] = other.requests
    assert "secret" not in repr(request.headers)
    assert request.headers["user-agent"].startswith("openclap/")
    assert request.headers["accept-encoding"] == "identity"


def test_password_in_a_url_is_not_sent_to_other_hosts(server: Misbehaving, tmp_path: Path) -> None:
    with Misbehaving("localhost") as other:
        url = server.url("redirect", to=other.url("echo")).replace("http://", "http://me:secret@")
        assert isinstance(outcome(FileRequest(url, tmp_path / "a.wav")), FetchedFile)
        assert server.requests[0].headers["authorization"].startswith("Basic ")
        assert "authorization" not in other.requests[0].headers
