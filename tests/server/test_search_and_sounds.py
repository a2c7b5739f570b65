"""Search, files, clips, waveforms, collections and indexing over HTTP."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
import soundfile

from openclap.library import Library
from openclap.search.background import descriptions
from openclap.search.fit import Background, write_background
from openclap.server.service import Limits
from openclap.server.sounds import COLUMNS, media_type, reduced, waveform
from support.serving import RATE, LiveServer, Served, serving, write_sounds
from support.tiny_models import save_tiny_model


def first(library: Library) -> Path:
    return library.index.folder.parent / "sounds" / "1.wav"


def test_search_by_text_pages_through_the_ranking_of_the_library(client: Any, library: Library) -> None:
    expected = [hit.path for hit in library.search("a low tone", 6)]
    answer = client.post("/v1/search", json={"text": "a low tone", "k": 6}).json()
    assert answer["index"] == "sounds" and [hit["path"] for hit in answer["hits"]] == expected
    assert [hit["score"] for hit in answer["hits"]] == pytest.approx(
        [hit.score for hit in library.search("a low tone", 6)], abs=1e-5
    )
    pages = [client.post("/v1/search", json={"text": "a low tone", "k": 2, "offset": at}).json() for at in (0, 2, 4, 6)]
    assert [hit["path"] for page in pages for hit in page["hits"]] == expected


@pytest.mark.parametrize("best, fit, probably_nothing", [(-1.0, 1.0, False), (1.0, 0.0, True)])
def test_a_text_has_a_fit(serve_own: Any, own: Library, best: float, fit: float, probably_nothing: bool) -> None:
    vectors = np.zeros((len(descriptions()), own.index.identity.dim), np.float16)
    write_background(own.index, Background(6, np.full(len(vectors), best, np.float32), vectors))
    client = serve_own().client
    answer = client.post("/v1/search", json={"text": "noise", "k": 2}).json()
    info = answer["info"]
    assert (info["fit"], info["probably_nothing"], len(answer["hits"])) == (fit, probably_nothing, 2)
    by_path = client.post("/v1/search", json={"path": str(first(own)), "k": 2}).json()
    assert (by_path["info"]["fit"], by_path["info"]["probably_nothing"]) == (None, False)


def test_search_by_upload_by_path_and_by_a_part(client: Any, library: Library) -> None:
    file = first(library)
    expected = [hit.path for hit in library.similar(file, 5)]
    by_path = client.post("/v1/search", json={"path": str(file), "k": 5}).json()["hits"]
    assert [hit["path"] for hit in by_path] == expected
    with file.open("rb") as sound:
        by_upload = client.post("/v1/search/sound", files={"file": ("x.wav", sound)}, data={"k": "6"}).json()["hits"]
    assert [hit["path"] for hit in by_upload] == [str(file), *expected]
    wave, rate = soundfile.read(file, dtype="float32")
    part = wave[int(0.1 * rate) : int(0.4 * rate)]
    vector_D = library.embedder.embed_audio([(part, rate)])[0]
    wanted = [hit.path for hit in library.index.search(vector_D, 6) if hit.path != str(file)]
    body = {"path": str(file), "start_s": 0.1, "end_s": 0.4, "k": 5}
    assert [hit["path"] for hit in client.post("/v1/search", json=body).json()["hits"]] == wanted
    data = {"start_s": "0.1", "end_s": "0.4", "k": "6"}
    with file.open("rb") as sound:
        uploaded = client.post("/v1/search/sound", files={"file": ("x.wav", sound)}, data=data).json()["hits"]
    assert [hit["path"] for hit in uploaded if hit["path"] != str(file)] == wanted


def test_conditions_keywords_and_weights_are_those_of_the_library(client: Any, library: Library) -> None:
    def found(**body: Any) -> list[str]:
        answer = client.post("/v1/search", json={"k": 20} | body)
        assert answer.status_code == 200, answer.text
        return [hit["path"] for hit in answer.json()["hits"]]

    stereo = [hit.path for hit in library.search("noise", 20, where={"channels": 2})]
    assert found(text="noise", where=["channels=2"]) == found(text="noise", where={"channels": [2, 5]}) == stereo
    assert len(stereo) == 3
    short = [hit.path for hit in library.search("noise", 20, where={"duration_s": (None, 1.0)})]
    assert 0 < len(short) < 6 and found(text="noise", where={"duration_s": {"high": 1.0}}) == short
    own = str(first(library))
    assert found(path=own, where=["channels=2"]) == [hit.path for hit in library.similar(own, 20, where=["channels=2"])]
    with first(library).open("rb") as sound:
        data = {"where": ["channels=2", "duration_s<1"], "k": "20"}
        uploaded = client.post("/v1/search/sound", files={"file": sound}, data=data).json()["hits"]
    assert {hit["path"] for hit in uploaded} == set(stereo) & set(short)
    assert found(text="3", keywords="only") == [hit.path for hit in library.search("3", 20, keywords="only")] != []
    weights = {"noise": 1.0, "low tone": -0.5}
    assert found(text=weights) == [hit.path for hit in library.search(weights, 20)]
    windows = client.post("/v1/search", json={"text": "noise", "k": 50, "every_window": True}).json()["hits"]
    expected = library.search("noise", 50, every_window=True)
    assert [(hit["path"], hit["start_s"]) for hit in windows] == [(hit.path, hit.start_s) for hit in expected]
    assert len(windows) > 6

    counted = client.get("/v1/facets", params={"fact": "channels"}).json()["values"]
    assert counted == [{"value": 1, "count": 3}, {"value": 2, "count": 3}]
    counted = client.get("/v1/facets", params={"fact": "channels", "where": ["channels=2"]}).json()["values"]
    assert counted == [{"value": 2, "count": 3}]
    missing = client.get("/v1/facets", params={"fact": "colour"})
    assert missing.status_code == 400 and "Facts are" in missing.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"text": "x", "where": ["colour=red"]}, 400),
        ({"text": "x", "where": ["nonsense"]}, 400),
        ({"text": "x", "where": ["rate=" + " " * 100_000 + "x"]}, 400),
        ({"text": "x", "where": {"rate": "fast"}}, 400),
        ({"text": "x", "keywords": "maybe"}, 400),
        ({"text": {}}, 400),
        ({"text": {"x": 1.0, "": 1.0}}, 400),
        ({"text": {"x": 0.0}}, 400),
        ({"text": "  "}, 400),
        ({"text": "x", "path": "/x"}, 400),
        ({"text": "x", "k": 0}, 400),
        ({"text": "x", "k": 10**9}, 400),
        ({"text": "x", "index": "other"}, 404),
        ({"path": "/etc/passwd"}, 404),
        ({"path": "\u0000'; DROP TABLE files"}, 404),
        ({"text": "x", "start_s": 3, "end_s": 2}, 400),
        ({"text": "x " * 30_000}, 400),
    ],
    ids=lambda value: str(value)[:50],
)
def test_mistakes_in_searches_are_sentences(client: Any, body: dict[str, Any], status: int) -> None:
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"].endswith((".", "?"))


def test_a_part_after_the_end_is_refused(client: Any, library: Library) -> None:
    body = {"path": str(first(library)), "start_s": 100}
    assert client.post("/v1/search", json=body).status_code == 400
    assert client.get("/v1/sounds/clip", params=body).status_code == 400


def test_files_are_sent_unchanged_in_ranges(client: Any, library: Library) -> None:
    file = first(library)
    content = file.read_bytes()
    whole = client.get("/v1/sounds/file", params={"path": str(file)})
    assert whole.content == content and whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["content-type"].startswith("audio/")
    for header, expected in {
        "bytes=10-19": content[10:20],
        "bytes=-5": content[-5:],
        "bytes=100-": content[100:],
    }.items():
        part = client.get("/v1/sounds/file", params={"path": str(file)}, headers={"Range": header})
        assert part.status_code == 206 and part.content == expected
    again = {"Range": "bytes=0-3", "If-Range": whole.headers["etag"]}
    assert client.get("/v1/sounds/file", params={"path": str(file)}, headers=again).content == content[:4]
    beyond = client.get("/v1/sounds/file", params={"path": str(file)}, headers={"Range": f"bytes={len(content)}-"})
    assert beyond.status_code == 416
    facts = client.get("/v1/sounds", params={"path": str(file)}).json()
    assert (facts["size"], facts["rate"], facts["channels"]) == (len(content), RATE, 2)


def test_clips_are_parts_of_the_sound(client: Any, library: Library) -> None:
    wave, _ = soundfile.read(first(library), dtype="int16")
    for start, end in ((0.0, None), (0.1, 0.3), (0.2, 99.0)):
        params = {"path": str(first(library)), "start_s": start} | ({} if end is None else {"end_s": end})
        answer = client.get("/v1/sounds/clip", params=params)
        clip, rate = soundfile.read(io.BytesIO(answer.content), dtype="int16")
        expected = wave[round(start * RATE) : None if end is None else round(end * RATE)]
        assert rate == RATE and answer.headers["content-type"] == "audio/wav"
        np.testing.assert_allclose(clip, expected, atol=1)
        ranged = client.get("/v1/sounds/clip", params=params, headers={"Range": "bytes=44-47"})
        assert ranged.status_code == 206 and ranged.content == answer.content[44:48]


def test_clips_leave_no_files_behind(
    client: Any, library: Library, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for _ in range(3):
        assert client.get("/v1/sounds/clip", params={"path": str(first(library))}).status_code == 200
    assert list(tmp_path.iterdir()) == []


def test_a_clip_over_the_limit_is_refused(serve: Callable[..., Served], library: Library) -> None:
    client = serve(limits=Limits(clip_s=0.2)).client
    assert client.get("/v1/sounds/clip", params={"path": str(first(library))}).status_code == 400
    assert client.get("/v1/sounds/clip", params={"path": str(first(library)), "end_s": 0.2}).status_code == 200


def test_waveforms_are_extremes_of_their_columns(client: Any, library: Library, home: Path) -> None:
    wave, _ = soundfile.read(first(library), dtype="float32")
    for columns in (1, 7, 500, 1000):
        answer = client.get("/v1/sounds/peaks", params={"path": str(first(library)), "columns": columns}).json()
        assert len(answer["low"]) == len(answer["high"]) == columns
        low_P, high_P = brute_force(wave, columns)
        assert np.abs(answer["low"] - low_P).max() <= 1 and np.abs(answer["high"] - high_P).max() <= 1
    [stored] = (home / "peaks").rglob("*.npy")
    assert stored.stat().st_size < 2300
    before = client.get("/v1/sounds/peaks", params={"path": str(first(library))}).json()
    stored.write_bytes(b"damaged")
    assert client.get("/v1/sounds/peaks", params={"path": str(first(library))}).json() == before


def brute_force(wave_NC: np.ndarray, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """In the resolution that is stored, then joined."""
    column_N = np.arange(len(wave_NC)) * COLUMNS // len(wave_NC)
    fine = np.array([[wave_NC[column_N == each].min(), wave_NC[column_N == each].max()] for each in range(COLUMNS)])
    group_P = [range(at * COLUMNS // columns, (at + 1) * COLUMNS // columns) for at in range(columns)]
    low_P = np.array([fine[list(group), 0].min() for group in group_P])
    return 127 * low_P, 127 * np.array([fine[list(group), 1].max() for group in group_P])


def test_short_and_wrongly_described_sounds_have_waveforms() -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.array([0.5, -0.25, 1.0], np.float32), RATE, format="WAV", subtype="FLOAT")
    content = buffer.getvalue()
    assert waveform(content, 3 / RATE).tolist() == [[64, -32, 127], [64, -32, 127]]
    assert waveform(content, 1 / RATE).tolist() == [[-32], [127]]  # longer than the index says
    assert waveform(content, 6 / RATE).shape == (2, 6)  # shorter
    assert reduced(np.array([[1, 2, -3], [4, 5, 6]], np.int8), 2)[0].tolist() == [1, -3]


def test_hits_have_waveforms_before_they_are_asked_for(serve: Callable[..., Served], home: Path) -> None:
    serve().client.post("/v1/search", json={"text": "noise", "k": 3})
    end = time.monotonic() + 20
    while len(list((home / "peaks").rglob("*.npy"))) < 3:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_sounds_that_moved_with_their_index_are_played(own: Library, home: Path, tmp_path: Path) -> None:
    (tmp_path / "drive").mkdir()
    for name in ("index", "sounds"):
        (tmp_path / name).rename(tmp_path / "drive" / name)
    with serving(Library.open(tmp_path / "drive" / "index")) as start:
        client = start().client
        [hit] = client.post("/v1/search", json={"text": "noise", "k": 1}).json()["hits"]
        assert Path(hit["path"]).parent == tmp_path / "drive" / "sounds"
        for route in ("file", "peaks", "clip"):
            assert client.get(f"/v1/sounds/{route}", params={"path": hit["path"]}).status_code == 200
        answer = client.patch("/v1/collections/mine", json={"add": [hit["path"]]})
        assert answer.json()["paths"] == [hit["path"]]
        # As the page lists a collection, and as it filters by folder.
        for where in ({"path": [hit["path"]]}, [f"path={hit['path']}"]):
            answer = client.post("/v1/search/combined", json={"terms": [], "where": where}).json()
            assert answer["total"] == 1 and [each["path"] for each in answer["hits"]] == [hit["path"]]
        [folder] = client.post("/v1/facets/overview", json={}).json()["facets"]["folder"]
        assert folder["value"] == str(tmp_path / "drive" / "sounds")
        overview = client.post("/v1/facets/overview", json={"where": {"folder": [folder["value"]]}}).json()
        assert overview["total"] == folder["count"]
        assert hit["path"] in client.get("/v1/map").json()["paths"]
        answer = client.post("/v1/search", json={"path": hit["path"], "k": 9}).json()
        assert answer["hits"] and hit["path"] not in [each["path"] for each in answer["hits"]]


def test_a_home_that_cannot_be_written_costs_only_time(client: Any, library: Library, home: Path) -> None:
    (home / "peaks").write_text("in the way")
    assert client.get("/v1/sounds/peaks", params={"path": str(first(library))}).status_code == 200
    (home / "server.sqlite3").mkdir()
    assert client.get("/v1/collections").status_code == 503


def test_only_indexed_files_are_sent(serve_own: Callable[..., Served], own: Library, tmp_path: Path) -> None:
    client, sounds = serve_own().client, tmp_path / "sounds"
    write_sounds(tmp_path / "secret", 1)
    outside = tmp_path / "secret" / "0.wav"
    assert outside.is_file()

    def statuses(path: str) -> set[int]:
        return {
            client.get(f"/v1/sounds{what}", params={"path": path}).status_code for what in ("/file", "/clip", "/peaks")
        }

    for path in (
        str(outside),
        f"{sounds}/../secret/0.wav",
        f"{sounds}/../sounds/0.wav",
        "0.wav",
        "/etc/passwd",
        "",
        "\0",
    ):
        assert statuses(path) == {404}, path
    assert client.get(f"/v1/sounds/../../../../{outside}").status_code == 404
    (sounds / "0.wav").unlink()
    (sounds / "0.wav").symlink_to(outside)  # leads elsewhere since it was indexed
    os.utime(outside, ns=(1, 1))
    assert statuses(str(sounds / "0.wav")) == {409}
    (sounds / "1.wav").unlink()
    assert statuses(str(sounds / "1.wav")) == {404}
    (sounds / "2.wav").unlink()
    os.mkfifo(sounds / "2.wav")
    assert statuses(str(sounds / "2.wav")) == {409}
    assert statuses(str(sounds / "3.wav")) == {200}


def test_names_with_html_are_only_names(serve_own: Callable[..., Served], own: Library, tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>\"'\r\n.wav"
    (tmp_path / "sounds" / "5.wav").rename(tmp_path / "sounds" / name)
    own.add([tmp_path / "sounds"])
    client = serve_own().client
    answer = client.post("/v1/search", json={"text": "noise", "k": 6})
    assert (
        answer.headers["content-type"] == "application/json" and answer.headers["x-content-type-options"] == "nosniff"
    )
    [path] = [hit["path"] for hit in answer.json()["hits"] if "onerror" in hit["path"]]
    file = client.get("/v1/sounds/file", params={"path": path})
    assert file.status_code == 200 and "\n" not in file.headers["content-disposition"]
    assert "<img" not in file.headers["content-disposition"]
    assert media_type("x.html") == media_type("x.svg") == "application/octet-stream"


@pytest.mark.parametrize("name", ["rain/roof", "rain/links", "/", "ein Name & mehr?"])
def test_a_collection_may_have_any_name(client: Any, library: Library, home: Path, name: str) -> None:
    place, path = f"/v1/collections/{quote(name, safe='')}", str(first(library))
    assert client.patch(place, json={"add": [path]}).json() == {"name": name, "paths": [path]}
    assert client.get("/v1/collections").json()["names"] == [name]
    assert client.get(place).json()["paths"] == [path]
    assert client.post(f"{place}/links", json={}).status_code == 403, "this server is not local, and says so"
    assert client.put(place, json={"paths": []}).json()["paths"] == []
    assert client.delete(place).status_code == 200 and client.get("/v1/collections").json()["names"] == []


def test_collections_and_judgements_are_kept_under_the_home(client: Any, library: Library, home: Path) -> None:
    paths = [hit.path for hit in library.search("noise", 6)]
    assert client.get("/v1/collections/mine").status_code == 404
    assert client.put("/v1/collections/mine", json={"paths": paths[::-1]}).json()["paths"] == paths[::-1]
    assert client.put("/v1/collections/empty", json={"paths": []}).json()["paths"] == []
    assert client.get("/v1/collections").json()["names"] == ["empty", "mine"]
    assert client.put("/v1/collections/mine", json={"paths": ["/etc/passwd"]}).status_code == 404
    assert client.get("/v1/collections/mine").json()["paths"] == paths[::-1]
    client.delete("/v1/collections/mine")
    assert client.get("/v1/collections").json()["names"] == ["empty"]

    judgement = {"query": "noise", "path": paths[0], "start_s": 0.0, "end_s": 0.5}
    for relevant, expected in ((True, [True]), (False, [False]), (None, [])):
        assert client.post("/v1/judgements", json=judgement | {"relevant": relevant}).status_code == 200
        found = client.get("/v1/judgements", params={"query": "noise"}).json()["data"]
        assert [each["relevant"] for each in found] == expected
    assert (home / "server.sqlite3").is_file()


def test_a_collection_is_changed_by_several_at_once(client: Any, library: Library, home: Path) -> None:
    paths = sorted(library.index.files_by_path())
    url = "/v1/collections/several"
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda path: client.patch(url, json={"add": [path]}), paths))
    assert {answer.status_code for answer in answers} == {200}
    assert sorted(client.get(url).json()["paths"]) == paths, "no change undoes another"
    client.put(url, json={"paths": paths[:3]})
    answer = client.patch(url, json={"add": [paths[4], paths[1], paths[4]], "remove": [paths[0], "/gone.wav"]}).json()
    assert answer["paths"] == [paths[1], paths[2], paths[4]], "one that is there keeps its place"
    refused = client.patch(url, json={"add": ["/etc/passwd"], "remove": paths})
    assert refused.status_code == 404 and client.get(url).json()["paths"] == answer["paths"]


def test_a_sound_that_left_the_index_does_not_close_its_collection(own: Library, serve_own: Any, home: Path) -> None:
    client, paths = serve_own().client, sorted(own.index.files_by_path())
    client.put("/v1/collections/some", json={"paths": paths[:2]})
    Path(paths[0]).unlink()
    own.add([Path(paths[0]).parent])
    assert client.patch("/v1/collections/some", json={"add": [paths[2]]}).json()["paths"] == paths[:3]
    assert client.patch("/v1/collections/some", json={"remove": [paths[0]]}).json()["paths"] == paths[1:3]


def test_collections_and_judgements_follow_their_sounds(own: Library, home: Path, tmp_path: Path) -> None:
    """Their sounds are renamed, then move with the index, which is then brought up to date and rebuilt there."""
    names = ["2.wav", "0.wav", "1.wav"]
    judgement = {"query": "noise", "start_s": 0.0, "end_s": 0.5, "relevant": True}

    def check(folder: Path) -> None:
        with serving(Library.open(folder / "index")) as start:
            client, paths = start().client, [str(folder / "sounds" / name) for name in names]
            assert client.get("/v1/collections").json()["names"] == ["empty", "some"]
            assert client.get("/v1/collections/some").json()["paths"] == paths
            data = client.get("/v1/judgements").json()["data"]
            assert [each["path"] for each in data] == [paths[0]]
            for change in ({"remove": [paths[1]]}, {"add": [paths[1]]}, {"remove": [paths[2]]}, {"add": [paths[2]]}):
                found = client.patch("/v1/collections/some", json=change).json()["paths"]
            assert found == paths
            for relevant in (False, True):
                client.post("/v1/judgements", json=data[0] | {"relevant": relevant})
            assert client.get("/v1/judgements").json()["data"] == data

    with serving(own) as start:
        client, paths = start().client, [str(tmp_path / "sounds" / name) for name in names]
        assert client.put("/v1/collections/some", json={"paths": paths}).json()["paths"] == paths
        client.put("/v1/collections/empty", json={"paths": []})
        client.post("/v1/judgements", json=judgement | {"path": paths[0]})
    check(tmp_path)
    (tmp_path / "sounds" / "2.wav").rename(tmp_path / "sounds" / "renamed.wav")
    own.add([tmp_path / "sounds"])
    names[0] = "renamed.wav"
    check(tmp_path)
    drive = tmp_path / "drive"
    drive.mkdir()
    for name in ("index", "sounds"):
        (tmp_path / name).rename(drive / name)
    check(drive)
    Library.open(drive / "index").update()
    check(drive)
    Library.rebuild(drive / "index", save_tiny_model(tmp_path / "other", seed=1))
    check(drive)


def test_collections_of_an_older_openclap_are_read(own: Library, home: Path, tmp_path: Path) -> None:
    """Its database has no contents of sounds, and its indexes do not name the folder where they were made."""
    header = json.loads((own.index.folder / "index.json").read_text())
    header.pop("first_folder")
    (own.index.folder / "index.json").write_text(json.dumps(header))
    paths, folder = sorted(own.index.files_by_path())[:2], str(own.index.folder)
    home.mkdir(exist_ok=True)
    with closing(sqlite3.connect(home / "server.sqlite3")) as database, database:
        database.executescript(
            "CREATE TABLE collections (folder TEXT, name TEXT, place INTEGER, path TEXT, "
            "PRIMARY KEY (folder, name, place)) WITHOUT ROWID;"
            "CREATE TABLE judgements (folder TEXT, query TEXT, path TEXT, start_s REAL, end_s REAL, relevant INTEGER, "
            "PRIMARY KEY (folder, query, path, start_s, end_s)) WITHOUT ROWID;"
        )
        database.executemany(
            "INSERT INTO collections VALUES (?, 'some', ?, ?)",
            [(folder, place, path) for place, path in enumerate([None, *paths])],
        )
        database.execute("INSERT INTO judgements VALUES (?, 'noise', ?, 0.0, 0.5, 1)", [folder, paths[0]])
    with serving(own) as start:
        client = start().client
        assert client.get("/v1/collections/some").json()["paths"] == paths
        assert [each["path"] for each in client.get("/v1/judgements").json()["data"]] == paths[:1]
    own.add([tmp_path / "sounds"])
    (tmp_path / "index").rename(tmp_path / "moved")
    (tmp_path / "sounds" / "0.wav").rename(tmp_path / "sounds" / "renamed.wav")
    Library.open(tmp_path / "moved").update()
    with serving(Library.open(tmp_path / "moved")) as start:
        found = start().client.get("/v1/collections/some").json()["paths"]
        assert found == [str(tmp_path / "sounds" / name) for name in ("renamed.wav", "1.wav")]


def test_indexing_finds_new_sounds_while_searches_go_on(serve_own: Callable[..., Served], tmp_path: Path) -> None:
    served = serve_own()
    client = served.client
    write_sounds(tmp_path / "sounds", 4, first=10)
    (tmp_path / "sounds" / "broken.wav").write_bytes(b"RIFF no sound")
    assert client.post("/v1/indexing").status_code == 202
    assert client.post("/v1/search", json={"text": "noise"}).status_code == 200
    state = until_idle(client)
    assert (state["state"], state["added"], state["unchanged"], state["skipped"]) == ("done", 4, 6, 1)
    assert "broken.wav" in state["message"] and state["seconds"] > 0
    hits = client.post("/v1/search", json={"text": "noise", "k": 20}).json()["hits"]
    assert len(hits) == 10


def until_idle(client: Any) -> Any:
    end = time.monotonic() + 30
    while (state := client.get("/v1/indexing").json())["state"] == "running":
        assert time.monotonic() < end
        time.sleep(0.02)
    return state


def test_indexing_can_be_stopped_and_goes_on(serve_own: Callable[..., Served], own: Library, tmp_path: Path) -> None:
    served = serve_own()
    write_sounds(tmp_path / "sounds", 40, first=10)
    job = served.app.state.jobs.of(None)
    job.start()
    with pytest.raises(Exception, match="already"):
        job.start()
    assert served.client.delete("/v1/indexing").json()["state"] in ("stopped", "done")
    assert job.start() and until_idle(served.client)["state"] == "done"
    assert own.index.count()[0] == 46


def test_an_index_that_another_process_writes_is_reported(serve_own: Callable[..., Served], own: Library) -> None:
    client = serve_own().client
    with own.index.writing():
        client.post("/v1/indexing")
        state = until_idle(client)
    assert state["state"] == "failed" and "another process" in state["message"]
    assert client.post("/v1/search", json={"text": "noise"}).status_code == 200


def test_progress_comes_as_server_sent_events(own: Library, tmp_path: Path) -> None:
    write_sounds(tmp_path / "sounds", 4, first=10)
    states = []
    with (
        LiveServer(own) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
        client.stream("GET", "/v1/indexing/events") as stream,
    ):
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("data:"):
                states.append(json.loads(line.removeprefix("data:"))["state"])
                if states == ["idle"]:
                    client.post("/v1/indexing")
                if states[-1] == "done":
                    break
    assert states[0] == "idle" and states[-1] == "done"
