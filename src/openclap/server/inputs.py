"""Read the sounds in a request: data URIs, `input_audio` parts, uploads, and URLs of allowed hosts."""

from __future__ import annotations

import base64
import binascii
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, BinaryIO
from urllib.parse import urlsplit

from fastapi import Query

from openclap.paths import is_url
from openclap.server.errors import ApiError
from openclap.server.index_schemas import check_part
from openclap.server.schemas import AudioPart, InputItem
from openclap.server.service import Service
from openclap.types import FileContent

_DATA_URI = re.compile(r"data:[^,;]{0,200}(?:;[^,;]{0,200}){0,9}?(;base64)?,", re.IGNORECASE)
"""The head of a data URI. Its parts are bounded, or a long text that begins like one would take seconds."""
IndexName = Annotated[str | None, Query(description="The name of an index; the first without one.")]
"""A parameter of routes."""
FETCH_S = 60.0
"""Longest time to fetch a URL."""


def is_sound(item: InputItem) -> bool:
    """Whether an item is a sound by itself: an `input_audio` part, or a data URI in base64, of any type: clients also
    send sounds as `application/octet-stream` or `video/mp4`, and the bytes decide."""
    if isinstance(item, AudioPart):
        return True
    header = _DATA_URI.match(item)
    return item[:11].lower() == "data:audio/" or (header is not None and header[1] is not None)


def sound_of(item: InputItem, name: str, service: Service) -> FileContent:
    """The bytes of a sound in a request. Raises ApiError with `name` for anything else."""
    if isinstance(item, AudioPart):
        return FileContent(_from_base64(item.input_audio.data, name), name)
    if header := _DATA_URI.match(item):
        if not header[1]:
            raise ApiError(400, f"{name}: the data URI is not in base64.", param=name)
        return FileContent(_from_base64(item[header.end() :], name), name)
    if is_url(item):
        return FileContent(_fetched(item, name, service), name)
    raise ApiError(400, f"{name}: is text, expected a sound as a data URI: data:audio/wav;base64,….", param=name)


def _from_base64(text: str, name: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(400, f"{name}: is not valid base64.", param=name) from None


def _fetched(url: str, name: str, service: Service) -> bytes:
    """Fetch a sound. Raises ApiError unless its host is allowed."""
    from openclap.download import FetchedFile, FetchLimits, FileRequest, fetch

    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""
    if host not in service.url_hosts:
        raise ApiError(
            400,
            f"{name}: is a URL, which this server does not fetch. Send the sound as a data URI, or start the server "
            "with --fetch-from HOST.",
            param=name,
        )
    limits = FetchLimits(
        max_bytes=service.limits.body.most_bytes, timeout_s=FETCH_S, attempts=2, patience_s=FETCH_S, allow_private=True
    )
    with tempfile.TemporaryDirectory(prefix="openclap-") as folder:
        to = Path(folder) / "sound"
        for outcome in fetch([FileRequest(url, to)], limits=limits):
            if not isinstance(outcome, FetchedFile):
                raise ApiError(400, f"{name}: cannot be fetched ({outcome.kind}: {outcome.detail}).", param=name)
        return to.read_bytes()


def check_texts(texts: Sequence[str], field: str, service: Service) -> None:
    """Raise ApiError for a text that is too long."""
    for number, text in enumerate(texts):
        if len(text) > service.limits.characters:
            raise ApiError(
                400,
                f"{field}[{number}] has {len(text):,} characters, and the limit is {service.limits.characters:,}.",
                param=field,
            )


def check_times(start_s: float | None, end_s: float | None) -> None:
    """Raise ApiError unless the start of a part lies before its end. Bodies in JSON are checked by their models."""
    try:
        check_part(start_s, end_s)
    except ValueError as error:
        raise ApiError(400, f"{error}.", param="start_s") from None


class Upload:
    """An open file with a name for messages: that of an upload, or of a file that has only a descriptor."""

    def __init__(self, file: BinaryIO, name: str | None) -> None:
        self._file = file
        self.name = Path(name or "").name or "the upload"

    def read(self, size: int = -1) -> bytes:
        """Read from the file."""
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move in the file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The position in the file."""
        return self._file.tell()

    def seekable(self) -> bool:
        """Whether `seek` works."""
        return True
