"""Freesound's API against a server on the loopback: pages, pace, waits, resuming."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from openclap.errors import ConfigError, DataError
from openclap.sources import Record
from openclap.sources.freesound_api import fetch_pages
from support.errors import raises_naming
from support.freesound_server import TOKEN, Freesound
from support.layouts import decodable, put, records


@pytest.fixture(autouse=True)
def nothing_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove proxies and the token of the user who runs the tests."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.delenv("FREESOUND_TOKEN", raising=False)


@pytest.fixture
def site() -> Iterator[Freesound]:
    with Freesound(320) as running:
        yield running


def fetch(site: Freesound, folder: Path, query: str = "", **choices: object) -> int:
    choices = {"token": TOKEN, "pause_s": 0.0, **choices}
    return fetch_pages(folder, query, api=site.api, **choices)  # type: ignore[arg-type]


def test_every_page_becomes_records(site: Freesound, tmp_path: Path) -> None:
    assert fetch(site, tmp_path, filter="duration:[0 TO 180]") == 320
    assert site.pages == [1, 2, 3]
    asked = site.requests[0].query
    assert (asked["filter"], asked["page_size"], asked["sort"]) == ("duration:[0 TO 180]", "150", "created_asc")
    found = records("freesound", tmp_path)
    assert [record.id for record in found] == [str(number) for number in range(1, 321)]
    assert found[1] == Record(
        id="2",
        audio="https://cdn.freesound.org/previews/0/2_1-hq.ogg",
        captions=(),
        source="freesound",
        tags=("door", "creak"),
        group="freesound:user2",
        title="Door creak 2.wav",
        licence="CC-BY-4.0",
        author="user2",
        link="https://freesound.org/people/user2/sounds/2/",
        description="An old door.\r\nRecorded at home.",
        length_s=1.5,
        rate=44_100,
        freesound_id=2,
    )


def test_local_sounds_are_used(site: Freesound, tmp_path: Path) -> None:
    fetch(site, tmp_path, "creak 7.")
    put(tmp_path / "audio" / "7.ogg")
    [record] = records("freesound", tmp_path)
    assert record.audio == tmp_path / "audio" / "7.ogg"
    assert decodable([record])


def test_stopped_search_resumes(site: Freesound, tmp_path: Path) -> None:
    site.refusals = [(403, {})]
    with raises_naming(DataError, 403):
        fetch(site, tmp_path)
    fetch(site, tmp_path)
    (tmp_path / "page-00003.json").unlink()
    (tmp_path / "page-00002.json").write_bytes(b'{"results": [')
    site.requests.clear()
    assert fetch(site, tmp_path) == 320
    assert site.pages == [2, 3]
    site.sounds += [site.sounds[0] | {"id": 1000}]  # one more was uploaded
    site.requests.clear()
    assert fetch(site, tmp_path) == 321
    assert site.pages == [3]
    assert len(records("freesound", tmp_path)) == 321


def test_folder_of_another_search_is_refused(site: Freesound, tmp_path: Path) -> None:
    fetch(site, tmp_path, "creak 7.")
    with raises_naming(DataError, tmp_path, "search.json"):
        fetch(site, tmp_path, "creak 8.")
    assert [record.id for record in records("freesound", tmp_path)] == ["7"]


def test_requests_are_paced(site: Freesound, tmp_path: Path) -> None:
    begin = time.monotonic()
    fetch(site, tmp_path, pause_s=0.15)
    # From the first request's start here, not from its arrival, which may be late.
    assert [request.started - begin >= 0.15 * number for number, request in enumerate(site.requests)] == [True] * 3


def test_busy_server_gets_the_request_again(site: Freesound, tmp_path: Path) -> None:
    """Retry-After in seconds, as a date, and not at all; and a server that is down for a moment."""
    site.refusals = [
        (429, {"Retry-After": "1"}),
        (429, {"Retry-After": formatdate(time.time() + 1.5, usegmt=True)}),
        (429, {"Retry-After": "soon"}),
        (503, {}),
    ]
    begin = time.monotonic()
    assert fetch(site, tmp_path, "creak 7.") == 1
    assert time.monotonic() - begin > 1.0
    assert site.requests[1].started - site.requests[0].started >= 1.0
    assert site.pages == [1] * 5


def test_long_retry_after_stops_the_search(site: Freesound, tmp_path: Path) -> None:
    fetch(site, tmp_path)
    site.refusals = [(429, {"Retry-After": "7200"})]
    with raises_naming(DataError, "120 minutes", "2 pages"):
        fetch(site, tmp_path)
    assert len(records("freesound", tmp_path)) == 320


def test_server_that_stays_down(site: Freesound, tmp_path: Path) -> None:
    site.refusals = [(502, {})] * 9
    with raises_naming(DataError, 502):
        fetch(site, tmp_path)
    assert len(site.requests) == 5


def test_unreachable_server(site: Freesound, tmp_path: Path) -> None:
    with raises_naming(DataError, "127.0.0.1:9"):
        fetch_pages(tmp_path, token=TOKEN, api="http://127.0.0.1:9/apiv2", pause_s=0.0)


@pytest.mark.parametrize("status", [200, 400, 404])
def test_responses_other_than_pages(site: Freesound, tmp_path: Path, status: int) -> None:
    site.refusals = [(status, {})]
    with raises_naming(DataError, status):
        fetch(site, tmp_path)


def test_tokens(site: Freesound, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with raises_naming(ConfigError, "FREESOUND_TOKEN"):
        fetch(site, tmp_path, token=None)
    with raises_naming(DataError, 401) as caught:
        fetch(site, tmp_path, token="secret")
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("FREESOUND_TOKEN", TOKEN)
    assert fetch(site, tmp_path, "creak 7.", token=None) == 1
    assert TOKEN not in (tmp_path / "search.json").read_text(encoding="utf-8")


def test_results_without_a_sound(site: Freesound, tmp_path: Path) -> None:
    fetch(site, tmp_path, "creak 7.")
    page = tmp_path / "page-00001.json"
    content = json.loads(page.read_bytes())
    content["results"] += [{"id": 8}, {"id": None, "previews": {}}, "no object", {"id": 9, "previews": None}]
    page.write_text(json.dumps(content), encoding="utf-8")
    assert [record.id for record in records("freesound", tmp_path)] == ["7"]
