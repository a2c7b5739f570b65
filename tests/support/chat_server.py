"""A chat server: as much of OpenAI's protocol as the captions endpoint uses."""

from __future__ import annotations

import json
from typing import Any

from support.http_server import Exchange, HttpServer


class ChatServer(HttpServer):
    """A chat server at `server.url`.

    `answers` holds the answer of each next request: a status, (status, headers), or bytes to send as they are. When
    they are used up, a caption of all keywords is written for each list.
    """

    def __init__(self, *answers: Any, delay_s: float = 0.0) -> None:
        super().__init__()
        self.answers, self.pause_s = list(answers), delay_s
        self.url = f"{self.root}/v1"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [request.json() for request in self.requests]

    def handle(self, exchange: Exchange) -> None:
        request = exchange.request_
        with self._lock:
            answer = self.answers.pop(0) if self.answers else None
        if request.path != "/v1/chat/completions":
            exchange.send_json({}, 404)
        elif isinstance(answer, int):
            exchange.send_json({}, answer)
        elif isinstance(answer, tuple):
            exchange.send_json({}, *answer)
        elif isinstance(answer, bytes):
            exchange.send(200, answer)
        else:
            captions = [f"There is {' and '.join(words)}." for words in keywords_in(request.json())]
            exchange.send(200, completion(json.dumps({"captions": captions})))


def keywords_in(body: dict[str, Any]) -> list[list[str]]:
    return list(json.loads(body["messages"][-1]["content"]))


def completion(content: Any, finish_reason: str = "stop") -> bytes:
    message = {"role": "assistant", "content": content}
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": finish_reason}]}).encode()
