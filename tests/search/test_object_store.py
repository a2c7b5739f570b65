"""An index in object storage, on a real server that speaks S3: moto's."""

from __future__ import annotations

import json
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from openclap.checkpoints.bundled import MINI
from openclap.cli import run
from openclap.cli.defaults import advise_model
from openclap.errors import ConfigError, DataError, LockedError
from openclap.library import Library
from openclap.search import lease as module
from openclap.search.background import descriptions
from openclap.search.fit import Background, read_background, write_background
from openclap.search.index import Index
from openclap.search.labels import Label, labels_stamp, update_labels
from openclap.search.object_store import RemotePlace, storage_options
from openclap.search.place import LocalPlace, place_of
from openclap.search.queries import count_facets
from openclap.search.rows import files_schema
from openclap.search.scan import add
from openclap.search.verify import verify
from support.errors import raises_naming
from support.search_helpers import (
    IDENTITY,
    SpectrumEmbedder,
    axis,
    describe,
    fill,
    report,
    spectrum,
    start_scan,
    tone,
    write_tone,
)


def test_the_same_hits_as_from_a_folder(
    store: str, index: Index, sounds: Path, embed: SpectrumEmbedder, tmp_path: Path
) -> None:
    there = Index.create(store, IDENTITY)
    assert add(there, [sounds], embed, describe) == add(index, [sounds], embed, describe) == report(added=4)
    for query_D in (spectrum(tone(900)), np.ones(64), axis(3)):
        found = there.search(query_D, 3)
        assert found == index.search(query_D, 3) == there.search(query_D, 3, exact=True)
        assert found.info.method == "windows" and found.info.newer == 0
    assert there.find_by_keywords("whistle", 2) == [str(sounds / "deep" / "whistle.wav")]
    assert verify(there, queries=5).snapshot == there.count()[1] == 4
    assert there.folder.is_relative_to(tmp_path / "home")
    assert there.remove([sounds / "deep"]) == 1
    assert add(there, [sounds], embed, describe).added == 1
    there.optimize()
    assert verify(there).files == 4


def test_labels_that_were_just_written_are_counted(store: str) -> None:
    """They were not until the next change of files, once a table without labels was cached."""
    index = Index.create(store, IDENTITY)
    fill(index, [axis(0)[None], axis(1)[None]])
    assert count_facets(index, "labels") == [] and labels_stamp(index) is None
    labels = (Label("First", ("first",)), Label("Second", ("second",)))
    assert update_labels(index, lambda texts: np.stack([axis(0), axis(1)]), 20.0, labels) is not None
    assert count_facets(index, "labels") == [("First", 1), ("Second", 1)]
    stamp = labels_stamp(index)
    assert stamp is not None
    assert update_labels(index, lambda texts: np.stack([axis(0), axis(1)]), 20.0, (labels[1], labels[0])) is not None
    assert labels_stamp(index) != stamp and count_facets(index, "labels") == [("First", 1), ("Second", 1)]


