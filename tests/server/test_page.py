"""The routes of the page: its files and policy, combined searches, counts, suggestions, streams, spectrograms."""

from __future__ import annotations

import base64
import io
import shutil
import threading
import time
import wave
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from openclap.library import Library, combined_vector
from openclap.search import labels
from openclap.search.background import descriptions
from openclap.search.fit import Background, write_background
from openclap.server.combined import matching_words
from openclap.server.overview import DURATIONS, beginning_with
from openclap.server.page import TYPES
from openclap.server.page_schemas import Suggestion
from openclap.server.playback import WINDOW, byte_range, spectrogram, wav_header
from openclap.server.security import Access
from openclap.server.sound_map import mean_vectors, principal_components, spread
from openclap.types import Hit
from support.serving import RATE, Served, serving

TOKEN = "a-token-of-24-characters"


def first(library: Library) -> Path:
    return library.index.folder.parent / "sounds" / "1.wav"


def found(client: Any, **body: Any) -> list[str]:
    answer = client.post("/v1/search/combined", json=body)
    assert answer.status_code == 200, answer.text
    return [hit["path"] for hit in answer.json()["hits"]]


# --- the page


def test_the_page_runs_its_own_scripts_alone(client: Any) -> None:
    answers = [client.get("/") for _ in range(2)]
    policies = [answer.headers["content-security-policy"] for answer in answers]
    assert "default-src 'none'" in policies[0] and "script-src 'self'" in policies[0]
    assert "unsafe" not in policies[0] and "http" not in policies[0]
    nonces = [policy.partition("'nonce-")[2].partition("'")[0] for policy in policies]
    assert nonces[0] != nonces[1] and all(nonce in answer.text for nonce, answer in zip(nonces, answers, strict=True))
    assert "<script>" not in answers[0].text and "style=" not in answers[0].text
    for name in ("page.js", "page.css", "icon.svg", "licences.txt"):
        answer = client.get(f"/static/{name}")
        assert answer.status_code == 200 and answer.headers["content-type"].startswith(TYPES[name.split(".")[1]])
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "name", ["index.html", "missing.js", "..%2Fapp.py", "..%5Capp.py", "%2Fetc%2Fpasswd", ".", f"{300 * 'a'}.js"]
)
def test_other_files_are_not_sent(client: Any, name: str) -> None:
    assert client.get(f"/static/{name}").status_code == 404


def test_the_page_needs_no_token_and_its_data_do(serve: Callable[..., Served]) -> None:
    client = serve(access=Access(TOKEN)).client
    assert client.get("/").status_code == client.get("/static/page.js").status_code == 200
    for path in ("/v1/page", "/v1/suggestions", "/v1/indexing/skipped", "/static/../v1/page", "/static"):
        assert client.get(path).status_code in (401, 404), path
    assert client.get("/v1/page").status_code == 401


def test_other_sites_may_link_to_the_page_and_no_more(client: Any) -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client.get("/", headers=link).status_code == 200
    assert client.get("/?q=rain", headers=link).status_code == 200
    for changed in ({"sec-fetch-dest": "iframe"}, {"sec-fetch-mode": "no-cors"}, {"origin": "http://evil.example"}):
        assert client.get("/", headers=link | changed).status_code == 403, changed
    assert client.get("/v1/indexes", headers=link).status_code == 403
    assert client.get("/static/page.js", headers=link).status_code == 403
    assert client.post("/", headers=link).status_code == 403


# --- combined searches


