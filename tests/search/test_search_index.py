"""An index answers as brute force in numpy does, and refuses what it cannot answer."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openclap.errors import ConfigError, DataError, IndexMismatchError
from openclap.search.index import Index
from openclap.types import Hit, Window
from support.errors import raises_naming
from support.search_helpers import DIM, IDENTITY, axis, fill, fingerprint, paths_in, row

FLOAT16_TOLERANCE = 2e-3  # 2**-11 on each number of a stored unit vector, twice over
NUMBERS = itertools.count()


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = rng.standard_normal((*shape, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_what_is_stored_comes_back_in_hits(index: Index) -> None:
    files = [
        row("/s/rain.wav", "a" * 64, caption="rain on a roof", tags=("rain", "roof"), licence="CC0"),
        row("/s/dog.wav", "b" * 64),
    ]
    index.add(files, {"a" * 64: [Window(0, 1, axis(0)), Window(1, 2, axis(1))], "b" * 64: [Window(0, 1, axis(2))]})
    assert index.count() == (2, 3)
    first, second = index.search(axis(1), k=5)
    assert first == Hit("/s/rain.wav", 1.0, 2.0, 1.0, 1.0, "rain on a roof", ("rain", "roof"), "CC0")
    assert second == Hit("/s/dog.wav", 0.0, 1.0, 0.0, 1.0, None, (), None)


SIZES = st.tuples(st.integers(1, 60), st.integers(1, 4), st.integers(1, 40))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32 - 1), SIZES, st.booleans())
def test_search_equals_brute_force(tmp_path: Path, seed: int, sizes: tuple[int, int, int], one: bool) -> None:
    (n, w, k), rng = sizes, np.random.default_rng(seed)
    vectors, query = unit(rng, n, w), unit(rng)
    index = Index.create(tmp_path / str(next(NUMBERS)), IDENTITY)
    fill(index, list(vectors))
    hits = index.search(query, k, one_per_file=one)
    cosines = vectors.astype(np.float64) @ query.astype(np.float64)
    expected = np.sort(cosines.max(axis=1) if one else cosines.ravel())[::-1][:k]
    assert len(hits) == min(k, n if one else n * w)
    np.testing.assert_allclose([hit.score for hit in hits], expected, atol=FLOAT16_TOLERANCE)
    for hit in hits:
        true = cosines[int(Path(hit.path).stem), int(hit.start_s)]
        assert abs(hit.score - true) < FLOAT16_TOLERANCE


def test_order_is_that_of_the_stored_vectors_though_the_table_rounds_queries(tmp_path: Path) -> None:
    """Scores that differ by less than a float16 query can tell still come in their true order."""
    rng = np.random.default_rng(0)
    query = unit(rng)
    vectors = query + 0.02 * unit(rng, 3000)
    index = Index.create(tmp_path / "index", IDENTITY)
    fill(index, [vector[None] for vector in vectors])
    stored = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16).astype(np.float64)
    cosines = stored @ query / np.linalg.norm(stored, axis=1)
    hits = index.search(query, 50)
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(cosines)[::-1][:50], atol=1e-6)


def test_equal_scores_come_in_the_order_of_paths(index: Index) -> None:
    """500 files of 250 contents, all with one vector: more than one fetch, and always the same answer."""
    files = [row(f"/s/{i:03}.wav", f"{i % 250:064x}") for i in reversed(range(500))]
    index.add(files, {f"{i:064x}": [Window(0, 1, axis(3))] for i in reversed(range(250))})
    assert [hit.path for hit in index.search(axis(3), 7)] == [f"/s/{i:03}.wav" for i in range(7)]


def test_many_windows_of_one_file_do_not_hide_the_others(index: Index) -> None:
    """2,000 windows of a long recording are nearer than the one of a short file, which is still found."""
    near = axis(0) + 0.1 * unit(np.random.default_rng(1), 2000)
    fill(index, [near, axis(1)[None]])
    hits = index.search(axis(0), 2)
    assert [hit.path for hit in hits] == ["/s/0.wav", "/s/1.wav"]
    assert len({hit.start_s for hit in index.search(axis(0), 300, one_per_file=False)}) == 300


def test_files_of_one_content_are_each_listed(index: Index) -> None:
    copies = [row(f"/s/{name}.wav", "a" * 64) for name in ("b", "a", "c")]
    index.add(copies, {"a" * 64: [Window(0, 1, axis(0))]})
    assert index.count() == (3, 1)
    assert [hit.path for hit in index.search(axis(0), 9)] == ["/s/a.wav", "/s/b.wav", "/s/c.wav"]


def test_keep_chooses_files_and_still_fills_k(index: Index) -> None:
    rng = np.random.default_rng(2)
    fill(index, list(unit(rng, 6000, 1)))
    wanted = {f"/s/{i}.wav" for i in range(0, 6000, 600)}
    before = time.perf_counter()
    hits = index.search(unit(rng), 10, include=lambda file: file.path in wanted)
    assert {hit.path for hit in hits} == wanted
    assert time.perf_counter() - before < 5


def test_k_beyond_the_table_and_an_empty_index(index: Index) -> None:
    assert index.search(axis(0), 10) == []
    assert index.count() == (0, 0)
    fill(index, [axis(0)[None], axis(1)[None]])
    assert len(index.search(axis(0), 10**9)) == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 0.0])
def test_a_query_without_direction_is_refused(index: Index, bad: float) -> None:
    fill(index, [axis(0)[None]])
    with raises_naming(DataError):
        index.search(np.full(DIM, bad), 1)


def test_impossible_queries_are_refused(index: Index) -> None:
    with raises_naming(IndexMismatchError, DIM + 1, DIM):
        index.search(np.ones(DIM + 1), 1)
    with raises_naming(ConfigError, "k", 0):
        index.search(axis(0), 0)


def test_a_query_of_any_length_is_a_direction(index: Index) -> None:
    fill(index, [axis(0)[None]])
    assert index.search(1e30 * axis(0), 1)[0].score == pytest.approx(1.0)
    assert index.search([1.0] + [0.0] * (DIM - 1), 1)[0].score == pytest.approx(1.0)


def test_similar_leaves_the_file_itself_out_but_not_its_copy(index: Index) -> None:
    files = [row("/s/a.wav", "a" * 64), row("/s/copy.wav", "a" * 64), row("/s/b.wav", "b" * 64)]
    index.add(files, {"a" * 64: [Window(0, 1, axis(0)), Window(1, 2, axis(1))], "b" * 64: [Window(0, 1, axis(0))]})
    np.testing.assert_allclose(index.vector_of("/s/a.wav"), (axis(0) + axis(1)) / np.sqrt(2), atol=1e-6)
    assert [hit.path for hit in index.similar_to("/s/a.wav", 5)] == ["/s/b.wav", "/s/copy.wav"]
    for unknown in ("/s/none.wav", "/s/\udcff.wav"):
        with raises_naming(DataError, repr(unknown)):
            index.vector_of(unknown)


def test_adding_replaces_a_path_and_forgets_what_nothing_uses(index: Index) -> None:
    index.add([row("/s/a.wav", "a" * 64)], {"a" * 64: [Window(0, 1, axis(0))]})
    index.add([row("/s/a.wav", "b" * 64)], {"b" * 64: [Window(0, 1, axis(1))]})
    assert index.count() == (1, 1)
    assert index.search(axis(1), 1)[0].score == pytest.approx(1.0)


def test_a_known_content_is_not_stored_again(index: Index) -> None:
    index.add([row("/s/a.wav", "a" * 64)], {"a" * 64: [Window(0, 1, axis(0))]})
    index.add([row("/s/b.wav", "a" * 64)], {"a" * 64: [Window(0, 1, axis(0))]})
    index.add([row("/s/c.wav", "a" * 64)], {})
    assert index.count() == (3, 1)


def test_rows_that_cannot_be_found_again_are_refused_whole(index: Index) -> None:
    good, vector = row("/s/a.wav", "a" * 64), [Window(0, 1, axis(0))]
    with raises_naming(DataError, "/s/b.wav"):
        index.add([good, row("/s/b.wav", "b" * 64)], {"a" * 64: vector})
    with raises_naming(DataError, "UTF-8"):
        index.add([row("/s/\udcff.wav", "a" * 64)], {"a" * 64: vector})
    with raises_naming(DataError, "NaN"):
        index.add([good], {"a" * 64: [Window(0, 1, np.full(DIM, np.nan))]})
    with raises_naming(DataError, "1 s"):
        index.add([good], {"a" * 64: [Window(1, 1, axis(0))]})
    with raises_naming(DataError):
        index.add([good], {"a" * 64: []})
    with raises_naming(IndexMismatchError, 3, DIM):
        index.add([good], {"a" * 64: [Window(0, 1, np.ones(3))]})
    assert index.count() == (0, 0)


def test_what_is_pruned_has_to_be_embedded_again(index: Index) -> None:
    vector = {"a" * 64: [Window(0, 1, axis(0))]}
    with index.writing() as writer:
        writer.put([row("/s/a.wav", "a" * 64)], vector)
        writer.drop(["/s/a.wav"])
        assert set(writer.contents) == {"a" * 64}
        writer.prune()
        with raises_naming(DataError, "/s/b.wav"):
            writer.put([row("/s/b.wav", "a" * 64)], {})
        writer.put([row("/s/b.wav", "a" * 64)], vector)
    assert index.count() == (1, 1)


def test_remove_takes_files_and_folders_by_name(index: Index) -> None:
    paths = ['/s/it\'s "x".wav', "/s/a'); DROP TABLE files; --.wav", "/s/d/1.wav", "/s/d/2.wav", "/s/d2.wav"]
    index.add([row(path, "a" * 64) for path in paths], {"a" * 64: [Window(0, 1, axis(0))]})
    assert index.remove([paths[0]]) == 1
    assert index.remove(["/s/nothing.wav"]) == 0
    assert paths_in(index) == set(paths[1:])
    assert index.remove(["/s/d"]) == 2
    assert paths_in(index) == {paths[1], paths[4]}
    assert index.remove(["/"]) == 2
    assert index.count() == (0, 0)


def test_two_thousand_windows_are_searched_in_a_moment(index: Index) -> None:
    fill(index, list(unit(np.random.default_rng(3), 500, 4)))
    index.search(axis(0), 10)
    before = time.perf_counter()
    for i in range(10):
        index.search(axis(i), 10)
    assert (time.perf_counter() - before) / 10 < 0.5


def test_searching_writes_nothing(index: Index) -> None:
    fill(index, [axis(0)[None]])
    before = fingerprint(index.folder)
    reader = Index.open(index.folder)
    reader.search(axis(0), 3)
    reader.similar_to("/s/0.wav", 3)
    assert fingerprint(index.folder) == before


def test_a_reader_sees_what_a_writer_adds(index: Index) -> None:
    reader = Index.open(index.folder)
    assert reader.search(axis(0), 1) == []
    fill(index, [axis(0)[None]])
    assert len(reader.search(axis(0), 1)) == 1
