"""A search over the mapped snapshot returns what an exact search of the tables returns, whatever happens to either."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openclap.errors import ConfigError, DataError
from openclap.search import ranking, snapshot_writer
from openclap.search.index import FileRow, Index
from openclap.types import Hit, Window
from support.search_helpers import DIM, axis, fill, fingerprint, row

TOLERANCE = 2e-7  # of equal sums of float32 in arrays of other shapes


def vectors(rng: np.random.Generator, count: int, spread: float = 1.0) -> np.ndarray:
    """Vectors with a common mean, as an audio tower has; of few values, so that some are equal."""
    return np.round(3 * spread * rng.standard_normal((count, DIM))) / 3 + 0.5


def content(number: int) -> str:
    return f"{number:064x}"


def windows_of(rng: np.random.Generator, count: int) -> list[Window]:
    return [Window(float(at), at + 1.0, vector) for at, vector in enumerate(vectors(rng, count))]


def current(index: Index) -> Path:
    """The folder of the current generation."""
    return (
        index.folder / "snapshot" / json.loads((index.folder / "snapshot" / "current.json").read_text())["generation"]
    )


def file_of(index: Index, kind: str) -> Path:
    names = json.loads((index.folder / "snapshot" / "current.json").read_text())["names"]
    return current(index) / names.get(kind, kind)


def assert_equal_to_exact(index: Index, query: np.ndarray, k: int, method: str, **options: Any) -> None:
    ours, exact = index.search(query, k, **options), index.search(query, k, exact=True, **options)
    assert (ours.info.method, exact.info.method) == (method, "tables"), ours.info.note
    assert [place(hit) for hit in ours] == [place(hit) for hit in exact]
    np.testing.assert_allclose([hit.score for hit in ours], [hit.score for hit in exact], atol=TOLERANCE)


def place(hit: Hit) -> tuple[Any, ...]:
    return (hit.path, hit.start_s, hit.end_s, hit.caption, hit.tags)


@pytest.fixture
def sketched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sketch from 512 windows on, with shallow candidates, so that small tables go through every branch."""
    monkeypatch.setattr(snapshot_writer, "SKETCH_FROM", 512)
    monkeypatch.setattr(ranking, "_FIRST_DEPTH", 32)
    monkeypatch.setattr(ranking, "_PER_HIT", 4)
    monkeypatch.setattr(ranking, "_FIRST_SCORED", 8)
    monkeypatch.setattr(ranking, "_FEW", 20)


def change(index: Index, rng: np.random.Generator, numbers: itertools.count[int], files: int) -> None:
    """Add files, some with known contents or old paths, and remove others."""
    with index.writing() as writer:
        known = writer.known()
        rows, windows = [], {}
        for _ in range(files):
            kind, path = rng.random(), f"/s/{rng.integers(400):03}.wav"
            if kind < 0.25 and known:  # a copy, or a file that was replaced by another one
                digest = known[sorted(known)[rng.integers(len(known))]].hash
            else:
                digest = content(next(numbers))
                windows[digest] = windows_of(rng, int(rng.integers(1, 8)))
            rows.append(row(path, digest, caption=f"{path} {digest[-4:]}", tags=(path,)))
        writer.put(rows, windows)
        known = writer.known()
        writer.drop([path for path in known if rng.random() < 0.1])
        if rng.random() < 0.7:
            writer.prune()


def compare(index: Index, rng: np.random.Generator, method: str, times: int) -> None:
    for _ in range(times):
        query, k = vectors(rng, 1, spread=rng.choice([0.3, 1, 3]))[0], int(rng.integers(1, 40))
        one = bool(rng.integers(2))
        assert_equal_to_exact(index, query, k, method, one_per_file=one)
        some = set(rng.integers(0, 400, rng.integers(1, 300)).tolist())
        assert_equal_to_exact(index, query, k, method, one_per_file=one, offset=int(rng.integers(0, 9)))
        assert_equal_to_exact(index, query, k, method, one_per_file=one, include=partial(is_among, some))
        assert_equal_to_exact(index, query, k, method, one_per_file=one, mask_F=partial(mask_of, some))


