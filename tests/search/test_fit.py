"""The fit of a query, with a background of made vectors: expected values are counted by hand or by brute force."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from openclap.errors import CheckpointError, DataError, IndexWarning
from openclap.library import Library
from openclap.search import snapshot_writer
from openclap.search.background import descriptions
from openclap.search.fit import FEWEST_WINDOWS, PROBABLY_NOTHING, read_background, update_background
from openclap.search.index import Index
from openclap.search.labels import read_labels
from openclap.search.queries import SearchQuery, find
from support.numpy_runtime import embedder
from support.search_helpers import DIM, IDENTITY, axis, fill, fingerprint, write_tone

COUNT = len(descriptions())


class Texts:
    """Random directions for the descriptions; counts its calls."""

    def __init__(self) -> None:
        self.calls = 0
        made = np.random.default_rng(1).standard_normal((COUNT, DIM)).astype(np.float32)
        made[:, 0] = 0.0  # no description is about the first axis
        self.vectors = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float16)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        assert tuple(texts) == descriptions()
        self.calls += 1
        return self.vectors.astype(np.float32)


def sounds(count: int, seed: int = 0) -> list[np.ndarray]:
    """Files with a window each, none of them near the first two axes."""
    made = np.random.default_rng(seed).standard_normal((count, 1, DIM)).astype(np.float32)
    made[..., :2] = 0.0
    return list(made)


@pytest.fixture
def texts() -> Texts:
    return Texts()


@pytest.fixture
def filled(index: Index) -> Index:
    """An index of 100 files: 96 anywhere, and a cluster of 4 near the first axis."""
    rng = np.random.default_rng(2)
    cluster = [(axis(0) + 0.05 * rng.standard_normal(DIM)).astype(np.float32)[None] for _ in range(4)]
    fill(index, sounds(96) + cluster)
    return index


def fit_of(index: Index, vector_D: np.ndarray, **options: object) -> tuple[float | None, bool]:
    info = find(index, SearchQuery(vector=vector_D, words="words"), 3, **options).info  # type: ignore[arg-type]
    return info.fit, info.probably_nothing


def test_descriptions_are_distinct_and_some_hundreds() -> None:
    assert 200 <= COUNT == len(set(descriptions()))
    assert all(text == text.strip() and "{" not in text and 3 < len(text) < 80 for text in descriptions())


def test_the_fit_is_the_part_of_the_background_that_finds_nothing_better(filled: Index, texts: Texts) -> None:
    assert update_background(filled, texts)
    windows = np.concatenate([batch["vector"].flatten().to_numpy() for batch in filled.window_batches()])
    window_ND = windows.reshape(-1, DIM).astype(np.float32)
    window_ND /= np.linalg.norm(window_ND, axis=1, keepdims=True)
    background_BD = texts.vectors.astype(np.float32)
    background_BD /= np.linalg.norm(background_BD, axis=1, keepdims=True)
    best_B = (background_BD @ window_ND.T).max(axis=1)
    for seed in range(5):
        query_D = np.random.default_rng(seed).standard_normal(DIM).astype(np.float32)
        query_D /= np.linalg.norm(query_D)
        expected = (best_B <= (window_ND @ query_D).max()).mean()
        assert fit_of(filled, query_D)[0] == pytest.approx(expected, abs=1.5 / COUNT)


def test_a_hidden_cluster_fits_and_an_absent_sound_does_not(filled: Index, texts: Texts) -> None:
    update_background(filled, texts)
    assert fit_of(filled, axis(0)) == (1.0, False)
    fit, probably_nothing = fit_of(filled, axis(1))
    assert fit is not None and fit < PROBABLY_NOTHING and probably_nothing
    assert len(find(filled, SearchQuery(vector=axis(1), words="absent"), 3)) == 3  # listed all the same


def test_pages_keywords_and_exact_search_share_the_fit_of_the_best_hit(filled: Index, texts: Texts) -> None:
    update_background(filled, texts)
    expected = fit_of(filled, axis(0))
    assert fit_of(filled, axis(0), offset=50) == fit_of(filled, axis(0), exact=True) == expected
    fused = SearchQuery(vector=axis(0), words="7 wav", keywords="fused", every_window=True)
    assert find(filled, fused, 3).info.fit == expected[0]


def test_queries_without_words_have_no_fit(filled: Index, texts: Texts) -> None:
    update_background(filled, texts)
    assert find(filled, SearchQuery(vector=axis(0)), 3).info.fit is None
    assert find(filled, SearchQuery(words="7", keywords="only"), 3).info.fit is None


def test_small_indexes_have_no_fit(index: Index, texts: Texts) -> None:
    fill(index, sounds(FEWEST_WINDOWS - 1))
    assert not update_background(index, texts) and texts.calls == 0
    assert fit_of(index, axis(0)) == (None, False)


def test_the_background_is_searched_for_again_when_the_index_has_grown_or_shrunk(filled: Index, texts: Texts) -> None:
    update_background(filled, texts)
    fill(filled, sounds(140, seed=3))
    assert not update_background(filled, texts)
    fill(filled, sounds(160, seed=4))
    assert filled.count()[1] == 160 and update_background(filled, texts)
    first = read_background(filled)
    filled.remove([f"/s/{number}.wav" for number in range(60)])
    assert update_background(filled, texts) and texts.calls == 1  # the stored embeddings served
    second = read_background(filled)
    assert first and second and (first.windows, second.windows) == (160, 100)
    assert not np.array_equal(first.best_B, second.best_B)


def test_the_background_of_another_model_does_not_count(filled: Index, texts: Texts, tmp_path: Path) -> None:
    update_background(filled, texts)
    other = Index.create(tmp_path / "other", replace(IDENTITY, digest="e" * 64))
    fill(other, sounds(80))
    shutil.copy(filled.folder / "fit.npz", other.folder)
    assert read_background(other) is None and fit_of(other, axis(0)) == (None, False)
    assert update_background(other, texts) and texts.calls == 2
    assert fit_of(other, axis(0))[0] is not None


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"text" + data])
def test_a_damaged_background_is_made_again(filled: Index, texts: Texts, damage: object) -> None:
    update_background(filled, texts)
    whole = fit_of(filled, axis(0))
    path = filled.folder / "fit.npz"
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    assert fit_of(filled, axis(0)) == (None, False)
    assert update_background(filled, texts) and fit_of(filled, axis(0)) == whole


def test_flipped_bytes_give_no_traceback(filled: Index, texts: Texts) -> None:
    update_background(filled, texts)
    path = filled.folder / "fit.npz"
    whole = path.read_bytes()
    for at in (*range(0, 700, 7), *range(len(whole) - 400, len(whole), 7)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        fit, _ = fit_of(filled, axis(0))
        assert fit is None or 0 <= fit <= 1


def test_searching_writes_nothing(filled: Index, texts: Texts) -> None:
    before = fingerprint(filled.folder)
    assert fit_of(Index.open(filled.folder), axis(0)) == (None, False)
    assert fingerprint(filled.folder) == before


def test_an_index_that_cannot_be_written_is_named_in_a_sentence(filled: Index, texts: Texts) -> None:
    (filled.folder / "fit.npz").mkdir()
    with pytest.raises(DataError, match="index update"):
        update_background(filled, texts)
    assert fit_of(filled, axis(0)) == (None, False)


def test_another_writer_is_respected(filled: Index, texts: Texts) -> None:
    with filled.place.writing(), pytest.raises(DataError):
        update_background(filled, texts)
    assert read_background(filled) is None


def test_an_index_without_a_snapshot_is_left_as_it_is(
    filled: Index, texts: Texts, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(filled.folder / "snapshot")
    monkeypatch.setattr(snapshot_writer, "refresh", lambda *_: None)
    assert not update_background(Index.open(filled.folder), texts)


def library_of(tmp_path: Path) -> Library:
    model = embedder()
    identity = replace(IDENTITY, dim=4, length_s=model.window_s, hop_s=model.window_s)
    return Library(Index.create(tmp_path / "index", identity), model)


def tones(tmp_path: Path) -> Path:
    for number in range(FEWEST_WINDOWS):
        write_tone(tmp_path / "sounds" / f"{number}.wav", 100 + 40 * number, 0.1)
    return tmp_path / "sounds"


def test_a_library_makes_the_background_when_sounds_are_added(tmp_path: Path) -> None:
    library = library_of(tmp_path)
    assert library.add([tones(tmp_path)]).added == FEWEST_WINDOWS
    background = read_background(library.index)
    assert background and background.windows == FEWEST_WINDOWS
    hits = library.search("a tone", 2)
    assert hits.info.fit == background.fit(hits[0].score)


def test_a_model_that_embeds_no_text_still_indexes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(texts: Sequence[str]) -> np.ndarray:
        raise CheckpointError("There is no tokenizer.")

    library = library_of(tmp_path)
    monkeypatch.setattr(library.embedder, "embed_text", refuse)
    with pytest.warns(IndexWarning) as caught:
        assert library.add([tones(tmp_path)]).added == FEWEST_WINDOWS
    assert read_background(library.index) is None and read_labels(library.index) is None
    assert [("no fit" in str(one.message), "no labels" in str(one.message)) for one in caught] == [
        (True, False),
        (False, True),
    ]
    assert all("There is no tokenizer." in str(one.message) for one in caught)


def test_sounds_get_labels_where_the_background_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = library_of(tmp_path)
    embed = library.embedder.embed_text

    def refuse_the_background(texts: Sequence[str]) -> np.ndarray:
        if tuple(texts) == descriptions():
            raise CheckpointError("One of the descriptions has no finite embedding.")
        return embed(texts)

    monkeypatch.setattr(library.embedder, "embed_text", refuse_the_background)
    with pytest.warns(IndexWarning, match="no finite embedding") as caught:
        library.add([tones(tmp_path)])
    labels = read_labels(library.index)
    assert len(caught) == 1 and read_background(library.index) is None
    assert labels is not None and len(labels.keys_C) == FEWEST_WINDOWS