def test_terms_are_added_with_their_weights(client: Any, library: Library) -> None:
    texts = {"noise": 1.0, "low tone": -0.5}
    terms = [{"text": text, "weight": weight} for text, weight in texts.items()]
    assert found(client, terms=terms, k=20) == [hit.path for hit in library.search(texts, 20)]
    own = str(first(library))
    wave_N, rate = soundfile.read(own, dtype="float32")
    [of_text] = library.embedder.embed_text(["noise"])
    [whole, part, other] = library.embedder.embed_audio(
        [own, (wave_N[1600:6400], rate), str(first(library).with_name("4.wav"))]
    )
    for sound, vector_D in (({"path": own}, whole), ({"path": own, "start_s": 0.1, "end_s": 0.4}, part)):
        combined_D = combined_vector(np.stack([of_text, vector_D]), {"a": 1.0, "b": 0.7})
        expected = [hit.path for hit in library.index.search(combined_D, 20) if hit.path != own]
        assert found(client, terms=[{"text": "noise"}, sound | {"weight": 0.7}], k=20) == expected
    expected = [hit.path for hit in library.index.search(other, 20)]
    assert found(client, terms=[{"vector": (5 * other).tolist()}], k=20) == expected
    answer = client.post("/v1/search/combined", json={"terms": [{"text": "noise"}, {"path": own}]}).json()
    assert answer["info"]["fit"] is None and {hit["fit"] for hit in answer["hits"]} == {None}


def test_a_stored_window_is_used_as_it_is(client: Any, library: Library) -> None:
    hit = library.search("noise", 1, every_window=True)[0]
    stored = library.index.window_vector(hit.path, hit.start_s, hit.end_s)
    assert stored is not None and stored @ library.embedder.embed_text(["noise"])[0] == pytest.approx(
        hit.score, abs=1e-3
    )
    assert library.index.window_vector(hit.path, hit.start_s + 0.05, hit.end_s) is None
    assert library.index.window_vector("/no/such.wav", 0, None) is None


def test_pages_are_those_of_one_ranking(client: Any) -> None:
    everything = found(client, terms=[{"text": "noise"}], k=6)
    pages = [found(client, terms=[{"text": "noise"}], k=2, offset=at) for at in (0, 2, 4, 6)]
    assert [path for page in pages for path in page] == everything and len(everything) == 6
    answer = client.post("/v1/search/combined", json={"terms": [{"text": "noise"}], "where": {"channels": [2]}, "k": 1})
    assert answer.json()["total"] == 3


@pytest.mark.parametrize("keywords", ["off", "auto", "fused"])
def test_sounds_of_the_query_are_no_hits(client: Any, library: Library, keywords: str) -> None:
    paths = sorted(library.index.files_by_path())
    terms = [{"path": paths[0]}, {"path": paths[1]}, {"text": Path(paths[0]).stem}]
    answer = client.post("/v1/search/combined", json={"terms": terms, "keywords": keywords}).json()
    assert sorted(hit["path"] for hit in answer["hits"]) == paths[2:] and answer["total"] == 4


def test_a_link_to_a_sound_of_the_query_is_no_hit(serve_own: Callable[..., Served], own: Library) -> None:
    sound = Path(min(own.index.files_by_path()))
    sound.with_name("link.wav").symlink_to(sound)
    shutil.copyfile(sound, sound.with_name("copy.wav"))
    own.update()
    answer = serve_own().client.post("/v1/search/combined", json={"terms": [{"path": str(sound)}]}).json()
    names = {Path(hit["path"]).name for hit in answer["hits"]}
    assert len(names) == answer["total"] == 6 and "copy.wav" in names and "link.wav" not in names


def test_keywords_are_those_of_wanted_texts(client: Any) -> None:
    terms = [{"text": "3"}, {"text": "3", "weight": 0.5}, {"text": "4", "weight": -0.5}]
    answer = client.post("/v1/search/combined", json={"terms": terms, "keywords": "only"}).json()
    assert [Path(hit["path"]).name for hit in answer["hits"]] == ["3.wav"] and answer["total"] == 1


def test_without_terms_files_come_in_order(client: Any, library: Library) -> None:
    paths = sorted(library.index.files_by_path())
    assert found(client, k=4) + found(client, k=4, offset=4) == paths
    assert found(client, where={"channels": [2]}) == [path for path in paths if int(Path(path).stem) % 2]


