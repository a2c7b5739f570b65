"""Freesound's API, version 2: search, page by page, with a token and at the pace that its terms ask for.

https://freesound.org/docs/api/. Only what needs no OAuth: search and the previews (MP3 and Ogg, whole length, of
high quality); originals need a login of each user. Pages are kept as they come, so that what was fetched is never
fetched again: 60 requests a minute and 2,000 a day are allowed, of up to 150 sounds each.
"""

from __future__ import annotations

import email.utils
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openclap.errors import ConfigError, DataError, require
from openclap.locks import only_writer
from openclap.sources.files import as_float, log
from openclap.sources.grouping import freesound_page, freesound_user
from openclap.sources.licence import normalise_licence
from openclap.sources.record import Record

API = "https://freesound.org/apiv2"
FIELDS = "id,name,tags,description,license,username,url,duration,samplerate,previews"
PAGE_SIZE = 150
"""The most that the API gives at once."""
PAUSE_S = 1.0
"""Between two requests: 60 a minute are allowed."""
PATIENCE_S = 600.0
"""The longest wait that the server may ask for; beyond that, the daily allowance is used up."""
TRIES = 5
TIMEOUT_S = 30.0
PREVIEWS = ("preview-hq-ogg", "preview-hq-mp3")
"""By preference: about 192 and 128 kbit/s."""

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
    """Write a search's pages to `folder` as page-00001.json and so on; return how many sounds they hold.

    The same call goes on where it was stopped. Sounds come in the order of their upload, so that pages stay what they
    are while new sounds come in; the last page is asked for again.

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
    with _Client(token, pause_s) as client, _own(place, wanted):
        page = _first_to_fetch(place)
        while page:
            answer = client.get(f"{api}/search/", {**wanted, "page": str(page)}, f"{page - 1} pages are in {place}")
            _write(_page(place, page), answer)
            page = page + 1 if answer.get("next") else 0
    return sum(len(_results(path)) for path in place.glob("page-*.json"))


def read_pages(folder: str | os.PathLike[str], local: Mapping[int, Path] | None = None) -> Iterator[Record]:
    """Records of the pages that `fetch_pages` wrote.

    The sound is the one in `local` under the Freesound id, or the address of the preview. A damaged page is logged and
    left out.
    """
    for path in sorted(Path(folder).glob("page-*.json")):
        for sound in _results(path):
            record = _record(sound, local or {})
            if record is not None:
                yield record


def _record(sound: Mapping[str, Any], local: Mapping[int, Path]) -> Record | None:
    """One result of a search; None when it names no sound."""
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
    """One request at a time, `pause_s` apart, and again when the server is busy."""

    def __init__(self, token: str | None, pause_s: float) -> None:
        token = token or os.environ.get("FREESOUND_TOKEN")
        if not token:
            raise ConfigError(
                "Freesound's API needs a token: get one at https://freesound.org/apiv2/apply and pass it as token= or "
                "in the variable FREESOUND_TOKEN."
            )
        self._http = require("httpx2", "data")
        self._session = self._http.Client(
            headers={"Authorization": f"Token {token}"}, timeout=TIMEOUT_S, follow_redirects=True
        )
        self._pause_s, self._next = pause_s, 0.0

    def __enter__(self) -> _Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def get(self, url: str, parameters: Mapping[str, str], kept: str) -> dict[str, Any]:
        """The page of results at `url`. `kept` says in errors what is not lost."""
        why = ""
        for attempt in range(TRIES):
            time.sleep(max(0.0, self._next - time.monotonic()))
            self._next = time.monotonic() + self._pause_s
            wait_s = self._pause_s * 2 ** (attempt + 1)
            try:
                answer = self._session.get(url, params=dict(parameters))
            except self._http.TransportError as error:
                why = f"cannot be reached ({type(error).__name__}: {error})"
            else:
                if answer.status_code != 429 and answer.status_code < 500:
                    return _object(answer, url)
                why = f"answered {answer.status_code}"
                wait_s = max(_seconds(answer.headers.get("Retry-After")), wait_s)
            if wait_s > PATIENCE_S:
                why += f" and asks to wait {wait_s / 60:.0f} minutes"
                break
            self._next = time.monotonic() + wait_s
        raise DataError(f"{url}: {why}. Run the same again later: it goes on from there; {kept}.")


def _object(answer: Any, url: str) -> dict[str, Any]:
    """What an answer holds. Raises DataError when it is a refusal, or no list of results."""
    if answer.status_code in (401, 403):
        raise DataError(
            f"{url}: refused the token ({answer.status_code}). Look at it at https://freesound.org/apiv2/apply."
        )
    try:
        content = answer.json()
    except ValueError:
        content = None
    if answer.status_code != 200 or not isinstance(content, dict) or not isinstance(content.get("results"), list):
        raise DataError(
            f"{url}: answered {answer.status_code} with {answer.text[:100]!r}, expected a page of results. "
            "Are query and filter in the form of https://freesound.org/docs/api/?"
        )
    return content


def _seconds(retry_after: str | None) -> float:
    """What the header Retry-After asks for: seconds, or a date."""
    if retry_after is None:
        return 0.0
    if (seconds := as_float(retry_after)) is not None:
        return seconds
    try:
        return email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
    except ValueError:
        return 0.0


@contextmanager
def _own(folder: Path, wanted: Mapping[str, str]) -> Iterator[None]:
    """Hold the folder for this search. Raises DataError when it is another's, in use, or cannot be written."""
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
        raise DataError(f"{folder}: cannot be written ({error}). Mend that or choose another folder.") from error


def _first_to_fetch(folder: Path) -> int:
    """The first page that is not there, damaged, or was the last one when it was fetched."""
    page = 1
    while _content(_page(folder, page)).get("next"):
        page += 1
    return page


def _results(path: Path) -> list[dict[str, Any]]:
    """The sounds of a page; none where it is damaged."""
    results = _content(path).get("results")
    return [sound for sound in results if isinstance(sound, dict)] if isinstance(results, list) else []


def _content(path: Path) -> dict[str, Any]:
    """What a page holds; nothing where it is not there or damaged."""
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
    """A file that is there whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    partial.replace(path)
