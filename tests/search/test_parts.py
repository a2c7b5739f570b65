"""Several processes that add parts of the same folders to one index."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from openclap.cli import run
from openclap.data.parallel import Share
from openclap.errors import ConfigError
from openclap.library import Library
from openclap.search.index import Index
from openclap.search.scan import add
from openclap.search.verify import verify
from openclap.search.walk import walk
from support.errors import raises_naming
from support.search_helpers import IDENTITY, SpectrumEmbedder, describe, report, spectrum, start_scan, tone, write_tone

FILES, COPIES = 24, 6


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Tones, some of which are there twice, under names that belong to other parts."""
    for number in range(FILES):
        write_tone(tmp_path / "many" / f"{number % 3}" / f"{number:02}.wav", 100 + 150 * number, seconds=0.25)
    for number in range(COPIES):
        original = tmp_path / "many" / f"{number % 3}" / f"{number:02}.wav"
        shutil.copy2(original, tmp_path / "many" / f"copy of {number}.wav")
    return tmp_path / "many"


def rows(index: Index) -> list[tuple[str, str, float]]:
    return sorted((row.path, row.hash, row.duration_s) for row in index._rows(["true"]))


def assert_union(index: Index, whole: Index) -> None:
    """The index has each file, and each window, once, as the index of a single run."""
    assert rows(index) == rows(whole) and len(rows(index)) == FILES + COPIES
    for table in ("_windows", "_files"):
        mine, theirs = (getattr(each, table).search().to_arrow().to_pylist() for each in (index, whole))
        key = [name for name in ("path", "hash", "start_s") if name in mine[0]]
        assert sorted(mine, key=lambda row: [row[name] for name in key]) == sorted(
            theirs, key=lambda row: [row[name] for name in key]
        )
    assert verify(index).windows == FILES
    for number in (0, FILES - 1):
        query_D = spectrum(tone(100 + 150 * number, 0.25))
        assert index.search(query_D, 5) == whole.search(query_D, 5)


@pytest.fixture
def whole(tmp_path: Path, many: Path) -> Index:
    index = Index.create(tmp_path / "whole", IDENTITY)
    add(index, [many], SpectrumEmbedder(), describe)
    return index


@pytest.fixture(params=["folder", pytest.param("store", marks=pytest.mark.long)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "store":
        return str(request.getfixturevalue("store"))
    return str(tmp_path / "index")


def test_shares_are_stable_and_cover_everything(many: Path, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(many, tmp_path / "mounted" / "elsewhere")
    parts = []
    for number in (1, 2, 3):
        here, there = (walk([root], part=Share(number, 3)) for root in (many, elsewhere))
        parts.append(set(here.files))
        assert {path[len(str(many)) :] for path in here.files} == {path[len(str(elsewhere)) :] for path in there.files}
    assert set().union(*parts) == set(walk([many]).files)
    assert sum(map(len, parts)) == FILES + COPIES and min(map(len, parts)) >= 4


def test_processes_at_once(address: str, many: Path, whole: Index) -> None:
    processes = [start_scan(address, many, batch=2, part=f"{number}/3") for number in (1, 2, 3)]
    outputs = [(*process.communicate(timeout=120), process.returncode) for process in processes]
    assert [(error, code) for _, error, code in outputs] == [("", 0)] * 3
    reports = [json.loads(out.splitlines()[-1]) for out, _, _ in outputs]
    assert sum(each["added"] for each in reports) == FILES + COPIES and not any(each["skipped"] for each in reports)
    index = Index.open(address)
    assert_union(index, whole)
    assert add(index, [many], SpectrumEmbedder(), describe) == report(unchanged=FILES + COPIES)


def test_a_killed_part_goes_on(address: str, many: Path, whole: Index) -> None:
    killed = start_scan(address, many, batch=2, seconds=0.3, hold=4, part="1/2")
    other = start_scan(address, many, batch=2, part="2/2")
    assert killed.stdout is not None
    for _ in range(3):
        assert killed.stdout.readline() == "embedding\n"
    killed.kill()
    killed.communicate()
    out, error = other.communicate(timeout=120)
    assert (other.returncode, error) == (0, "")
    embed = SpectrumEmbedder()
    done = json.loads(out.splitlines()[-1])["embedded"]
    resumed = add(Index.open(address), [many], embed, describe, part=Share(1, 2))
    assert resumed.skipped == [] and len(embed.seen) <= FILES - done
    assert_union(Index.open(address), whole)


def test_one_after_another(tmp_path: Path, many: Path, whole: Index) -> None:
    index, embed = Index.create(tmp_path / "index", IDENTITY), SpectrumEmbedder()
    for number in (1, 2, 3, 4):
        add(index, [many], embed, describe, part=Share(number, 4))
    assert len(embed.seen) == FILES  # a content of two parts is embedded once
    assert_union(index, whole)


def test_files_that_change_part_are_not_embedded_again(tmp_path: Path, many: Path, whole: Index) -> None:
    for number in range(FILES):
        old = many / f"{number % 3}" / f"{number:02}.wav"
        old.rename(many / f"moved {number}.wav")
    embed = SpectrumEmbedder()
    removed = sum(add(whole, [many], embed, describe, part=Share(number, 3)).removed for number in (1, 2, 3))
    assert embed.seen == [] and removed <= FILES
    assert {row[0] for row in rows(whole)} == {str(path) for path in many.rglob("*.wav")}
    (many / "moved 20.wav").unlink()
    for number in (1, 2, 3):
        add(whole, [many], embed, describe, part=Share(number, 3))
    assert whole.count() == (FILES + COPIES - 1, FILES)
    whole.optimize()  # removes what no file has any more
    assert whole.count() == (FILES + COPIES - 1, FILES - 1)
    assert verify(whole).snapshot == FILES - 1


def test_python_and_mistakes(tmp_path: Path, sounds: Path, tiny_model: Path) -> None:
    library = Library.open(tmp_path / "index", tiny_model)
    assert sum(library.add([sounds], part=f"{number}/2").added for number in (1, 2)) == 4
    for part in ("0/2", "3/2", "2", "1/0", "a/b"):
        with raises_naming(ConfigError, part):
            library.add([sounds], part=part)
    assert run(["index", "add", str(sounds), "--index", str(tmp_path / "index"), "--part", "1/2", "--watch"]) == 2