def test_words_of_the_query_are_named(client: Any) -> None:
    [hit] = client.post("/v1/search/combined", json={"terms": [{"text": "3"}], "keywords": "only"}).json()["hits"]
    assert hit["words"] == ["3"] and hit["fit"] is None and Path(hit["path"]).name == "3.wav"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("dogs barked", ["dog", "barks"]),
        ("a dog", ["dog"]),
        ("bar", ["barks"]),
        ("cat", []),
        ("the of", []),
        ("", []),
        ("Wet streets", ["wet", "street"]),
    ],
)
def test_matching_words(query: str, expected: list[str]) -> None:
    facts = dict.fromkeys(Hit.__dataclass_fields__, None) | {"tags": ("wet street",), "keywords": ()}
    hit = Hit(**(facts | {"path": "/x/BigDog_01.wav", "caption": "a dog barks", "start_s": 0, "end_s": 1}))
    assert matching_words(hit, query) == expected


def test_each_hit_has_its_fit(serve: Callable[..., Served], library: Library, tmp_path: Path) -> None:
    own = Library.open(tmp_path / "index", library.index.identity.model)
    own.add([first(library).parent])
    best_B = np.linspace(-1, 1, len(descriptions()), dtype=np.float32)
    vectors_BD = np.zeros((len(best_B), own.index.identity.dim), np.float16)
    write_background(own.index, Background(6, best_B, vectors_BD))
    with serving(own) as start:
        hits = start().client.post("/v1/search/combined", json={"terms": [{"text": "noise"}]}).json()["hits"]
    assert [hit["fit"] for hit in hits] == pytest.approx([(hit["score"] + 1) / 2 for hit in hits], abs=0.005)


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"terms": [{}]}, 400, "text, path and vector"),
        ({"terms": [{"text": "a", "path": "b"}]}, 400, "text, path and vector"),
        ({"terms": [{"text": " "}]}, 400, "empty"),
        ({"terms": [{"vector": [1.0, 2.0]}]}, 400, "another model"),
        ({"terms": [{"vector": [0.0] * 16}]}, 400, "another model"),
        ({"terms": [{"path": "/etc/passwd"}]}, 404, "no such sound"),
        ({"terms": [{"path": "/etc/passwd", "start_s": 0, "end_s": 1}]}, 404, "no such sound"),
        ({"terms": [{"text": "a"}, {"text": "a", "weight": -1}]}, 400, "cancel"),
        ({"terms": [{"text": "a"}] * 33}, 400, "32"),
        ({"terms": [], "keywords": "only"}, 400, "texts alone"),
        ({"terms": [{"text": "a"}], "where": {"colour": ["red"]}}, 400, "colour"),
        ({"index": "other", "terms": []}, 404, "other"),
    ],
)
def test_other_queries_are_refused(client: Any, body: dict[str, Any], status: int, word: str) -> None:
    answer = client.post("/v1/search/combined", json=body)
    assert answer.status_code == status and word in answer.json()["error"]["message"], answer.text


def test_an_upload_is_embedded_and_drawn(client: Any, library: Library) -> None:
    with first(library).open("rb") as file:
        answer = client.post("/v1/sounds/embedding", files={"file": ("x.wav", file)}).json()
    assert answer["vector"] == pytest.approx(library.embedder.embed_audio([first(library)])[0].tolist(), abs=1e-6)
    peaks = client.get("/v1/sounds/peaks", params={"path": str(first(library)), "columns": 200}).json()
    assert len(answer["high"]) == 200 and answer["duration_s"] == pytest.approx(peaks["duration_s"])
    assert answer["high"] == pytest.approx(peaks["high"], abs=2) and answer["warning"] is None
    silent = io.BytesIO()
    soundfile.write(silent, np.zeros(8000), RATE, format="WAV")
    warned = client.post("/v1/sounds/embedding", files={"file": ("x.wav", silent.getvalue())}).json()
    assert "silent" in warned["warning"]
    assert client.post("/v1/sounds/embedding", files={"file": ("x.wav", b"no sound")}).status_code == 400


# --- counts and suggestions


