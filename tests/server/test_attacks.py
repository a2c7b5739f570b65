"""Hostile requests: each gets one sentence within seconds, nothing leaks, and the next request works."""

from __future__ import annotations

import base64
import gzip
import io
import json
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from openclap.audio.io import decode_part
from openclap.audio.mono import is_silent
from openclap.errors import AudioError
from openclap.library import Library
from openclap.server import connections, sounds
from openclap.server.errors import MOST_CHARACTERS
from openclap.server.security import BodyLimits
from openclap.server.service import Limits
from support.serving import LiveServer, Served
from support.tiny_models import save_tiny_model

MILLION = 10**6
SECONDS = 30.0
"""Longest time for an answer here, on a busy machine; most take a millisecond."""


def repeated(item: str, number: int) -> str:
    return f"[{','.join([item] * number)}]"


HOSTILE_JSON: dict[str, tuple[str, str | bytes, int]] = {
    "a million texts": ("/v1/embeddings", '{"input": ' + repeated('"x"', MILLION) + "}", 413),
    "a million lists": ("/v1/embeddings", f'{{"input": {repeated("[]", MILLION)}}}', 413),
    "many wrong items": ("/v1/embeddings", f'{{"input": {repeated("null", 200_000)}}}', 400),
    "many wrong labels": ("/v1/classify", f'{{"input": "x", "labels": {repeated("1", 200_000)}}}', 400),
    "many wrong texts": ("/v1/score", f'{{"input": "x", "texts": {repeated("[]", 100_000)}}}', 400),
    "many wrong inputs": ("/embed", f'{{"inputs": {repeated("{}", 100_000)}}}', 400),
    "many conditions": ("/v1/search", f'{{"text": "x", "where": {repeated("1", 200_000)}}}', 400),
    "many values": ("/v1/search", f'{{"text": "x", "where": {{"rate": {repeated("[]", 100_000)}}}}}', 400),
    "many facts": ("/v1/search", json.dumps({"text": "x", "where": {str(n): {} for n in range(100_000)}}), 400),
    "many weights": ("/v1/search", json.dumps({"text": {str(n): "x" for n in range(100_000)}}), 400),
    "an ignored list": ("/v1/embeddings", f'{{"input": "x", "other": {repeated("1", MILLION)}}}', 413),
    "deep lists": ("/v1/embeddings", '{"input":' + "[" * 100_000, 400),
    "deep objects": ("/v1/embeddings", '{"a":' * 100_000, 400),
    "infinite k": ("/v1/search", '{"text": "x", "k": 1e309}', 400),
    "infinite dimensions": ("/v1/embeddings", '{"input": "x", "dimensions": 1e309}', 400),
    "false dimensions": ("/v1/embeddings", '{"input": "x", "dimensions": false}', 400),
    "huge dimensions": ("/v1/embeddings", f'{{"input": "x", "dimensions": {"9" * 4000}}}', 400),
    "a number of 100,000 digits": ("/v1/embeddings", f'{{"input": "x", "dimensions": {"9" * 100_000}}}', 400),
    "NaN as a weight": ("/v1/search", '{"text": {"x": NaN}}', 400),
    "an infinite bound": ("/v1/search", '{"text": "x", "where": {"duration_s": {"low": -1e309}}}', 400),
    "k of a million": ("/v1/search", '{"text": "x", "k": 1000000}', 400),
    "half a character as a fact": ("/v1/search", '{"text": "x", "where": {"\\ud800": 1}}', 400),
    "half a character as a text": ("/v1/search", '{"text": {"\\ud800": 1}}', 400),
    "half a character as a model": ("/v1/embeddings", '{"input": "x", "model": "\\ud800"}', 400),
    "half a character as a path": ("/v1/search", '{"path": "\\udfff"}', 400),
    "a long name of a text": ("/v1/search", json.dumps({"text": {"k" * MILLION: "x"}}), 400),
    "a long name of a model": ("/v1/embeddings", json.dumps({"input": "x", "model": "k" * MILLION}), 404),
    "a zip file": ("/v1/embeddings", b"PK\x03\x04" * 1000, 400),
    "compressed JSON": ("/v1/embeddings", gzip.compress(b'{"input": "' + b"a" * 10**7 + b'"}'), 400),
    "a picture": ("/v1/embeddings", '{"input": "data:image/png;base64,iVBORw0KGgo="}', 400),
    "a page as audio": ("/v1/embeddings", '{"input": "data:audio/wav;base64,PGh0bWw+"}', 400),
    "an endless type": ("/v1/embeddings", json.dumps({"input": "data:audio/" + "a" * 20 * MILLION}), 400),
    "an endless type of parts": ("/v1/embeddings", json.dumps({"input": "data:audio/" + ";a" * 10 * MILLION}), 400),
}


