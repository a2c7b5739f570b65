"""The captions endpoint against a server on the loopback: answers, refusals, failures."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from openclap.captions.endpoint import Endpoint, Patience, sentences
from openclap.captions.makers import CaptioningCounts, augment
from openclap.errors import ConfigError
from openclap.sources.record import Record
from support.chat_server import ChatServer, completion, keywords_in
from support.errors import raises_naming

QUICK = Patience(attempts=3, requests=2, first_pause_s=0.01, longest_pause_s=0.2, timeout_s=5)
WORDS = [(f"word{chr(97 + n)}", "rain") for n in range(20)]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")


def endpoint(server: ChatServer, **changes: Any) -> Endpoint:
    return Endpoint(server.url, "small", **{"patience": QUICK, **changes})


def expected(words: list[tuple[str, ...]]) -> list[str]:
    return [f"There is {' and '.join(each)}." for each in words]


def test_sentences_keep_their_order_over_concurrent_requests() -> None:
    with ChatServer(delay_s=0.05) as server:
        assert endpoint(server, key="secret", per_request=3, concurrency=4).make(WORDS) == expected(WORDS)
    assert len(server.bodies) == 7
    assert 2 <= server.most_concurrent <= 4
    assert server.requests[-1].headers["authorization"] == "Bearer secret"
    assert {body["model"] for body in server.bodies} == {"small"}
    assert {body["temperature"] for body in server.bodies} == {0}
    assert sorted(words for body in server.bodies for words in keywords_in(body)) == sorted(map(list, WORDS))


def test_key_is_optional_and_never_shown() -> None:
    with ChatServer() as server:
        assert endpoint(server).make([]) == []
        endpoint(server).make(WORDS[:1])
    assert "authorization" not in server.requests[-1].headers
    shown = Endpoint("http://127.0.0.1/v1", "small", "secret")
    assert "secret" not in repr(shown) + shown.identity + shown.name
    assert "secret" not in Endpoint("http://me:secret@127.0.0.1/v1", "small").identity


@pytest.mark.parametrize("trouble", [429, 500, 502, 503, 408, (429, {"Retry-After": "0"})])
def test_busy_server_gets_the_request_again(trouble: Any) -> None:
    with ChatServer(trouble, trouble) as server:
        assert endpoint(server).make(WORDS[:2]) == expected(WORDS[:2])
    assert len(server.bodies) == 3


def test_retry_after_is_bounded_by_the_longest_pause() -> None:
    with ChatServer((503, {"Retry-After": "30"})) as server:
        patience = Patience(attempts=2, first_pause_s=0.0, longest_pause_s=0.4)
        assert endpoint(server, patience=patience).make(WORDS[:1]) == expected(WORDS[:1])
    assert 0.4 <= server.requests[1].started - server.requests[0].started < 20.0  # 30 s are more than we wait at most


def test_repeated_failures_lose_sentences_and_then_stop_the_run() -> None:
    with ChatServer(*[503] * 6) as server:
        maker = endpoint(server)
        assert maker.make(WORDS[:2]) == [None, None]
        with raises_naming(ConfigError, "2 requests", "3 times"):
            maker.make(WORDS[:2])
        assert len(server.bodies) == 6


@pytest.mark.parametrize(
    "answer",
    [
        400,
        b"",
        b"<html>busy</html>",
        b"{}",
        b'{"choices": []}',
        b"\xff",
        completion("I cannot help with that."),
        completion(None),
        completion('{"captions": "one"}'),
        completion('{"captions": ["one", "too", "many"]}'),
        completion('{"captions": ["a", "b"]}', finish_reason="length"),
        completion('{"captions": ["a", "b"'),
        completion("}{"),
    ],
)
def test_refused_or_malformed_answers_are_requested_one_by_one(answer: Any) -> None:
    with ChatServer(answer, answer) as server:
        assert endpoint(server).make(WORDS[:2]) == [None, expected(WORDS)[1]]
    assert [len(keywords_in(body)) for body in server.bodies] == [2, 1, 1]


def test_invalid_captions() -> None:
    bad = ["", "...", None, 3, "x" * 401, "A dog\nbarks"]
    assert sentences(completion(json.dumps({"captions": bad})), 6) == [None] * 5 + ["A dog barks"]
    fenced = '```json\n{"captions": ["A dog {barks}"]}\n```'
    assert sentences(completion(fenced), 1) == ["A dog {barks}"]


@pytest.mark.parametrize(("status", "word"), [(401, "KEY"), (403, "KEY"), (404, "URL")])
def test_wrong_key_or_address_stops_at_once(status: int, word: str) -> None:
    with ChatServer(*[status] * 9) as server:
        with raises_naming(ConfigError, f"OPENCLAP_CHAT_{word}", status):
            endpoint(server, concurrency=1).make(WORDS)
        assert len(server.bodies) <= 2  # the next may be under way


def test_unreachable_server() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with raises_naming(ConfigError, port, "3 times"):
        Endpoint(f"http://127.0.0.1:{port}/v1", "small", patience=QUICK).make(WORDS[:1])
    for url in ("127.0.0.1/v1", "ftp://127.0.0.1", "http://[", ""):
        with raises_naming(ConfigError, "OPENCLAP_CHAT_URL"):
            Endpoint(url, "small", patience=QUICK)


def test_server_that_does_not_answer() -> None:
    with ChatServer(delay_s=0.5) as server:
        patience = Patience(attempts=2, first_pause_s=0.0, timeout_s=0.1)
        with pytest.raises(ConfigError, match="Timeout"):
            endpoint(server, patience=patience).make(WORDS[:1])


def test_from_the_environment() -> None:
    with pytest.raises(ConfigError, match=r"^OPENCLAP_CHAT_MODEL "):
        Endpoint.from_environment({"OPENCLAP_CHAT_URL": "http://127.0.0.1/v1"})
    names = {"OPENCLAP_CHAT_URL": "http://127.0.0.1/v1", "OPENCLAP_CHAT_MODEL": "m", "OPENCLAP_CHAT_KEY": "k"}
    made = Endpoint.from_environment(names)
    assert (made.url, made.model, made.key) == ("http://127.0.0.1/v1", "m", "k")
    with raises_naming(ConfigError, "OPENCLAP_CHAT_KEY") as failed:
        Endpoint.from_environment({**names, "OPENCLAP_CHAT_KEY": "hidden\n"})
    assert "hidden" not in str(failed.value)


def test_failed_captions_are_counted_and_retried_by_the_next_run(tmp_path: Path) -> None:
    records = [Record("1", Path("a.wav"), (), "freesound", tags=words) for words in WORDS[:2]]
    seen: list[CaptioningCounts] = []
    with ChatServer(b"{}", b"{}") as server:
        for _ in range(2):
            made = augment(records, endpoint(server), cache=tmp_path / "captions.jsonl", progress=seen.append)
            found = [caption and (caption.text, caption.made) for caption in made]
    assert found == [(text, "keywords:small") for text in expected(WORDS[:2])]
    assert seen == [CaptioningCounts(done=2, made=1, failed=1), CaptioningCounts(done=2, made=1, cached=1)]
