"""Freesound's search, in the form that https://freesound.org/docs/api/ documents."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from support.http_server import Exchange, HttpServer

TOKEN = "right"


def sound(number: int) -> dict[str, Any]:
    """One sound with every documented field that is requested."""
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


class Freesound(HttpServer):
    """A site with so many sounds at `site.api`.

    `refusals` holds (status, headers) of each next request, in place of a page.
    """

    def __init__(self, sounds: int) -> None:
        super().__init__()
        self.sounds = [sound(number) for number in range(1, sounds + 1)]
        self.refusals: list[tuple[int, dict[str, str]]] = []
        self.api = f"{self.root}/apiv2"

    @property
    def pages(self) -> list[int]:
        """The requested pages, in order."""
        return [int(request.query["page"]) for request in self.requests]

    def handle(self, exchange: Exchange) -> None:
        request = exchange.request_
        if request.headers.get("authorization") != f"Token {TOKEN}":
            exchange.send_json({"detail": "Invalid token"}, 401)
        elif request.path != "/apiv2/search/":
            exchange.send_json({"detail": "Not found"}, 404)
        elif self.refusals:
            status, headers = self.refusals.pop(0)
            exchange.send_json({"detail": "Request was throttled."}, status, headers)
        else:
            exchange.send_json(self._page(request.path, request.query))

    def _page(self, path: str, query: Any) -> dict[str, Any]:
        page, size = int(query["page"]), int(query["page_size"])
        fields = query["fields"].split(",")
        matching = [each for each in self.sounds if query["query"] in each["name"]]
        here = matching[(page - 1) * size : page * size]
        following = urlencode({**query, "page": str(page + 1)})
        return {
            "count": len(matching),
            "next": f"http://freesound.org{path}?{following}" if page * size < len(matching) else None,
            "previous": None,
            "results": [{name: each[name] for name in fields} for each in here],
        }
