"""A chat server on this machine's loopback: as much of OpenAI's protocol as the endpoint uses.

`answers` holds what each next request gets: a status, (status, headers), bytes to send as they are, or a function from
keyword lists to captions. When they are used up, a caption of all keywords is written for each list.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Captions = Callable[[list[list[str]]], Any]


def plain(keywords: list[list[str]]) -> Any:
    return [f"There is {' and '.join(words)}." for words in keywords]


class ChatServer:
    """`with ChatServer() as server:` runs it at `server.url`; `asked` holds bodies, `headers` the last request's."""

    def __init__(self, *answers: Any, delay_s: float = 0.0) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}
        self.times: list[float] = []
        self.most_at_once = self._now = 0
        self._lock = threading.Lock()
        chat = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with chat._lock:
                    chat._now += 1
                    chat.most_at_once = max(chat.most_at_once, chat._now)
                    chat.asked.append(body)
                    chat.times.append(time.monotonic())
                    chat.headers = dict(self.headers)
                    answer = chat.answers.pop(0) if chat.answers else plain
                time.sleep(delay_s)
                with chat._lock:
                    chat._now -= 1
                if self.path != "/v1/chat/completions":
                    answer = 404
                self.send(*reply(answer, body))

            def send(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # clients that hang up are part of the tests
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> ChatServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def keywords_in(body: dict[str, Any]) -> list[list[str]]:
    return list(json.loads(body["messages"][-1]["content"]))


def completion(content: Any, finish_reason: str = "stop") -> bytes:
    message = {"role": "assistant", "content": content}
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": finish_reason}]}).encode()


def reply(answer: Any, body: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
    if isinstance(answer, int):
        return answer, {}, b"{}"
    if isinstance(answer, tuple):
        return answer[0], answer[1], b"{}"
    if isinstance(answer, bytes):
        return 200, {}, answer
    return 200, {}, completion(json.dumps({"captions": answer(keywords_in(body))}))