@pytest.mark.parametrize("name", HOSTILE_JSON)
def test_hostile_json_is_a_sentence(client: Any, name: str) -> None:
    path, body, status = HOSTILE_JSON[name]
    began = time.monotonic()
    headers = {"Content-Type": "application/json"}
    if name == "compressed JSON":
        headers["Content-Encoding"] = "gzip"
    answer = client.post(path, content=body, headers=headers)
    assert (answer.status_code, time.monotonic() - began < SECONDS) == (status, True), answer.text[:300]
    message = answer.json()["error"]["message"]
    assert message.endswith((".", "?", "…")) and len(message) <= MOST_CHARACTERS + 1
    assert "Traceback" not in message and "function-after" not in message and "list[" not in message
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"text": {"x": "heavy"}}, "text.x"),
        ({"text": "x", "where": {"duration_s": {"low": "short"}}}, "where.duration_s.low"),
        ({"text": "x", "k": "many"}, "k"),
        ({"text": "x", "where": {"rate": [{}]}}, "where.rate.0"),
    ],
)
def test_errors_name_the_field(client: Any, body: dict[str, Any], param: str) -> None:
    assert client.post("/v1/search", json=body).json()["error"]["param"] == param


@pytest.mark.parametrize("keywords", ["off", "fused", "only"])
def test_a_query_of_5000_words_is_answered(client: Any, keywords: str) -> None:
    words = " ".join(f"w{number}" for number in range(5000))
    assert len(words) < Limits().characters
    assert client.post("/v1/search", json={"text": words, "keywords": keywords}).status_code == 200
    odd = client.post("/v1/search", json={"text": '"" AND (NEAR* ^x:y) --', "keywords": keywords})
    assert odd.status_code == 200


