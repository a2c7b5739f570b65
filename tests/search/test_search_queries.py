"""Filtered, fused, paged and merged searches of an index, against brute force over its rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openclap.errors import ConfigError, IndexMismatchError
from openclap.search.export import export
from openclap.search.filters import mask_of
from openclap.search.index import FileRow, Index
from openclap.search.queries import (
    FUSION_CONSTANT,
    SearchQuery,
    count_facets,
    count_files,
    find,
    paths_of_files,
    without_overlaps,
)
from openclap.search.rows import files_table
from openclap.types import Window
from support.search_helpers import DIM, IDENTITY, row

FILES = 120
WORDS = ["rain", "roof", "dog", "bark", "wind"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Index, list[FileRow], dict[str, np.ndarray]]:
    """An index of files with three windows each, which overlap by half, its rows, and the vectors by path."""
    rng = np.random.default_rng(0)
    rows, windows, vectors = [], {}, {}
    for number in range(FILES):
        name = "_".join(rng.choice(WORDS, rng.integers(1, 4)))
        facts: dict[str, Any] = {"category": str(rng.choice(["AMB", "DOOR"])), "tags": (str(rng.choice(WORDS)),)}
        file = row(f"/s/{number % 3}/{number:03}_{name}.wav", f"{number:064x}", **facts)
        unit_WD = rng.standard_normal((3, DIM)).astype(np.float32)
        unit_WD /= np.linalg.norm(unit_WD, axis=1, keepdims=True)
        rows.append(file)
        windows[file.hash] = [Window(at / 2, at / 2 + 1, vector) for at, vector in enumerate(unit_WD)]
        vectors[file.path] = unit_WD.astype(np.float16).astype(np.float32)
    index = Index.create(tmp_path_factory.mktemp("queries") / "index", IDENTITY)
    index.add(rows, windows)
    return index, rows, vectors


def a_query(seed: int) -> np.ndarray:
    vector_D = np.random.default_rng(seed).standard_normal(DIM).astype(np.float32)
    unit_D: np.ndarray = vector_D / np.linalg.norm(vector_D)
    return unit_D


def ranked(vectors: dict[str, np.ndarray], query_D: np.ndarray, paths: list[str]) -> list[str]:
    return sorted(paths, key=lambda path: -float((vectors[path] @ query_D).max()))


@pytest.mark.parametrize(
    "where", [{"category": "DOOR"}, {"tags": ["rain", "dog"], "folder": "1"}, ["name~roof"], ["duration<0.5"], {}]
)
def test_filters_keep_the_ranking(made: Any, where: Any) -> None:
    index, rows, vectors = made
    kept = [file.path for file, keep in zip(rows, mask_of(files_table(rows), where), strict=True) if keep]
    hits = find(index, SearchQuery(vector=a_query(1), where=where), FILES)
    assert [hit.path for hit in hits] == ranked(vectors, a_query(1), kept)
    assert count_files(index, where) == len(kept)


def test_pages_are_parts_of_one_list(made: Any) -> None:
    index = made[0]
    for extra in ({}, {"every_window": True}, {"keywords": "fused", "words": "rain roof"}):
        query = SearchQuery(vector=a_query(2), **extra)
        whole = find(index, query, 60)
        assert [hit for offset in range(0, 60, 25) for hit in find(index, query, 25, offset)][:60] == whole
    assert find(index, SearchQuery(vector=a_query(2)), 10, 1000) == []
    assert len(find(index, SearchQuery(vector=a_query(2)), 10**6)) == FILES


def test_windows_that_overlap_a_better_one_are_part_of_it(made: Any) -> None:
    index, _, vectors = made
    hits = find(index, SearchQuery(vector=a_query(3), every_window=True), 10**6)
    expected = 0
    for path, unit_WD in vectors.items():
        best = int(np.argmax(unit_WD @ a_query(3)))
        expected += 1 if best == 1 else 2  # the middle window overlaps both others, which do not overlap
        assert next(hit for hit in hits if hit.path == path).start_s == best / 2
    assert len(hits) == expected and len(without_overlaps(hits)) == expected
    assert len(find(index, SearchQuery(vector=a_query(3), every_window=True), 150)) == 150


def test_fusion_is_that_of_reciprocal_ranks(made: Any) -> None:
    index, _, vectors = made
    by_vector = ranked(vectors, a_query(4), list(vectors))
    by_words = index.find_by_keywords("rain roof", FILES)
    fused = {
        path: sum(1 / (FUSION_CONSTANT + ranks.index(path) + 1) for ranks in (by_vector, by_words) if path in ranks)
        for path in vectors
    }
    expected = sorted(vectors, key=lambda path: (-fused[path], by_vector.index(path)))
    hits = find(index, SearchQuery(vector=a_query(4), words="rain roof", keywords="fused"), FILES)
    assert [hit.path for hit in hits] == expected
    for hit in hits:
        assert hit.score == pytest.approx(float((vectors[hit.path] @ a_query(4)).max()), abs=2e-3)


def test_rare_words_of_a_query_are_fused_by_themselves(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    index = made[0]
    query = SearchQuery(vector=a_query(4), words="a Bark and rain on the 117 roofs, and a glockenspiel")
    hits = find(index, query, FILES)  # no word is in so few of these files
    assert hits == find(index, replace(query, keywords="off"), FILES) and hits.info.keywords == ()
    counts = {
        word: sum(word in file.path or word in file.tags for file in made[1]) for word in ("bark", "rain", "roof")
    }
    least = min(counts, key=lambda word: counts[word])
    assert sorted(counts.values())[0] < sorted(counts.values())[1]
    monkeypatch.setattr("openclap.search.queries.RARE", counts[least] / FILES)
    hits = find(index, query, FILES)
    assert hits.info.keywords in ((least,), (f"{least}s",)) and hits.info.keywords[0] in str(hits.info)
    assert hits == find(index, replace(query, words=least, keywords="fused"), FILES)
    assert find(index, SearchQuery(vector=a_query(4)), 1).info.keywords == ()


def test_fusion_reaches_files_that_only_words_find(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    index, _, vectors = made
    monkeypatch.setattr("openclap.search.queries._FUSED_AT_LEAST", 4)
    [first] = find(index, SearchQuery(vector=a_query(5), words="117", keywords="only"), 1)
    hits = find(index, SearchQuery(vector=a_query(5), words="117", keywords="fused"), 2)
    assert (
        first.path in {hit.path for hit in hits}
        and ranked(vectors, a_query(5), list(vectors))[:8].count(first.path) == 0
    )


def test_words_alone_need_no_embedding(made: Any) -> None:
    index = made[0]
    hits = find(index, SearchQuery(words="005", keywords="only"), 5)
    assert Path(hits[0].path).name.startswith("005_")
    assert (hits[0].start_s, hits[0].end_s, hits[0].score) == (0.0, 1.0, 0.0)
    assert all(hit.category == "DOOR" for hit in find(index, SearchQuery(words="rain", where={"category": "door"}), 50))


def test_facets_of_an_index(made: Any) -> None:
    index, rows, _ = made
    assert sum(count for _, count in count_facets(index, "category")) == FILES
    [(value, count)] = count_facets(index, "category", {"category": "DOOR"})
    assert (value, count) == ("DOOR", sum(file.category == "DOOR" for file in rows))


def test_queries_that_cannot_be_answered(made: Any) -> None:
    index = made[0]
    with pytest.raises(ConfigError, match="keywords is"):
        find(index, SearchQuery(vector=a_query(0), keywords="some"), 1)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Facts are"):
        find(index, SearchQuery(vector=a_query(0), where={"colour": "red"}), 1)


def test_an_index_that_was_exchanged_is_not_searched_with_the_old_model(tmp_path: Path) -> None:
    from dataclasses import replace

    index = Index.create(tmp_path / "index", IDENTITY)
    with index.writing():
        index.write_header(replace(index.header(), identity=replace(IDENTITY, digest="e" * 64)))
    with pytest.raises(IndexMismatchError):
        find(index, SearchQuery(vector=a_query(0)), 1)


@pytest.fixture
def moved(tmp_path: Path) -> Index:
    """An index that moved with its sounds from `drive` to `mounted`: a folder, and a file that is a root of its own."""
    files = [tmp_path / "drive" / name for name in ("s/a.wav", "s/deep/b.wav", "c.wav")]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    index = Index.create(tmp_path / "drive" / "index", IDENTITY)
    with index.writing() as writer:
        index.write_header(index.header().with_roots(index.folder, [str(tmp_path / "drive/s"), str(files[2])]))
        rows = [row(str(file), f"{number:064x}") for number, file in enumerate(files)]
        writer.put(rows, {file.hash: [Window(0, 1, a_query(number))] for number, file in enumerate(rows)})
    (tmp_path / "drive").rename(tmp_path / "mounted")
    return Index.open(tmp_path / "mounted" / "index")


def test_hits_of_an_index_that_moved_with_its_sounds(moved: Index, tmp_path: Path) -> None:
    for number, name in enumerate(["s/a.wav", "s/deep/b.wav", "c.wav"]):
        [hit] = find(moved, SearchQuery(vector=a_query(number)), 1)
        assert hit.path == str(tmp_path / "mounted" / name)


def test_moved_sounds_are_filtered_by_present_and_by_stored_paths(moved: Index, tmp_path: Path) -> None:
    for place in (tmp_path / "mounted", tmp_path / "drive"):
        cases: list[tuple[Any, set[str]]] = [
            ({"path": str(place / "s/a.wav")}, {"a.wav"}),
            ({"path": [str(place / "c.wav"), str(place / "s/deep/b.wav")]}, {"b.wav", "c.wav"}),
            ([f"path!={place}/s/a.wav"], {"b.wav", "c.wav"}),
            ([f"path~{str(place).upper()}/S/"], {"a.wav", "b.wav"}),
            ({"folder": str(place / "s")}, {"a.wav", "b.wav"}),
            ([f"folder!={place}/s/deep"], {"a.wav", "c.wav"}),
            ([f"folder={place}", "name=c.wav"], {"c.wav"}),
        ]
        for where, names in cases:
            hits = find(moved, SearchQuery(vector=a_query(0), where=where), 9)
            assert {Path(hit.path).name for hit in hits} == names, where
            by_words = find(moved, SearchQuery(words="wav", where=where, keywords="only"), 9)
            assert {Path(hit.path).name for hit in by_words} == names, where
            assert count_files(moved, where) == len(names)
            assert paths_of_files(moved, where) == sorted(hit.path for hit in hits)
    folders = {str(tmp_path / "mounted" / name).rstrip("/"): 1 for name in ("s", "s/deep", "")}
    assert dict(count_facets(moved, "folder")) == folders
    assert count_facets(moved, "folder", {"folder": [*folders][1]}) == [([*folders][1], 1)]


def test_an_export_opens_in_pandas(made: Any, tmp_path: Path) -> None:
    import pandas

    index, rows, vectors = made
    mine = tmp_path / "out.part" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    assert export(index, tmp_path / "out") == (FILES, 3 * FILES)
    assert mine.read_text() == "mine"
    files, windows = (pandas.read_parquet(tmp_path / "out" / f"{name}.parquet") for name in ("files", "windows"))
    vector_ND = np.load(tmp_path / "out" / "vectors.npy", mmap_mode="r")
    assert vector_ND.shape == (3 * FILES, DIM) and vector_ND.dtype == np.float16
    assert set(files["path"]) == {file.path for file in rows} and "metadata_version" not in files
    path_of = dict(zip(files["hash"], files["path"], strict=True))
    for number in (0, 100, 3 * FILES - 1):
        at = round(2 * windows["start_s"][number])
        assert (vector_ND[number] == vectors[path_of[windows["hash"][number]]][at].astype(np.float16)).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.part"]