def test_counts_leave_out_the_conditions_on_their_own_fact(client: Any, library: Library) -> None:
    rows = library.index.files_by_path().values()
    answer = client.post("/v1/facets/overview", json={}).json()
    assert (
        answer["total"] == 6
        and answer["facets"]["channels"] == client.get("/v1/facets", params={"fact": "channels"}).json()["values"]
    )
    assert answer["facets"]["folder"] == [{"value": str(first(library).parent), "count": 6}]
    for each, low, high in zip(answer["durations"], DURATIONS[:-1], DURATIONS[1:], strict=True):
        inside = [row for row in rows if (low or 0) <= row.duration_s <= (high or np.inf)]
        assert (each["low"], each["high"], each["count"]) == (low, high, len(inside))
    narrowed = client.post("/v1/facets/overview", json={"where": {"channels": [2]}}).json()
    assert narrowed["total"] == 3 and narrowed["facets"]["channels"] == answer["facets"]["channels"]
    assert narrowed["facets"]["format"] == [{"value": "wav", "count": 3}]
    short = client.post("/v1/facets/overview", json={"where": {"duration_s": {"high": 1.0}}}).json()
    assert short["durations"] == answer["durations"] and short["total"] == answer["durations"][0]["count"]


def test_counts_change_with_the_index(serve: Callable[..., Served], library: Library, tmp_path: Path) -> None:
    own = Library.open(tmp_path / "index", library.index.identity.model)
    own.add([first(library)])
    with serving(own) as start:
        client = start().client
        assert client.post("/v1/facets/overview", json={}).json()["total"] == 1
        Library.open(tmp_path / "index").add([first(library).parent])
        assert client.post("/v1/facets/overview", json={}).json()["total"] == 6
        assert client.get("/v1/suggestions").json()["values"] == []


def test_labels_are_counted_and_filter(serve_own: Callable[..., Served], own: Library) -> None:
    own.label("Low: a low tone\nNoise: a hiss")
    client = serve_own().client
    counts = dict(own.facets("labels"))
    assert sum(counts.values()) >= 6
    answer = client.post("/v1/facets/overview", json={}).json()["facets"]["labels"]
    assert {each["value"]: each["count"] for each in answer} == counts
    for label, count in counts.items():
        where = {"labels": [label]}
        for terms in ([], [{"text": "a tone"}]):
            body = client.post("/v1/search/combined", json={"terms": terms, "where": where}).json()
            assert body["total"] == len(body["hits"]) == count
            assert all(label in hit["labels"] for hit in body["hits"])
        assert client.get("/v1/facets", params={"fact": "rate", "where": f"label={label}"}).json()["values"] == [
            {"value": RATE, "count": count}
        ]
    hits = client.post("/v1/search/combined", json={}).json()["hits"]
    assert Counter(label for hit in hits for label in hit["labels"]) == counts
    for hit in hits:
        facts = client.get("/v1/sounds", params={"path": hit["path"]}).json()
        assert [facts[name] for name in ("labels", "modified")] == [hit[name] for name in ("labels", "modified")]
    groups = client.get("/v1/map", params={"group": "labels"}).json()
    assert set(groups["groups"]) <= set(counts) and len(groups["group"]) == 6


def test_an_index_without_labels_gets_them_once(
    serve_own: Callable[..., Served], own: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels, "FEWEST_WINDOWS", 1)
    served = serve_own()
    asked: list[object] = []
    in_background = served.service.in_background
    go_on, is_done = threading.Event(), threading.Event()
    while in_background(go_on.wait):
        pass
    served.client.post("/v1/facets/overview", json={})  # as much is waiting as may, so this asks for nothing
    go_on.set()
    while not in_background(is_done.set):
        time.sleep(0.01)
    assert is_done.wait(20)
    monkeypatch.setattr(served.service, "in_background", lambda work: (asked.append(work), in_background(work))[1])
    assert served.client.post("/v1/facets/overview", json={}).json()["facets"]["labels"] == []
    for _ in range(600):
        if labels.read_labels(own.index) is not None:
            break
        time.sleep(0.1)
    # The tiny model is sure of few labels; the list is there at any rate.
    assert labels.read_labels(own.index).labels == labels.default_labels()
    served.client.post("/v1/facets/overview", json={})
    assert len(asked) == 1