def flac(rate: int, channels: int, seconds: int) -> bytes:
    """Silence, a second of which takes some hundred bytes."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", rate, channels, format="FLAC") as file:
        for _ in range(seconds):
            file.write(np.zeros((rate, channels), np.int16))
    return buffer.getvalue()


def test_a_part_that_decodes_to_gigabytes_is_refused(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sounds, "MOST_SAMPLES", 1_000_000)
    content = flac(96000, 8, 4)
    assert len(content) < 10_000
    long = {"start_s": "0", "end_s": "4"}
    answer = client.post("/v1/search/sound", files={"file": ("quiet.flac", content)}, data=long)
    assert answer.status_code == 400 and "quiet.flac" in answer.json()["error"]["message"]
    short = client.post("/v1/search/sound", files={"file": content}, data={"start_s": "3", "end_s": "4"})
    assert short.status_code == 200 and "silent" in short.json()["warning"]
    with pytest.raises(AudioError, match="too many samples"):
        decode_part(content, 0, 4, 1000)


def test_a_long_silent_upload_is_answered_with_a_warning(client: Any) -> None:
    """Its blocks are resampled, and the first is empty."""
    answer = client.post("/v1/search/sound", files={"file": flac(192000, 2, 20)})
    assert answer.status_code == 200 and "silent" in answer.json()["warning"]
    assert is_silent(np.zeros(0, np.float32))


RANGES = {
    "bytes=5-2": 400,
    "bytes=-0": 416,
    "bytes=99999999999999999999-": 416,
    "bytes=a-b": 400,
    "bytes=": 400,
    "lines=0-1": 400,
    "bytes=-99999999999": 206,
    "bytes=0-0,2-3,-1": 206,
    "bytes=" + ",".join(["0-0"] * 3000): 200,
    "bytes=" + ",".join(["0-"] * 90): 206,
}


@pytest.mark.parametrize("text", RANGES, ids=lambda text: text[:24])
def test_odd_ranges_send_no_more_than_the_file(client: Any, library: Library, text: str) -> None:
    file = library.index.folder.parent / "sounds" / "1.wav"
    answer = client.get("/v1/sounds/file", params={"path": str(file)}, headers={"Range": text})
    assert answer.status_code == RANGES[text] and len(answer.content) <= file.stat().st_size + 1000


def foreign_paths(library: Library) -> list[str]:
    own = str(library.index.folder.parent / "sounds" / "1.wav")
    return [
        "/etc/passwd",
        "../etc/passwd",
        f"{own}/../../../etc/passwd",
        "%2e%2e%2fetc%2fpasswd",
        "%252e%252e%252fetc%252fpasswd",
        f"{own}\0",
        f"{own}\0.wav",
        f"file://{own}",
        f" {own}",
        f"/{own}",
        own.replace("/", "\\"),
        own.upper(),
        "C:\\Windows\\win.ini",
        "\\\\host\\share",
        "*",
        "' OR 1=1 --",
    ]


def test_foreign_paths_are_no_sounds(client: Any, library: Library) -> None:
    for path in foreign_paths(library):
        for route in ("", "/file", "/clip", "/peaks"):
            assert client.get(f"/v1/sounds{route}", params={"path": path}).status_code == 404, (route, path)
        assert client.post("/v1/search", json={"path": path}).status_code == 404, path
        judgement = {"query": "x", "path": path, "end_s": 1.0, "relevant": True}
        assert client.post("/v1/judgements", json=judgement).status_code == 404
        assert client.put("/v1/collections/mine", json={"paths": [path]}).status_code == 404
    for path in ("/v1/collections/..%2f..%2fetc", "/docs/../../etc/passwd", "/..%2f..%2fetc%2fpasswd", "//etc/passwd"):
        assert client.get(path).status_code == 404, path


def test_names_of_collections_are_only_names(client: Any, home: Path) -> None:
    names = ["..", "%2e%2e", "<b>", "\0", "a" * 200]
    for name in names:
        assert client.put(
            f"/v1/collections/{httpx.URL('/', params={'x': name}).query.decode()[2:]}", json={"paths": []}
        )
    assert {path.name.partition("-")[0] for path in home.iterdir()} == {"server.sqlite3"}
    assert client.put(f"/v1/collections/{'a' * 201}", json={"paths": []}).status_code == 400


def test_audio_elements_of_other_sites_get_no_sound(client: Any, library: Library) -> None:
    file = library.index.folder.parent / "sounds" / "1.wav"
    for route in ("/v1/sounds/file", "/v1/sounds/clip", "/v1/indexing/events", "/v1/sounds/peaks"):
        answer = client.get(route, params={"path": str(file)}, headers={"Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 403 and answer.headers["content-type"] == "application/json"


@pytest.fixture(scope="module")
def hasty(library: Library) -> Iterator[LiveServer]:
    """A real server that waits 0.3 s for a head, and for a client to read; it sends 4 kB ahead."""
    server = LiveServer(library)
    server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with pytest.MonkeyPatch.context() as patch, server:
        patch.setattr(connections, "HEAD_S", 0.3)
        patch.setattr(connections, "UNREAD_S", 0.3)
        yield server


def received(server: LiveServer, *pieces: bytes, pause_s: float = 0.0) -> bytes:
    """Send bytes as they are, and return what the server sends until it closes the connection."""
    answer = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection, suppress(ConnectionError):
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause_s)
        while block := connection.recv(65536):
            answer += block
    return answer


HOST = b"Host: 127.0.0.1\r\n"
CLOSE = b"Connection: close\r\n\r\n"


def test_heads_that_never_end_are_cut_off(hasty: LiveServer) -> None:
    whole = b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n"
    assert received(hasty) == received(hasty, b"GET /health HTT") == b""
    assert received(hasty, *[b"GET /health HTTP/1.1\r\n", *[b"X: y\r\n"] * 20], pause_s=0.1) == b""
    assert (
        received(hasty, whole, b"GET /health HTT", pause_s=0.2).count(b"200 OK") == 1
    )  # the second head on a connection
    answer = httpx.get(f"{hasty.url}/health")
    time.sleep(0.5)  # a connection that is only kept open is uvicorn's
    assert answer.status_code == httpx.get(f"{hasty.url}/health").status_code == 200


def test_an_answer_that_nobody_reads_is_given_up(hasty: LiveServer) -> None:
    body = json.dumps({"input": ["x"] * 2048}).encode()
    head = b"POST /v1/embeddings HTTP/1.1\r\nContent-Type: application/json\r\n" + HOST
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", hasty.port))
        connection.settimeout(20)
        connection.sendall(head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert connection.recv(16)
        time.sleep(1.5)
        size = 0
        with suppress(ConnectionError):
            while block := connection.recv(65536):
                size += len(block)
        assert size < 100_000  # of 700 kB
    assert httpx.get(f"{hasty.url}/health").status_code == 200


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /health HTTP/1.0\r\n\r\n", b"421"),
        (b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n" + CLOSE, b"400"),
        (b"GET http://evil.example/health HTTP/1.1\r\n" + HOST + CLOSE, b"404"),
        (b"GET /health HTTP/1.1\r\nX: a\0b\r\n" + HOST + CLOSE, b"400"),
        (b"GET /health HTTP/1.1\r\n" + HOST + b"".join(b"X%d: y\r\n" % n for n in range(3000)) + CLOSE, b"200"),
        (b"POST /v1/search HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n" + HOST + CLOSE, b"400"),
        (b"POST /v1/search HTTP/1.1\r\nContent-Length: -1\r\n" + HOST + CLOSE, b"400"),
        (b"POST /v1/search HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n" + HOST + CLOSE + b"{}", b"400"),
        (
            b"GET /v1/indexing/events HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"Origin: http://evil.example\r\n" + HOST + b"\r\n",
            b"403",
        ),
    ],
    ids=lambda value: value.decode()[:40] if len(value) > 3 else None,
)
def test_odd_heads_are_answered(live: LiveServer, head: bytes, status: bytes) -> None:
    assert received(live, head).split(b" ")[1] == status
    assert httpx.get(f"{live.url}/health").status_code == 200


def test_a_body_is_counted_until_its_answer_begins(library: Library) -> None:
    """A client that reads no answer holds no memory for bodies."""
    body = json.dumps({"input": ["x" * 20] * 2048}).encode()
    limits = Limits(body=BodyLimits(most_in_memory=len(body) + 1000))
    head = b"POST /v1/embeddings HTTP/1.1\r\nContent-Type: application/json\r\n" + HOST
    with LiveServer(library, limits=limits) as server, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.settimeout(20)
        connection.sendall(head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert connection.recv(16)
        answer = httpx.post(f"{server.url}/v1/embeddings", json={"input": ["x" * 20] * 100}, timeout=20)
        assert answer.status_code == 200


def test_a_clip_whose_client_has_gone_is_deleted(
    serve: Callable[..., Served], library: Library, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The thread finishes the clip after the answer 504; nobody takes it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    done, wav_bytes = [], sounds.wav_bytes

    def slow(*arguments: Any) -> bytes:
        time.sleep(0.5)
        done.append(True)
        return wav_bytes(*arguments)

    monkeypatch.setattr(sounds, "wav_bytes", slow)
    served = serve(limits=Limits(request_s=0.1))
    file = library.index.folder.parent / "sounds" / "1.wav"
    assert served.client.get("/v1/sounds/clip", params={"path": str(file)}).status_code == 504
    end = time.monotonic() + 20
    while not done or served.service.in_progress:
        assert time.monotonic() < end
        time.sleep(0.01)
    time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []


def test_a_full_temporary_folder_is_a_sentence(
    client: Any, library: Library, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    file = library.index.folder.parent / "sounds" / "1.wav"
    answer = client.get("/v1/sounds/clip", params={"path": str(file)})
    assert answer.status_code == 503 and "temporary folder" in answer.json()["error"]["message"]


def test_an_index_that_was_rebuilt_with_another_model_is_neither_searched_nor_written(
    serve_own: Callable[..., Served], own: Library, tmp_path: Path
) -> None:
    client = serve_own().client
    Library.rebuild(own.index.folder, save_tiny_model(tmp_path / "other", seed=1))
    before = Library.open(own.index.folder).index.files_by_path()
    assert client.post("/v1/search", json={"text": "noise"}).status_code == 409
    (tmp_path / "sounds" / "5.wav").rename(tmp_path / "sounds" / "new.wav")
    wave = np.random.default_rng(9).standard_normal(8000).astype(np.float32) * 0.1
    soundfile.write(tmp_path / "sounds" / "6.wav", wave, 16000)
    client.post("/v1/indexing")
    end = time.monotonic() + 20
    while (state := client.get("/v1/indexing").json())["state"] == "running":
        assert time.monotonic() < end
        time.sleep(0.02)
    assert state["state"] == "failed" and "model" in state["message"]
    assert Library.open(own.index.folder).index.files_by_path() == before


def test_an_index_that_vanished_is_a_sentence_until_it_is_back(
    serve_own: Callable[..., Served], own: Library, tmp_path: Path
) -> None:
    client = serve_own().client
    assert client.post("/v1/search", json={"text": "noise"}).status_code == 200
    own.index.folder.rename(tmp_path / "away")
    requests = [
        lambda: client.post("/v1/search", json={"text": "noise"}),
        lambda: client.get("/v1/indexes"),
        lambda: client.get("/v1/facets", params={"fact": "channels"}),
        lambda: client.get("/v1/sounds", params={"path": str(tmp_path / "sounds" / "1.wav")}),
    ]
    for request in requests:
        answer = request()
        assert answer.status_code == 503 and answer.json()["error"]["message"].endswith("."), answer.text
    assert client.get("/health").status_code == 200
    (tmp_path / "away").rename(own.index.folder)
    assert all(request().status_code == 200 for request in requests)


def test_a_model_that_fails_answers_with_a_sentence(serve: Callable[..., Served], library: Library) -> None:
    served = serve()
    runtime = served.service.models["tiny"].thread.runtime

    def fail(*arguments: Any) -> Any:
        raise MemoryError("no memory")

    runtime.embed_texts = fail  # type: ignore[method-assign]
    try:
        answer = served.client.post("/v1/search", json={"text": "noise"})
        assert answer.status_code == 500 and "memory" not in answer.json()["error"]["message"]
    finally:
        del runtime.embed_texts  # type: ignore[method-assign]
    assert served.client.post("/v1/search", json={"text": "noise"}).status_code == 200


def test_sounds_of_any_declared_type_are_read_by_their_bytes(client: Any, library: Library) -> None:
    file = library.index.folder.parent / "sounds" / "1.wav"
    data = base64.b64encode(file.read_bytes()).decode()
    expected = library.embedder.embed_audio([file])
    for kind in ("data:", "data:video/mp4", "data:application/octet-stream;x=y", "DATA:audio/a"):
        answer = client.post("/v1/embeddings", json={"input": f"{kind};base64,{data}"})
        np.testing.assert_allclose([answer.json()["data"][0]["embedding"]], expected, atol=1e-5)
    for text in ("data: the sound of rain", "data:audio is loud", "database,"):
        answer = client.post("/v1/embeddings", json={"input": text, "modality": "text"})
        np.testing.assert_allclose(
            [answer.json()["data"][0]["embedding"]], library.embedder.embed_text([text]), atol=1e-5
        )
