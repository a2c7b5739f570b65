"""Ranks from vectors, in blocks, against the full matrix and against sorting lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openclap.errors import DataError
from openclap.evals.metrics import retrieval_measures
from openclap.evals.ranks import TIE, Ranks, Relevance, rank_retrieval, rank_vectors
from support.errors import raises_naming

Problem = tuple[np.ndarray, np.ndarray, np.ndarray]


def same(a: Ranks, b: Ranks) -> None:
    """Equal but for the order of captions of one clip, which may have the very same score."""
    np.testing.assert_array_equal(a.text_to_audio_P, b.text_to_audio_P)
    orders = [np.lexsort((ranks.audio_to_text_P, ranks.relevance.clip_P)) for ranks in (a, b)]
    np.testing.assert_array_equal(a.audio_to_text_P[orders[0]], b.audio_to_text_P[orders[1]])


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@st.composite
def vectors(draw: st.DrawFn) -> Problem:
    """Vectors of few different directions, so that many tie; one to seven captions a clip, in any order."""
    counts = draw(st.lists(st.integers(1, 7), min_size=1, max_size=8))
    owner = np.array(draw(st.permutations([clip for clip, n in enumerate(counts) for _ in range(n)])))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    few = unit(rng.standard_normal((draw(st.integers(1, 6)), 16)))
    noise = draw(st.sampled_from([0.0, 1e-7, 1e-3]))
    audio = few[rng.integers(0, len(few), len(counts))] + noise * rng.standard_normal((len(counts), 16))
    text = few[rng.integers(0, len(few), len(owner))] + noise * rng.standard_normal((len(owner), 16))
    return unit(audio), unit(text), owner


def by_sorting(audio: np.ndarray, text: np.ndarray, owner: np.ndarray, tie: float) -> tuple[list[int], list[int]]:
    """Both ranks of every caption, one at a time: what is wrong and not clearly worse stands before."""
    score = audio.astype(np.float64) @ text.astype(np.float64).T
    found, placed = [], []
    for t, own in enumerate(owner):
        found.append(1 + sum(score[a, t] >= score[own, t] - tie for a in range(len(audio)) if a != own))
        wrong = sum(score[own, s] >= score[own, t] - tie for s in range(len(text)) if owner[s] != own)
        siblings = sorted((s for s in range(len(text)) if owner[s] == own), key=lambda s: -score[own, s])
        placed.append(1 + wrong + siblings.index(t))
    return found, placed


@settings(max_examples=60, deadline=None)
@given(vectors(), st.integers(1, 5), st.integers(1, 9))
def test_blocks_of_any_size_equal_sorting(problem: Problem, rows: int, columns: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("openclap.evals.ranks.ROWS", rows)
        patch.setattr("openclap.evals.ranks.COLUMNS", columns)
        ranks = rank_vectors(*problem)
    found, placed = by_sorting(*problem, TIE)
    audio, text, owner = problem
    assert ranks.text_to_audio_P.tolist() == found
    same(ranks, Ranks(ranks.relevance, ranks.text_to_audio_P, np.array(placed)))
    same(ranks, rank_retrieval(audio.astype(np.float64) @ text.astype(np.float64).T, owner, tie=TIE))


def test_vectors_of_real_size_equal_the_full_matrix() -> None:
    rng = np.random.default_rng(0)
    audio, text = unit(rng.standard_normal((1100, 64))), unit(rng.standard_normal((9000, 64)))
    owner = rng.integers(0, 1100, 9000)
    exact = audio.astype(np.float64) @ text.astype(np.float64).T
    same(rank_vectors(audio, text, owner, tie=0.0), rank_retrieval(exact, owner))


def test_vectors_of_another_batch_give_the_same_ranks_of_equal_sounds() -> None:
    rng = np.random.default_rng(1)
    audio, owner = np.repeat(unit(rng.standard_normal((20, 32))), 2, axis=0), np.arange(40)
    text = audio[rng.permutation(40)]
    other = unit(audio + 1e-7 * rng.standard_normal(audio.shape))
    ranks = rank_vectors(other, text, owner)
    same(ranks, rank_vectors(audio, text, owner))
    assert (ranks.text_to_audio_P > 1).all()  # its twin stands before every clip
    with pytest.raises(AssertionError):
        same(rank_vectors(other, text, owner, tie=0.0), rank_vectors(audio, text, owner, tie=0.0))


def test_constant_embeddings_rank_last() -> None:
    ranks = rank_vectors(np.ones((9, 4)) / 2, np.ones((18, 4)) / 2, np.repeat(np.arange(9), 2))
    assert set(ranks.text_to_audio_P) == {9}
    assert ranks.audio_to_text.best().tolist() == [17] * 9


def mean_reciprocal_ranks(ranks: Ranks) -> dict[str | None, float]:
    measures = retrieval_measures(ranks)
    return {metric.direction: each.value for metric, each in measures.items() if metric.name == "MRR"}


def test_one_clip_alone() -> None:
    ranks = rank_vectors([[1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]], [0, 0])
    assert ranks.text_to_audio_P.tolist() == [1, 1] and ranks.audio_to_text_P.tolist() == [2, 1]
    assert mean_reciprocal_ranks(ranks) == {"text_to_audio": 1.0, "audio_to_text": 1.0}


def test_reciprocal_ranks_by_hand() -> None:
    ranks = Ranks(Relevance.of_owners([0, 0, 1], 30), np.array([1, 2, 20]), np.array([4, 2, 5]))
    values = mean_reciprocal_ranks(ranks)
    assert values["text_to_audio"] == pytest.approx((1 + 1 / 2 + 1 / 20) / 3)
    assert values["audio_to_text"] == pytest.approx((1 / 2 + 1 / 5) / 2)


@pytest.mark.parametrize(
    ("audio", "text", "owner", "value"),
    [
        (np.zeros((2, 3)), np.zeros((2, 4)), [0, 1], "(2, 4)"),
        (np.zeros((0, 3)), np.zeros((2, 3)), [0, 1], "(0, 3)"),
        (np.zeros((2, 3)), np.zeros((2, 3)), [0], "(1,)"),
        (np.zeros((2, 3)), np.zeros((2, 3)), [0, 2], "2 clips"),
        (np.full((2, 3), np.nan), np.zeros((2, 3)), [0, 1], "NaN"),
    ],
)
def test_invalid_vectors_are_refused(audio: np.ndarray, text: np.ndarray, owner: list[int], value: str) -> None:
    with raises_naming(DataError, value):
        rank_vectors(audio, text, owner)