def test_parts_of_names_are_conditions(client: Any, library: Library) -> None:
    where = {"path": {"contains": "sounds/1"}}
    assert found(client, where=where) == [str(first(library))]
    assert client.post("/v1/facets/overview", json={"where": where}).json()["total"] == 1
    for wrong in ({"contains": 1}, {"contains": "x", "low": 1}, {"has": "x"}):
        assert client.post("/v1/search/combined", json={"where": {"path": wrong}}).status_code == 400, wrong


def test_suggestions_begin_with_the_text() -> None:
    texts = ["a dog barking", "rain", "dog", "a dogma", "hot dog", "raindog"]
    values = [Suggestion(text=text, kind="caption", count=1) for text in texts]
    assert [each.text for each in beginning_with(values, "dog")] == ["a dog barking", "a dogma", "hot dog"]
    assert [each.text for each in beginning_with(values, " A  Dog")] == ["a dog barking", "a dogma"]
    assert [each.text for each in beginning_with(values, "")] == texts


# --- the map


def test_the_map_is_the_plane_of_most_variance(client: Any, library: Library) -> None:
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(0)
    vectors_FD = rng.standard_normal((200, 16)).astype(np.float32) * np.linspace(4, 1, 16, dtype=np.float32)
    expected_F2 = PCA(2).fit_transform(vectors_FD)
    found_F2 = principal_components(vectors_FD)
    for ours, theirs in zip(found_F2.T, expected_F2.T, strict=True):
        assert min(np.abs(ours - theirs).max(), np.abs(ours + theirs).max()) < 1e-3
    assert np.array_equal(found_F2, principal_components(vectors_FD.copy()))
    points_F2 = spread(found_F2)
    assert points_F2.min() == 0 and points_F2.max() == 1
    assert (np.argsort(points_F2[2:-2, 0]).shape, principal_components(vectors_FD[:0]).shape) == ((196,), (0, 2))


def test_the_map_has_every_sound_with_its_group(client: Any, library: Library) -> None:
    answer = client.get("/v1/map").json()
    paths = sorted(library.index.files_by_path())
    assert answer["paths"] == paths and answer["total"] == 6 and answer["groups"] == ["sounds"]
    assert answer["group"] == [0] * 6 and client.get("/v1/map", params={"group": "tags"}).json()["group"] == [-1] * 6
    view = library.index.view()
    contents = [view.facts.column("path").to_pylist().index(path) for path in paths]
    stored = np.stack([library.index.vector_of(path) for path in paths])
    assert np.abs(mean_vectors(view, view.content_F[contents]) - stored).max() < 1e-3
    expected_F2 = spread(principal_components(stored))
    found_F2 = np.stack([answer["x"], answer["y"]], axis=1) / 10_000
    assert np.abs(found_F2 - expected_F2).max() < 0.02
    assert client.get("/v1/map", params={"group": "colour"}).status_code == 400


# --- streams and spectrograms


def test_a_stream_is_the_sound_as_wav(client: Any, library: Library) -> None:
    path = {"path": str(first(library))}
    whole = client.get("/v1/sounds/stream", params=path)
    assert whole.status_code == 200 and len(whole.content) == int(whole.headers["content-length"])
    with wave.open(io.BytesIO(whole.content)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 2, 2)
    streamed, rate = soundfile.read(io.BytesIO(whole.content))
    original, _ = soundfile.read(first(library))
    assert np.abs(streamed - original).max() < 1e-4 and rate == RATE
    size = len(whole.content)
    for first_byte, last in ((0, 9), (40, 50), (44, 44), (1001, 3000), (size - 7, size - 1)):
        part = client.get("/v1/sounds/stream", params=path, headers={"range": f"bytes={first_byte}-{last}"})
        assert part.status_code == 206 and part.headers["content-range"] == f"bytes {first_byte}-{last}/{size}"
        assert part.content == whole.content[first_byte : last + 1]
    beyond = client.get("/v1/sounds/stream", params=path, headers={"range": f"bytes={size}-"})
    assert beyond.status_code == 416 and beyond.headers["content-range"] == f"bytes */{size}"
    assert client.get("/v1/sounds/stream", params={"path": "/etc/passwd"}).status_code == 404


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, (0, 99, False)),
        ("bytes=0-", (0, 99, True)),
        ("bytes=10-19", (10, 19, True)),
        ("bytes=90-200", (90, 99, True)),
        ("bytes=-5", (95, 99, True)),
        ("bytes=-500", (0, 99, True)),
        ("bytes=100-", None),
        ("bytes=20-10", None),
        ("bytes=-0", None),
        (f"bytes=0-{5000 * '9'}", (0, 99, False)),
        ("bytes=-", (0, 99, False)),
        ("bytes=1-2,4-5", (0, 99, False)),
        ("lines=1-2", (0, 99, False)),
    ],
)
def test_ranges(header: str | None, expected: tuple[int, int, bool] | None) -> None:
    assert byte_range(header, 100) == expected