def is_among(numbers: set[int], file: FileRow) -> bool:
    return int(Path(file.path).stem) in numbers


def mask_of(numbers: set[int], facts: Any) -> np.ndarray:
    return np.array([int(Path(path).stem) in numbers for path in facts["path"].to_pylist()], bool)


@pytest.mark.parametrize("seed", range(2))
def test_small_indexes_equal_exact_search(index: Index, seed: int) -> None:
    rng, numbers = np.random.default_rng(seed), itertools.count()
    reader = Index.open(index.folder)
    for _ in range(4):
        change(index, rng, numbers, int(rng.integers(1, 40)))
        compare(reader, rng, "windows", 2)


@pytest.mark.usefixtures("sketched")
@pytest.mark.parametrize("seed", range(2))
def test_sketched_indexes_equal_exact_search(index: Index, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a bound of 6 standard deviations, since 3 miss a window in 1 of 740 cases."""
    monkeypatch.setattr(ranking, "DEVIATIONS", 6.0)
    rng, numbers = np.random.default_rng(seed), itertools.count()
    change(index, rng, numbers, 350)
    reader = Index.open(index.folder)
    for _ in range(3):
        compare(reader, rng, "sketch", 1)
        change(index, rng, numbers, int(rng.integers(1, 80)))
    compare(Index.open(index.folder), rng, "sketch", 2)


@pytest.mark.usefixtures("sketched")
def test_recall_of_the_sketch_at_its_own_depth(index: Index) -> None:
    rng = np.random.default_rng(0)
    fill(index, [vectors(rng, 4) for _ in range(500)])
    found = []
    for query in vectors(rng, 20):
        exact = {hit.path for hit in index.search(query, 10, exact=True)}
        found.append(len(exact & {hit.path for hit in index.search(query, 10)}) / 10)
    assert np.mean(found) >= 0.99


@pytest.mark.usefixtures("sketched")
def test_a_sketch_is_extended_and_finds_what_was_added(index: Index) -> None:
    rng, numbers = np.random.default_rng(1), itertools.count()
    change(index, rng, numbers, 300)
    first = file_of(index, "sketch"), file_of(index, "codebook")
    before = json.loads((index.folder / "snapshot" / "current.json").read_text())["sketched"]
    for batch in range(4):
        files = [row(f"/t/{batch}-{i}.wav", content(next(numbers))) for i in range(50)]
        index.add(files, {file.hash: windows_of(rng, 4) for file in files})
    assert json.loads((index.folder / "snapshot" / "current.json").read_text())["sketched"] >= before + 512
    assert file_of(index, "sketch") != first[0] and not first[0].exists()
    assert file_of(index, "codebook") == first[1], "it was not trained again"
    added = [window.vector for window in windows_of(rng, 4)]
    index.add([row("/t/last.wav", content(10**6))], {content(10**6): [Window(0, 1, added[0])]})
    for query in (added[0], files[-1].hash and vectors(rng, 1)[0]):
        assert_equal_to_exact(Index.open(index.folder), query, 10, "sketch")


@pytest.mark.usefixtures("sketched")
def test_one_file_with_500_near_equal_windows_hides_no_other(index: Index) -> None:
    rng = np.random.default_rng(2)
    near = axis(0) + 0.01 * rng.standard_normal((500, DIM)).astype(np.float32)
    fill(index, [near, *(vectors(rng, 1) for _ in range(300))])
    for k in (1, 2, 10):
        assert_equal_to_exact(index, axis(0), k, "sketch")
    assert index.search(axis(0), 2)[1].path != "/s/0.wav"


@pytest.mark.usefixtures("sketched")
def test_a_filter_against_the_query(index: Index) -> None:
    """Only files that are far from the query may be hits."""
    rng = np.random.default_rng(3)
    points = vectors(rng, 900)
    fill(index, [point[None] for point in points])
    query = points[0]
    cosine = points @ query / np.linalg.norm(points, axis=1) / np.linalg.norm(query)
    for part in (0.05, 0.3):
        far = {f"/s/{i}.wav" for i in np.argsort(cosine)[: int(900 * part)]}
        mask = lambda facts, far=far: np.array([path in far for path in facts["path"].to_pylist()])  # noqa: E731
        assert_equal_to_exact(index, query, 10, "sketch", mask_F=mask)


@pytest.mark.usefixtures("sketched")
def test_equal_windows_beyond_any_depth_come_in_the_order_of_paths(index: Index) -> None:
    files = [row(f"/s/{i:04}.wav", content(i)) for i in reversed(range(700))]
    index.add(files, {content(i): [Window(0, 1, axis(3))] for i in reversed(range(700))})
    hits = index.search(axis(3), 7)
    assert hits.info.method == "sketch"
    assert [hit.path for hit in hits] == [f"/s/{i:04}.wav" for i in range(7)]


def test_pages_join_to_the_whole(index: Index) -> None:
    fill(index, [vectors(np.random.default_rng(4), 2) for _ in range(30)])
    whole = index.search(axis(1), 25, one_per_file=False)
    pages = [index.search(axis(1), 5, one_per_file=False, offset=first) for first in range(0, 25, 5)]
    assert [hit for page in pages for hit in page] == list(whole)
    assert index.search(axis(1), 5, offset=1000) == []
    with pytest.raises(ConfigError, match="offset"):
        index.search(axis(1), 5, offset=-1)


def test_facts_are_those_of_live_files_in_the_order_of_masks(index: Index) -> None:
    fill(index, [axis(i)[None] for i in range(5)])
    index.remove(["/s/1.wav"])
    facts = index.facts()
    assert sorted(facts["path"].to_pylist()) == ["/s/0.wav", "/s/2.wav", "/s/3.wav", "/s/4.wav"]
    assert facts.schema.names == list(row("/s/a", "a").__dataclass_fields__)
    mask = np.array([path == "/s/3.wav" for path in facts["path"].to_pylist()])
    for exact in (False, True):
        assert [hit.path for hit in index.search(axis(0), 5, mask_F=mask, exact=exact)] == ["/s/3.wav"]
        with pytest.raises(ConfigError, match="mask"):
            index.search(axis(0), 5, mask_F=np.ones(5, bool), exact=exact)


def test_a_content_that_comes_back_with_another_vector(index: Index) -> None:
    """Its old windows are in the snapshot still, and must not be found."""
    fill(index, [axis(i)[None] for i in range(4)])
    index.remove(["/s/2.wav"])
    index.add([row("/s/2.wav", content(2))], {content(2): [Window(0, 1, axis(9))]})
    assert_equal_to_exact(index, axis(2), 4, "windows")
    assert index.search(axis(9), 1)[0].score == pytest.approx(1.0)


def test_merged_fragments_change_no_result(index: Index) -> None:
    rng, numbers = np.random.default_rng(5), itertools.count()
    for _ in range(3):
        change(index, rng, numbers, 10)
    reader = Index.open(index.folder)
    compare(reader, rng, "windows", 2)
    index._files.optimize()
    index._windows.optimize()  # every row has another id now, and the snapshot is older than the tables
    compare(reader, rng, "windows", 2)
    assert reader.search(axis(0), 1).info.newer > 0
    index.remove(["/nothing"])
    assert reader.search(axis(0), 1).info.newer == 0
    compare(reader, rng, "windows", 2)


def test_many_unused_windows_are_dropped(index: Index) -> None:
    fill(index, [vectors(np.random.default_rng(6), 50) for _ in range(40)])
    first = current(index)
    index.remove([f"/s/{i}.wav" for i in range(20)])
    assert current(index) != first and not first.exists()
    assert file_of(index, "rows").stat().st_size == 8 * 1000


def test_additions_are_appended(index: Index) -> None:
    fill(index, [axis(i)[None] for i in range(20)])
    before, inode = current(index), (current(index) / "vectors").stat().st_ino
    index.add([row("/s/new.wav", content(99))], {content(99): [Window(0, 1, axis(40))]})
    assert current(index) == before and (before / "vectors").stat().st_ino == inode
    assert index.search(axis(40), 1)[0].path == "/s/new.wav"


def newer_than_snapshot(index: Index) -> None:
    """Add a file and put the snapshot back as it was before."""
    kept = index.folder.parent / "kept"
    shutil.copytree(index.folder / "snapshot", kept)
    index.add([row("/s/newer.wav", content(77))], {content(77): [Window(0, 1, axis(50))]})
    index.remove(["/s/0.wav"])
    shutil.rmtree(index.folder / "snapshot")
    kept.rename(index.folder / "snapshot")


def test_tables_that_are_newer_than_the_snapshot(index: Index) -> None:
    fill(index, [axis(i)[None] for i in range(20)])
    newer_than_snapshot(index)
    reader = Index.open(index.folder)
    hits = reader.search(axis(50), 30)
    assert hits[0].path == "/s/newer.wav" and "/s/0.wav" not in {hit.path for hit in hits}
    assert (hits.info.newer, hits.info.windows) == (1, 20)
    assert_equal_to_exact(reader, axis(0), 30, "windows")


def test_too_many_newer_windows_are_searched_in_the_tables(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openclap.search.index._NEWER_AT_MOST", 0)
    fill(index, [axis(i)[None] for i in range(20)])
    newer_than_snapshot(index)
    hits = Index.open(index.folder).search(axis(50), 1)
    assert hits[0].path == "/s/newer.wav"
    assert hits.info.method == "tables" and "lacks 1 windows" in hits.info.note


def test_an_index_without_a_snapshot(index: Index) -> None:
    fill(index, [axis(i)[None] for i in range(20)])
    shutil.rmtree(index.folder / "snapshot")
    reader = Index.open(index.folder)
    hits = reader.search(axis(3), 2)
    assert hits[0].path == "/s/3.wav" and hits.info.method == "tables" and "optimize" in hits.info.note
    assert not (index.folder / "snapshot").exists()
    index.remove(["/nothing"])
    assert reader.search(axis(3), 2).info.method == "windows"


DAMAGE = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "missing": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}
KINDS = ["vectors", "times", "contents", "rows", "hashes", "facts", "newer", "sketch", "codebook", "current.json"]


@pytest.mark.usefixtures("sketched")
def test_damaged_files_never_give_wrong_results(index: Index) -> None:
    rng = np.random.default_rng(7)
    fill(index, [vectors(rng, 4) for _ in range(150)])
    good = Index.open(index.folder).search(axis(0), 10, exact=True)
    for kind, how in zip(KINDS, itertools.cycle(DAMAGE), strict=False):
        path = file_of(index, kind) if kind != "current.json" else index.folder / "snapshot" / kind
        DAMAGE[how](path)
        hits = Index.open(index.folder).search(axis(0), 10)
        assert [place(hit) for hit in hits] == [place(hit) for hit in good], kind
        assert hits.info.method == "tables" and hits.info.note.endswith("."), kind
        if path.is_dir():
            path.rmdir()
        index.remove(["/nothing"])  # any change makes the snapshot anew
        assert Index.open(index.folder).search(axis(0), 10).info.method == "sketch", kind


def test_content_numbers_out_of_range_and_facts_of_another_kind(index: Index) -> None:
    fill(index, [axis(i)[None] for i in range(4)])
    path = file_of(index, "contents")
    path.write_bytes(b"\xff" * path.stat().st_size)
    assert Index.open(index.folder).search(axis(0), 1).info.method == "tables"
    path = file_of(index, "facts")
    path.write_bytes(b"\0" * path.stat().st_size)
    assert Index.open(index.folder).search(axis(0), 1)[0].path == "/s/0.wav"


@pytest.mark.usefixtures("sketched")
@pytest.mark.parametrize("kind", ["codebook", "facts", "newer"])
def test_garbage_of_the_right_size(index: Index, kind: str) -> None:
    fill(index, [vectors(np.random.default_rng(8), 4) for _ in range(150)])
    path = file_of(index, kind)
    path.write_bytes(b"\x07" * path.stat().st_size)
    hits = Index.open(index.folder).search(axis(0), 10)
    assert hits.info.method == "tables" and hits == index.search(axis(0), 10, exact=True)


@pytest.mark.usefixtures("sketched")
def test_a_reader_whose_files_are_replaced_before_its_first_search(index: Index) -> None:
    """It has mapped all of them when it opened the snapshot."""
    fill(index, [vectors(np.random.default_rng(9), 4) for _ in range(150)])
    reader = Index.open(index.folder)
    view = reader._current()
    assert view is not None
    index.optimize()
    ranked = view.best_hits(axis(0) / 1, 10, one_per_file=True)
    assert ranked.hits == index.search(axis(0), 10, exact=True)


def test_an_index_on_a_read_only_disk(index: Index) -> None:
    """Its folders are without write permission; root writes all the same, so nothing may have been tried."""
    fill(index, [axis(i)[None] for i in range(20)])
    newer_than_snapshot(index)
    before = fingerprint(index.folder)
    folders = [index.folder, *(path for path in index.folder.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        reader = Index.open(index.folder)
        assert reader.search(axis(50), 1)[0].path == "/s/newer.wav"
        assert fingerprint(index.folder) == before
    finally:
        for folder in folders:
            folder.chmod(stat.S_IRWXU)


def test_a_full_disk_fails_no_addition(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(index, [axis(i)[None] for i in range(4)])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(snapshot_writer, "_switch", full)
        index.add([row("/s/new.wav", content(99))], {content(99): [Window(0, 1, axis(40))]})
    assert Index.open(index.folder).search(axis(40), 1)[0].path == "/s/new.wav"
    index.remove(["/s/0.wav"])
    hits = Index.open(index.folder).search(axis(40), 9)
    assert hits.info.newer == 0 and len(hits) == 4


def test_a_reader_in_another_process_follows(index: Index) -> None:
    """It maps files that the writer removes meanwhile, and finds each addition at once."""
    fill(index, [axis(i)[None] for i in range(20)])
    program = """
import sys, numpy as np
from openclap.search.index import Index
index = Index.open(sys.argv[1])
for line in sys.stdin:
    hits = index.search(np.eye(64)[int(line)], 1)
    print(hits[0].path, hits.info.method, hits.info.newer, flush=True)
"""
    reader = subprocess.Popen(
        [sys.executable, "-c", program, str(index.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert reader.stdin and reader.stdout
    with reader:
        for number in range(30, 34):
            path = f"/s/{number}.wav"
            index.add([row(path, content(number))], {content(number): [Window(0, 1, axis(number))]})
            if number % 2:
                shutil.rmtree(index.folder / "snapshot")
                index.remove(["/nothing"])
            print(number, file=reader.stdin, flush=True)
            assert reader.stdout.readline() == f"{path} windows 0\n"
        reader.stdin.close()


def test_searching_imports_no_lancedb(index: Index) -> None:
    fill(index, [axis(0)[None]])
    program = """
import sys, numpy as np
from openclap.search.index import Index
hits = Index.open(sys.argv[1]).search(np.eye(64)[0], 1)
assert hits[0].path == "/s/0.wav", hits
print(sorted({"lancedb", "faiss", "pandas"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(index.folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_info_is_a_phrase(index: Index) -> None:
    fill(index, [axis(0)[None]])
    assert str(index.search(axis(0), 1).info) == "exact search of 1 windows"
    assert str(index.search(axis(0), 1, exact=True).info) == "exact search of 1 windows in the tables"


def test_removed_tables_are_reported(index: Index) -> None:
    fill(index, [axis(0)[None]])
    reader = Index.open(index.folder)
    shutil.rmtree(index.folder / "windows.lance")
    with pytest.raises(DataError, match="cannot be read"):
        reader.search(axis(0), 1)
