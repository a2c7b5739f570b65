"""Freesound's search on this machine's loopback, in the form that https://freesound.org/docs/api/ documents."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

TOKEN = "right"


def sound(number: int) -> dict[str, Any]:
    """One sound with every field of the documentation that is asked for."""
    user = f"user{number % 7}"
    preview = f"https://cdn.freesound.org/previews/0/{number}_1"
    return {
        "id": number,
        "name": f"Door creak {number}.wav",
        "tags": ["door", "creak"],
        "description": "An old door.\r\nRecorded at home.",
        "license": "https://creativecommons.org/licenses/by/4.0/",
        "username": user,
        "url": f"https://freesound.org/people/{user}/sounds/{number}/",
        "duration": 1.5,
        "samplerate": 44100.0,
        "previews": {f"preview-{q}-{form}": f"{preview}-{q}.{form}" for q in ("hq", "lq") for form in ("mp3", "ogg")},
    }


class Freesound:
    """The server; `with Freesound(400) as site:` has 400 sounds at `site.api`."""

    def __init__(self, sounds: int) -> None:
        self.sounds = [sound(number) for number in range(1, sounds + 1)]
        self.refusals: list[tuple[int, dict[str, str]]] = []
        """What each of the next requests is answered with, instead of a page."""
        self.requests: list[tuple[float, dict[str, str]]] = []
        site = self

        class Handler(_Handler):
            freesound = site

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.api = f"http://127.0.0.1:{self._server.server_address[1]}/apiv2"

    def __enter__(self) -> Freesound:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def pages(self) -> list[int]:
        """The pages that were asked for, in turn."""
        return [int(parameters["page"]) for _, parameters in self.requests]


class _Handler(BaseHTTPRequestHandler):
    freesound: Freesound

    def do_GET(self) -> None:
        site, address = self.freesound, urlsplit(self.path)
        parameters = {name: values[0] for name, values in parse_qs(address.query, keep_blank_values=True).items()}
        site.requests.append((time.monotonic(), parameters))
        if self.headers.get("Authorization") != f"Token {TOKEN}":
            return self._answer(401, {"detail": "Invalid token"})
        if address.path != "/apiv2/search/":
            return self._answer(404, {"detail": "Not found"})
        if site.refusals:
            status, headers = site.refusals.pop(0)
            return self._answer(status, {"detail": "Request was throttled."}, headers)
        return self._answer(200, self._page(address.path, parameters))

    def _page(self, path: str, parameters: dict[str, str]) -> dict[str, Any]:
        page, size = int(parameters["page"]), int(parameters["page_size"])
        fields = parameters["fields"].split(",")
        found = [each for each in self.freesound.sounds if parameters["query"] in each["name"]]
        here = found[(page - 1) * size : page * size]
        following = urlencode(parameters | {"page": str(page + 1)})
        return {
            "count": len(found),
            "next": f"http://freesound.org{path}?{following}" if page * size < len(found) else None,
            "previous": None,
            "results": [{name: each[name] for name in fields} for each in here],
        }

    def _answer(self, status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
