"""The commands around an index, run in this process on small real sounds."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from pyarrow import parquet

from openclap.checkpoints.published import PUBLISHED, RECOMMENDED
from openclap.cli import run
from openclap.errors import AudioWarning, ConfigError, DataError
from openclap.library import Library
from openclap.search import rebuild
from openclap.search.background import descriptions
from openclap.search.fit import Background, write_background
from openclap.search.index import Index
from openclap.search.labels import read_labels
from openclap.search.scan import ScanReport
from openclap.search.watch import watch
from support.errors import raises_naming
from support.tiny_models import save_tiny_model

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def openclap(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command line in this process: exit code, stdout and stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(word) for word in words])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def library(tiny_model: Path, sounds: Path, tmp_path: Path) -> Library:
    library = Library.open(tmp_path / "index", tiny_model)
    library.add([sounds])
    return library


@pytest.fixture
def mounted(openclap: Call, tiny_model: Path, sounds: Path, tmp_path: Path) -> Path:
    """A drive with an index and its sounds, which is now mounted elsewhere."""
    drive, place = tmp_path / "drive", tmp_path / "mounted"
    shutil.copytree(sounds, drive / "sounds")
    table = drive / "sounds" / "sounds.csv"
    assert (
        openclap("index", "add", table.parent, "--index", drive / "index", "--model", tiny_model, "--table", table)[0]
        == 0
    )
    drive.rename(place)
    return place


def names(hits: Any) -> list[str]:
    return [Path(hit["path"] if isinstance(hit, dict) else hit.path).name for hit in hits]


def test_search_options(openclap: Call, library: Library, tmp_path: Path) -> None:
    index = ("--index", tmp_path / "index", "--json")
    code, out, _ = openclap("search", "a low tone", *index, "--where", "duration<0.8", "--where", "name~o")
    assert code == 0 and set(names(json.loads(out))) == {"low-0.wav", "noise-2.wav"}
    code, out, _ = openclap("search", "igh-4", *index, "--keywords", "only")
    [hit] = json.loads(out)
    assert names([hit]) == ["high-4.wav"] and hit["rate"] == 16000 and hit["channels"] == 1
    code, out, _ = openclap("search", "noise-5", *index, "--keywords", "fused", "-k", "1")
    assert names(json.loads(out)) == ["noise-5.wav"]
    pages = [openclap("search", "rain", *index, "-k", "4", "--offset", offset)[1] for offset in (0, 4)]
    assert len({name for page in pages for name in names(json.loads(page))}) == 6
    code, out, _ = openclap("search", "rain", *index, "--also", "wolf:0.5", "--unlike", "noise", "--every-window")
    assert code == 0 and len(json.loads(out)) > 6
    code, out, err = openclap("search", "rain", *index, "--where", "colour=red")
    assert code == 2 and "Facts are" in err and err.count("\n") == 1


def test_filters_and_facets_of_moved_sounds_have_their_present_paths(openclap: Call, mounted: Path) -> None:
    index, sound = ("--index", mounted / "index", "--json"), mounted / "sounds" / "low-0.wav"
    for where in (f"path={sound}", f"path={mounted.parent}/drive/sounds/low-0.wav"):
        code, out, _ = openclap("search", "rain", *index, "--where", where)
        assert code == 0 and [hit["path"] for hit in json.loads(out)] == [str(sound)]
    counts = json.loads(openclap("index", "facets", "folder", *index)[1])
    assert counts == [{"value": str(mounted / "sounds"), "files": 6}]


def test_moved_sounds_are_no_hits_of_themselves(openclap: Call, mounted: Path) -> None:
    sound, options = mounted / "sounds" / "low-0.wav", ("--index", mounted / "index", "--json", "-k", 9)
    code, out, _ = openclap("similar", sound, *options)
    assert code == 0 and len(json.loads(out)) == 5 and sound.name not in names(json.loads(out))


def test_moved_sounds_are_removed_exported_and_compared(openclap: Call, mounted: Path) -> None:
    index = ("--index", mounted / "index")
    sounds = sorted((mounted / "sounds").glob("*.wav"))
    assert openclap("index", "export", mounted / "out", *index)[0] == 0
    exported = parquet.read_table(mounted / "out" / "files.parquet").column("path").to_pylist()
    assert sorted(exported) == list(map(str, sounds))
    found = json.loads(openclap("duplicates", *index, "--json")[1])
    assert not found["skipped"], "they were not found"
    code, out, err = openclap("index", "remove", sounds[0], *index, "--json")
    assert (code, json.loads(out)) == (0, {"removed": 1}) and "comes back" in err
    assert json.loads(openclap("index", "remove", mounted, *index, "--json")[1]) == {"removed": len(sounds) - 1}
    assert Index.open(mounted / "index").header().roots == ()


def test_rebuilding_keeps_the_captions_of_moved_sounds(openclap: Call, mounted: Path) -> None:
    other = save_tiny_model(mounted / "other", seed=1)
    assert openclap("index", "rebuild", "--model", other, "--index", mounted / "index")[0] == 0
    hits = Library.open(mounted / "index").search("rain")
    assert {hit.caption for hit in hits} == {"a low tone", "a high tone", "a noise tone"}


def test_a_text_that_fits_nothing_gets_a_note_and_its_hits(openclap: Call, library: Library, tmp_path: Path) -> None:
    search = ("search", "a low tone", "--index", tmp_path / "index", "-k", "2")
    vectors = np.zeros((len(descriptions()), library.index.identity.dim), np.float16)
    for best, notes in ((-1.0, 0), (1.0, 1)):
        write_background(library.index, Background(6, np.full(len(vectors), best, np.float32), vectors))
        code, out, err = openclap(*search, "--json")
        assert code == 0 and len(json.loads(out)) == 2 and err.count("Probably nothing here") == notes
        code, out, err = openclap(*search)
        assert code == 0 and out.count(".wav") == 2 and err.count("Probably nothing here") == notes


def test_similar_options(openclap: Call, library: Library, sounds: Path, tmp_path: Path) -> None:
    tone, noise = (soundfile.read(sounds / name)[0] for name in ("high-4.wav", "noise-5.wav"))
    both = tmp_path / "both.wav"
    soundfile.write(both, np.concatenate([tone, noise]), 16000)
    end = len(tone) / 16000
    for options, kind in ((("--to", end), "high"), (("--from", end), "noise")):
        code, out, _ = openclap("similar", both, "--index", tmp_path / "index", "--json", "-k", "1", *options)
        assert code == 0 and names(json.loads(out))[0].startswith(kind)
    code, out, _ = openclap(
        "similar", sounds / "low-0.wav", "--unlike", sounds / "low-3.wav", "--index", tmp_path / "index", "--json"
    )
    low_D, other_D = library.embedder.embed_audio([sounds / "low-0.wav", sounds / "low-3.wav"])
    expected = library.index.search((low_D - 0.5 * other_D) / np.linalg.norm(low_D - 0.5 * other_D), 6)
    scores = [hit.score for hit in expected if not Path(hit.path).name.startswith("low")]
    assert code == 0 and [hit["score"] for hit in json.loads(out)] == pytest.approx(scores, abs=1e-5)
    for wrong in (("--from", 99), ("--from", 2, "--to", 1), ("--from", "-1")):
        assert openclap("similar", both, "--index", tmp_path / "index", *wrong)[0] == 2


def test_weights_are_those_of_unit_vectors(library: Library) -> None:
    rain_D, wolf_D = library.embedder.embed_text(["rain", "wolf"])
    sum_D = 2 * rain_D - 0.5 * wolf_D
    expected = library.index.search(sum_D / np.linalg.norm(sum_D), 6)
    assert names(library.search({"rain": 2.0, "wolf": -0.5}, 6)) == names(expected)
    for weights in ({"rain": 1.0, "wolf": float("nan")}, {}, {"rain": 0.0}):
        with pytest.raises(ConfigError):
            library.search(weights)
    with pytest.raises(ConfigError):
        library.search("rain", 0)
    with pytest.raises(ConfigError):
        library.search("rain", offset=-1)


def test_long_and_silent_queries(library: Library, tmp_path: Path) -> None:
    assert len(library.search("rain " * 5000, 3)) == 3
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    with pytest.warns(AudioWarning, match="silent"):
        assert len(library.similar(tmp_path / "silent.wav", 3)) == 3


def test_update_and_remove(openclap: Call, library: Library, sounds: Path, tmp_path: Path) -> None:
    index = ("--index", tmp_path / "index", "--json")
    shutil.copy(sounds / "low-0.wav", sounds / "new.wav")
    assert json.loads(openclap("index", "update", *index)[1])["added"] == 1
    assert json.loads(openclap("index", "update", *index, "--exclude", "low*")[1])["removed"] == 2
    status = json.loads(openclap("index", "status", *index)[1])
    assert (status["files"], status["folders"], status["exclude"]) == (5, [str(sounds)], ["low*"])
    code, out, err = openclap("index", "remove", sounds / "new.wav", *index)
    assert json.loads(out) == {"removed": 1} and "comes back" in err and (sounds / "new.wav").exists()
    assert json.loads(openclap("index", "remove", sounds, *index)[1]) == {"removed": 4}
    code, _, err = openclap("index", "update", *index)
    assert code == 2 and "knows no folders" in err


def test_facets_and_export(openclap: Call, library: Library, tmp_path: Path) -> None:
    index = ("--index", tmp_path / "index")
    code, out, _ = openclap("index", "facets", "rate", *index, "--json")
    assert json.loads(out) == [{"value": 16000, "files": 6}]
    facts = json.loads(openclap("index", "facets", *index, "--json")[1])
    assert {"value": "rate", "files": 6} in facts and {"value": "title", "files": 0} in facts
    assert "16000" in openclap("index", "facets", "rate", *index, "--where", "name~low")[1]
    assert openclap("index", "facets", "colour", *index)[0] == 2
    code, _, err = openclap("index", "export", tmp_path / "out", *index)
    assert code == 0 and "6 files" in err and (tmp_path / "out" / "files.parquet").is_file()
    assert openclap("index", "export", tmp_path / "out", *index)[0] == 2


def test_sounds_are_labelled_by_a_list(openclap: Call, library: Library, sounds: Path, tmp_path: Path) -> None:
    index = ("--index", tmp_path / "index")
    labels = tmp_path / "labels.txt"
    labels.write_text("# mine\nLow: a low tone; a deep hum\nNoise\n", encoding="utf-8")
    code, out, _ = openclap("index", "label", labels, *index, "--json")
    counts = {each["value"]: each["files"] for each in json.loads(out)}
    assert code == 0 and counts.keys() == {"Low", "Noise"} and 6 <= sum(counts.values()) <= 12
    value = max(counts, key=counts.__getitem__)
    found = json.loads(openclap("search", "a tone", *index, "--where", f"label={value.upper()}", "--json")[1])
    assert len(found) == counts[value] == len(library.search("a tone", where={"labels": value}))
    assert openclap("index", "facets", "label", *index, "--json")[1].count("files") == sum(map(bool, counts.values()))
    # The index keeps the list: a new sound is labelled by it.
    shutil.copyfile(sounds / "low-0.wav", sounds / "new.wav")
    with (sounds / "new.wav").open("ab") as file:
        file.write(b"LIST\4\0\0\0none")  # other bytes, so another content
    assert openclap("index", "update", *index)[0] == 0
    assert sum(count for _, count in library.facets("labels", ["name=new.wav"])) >= 1
    for wrong in ("|\n".join("ab"), "", "Low\nlow"):
        labels.write_text(f"{wrong}\n", encoding="utf-8")
        assert openclap("index", "label", labels, *index)[0] == 2, wrong
    code, _, err = openclap("index", "label", tmp_path / "missing.txt", *index)
    assert code == 2 and "missing.txt" in err
    assert [label.name for label in library.label()] == ["Low", "Noise"]


def test_only_unreadable_files_are_a_mistake(openclap: Call, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.wav").write_bytes(b"no sound")
    code, _, err = openclap("index", "add", tmp_path / "bad", "--index", tmp_path / "i", "--model", tiny_model)
    assert code == 2 and "None of the files" in err and "a.wav" in err


def test_rebuild_exchanges_the_model(openclap: Call, tiny_model: Path, sounds: Path, tmp_path: Path) -> None:
    index, other = tmp_path / "index", save_tiny_model(tmp_path / "other", seed=1)
    add = ("index", "add", sounds, "--index", index, "--model", tiny_model, "--table", sounds / "sounds.csv")
    assert openclap(*add)[0] == 0
    (tmp_path / "labels.txt").write_text("Tones: a low tone; a high tone\nNoise")
    assert openclap("index", "label", tmp_path / "labels.txt", "--index", index)[0] == 0
    opened = Library.open(index)
    code, out, err = openclap("index", "rebuild", "--model", other, "--index", index, "--json")
    assert code == 0 and json.loads(out)["added"] == 6, err
    status = json.loads(openclap("index", "status", "--index", index, "--json")[1])
    assert (status["model"], status["files"], status["folders"]) == (str(other), 6, [str(sounds)])
    assert {hit.caption for hit in Library.open(index).search("rain")} == {"a low tone", "a high tone", "a noise tone"}
    assert sorted(path.name for path in tmp_path.glob("*index*")) == ["index"]
    labels = read_labels(Library.open(index).index)
    assert labels is not None and [label.name for label in labels.labels] == ["Tones", "Noise"]
    with pytest.raises(Exception, match="cannot be compared"):
        opened.search("rain")


def test_a_rebuilding_that_was_stopped_goes_on(tiny_model: Path, sounds: Path, tmp_path: Path) -> None:
    index, other = tmp_path / "index", save_tiny_model(tmp_path / "other", seed=1)
    Library.open(index, tiny_model).add([sounds])
    Library.open(tmp_path / ".index.rebuilding", other).add([sounds / "low-0.wav"])  # begun
    _, report = Library.rebuild(index, other)
    assert (report.added, report.unchanged) == (5, 1)
    for place in (".index.replaced", ".index.rebuilding"):  # stopped between the renames of an exchange
        shutil.copytree(index, tmp_path / place)
    shutil.rmtree(index)
    with pytest.raises(DataError, match="index rebuild"):
        Library.open(index)
    assert rebuild.prepare(index)[0].count()[0] == 6
    assert sorted(path.name for path in tmp_path.glob("*index*")) == ["index"]
    sounds.rename(tmp_path / "away")
    with pytest.raises(DataError, match="Mount it"):
        Library.rebuild(index, other)


def test_rebuilding_removes_no_folder_of_the_user(tiny_model: Path, sounds: Path, tmp_path: Path) -> None:
    index, other = tmp_path / "index", save_tiny_model(tmp_path / "other", seed=1)
    Library.open(index, tiny_model).add([sounds])
    backups = [shutil.copytree(index, tmp_path / name) for name in ("index.old", "index.rebuild", "index.new")]
    Library.rebuild(index, other)
    assert all(Library.open(place).index.identity.model == str(tiny_model) for place in backups)
    notes = tmp_path / ".index.rebuilding" / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("mine")
    with raises_naming(DataError, notes.parent, "notes.txt"):
        Library.rebuild(index, tiny_model)
    assert notes.read_text() == "mine"


def test_a_watched_folder_is_kept_up_to_date(library: Library, sounds: Path, tmp_path: Path) -> None:
    reports: list[ScanReport] = []
    stop = threading.Event()
    watching = threading.Thread(
        target=watch, args=(library.index, library.update, reports.append, print), kwargs={"stop": stop}
    )
    watching.start()

    def until(expected: set[str]) -> float:
        began = time.monotonic()
        while {Path(path).name for path in library.index.files_by_path()} != expected:
            assert time.monotonic() - began < 30, library.index.files_by_path()
            time.sleep(0.05)
        return time.monotonic() - began

    try:
        while not reports:
            time.sleep(0.05)
        now = {path.name for path in sounds.glob("*.wav")}
        shutil.copy(sounds / "low-0.wav", sounds / "AMBForst_Dawn_AB_LIB.wav")
        (sounds / "notes.txt").write_text("no sound")
        until(now := now | {"AMBForst_Dawn_AB_LIB.wav"})
        (sounds / "deep").mkdir()
        (sounds / "low-3.wav").rename(sounds / "deep" / "moved.wav")
        until(now := now - {"low-3.wav"} | {"moved.wav"})
        shutil.rmtree(sounds / "deep")
        until(now - {"moved.wav"})
        assert [hit.category for hit in library.search("dawn", keywords="only")] == ["AMB"]
    finally:
        stop.set()
        watching.join(timeout=20)
    assert not watching.is_alive()


def test_a_better_model_is_named_once(openclap: Call, home: Path, sounds: Path, tmp_path: Path) -> None:
    """With the default model, at the first command on an index that prints for people."""
    first, second, named = (("--index", tmp_path / name) for name in ("first", "second", "named"))
    better = PUBLISHED[RECOMMENDED]
    facts = (better.name, f"{better.megabytes / 1000:.1f} GB", better.licence, "index rebuild", tmp_path / "first")
    line = " ".join(openclap("index", "add", sounds, *first)[2].split())
    assert [fact for fact in facts if str(fact) not in line] == []
    assert better.name not in openclap("search", "rain", *first)[2]
    assert better.name not in openclap("index", "add", sounds, *second, "--json")[2]
    assert better.name not in openclap("search", "rain", *second, "--json")[2]
    assert better.name in openclap("similar", sounds / "low-0.wav", *second)[2]
    assert better.name not in openclap("search", "rain", *second)[2]
    openclap("index", "add", sounds, *named, "--model", "mini")
    assert better.name not in openclap("search", "rain", *named)[2]
    other = ("--index", tmp_path / "other")
    assert (
        better.name
        not in openclap("index", "add", sounds, *other, "--model", save_tiny_model(tmp_path / "m", seed=1))[2]
    )
    assert better.name not in openclap("search", "rain", *other)[2]