def test_a_better_model_is_advised_once_where_an_index_can_be_rebuilt(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for address, expected in ((store, 0), (tmp_path / "index", 1)):
        index = Index.create(address, replace(IDENTITY, model=MINI))
        advise_model(index)
        advise_model(index)
        assert "".join(capsys.readouterr()).count(f"openclap index rebuild --index {address}") == expected


def test_commands(
    store: str, tiny_model: Path, sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The address passes through options that are paths, where "s3://" loses a slash."""

    def call(*words: object) -> str:
        capsys.readouterr()
        assert run([str(word) for word in words]) == 0
        return capsys.readouterr().out

    results = []
    for index in (store, tmp_path / "index"):
        added = call("index", "add", sounds, "--index", index, "--model", tiny_model, "--json")
        results.append(
            [
                json.loads(added)["added"],
                call("search", "a low tone", "--index", index, "--json"),
                call("search", "whistle", "--index", index, "--keywords", "only", "--json"),
                call("index", "facets", "format", "--index", index),
                call("index", "verify", "--index", index),
                call("similar", sounds / "low.wav", "--index", index, "--json"),
            ]
        )
        call("index", "update", "--index", index)
    assert results[0] == results[1]
    status = json.loads(call("index", "status", "--index", store, "--json"))
    assert status["index"] == store and status["files"] == 4 and status["folders"] == [str(sounds)]
    call("index", "export", tmp_path / "export", "--index", store)
    assert np.load(tmp_path / "export" / "vectors.npy").shape[0] == status["windows"]


def test_a_tokenizer_is_stored_with_the_index(store: str, tiny_model: Path, sounds: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    tokenizer = (model / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    library = Library.open(store, model, tokenizer=tokenizer)
    library.add([sounds])
    expected = library.search("a low tone", 3)
    tokenizer.unlink()
    assert Library.open(store).search("a low tone", 3) == expected


def test_commits_of_others_are_seen_by_the_next_search(store: str) -> None:
    writer = Index.create(store, IDENTITY)
    readers = [Index.open(store) for _ in range(2)]
    for number in range(5):
        fill(writer, [axis(i)[None] for i in range(number + 1)])
        for reader in readers:
            assert [hit.score for hit in reader.search(axis(number), 1)] == [1.0]
            assert len(reader.search(axis(0), 9)) == number + 1
    writer.remove(["/s/4.wav"])
    assert len(readers[0].search(axis(0), 9)) == 4
    writer.optimize()
    assert len(readers[0].search(axis(0), 9)) == 4


def test_an_index_that_was_made_again_has_another_snapshot(store: str) -> None:
    """Both have the same number of commits, so the numbers of versions and rows are the same."""
    for at in (1, 2):
        index = Index.create(store, IDENTITY)
        fill(index, [axis(at)[None]])
        assert Index.open(store).search(axis(at), 1)[0].score == 1.0
        for name in index.place.database.list_tables().tables:
            index.place.database.drop_table(name)
    with raises_naming(DataError, store):
        Index.open(store)


def test_searches_work_where_no_snapshot_can_be_kept(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").write_bytes(b"a file")
    index = Index.create(store, IDENTITY)
    fill(index, [axis(1)[None], axis(2)[None]])
    hits = index.search(axis(2), 1)
    assert hits[0].path == "/s/1.wav" and hits.info.method == "tables" and hits.info.note
    assert index.find_by_keywords("1", 1) == ["/s/1.wav"]


def test_the_background_is_stored(store: str) -> None:
    index = Index.create(store, IDENTITY)
    fill(index, [axis(1)[None]])
    vectors = np.zeros((len(descriptions()), 64), np.float16)
    write_background(index, Background(1, np.linspace(0, 1, len(vectors), dtype=np.float32), vectors))
    stored = read_background(Index.open(store))
    assert stored is not None and stored.fit(0.5) == pytest.approx(0.5, abs=0.01)


# --- the lease


def test_a_second_writer_is_refused(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.2)
    Index.create(store, IDENTITY)
    with Index.open(store).writing(), raises_naming(LockedError, store):
        Index.open(store).remove(["/s/1.wav"])
    assert Index.open(store).remove(["/s/1.wav"]) == 0


def test_a_lease_without_a_heartbeat_is_taken_over(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner was suspended, and stops at its next commit."""
    monkeypatch.setattr(module, "HEARTBEAT_S", 60.0)
    monkeypatch.setattr(module, "STALE_S", 1.0)
    suspended, other = Index.create(store, IDENTITY), Index.open(store)
    with raises_naming(LockedError, store), suspended.writing() as writer:
        time.sleep(0.6)  # longer than it may go without looking at the lease
        started_s = time.monotonic()
        fill(other, [axis(1)[None]])
        assert time.monotonic() - started_s >= 1.0
        writer.put([], {})
    assert other.remove(["/s/0.wav"]) == 1


def test_a_killed_writer_leaves_a_whole_index(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALE_S", 1.0)
    for number in range(12):
        write_tone(tmp_path / "many" / f"{number}.wav", 100 + 150 * number, seconds=0.25)
    process = start_scan(store, tmp_path / "many", batch=2, seconds=0.2, hold=5)
    assert process.stdout is not None
    for _ in range(4):
        assert process.stdout.readline() == "embedding\n"
    process.kill()
    process.communicate()
    index, embed = Index.open(store, IDENTITY), SpectrumEmbedder()
    done = index.count()[0]
    assert done >= 4
    assert add(index, [tmp_path / "many"], embed, describe) == report(added=12 - done, unchanged=done)
    assert len(embed.seen) <= 12 - done
    assert verify(index).files == 12


def test_one_of_many_has_the_lease(store: str) -> None:
    """Threads with tables of their own, as processes have: no two of them are within at a time."""
    Index.create(store, IDENTITY)
    inside, most, turns = 0, 0, 0
    counting = threading.Lock()

    def take_turns() -> None:
        nonlocal inside, most, turns
        place = place_of(store)
        for _ in range(3):
            with place.writing(timeout_s=60):
                with counting:
                    inside, turns = inside + 1, turns + 1
                    most = max(most, inside)
                time.sleep(0.02)
                with counting:
                    inside -= 1

    threads = [threading.Thread(target=take_turns) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, turns) == (1, 9)


# --- addresses and mistakes


def test_addresses(tmp_path: Path) -> None:
    for given in ("s3://bucket/a/index", Path("s3://bucket/a/index"), "S3://bucket/a/index/"):
        place = place_of(given)
        assert isinstance(place, RemotePlace) and place.address == "s3://bucket/a/index"
    for given in (f"file://{tmp_path}/an%20index", Path(f"file://{tmp_path}/an%20index"), tmp_path / "an index"):
        place = place_of(given)
        assert isinstance(place, LocalPlace) and place.folder == tmp_path / "an index"
    assert place_of("gs://a/b").folder != place_of("gs://a/c").folder
    for given in ("http://host/index", "s3://", "memory://index"):
        with raises_naming(ConfigError, given.partition(":")[0]):
            place_of(given)


def test_options_of_the_environment() -> None:
    assert storage_options({}) == {}
    assert storage_options({"AWS_ENDPOINT_URL": "https://a"}) == {"endpoint": "https://a"}
    both = {"AWS_ENDPOINT_URL": "https://a", "AWS_ENDPOINT_URL_S3": "http://b"}
    assert storage_options(both) == {"endpoint": "http://b", "allow_http": "true"}


def test_mistakes_get_one_sentence(
    store: str, sounds: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*words: object) -> str:
        capsys.readouterr()
        assert run([str(word) for word in words]) == 2
        message = capsys.readouterr().err.strip()
        assert message.count("\n") == 0 and len(message) < 400, message
        return message

    assert store in refused("search", "rain", "--index", store)
    assert "NoSuchBucket" in refused("index", "add", sounds, "--index", "s3://nowhere/i", "--model", tiny_model)
    assert store in refused("index", "rebuild", "--index", store, "--model", tiny_model)
    assert "http" in refused("index", "status", "--index", "http://host/index")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "Connection refused" in refused("index", "status", "--index", store)


def test_the_cause_of_an_error_is_told_without_the_code_of_lancedb(tmp_path: Path) -> None:
    told = "lance error: LanceError(IO): Generic S3 error: no such region, /root/.cargo/registry/lance-io/aws.rs:12:3"
    assert LocalPlace(tmp_path).reason(OSError(told)) == "Generic S3 error: no such region"


def test_another_table_at_the_address_is_left_alone(store: str) -> None:
    Index.create(store + "/other", IDENTITY)
    place = place_of(store)
    place.create_table("songs", files_schema())
    with raises_naming(DataError, "songs"):
        Index.create(store, replace(IDENTITY, dim=8))
    assert place.database.list_tables().tables == ["songs"]
