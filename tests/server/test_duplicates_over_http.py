"""Duplicates over HTTP: found in the background, listed in pages, judged for the command line too."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from openclap.cli import run
from openclap.library import Library
from openclap.recording_comparison import RecordingComparison
from openclap.search.duplicates import group_object
from support.serving import LiveServer, Served, serving

STATES = "/v1/duplicates"


@pytest.fixture
def copies(library: Library, tmp_path: Path) -> Library:
    """An index of six sounds with two copies of one of them and one of another."""
    sounds = tmp_path / "sounds"
    shutil.copytree(library.index.folder.parent / "sounds", sounds)
    for number, name in ((1, "a"), (1, "b"), (2, "c")):
        shutil.copyfile(sounds / f"{number}.wav", sounds / f"{name}.wav")
    own = Library.open(tmp_path / "index", library.index.identity.model)
    own.add([sounds])
    return own


@pytest.fixture
def serve_copies(copies: Library) -> Iterator[Callable[..., Served]]:
    with serving(copies) as start:
        yield start


def when_done(client: Any) -> dict[str, Any]:
    end = time.monotonic() + 30
    while (answer := client.get(STATES).json())["state"]["state"] == "running":
        assert time.monotonic() < end
        time.sleep(0.02)
    return dict(answer)


def listed(client: Any, **query: Any) -> list[dict[str, Any]]:
    return list(client.get(STATES, params=query).json()["listed"])


def test_groups_are_those_of_the_library(serve_copies: Callable[..., Served], copies: Library) -> None:
    client = serve_copies().client
    before = client.get(STATES).json()
    assert (before["state"]["state"], before["groups"], before["listed"]) == ("idle", 0, [])
    assert client.post(STATES).status_code == 202
    answer = when_done(client)
    assert answer["state"]["state"] == "done" and answer["state"]["done"] == answer["state"]["total"] > 0
    wanted = [group_object(group) for group in copies.duplicates()[0]]
    assert len(wanted) == 2 and answer["groups"] == 2 and answer["skipped"] == []
    for group, expected in zip(answer["listed"], wanted, strict=True):
        assert (group["id"], group["kind"], group["judged"]) == (expected["id"], "identical bytes", False)
        for file, facts in zip(group["files"], expected["files"], strict=True):
            assert file.items() <= json.loads(json.dumps(facts)).items()
            assert client.get("/v1/sounds/file", params={"path": file["path"]}).status_code == 200
    assert [listed(client, page=n, page_size=1) for n in (1, 2, 3)] == [*([each] for each in answer["listed"]), []]


def test_a_judgement_holds_for_the_command_line_and_can_be_taken_back(
    serve_copies: Callable[..., Served], copies: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    client = serve_copies().client
    client.post(STATES)
    first, second = when_done(client)["listed"]
    assert client.post(f"{STATES}/judgements", json={"id": first["id"]}).status_code == 200
    assert listed(client) == [second] and client.get(STATES).json()["judged"] == 1
    assert [group["judged"] for group in listed(client, judged=True)] == [True, False]
    command = ["duplicates", "--index", str(copies.index.folder), "--json"]
    assert run([*command, "--judge", second["id"]]) == 0
    assert json.loads(capsys.readouterr().out)["listed"] == [] == listed(client)
    client.post(f"{STATES}/judgements", json={"id": first["id"], "judged": False})
    assert [group["id"] for group in listed(client)] == [first["id"]]
    error = client.post(f"{STATES}/judgements", json={"id": "nothing"})
    assert error.status_code == 404 and error.json()["error"]["param"] == "id"
    for query in ({"page": 0}, {"page_size": 1001}, {"index": "other"}):
        assert client.get(STATES, params=query).status_code in (400, 404)


def test_a_run_can_be_stopped_and_others_do_not_wait(
    serve_copies: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first comparison waits until other requests were answered."""
    served, reached, go_on = serve_copies(), threading.Event(), threading.Event()
    compare = RecordingComparison.__call__

    def slow(pair: Any, *rest: Any) -> Any:
        reached.set()
        assert go_on.wait(30)
        return compare(pair, *rest)

    monkeypatch.setattr(RecordingComparison, "__call__", slow)
    client = served.client
    client.post(STATES)
    assert reached.wait(30)
    assert client.post(STATES).status_code == 409
    assert client.get(STATES).json()["state"]["state"] == "running"
    assert client.post("/v1/search", json={"text": "noise"}).status_code == 200
    threading.Timer(0.2, go_on.set).start()
    assert client.delete(STATES).json()["state"] == "stopped"
    client.post(STATES)
    assert when_done(client)["groups"] == 2


def test_progress_comes_as_server_sent_events(copies: Library) -> None:
    states: list[str] = []
    with (
        LiveServer(copies) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
        client.stream("GET", "/v1/indexing/events") as stream,
    ):
        event = ""
        for line in stream.iter_lines():
            if line.startswith("event:"):
                event = line.removeprefix("event:").strip()
            if line.startswith("data:") and event == "duplicates":
                states.append(json.loads(line.removeprefix("data:"))["state"])
                if states == ["idle"]:
                    client.post(STATES)
                if states[-1] == "done":
                    break
    assert states[0] == "idle"
