"""The page of the server: its files, its content security policy, and the settings that it asks for first."""

from __future__ import annotations

import secrets
from importlib.resources import files

from fastapi import APIRouter, Response

import openclap
from openclap.server.errors import ApiError
from openclap.server.page_schemas import PageSettings
from openclap.server.service import Service

TYPES = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml", "txt": "text/plain; charset=utf-8"}
"""The types of the page's files, by suffix; others are not sent."""
NONCE = "NONCE"
"""The placeholder of the nonce in index.html."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of the page. The nonce is for the style sheet that wavesurfer.js has in its shadow root."""


def router(service: Service, *, can_reveal: bool) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(tags=["Page"])
    static = files("openclap.server") / "static"
    names = {file.name for file in static.iterdir()}

    @routes.get("/", include_in_schema=False)
    async def page() -> Response:
        nonce = secrets.token_urlsafe(16)
        html = (static / "index.html").read_text(encoding="utf-8").replace(NONCE, nonce)
        headers = {"Content-Security-Policy": POLICY.format(nonce=nonce), "Cache-Control": "no-store"}
        return Response(html, media_type="text/html", headers=headers)

    @routes.get("/static/{name}", include_in_schema=False)
    async def page_file(name: str) -> Response:
        kind = TYPES.get(name.rpartition(".")[2])
        if kind is None or name not in names:
            raise ApiError(404, "The page has no such file.")
        return Response((static / name).read_bytes(), media_type=kind, headers={"Cache-Control": "no-cache"})

    @routes.get("/v1/page", operation_id="page_settings")
    async def page_settings() -> PageSettings:
        """Settings that the page asks for first."""
        limits = service.limits
        return PageSettings(
            version=openclap.__version__,
            can_reveal=can_reveal,
            clip_s=limits.clip_s,
            upload_bytes=limits.body.most_bytes,
            upload_s=limits.audio_s,
        )

    return routes
