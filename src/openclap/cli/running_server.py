"""Let a running `openclap serve` of the same index answer a search: its model is loaded already.

A server leaves a file under openclap's home, `servers/PID.json`, readable by its user only: address, process, token and
indexes. A command sends its query to the server of exactly its index; where there is none, or it cannot answer, the
command searches by itself. Queries go to this machine's loopback address only.

Imports here add to the start of every search, so http.client comes in where a server was found.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import openclap
from openclap import paths

HEALTH_S = 0.2
"""Longest wait for a server to say that it runs."""
ANSWER_S = 60.0
"""Longest wait for its answer."""
MOST_BYTES = 32 << 20
"""The largest sound that is sent; embedding a larger one takes longer than loading a model."""

FormFields = Mapping[str, Sequence[str]]
"""Texts, or lists of them, by the names of a form."""


@dataclass(frozen=True, slots=True)
class RunningServer:
    """What a server says of itself.

    Attributes:
        host: an address of loopback.
        indexes: their names, by the real paths of their folders.
    """

    host: str
    port: int
    pid: int
    version: str
    token: str | None
    indexes: dict[str, str]


# --- the server's side


@contextmanager
def registered(host: str, port: int, token: str | None, indexes: Mapping[str, Path]) -> Iterator[None]:
    """Leave the file of this process while a server runs. Without it commands search by themselves, so a home that
    cannot be written stops no server."""
    local = local_host(host)
    place = _folder() / f"{os.getpid()}.json"
    by_folder = {_key(folder): name for name, folder in indexes.items()}
    try:
        if paths.is_loopback(local) and by_folder:
            server = RunningServer(local, port, os.getpid(), openclap.__version__, token, by_folder)
            with suppress(OSError):
                _remove_stale()
                _write_private(place, json.dumps(asdict(server)).encode())
        yield
    finally:
        with suppress(OSError):
            place.unlink(missing_ok=True)


def local_host(host: str) -> str:
    """The address at which this machine reaches a server on `host`: loopback for one on all interfaces."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _write_private(path: Path, content: bytes) -> None:
    """Write a file that no other user can read at any moment."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    partial.replace(path)


def _remove_stale() -> None:
    for path in _folder().glob("*.json"):
        if path.stem.isdecimal() and not _is_running(int(path.stem)):
            path.unlink(missing_ok=True)


# --- the command's side


def search_text(folder: Path, query: Mapping[str, Any]) -> dict[str, Any] | None:
    """The answer of `POST /v1/search` from the server of an index; None when there is none, or it cannot answer."""
    if (server := server_of(folder)) is None:
        return None
    body = json.dumps({**query, "index": server.indexes[_key(folder)]}).encode()
    return _answer(server, "/v1/search", body, "application/json")


def search_sound(folder: Path, sound: Path, fields: FormFields) -> dict[str, Any] | None:
    """The answer of `POST /v1/search/sound`, as `search_text`; None also for a large sound, and for one of which a
    warning is due, which the command itself prints."""
    if (server := server_of(folder)) is None:
        return None
    try:
        content = sound.read_bytes() if sound.is_file() and sound.stat().st_size <= MOST_BYTES else None
    except OSError:
        return None
    if content is None:
        return None
    boundary = os.urandom(16).hex()
    body = _multipart({**fields, "index": server.indexes[_key(folder)]}, content, boundary)
    answer = _answer(server, "/v1/search/sound", body, f"multipart/form-data; boundary={boundary}")
    return None if answer is None or answer["warning"] else answer


def server_of(folder: Path) -> RunningServer | None:
    """A running server of this version that serves the index in `folder`."""
    key = _key(folder)
    return next((server for server in _servers() if key in server.indexes and _is_healthy(server)), None)


def _key(folder: Path) -> str:
    """The real path of an index; of one in object storage, that of its cache on this machine."""
    if paths.is_url(folder):
        from openclap.search.place import place_of

        folder = place_of(folder).folder
    return os.path.realpath(folder)


def _servers() -> Iterator[RunningServer]:
    """The servers of this version whose processes exist. Damaged files count as none."""
    for path in sorted(_folder().glob("*.json")):
        with suppress(OSError, ValueError, TypeError, AttributeError):
            server = RunningServer(**json.loads(path.read_bytes()))
            if (
                server.version == openclap.__version__
                and isinstance(server.indexes, dict)
                and paths.is_loopback(server.host)
                and _is_running(server.pid)
            ):
                yield server


def _is_running(pid: int) -> bool:
    if sys.platform == "win32":  # where signal 0 would end the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def _is_healthy(server: RunningServer) -> bool:
    answer = _request(server, "/health", HEALTH_S)
    return answer is not None and answer.get("status") == "ok"


def _answer(server: RunningServer, path: str, body: bytes, kind: str) -> dict[str, Any] | None:
    headers = {"Content-Type": kind} | ({"Authorization": f"Bearer {server.token}"} if server.token else {})
    answer = _request(server, path, ANSWER_S, body, headers)
    return answer if answer is not None and {"hits", "info", "warning"} <= answer.keys() else None


def _request(
    server: RunningServer,
    path: str,
    timeout_s: float,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any] | None:
    """The JSON object of an answer with status 200; None for any other answer. POST with a body. No proxy is used."""
    import http.client

    connection = http.client.HTTPConnection(server.host, server.port, timeout=timeout_s)
    try:
        connection.request("GET" if body is None else "POST", path, body, dict(headers or {}))
        response = connection.getresponse()
        answer = json.loads(response.read()) if response.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError, TypeError):
        return None
    finally:
        connection.close()
    return answer if isinstance(answer, dict) else None


def _multipart(fields: FormFields, content: bytes, boundary: str) -> bytes:
    """A form with a file (RFC 7578)."""
    pairs = [(name, each) for name, value in fields.items() for each in ([value] if isinstance(value, str) else value)]
    return b"".join(
        [
            *(_part(boundary, f'name="{name}"', value.encode("utf-8", "surrogateescape")) for name, value in pairs),
            _part(boundary, 'name="file"; filename="sound"', content),
            f"--{boundary}--\r\n".encode(),
        ]
    )


def _part(boundary: str, disposition: str, content: bytes) -> bytes:
    return f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode() + content + b"\r\n"


def _folder() -> Path:
    return paths.home() / "servers"
