"""Search Freesound through its API, version 2, page by page, at the pace that its terms demand.

https://freesound.org/docs/api/. Only functions that need no OAuth: search and previews (MP3 and Ogg, whole length, high
quality); originals need a login of each user. Pages are stored as they come, so that none is fetched twice: 60
requests a minute and 2,000 a day are allowed, of up to 150 sounds each.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openclap.errors import ConfigError, DataError, require
from openclap.http import USER_AGENT, retry_after, send_with_retries
from openclap.locks import only_writer
from openclap.sources.files import as_float, log
from openclap.sources.grouping import freesound_page, freesound_user
from openclap.sources.licence import normalise_licence
from openclap.sources.record import Record
from openclap.storage import write_bytes

API = "https://freesound.org/apiv2"
FIELDS = "id,name,tags,description,license,username,url,duration,samplerate,previews"
PAGE_SIZE = 150
"""The largest that the API allows."""
PAUSE_S = 1.0
"""Between two requests: 60 a minute are allowed."""
PATIENCE_S = 600.0
"""Longest Retry-After that is waited for; a longer one means that the daily allowance is used up."""
ATTEMPTS = 5
TIMEOUT_S = 30.0
PREVIEWS = ("preview-hq-ogg", "preview-hq-mp3")
"""In order of preference: about 192 and 128 kbit/s."""

_QUERY = "search.json"


def fetch_pages(
    folder: str | os.PathLike[str],
    query: str = "",
    *,
    filter: str = "",
    token: str | None = None,
    api: str = API,
    pause_s: float = PAUSE_S,
) -> int:
    """Write a search's pages to `folder` as page-00001.json and so on; return the number of their sounds.

    The same call resumes a stopped one. Sounds are sorted by upload date, so that pages stay the same while new sounds
    are added; the last page is always fetched again.

    Args:
        query: words to search for; "" finds every sound.
        filter: in the API's own form, such as 'license:"Creative Commons 0" duration:[0 TO 180]'.
        token: of https://freesound.org/apiv2/apply; `$FREESOUND_TOKEN` without it.
        api, pause_s: where the API is, and seconds between two requests.

    Raises ConfigError without a token, DataError when the API refuses or cannot be reached, and when `folder` holds
    pages of another search.
    """
    place = Path(folder)
    wanted = {"query": query, "filter": filter, "sort": "created_asc", "page_size": str(PAGE_SIZE), "fields": FIELDS}
    with _Client(token, pause_s) as client, _lock_for(place, wanted):
        page = _first_to_fetch(place)
        while page:
            parameters = {**wanted, "page": str(page)}
            content = client.get(f"{api}/search/", parameters, f"{page - 1} pages are in {place}")
            _write(_page(place, page), content)
            page = page + 1 if content.get("next") else 0
    return sum(len(_results(path)) for path in place.glob("page-*.json"))


def read_pages(folder: str | os.PathLike[str], local: Mapping[int, Path] | None = None) -> Iterator[Record]:
    """Yield the records of the pages that `fetch_pages` wrote.

    The sound is the file in `local` under the Freesound id, or else the URL of the preview. A damaged page is logged
    and left out.
    """
    for path in sorted(Path(folder).glob("page-*.json")):
        for sound in _results(path):
            record = _record(sound, local or {})
            if record is not None:
                yield record


def _record(sound: Mapping[str, Any], local: Mapping[int, Path]) -> Record | None:
    """Convert one search result; None when it names no sound."""
    previews = sound.get("previews") or {}
    identity = sound.get("id")
    preview = next((previews[name] for name in PREVIEWS if previews.get(name)), None)
    if not isinstance(identity, int) or not (identity in local or preview):
        return None
    return Record(
        id=str(identity),
        audio=local.get(identity) or str(preview),
        captions=(),
        source="freesound",
        tags=tuple(sound.get("tags") or ()),
        group=freesound_user(sound.get("username")),
        title=sound.get("name"),
        licence=normalise_licence(sound.get("license")),
        author=sound.get("username"),
        link=sound.get("url") or freesound_page(identity),
        description=sound.get("description"),
        length_s=as_float(sound.get("duration")),
        rate=int(rate) if (rate := as_float(sound.get("samplerate"))) else None,
        freesound_id=identity,
    )


class _Client:
    """Send one request at a time, `pause_s` apart, and again while the server is busy."""

    def __init__(self, token: str | None, pause_s: float) -> None:
        token = token or os.environ.get("FREESOUND_TOKEN")
        if not token:
            raise ConfigError(
                "Freesound's API needs a token: get one at https://freesound.org/apiv2/apply and pass it as token= or "
                "in the variable FREESOUND_TOKEN."
            )
        self._http = require("httpx2", "data")
        headers = {"User-Agent": USER_AGENT, "Authorization": f"Token {token}"}
        self._client = self._http.Client(headers=headers, timeout=TIMEOUT_S, follow_redirects=True)
        self._pause_s, self._next = pause_s, 0.0

    def __enter__(self) -> _Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, url: str, parameters: Mapping[str, str], progress: str) -> dict[str, Any]:
        """Fetch the page of results at `url`. `progress` is a clause for errors: the pages that are there already."""
        try:
            response = send_with_retries(
                lambda: self._paced(url, parameters),
                attempts=ATTEMPTS,
                is_busy=_is_busy,
                first_wait_s=2 * self._pause_s,
                patience_s=PATIENCE_S,
            )
        except self._http.TransportError as error:
            why = f"cannot be reached ({type(error).__name__}: {error})"
        else:
            if not _is_busy(response.status_code):
                return _object(response, url)
            why = f"answered {response.status_code}"
            if (wait_s := retry_after(response.headers)) is not None and wait_s > PATIENCE_S:
                why += f" and asks to wait {wait_s / 60:.0f} minutes"
        raise DataError(f"{url}: {why}. Run the same again later to resume; {progress}.")

    def _paced(self, url: str, parameters: Mapping[str, str]) -> Any:
        time.sleep(max(0.0, self._next - time.monotonic()))
        # Set before the request: the pace is counted from start to start.
        self._next = time.monotonic() + self._pause_s
        return self._client.get(url, params=dict(parameters))


def _is_busy(status: int) -> bool:
    return status == 429 or status >= 500


def _object(response: Any, url: str) -> dict[str, Any]:
    """Parse a response. Raises DataError for a refusal, or anything but a list of results."""
    if response.status_code in (401, 403):
        raise DataError(
            f"{url}: refused the token ({response.status_code}). Check it at https://freesound.org/apiv2/apply."
        )
    try:
        content = response.json()
    except ValueError:
        content = None
    if response.status_code != 200 or not isinstance(content, dict) or not isinstance(content.get("results"), list):
        raise DataError(
            f"{url}: answered {response.status_code} with {response.text[:100]!r}, expected a page of results. "
            "Are query and filter in the form of https://freesound.org/docs/api/?"
        )
    return content


@contextmanager
def _lock_for(folder: Path, wanted: Mapping[str, str]) -> Iterator[None]:
    """Lock the folder for this search. Raises DataError when it belongs to another one, is locked, or is read-only."""
    note = folder / _QUERY
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with only_writer(folder):
            known = json.loads(note.read_bytes()) if note.exists() else None
            if known != wanted and any(folder.glob("page-*.json")):
                raise DataError(f"{folder}: holds pages of another search, see {_QUERY} there. Choose another folder.")
            _write(note, wanted)
            yield
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: cannot be written ({error}). Correct that or choose another folder.") from error


def _first_to_fetch(folder: Path) -> int:
    """The first page that is missing, damaged, or was the last one when it was fetched."""
    page = 1
    # A page that names no next one may have been filled up since, so it is fetched again.
    while _content(_page(folder, page)).get("next"):
        page += 1
    return page


def _results(path: Path) -> list[dict[str, Any]]:
    """The sounds of a page; none where it is damaged."""
    results = _content(path).get("results")
    return [sound for sound in results if isinstance(sound, dict)] if isinstance(results, list) else []


def _content(path: Path) -> dict[str, Any]:
    """Content of a page; empty where it is missing or damaged."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("%s: cannot be read (%s). Fetch it again.", path, error)
        return {}
    return content if isinstance(content, dict) else {}


def _page(folder: Path, page: int) -> Path:
    return folder / f"page-{page:05d}.json"


def _write(path: Path, content: Mapping[str, Any]) -> None:
    write_bytes(path, json.dumps(content, ensure_ascii=False).encode())