def test_the_header_is_that_of_the_standard_library() -> None:
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(44100)
        file.writeframes(bytes(400))
    assert written.getvalue()[:44] == wav_header(44100, 2, 444)


@pytest.mark.parametrize("hz", [60.0, 440.0, 3000.0])
def test_a_sine_is_one_line_of_the_spectrogram(hz: float) -> None:
    time_N = np.arange(2 * RATE) / RATE
    wave_N1 = 0.5 * np.sin(2 * np.pi * hz * time_N)[:, None]
    levels_BP, high_hz = spectrogram(wave_N1.astype(np.float32), RATE, 50, 128)
    assert levels_BP.shape == (128, 50) and high_hz == RATE / 2
    edges = np.geomspace(40, RATE / 2, 129)
    loudest = levels_BP[:, 25].argmax()
    assert edges[loudest] - RATE / WINDOW <= hz <= edges[loudest + 1] + RATE / WINDOW
    level_db = levels_BP[loudest, 25] / 255 * 100 - 100
    assert level_db == pytest.approx(20 * np.log10(0.5), abs=1.5)  # a Hann window loses up to 1.4 dB between bins
    assert levels_BP[127, 25] < 90


def test_a_spectrogram_is_of_the_part(client: Any, library: Library) -> None:
    body = {"path": str(first(library)), "start_s": 0.1, "end_s": 0.3, "columns": 20, "bands": 8}
    answer = client.get("/v1/sounds/spectrogram", params=body).json()
    assert (answer["start_s"], answer["end_s"]) == (0.1, pytest.approx(0.3, abs=1e-3))
    assert len(base64.b64decode(answer["levels"])) == 20 * 8
    assert client.get("/v1/sounds/spectrogram", params=body | {"end_s": 0.05}).status_code == 400


def test_only_a_local_server_shows_folders(
    serve: Callable[..., Served], library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"path": str(first(library))}
    assert serve().client.post("/v1/sounds/reveal", json=body).status_code == 403
    local = serve(access=Access(is_local=True)).client
    assert local.get("/v1/page").json()["can_reveal"]
    called = tmp_path / "called"
    opener = tmp_path / "xdg-open"
    opener.write_text(f'#!/bin/sh\nprintf %s "$1" > {called}.new && mv {called}.new {called}\n')
    opener.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("sys.platform", "linux")
    assert local.post("/v1/sounds/reveal", json=body).status_code == 200
    deadline = time.monotonic() + 10
    while not called.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert called.read_text() == str(first(library).parent)
    assert local.post("/v1/sounds/reveal", json={"path": "/etc/passwd"}).status_code == 404
    monkeypatch.setenv("PATH", "/nowhere")
    answer = local.post("/v1/sounds/reveal", json=body)
    assert answer.status_code == 501 and "xdg-open" in answer.json()["error"]["message"]


def test_skipped_files_are_listed(serve: Callable[..., Served], library: Library, tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds" / "broken.wav").write_bytes(b"RIFF no sound")
    own = Library.open(tmp_path / "index", library.index.identity.model)
    with serving(own) as start:
        client = start().client
        client.post("/v1/indexing")
        while client.get("/v1/indexing").json()["state"] == "running":
            pass
        answer = client.get("/v1/indexing/skipped").json()
    assert answer["count"] == 1 and answer["files"][0]["path"].endswith("broken.wav")
    assert len(answer["files"][0]["reason"]) > 10
