"""The Fréchet distance against a matrix square root, closed forms, and the properties of a distance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.stats import special_ortho_group

from openclap.errors import ConfigError, DataError
from openclap.evals.fad import frechet_distance, frechet_distance_infinity
from support.errors import raises_naming


def standard(rng: np.random.Generator, rows: int, size: int) -> np.ndarray:
    """(rows, size) whose sample mean is exactly 0 and whose sample covariance is exactly the identity."""
    drawn = rng.standard_normal((rows, size))
    return np.linalg.qr(drawn - drawn.mean(0))[0] * np.sqrt(rows - 1)


def by_matrix_root(a: np.ndarray, b: np.ndarray) -> float:
    """The formula of the paper, word by word."""
    root = sqrtm(np.cov(a.T) @ np.cov(b.T))
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root.real))


@pytest.mark.parametrize(("rows", "size"), [(60, 3), (300, 24), (2000, 64)])
def test_equals_the_matrix_square_root(rows: int, size: int) -> None:
    rng = np.random.default_rng(rows)
    a = rng.standard_normal((rows, size)) @ rng.standard_normal((size, size)) + 1
    b = rng.standard_normal((rows // 2, size)) @ rng.standard_normal((size, size))
    np.testing.assert_allclose(frechet_distance(a, b), by_matrix_root(a, b), rtol=1e-8)


def test_equals_the_closed_form_for_diagonal_covariances() -> None:
    rng = np.random.default_rng(0)
    mean_a, mean_b, std_a, std_b = rng.uniform(0.1, 3, (4, 12))
    a, b = standard(rng, 50, 12) * std_a + mean_a, standard(rng, 31, 12) * std_b + mean_b
    wanted = ((mean_a - mean_b) ** 2).sum() + ((std_a - std_b) ** 2).sum()
    np.testing.assert_allclose(frechet_distance(a, b), wanted, rtol=1e-12)


def test_fewer_vectors_than_dimensions() -> None:
    """Embeddings in a subspace have the same distance there as in the whole space."""
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((40, 5)) + 0.5, 2 * rng.standard_normal((30, 5))
    into_RD = special_ortho_group.rvs(64, random_state=1)[:5]
    np.testing.assert_allclose(frechet_distance(a @ into_RD, b @ into_RD), by_matrix_root(a, b), rtol=1e-10)
    few = frechet_distance(rng.standard_normal((3, 512)), rng.standard_normal((2, 512)))
    assert np.isfinite(few) and few > 0


def test_behaves_like_a_distance() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((80, 32)), rng.standard_normal((70, 32)) * 1.5 + 0.1
    there = frechet_distance(a, b)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-10) and frechet_distance(a, a) >= 0
    assert frechet_distance(a[:5], a[:5][::-1]) == pytest.approx(0, abs=1e-10)
    turn = special_ortho_group.rvs(32, random_state=2)
    for same in (frechet_distance(b, a), frechet_distance(a @ turn + 7, b @ turn + 7), frechet_distance(a[::-1], b)):
        np.testing.assert_allclose(same, there, rtol=1e-10)
    np.testing.assert_allclose(frechet_distance(3 * a, 3 * b), 9 * there, rtol=1e-10)
    single = frechet_distance(a.astype(np.float32), b.astype(np.float32))
    np.testing.assert_allclose(single, there, rtol=1e-6)


def test_extrapolation_removes_the_bias() -> None:
    """Against the distance of the Gaussians that were drawn from, which is known."""
    rng = np.random.default_rng(3)
    std_D, mean_D = rng.uniform(0.5, 1.5, 16), rng.uniform(-0.2, 0.2, 16)
    true = (mean_D**2).sum() + ((std_D - 1) ** 2).sum()
    reference = standard(rng, 40, 16)  # exactly the standard Gaussian: all of the bias comes from the other side
    drawn = [rng.standard_normal((150, 16)) * std_D + mean_D for _ in range(20)]
    plain = np.mean([frechet_distance(reference, each) for each in drawn]) - true
    fits = [frechet_distance_infinity(reference, each) for each in drawn]
    corrected = np.mean([fit.value for fit in fits]) - true
    assert plain > 0.1 and abs(corrected) < plain / 4
    assert all(fit.slope > 0 and 0 < fit.r_squared <= 1 for fit in fits)
    assert fits[0].distance_S[-1] == pytest.approx(frechet_distance(reference, drawn[0]))
    assert fits[0].size_S[0] == 75 and fits[0].size_S[-1] == 150 and len(fits[0].size_S) == 25


def test_extrapolation_is_a_line_through_distances_and_repeats() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((100, 8)), rng.standard_normal((60, 8))
    fit = frechet_distance_infinity(a, b, seed=5)
    assert fit == frechet_distance_infinity(a, b, seed=5) != frechet_distance_infinity(a, b, seed=6)
    over = 1 / np.array(fit.size_S)
    solved = np.linalg.lstsq(np.stack([over, np.ones_like(over)], 1), np.array(fit.distance_S))[0]
    np.testing.assert_allclose([fit.slope, fit.value], solved, rtol=1e-8)
    np.testing.assert_allclose(fit.r_squared, np.corrcoef(over, fit.distance_S)[0, 1] ** 2, rtol=1e-8)
    for alike in (np.ones((20, 8)), np.repeat(b[:1], 20, axis=0)):  # no spread but that of rounding
        assert frechet_distance_infinity(a, alike).r_squared == 1


def test_subsets_begin_at_500_where_there_are_enough() -> None:
    rng = np.random.default_rng(5)
    fit = frechet_distance_infinity(rng.standard_normal((50, 3)), rng.standard_normal((3000, 3)))
    assert fit.size_S[0] == 500 and fit.size_S[-1] == 3000


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.zeros((1, 4)), np.zeros((9, 4))),
        (np.zeros((9, 4)), np.zeros((0, 4))),
        (np.zeros((9, 4)), np.zeros((9, 5))),
        (np.zeros(4), np.zeros((9, 4))),
        (np.zeros((9, 4)), np.full((9, 4), np.nan)),
    ],
)
def test_invalid_embeddings_are_refused(a: np.ndarray, b: np.ndarray) -> None:
    for measure in (frechet_distance, frechet_distance_infinity):
        with pytest.raises(DataError):
            measure(a, b)


def test_too_few_to_extrapolate() -> None:
    with raises_naming(DataError, 9, 10):
        frechet_distance_infinity(np.eye(20), np.eye(20)[:9])


def test_too_few_subsets_and_negative_seeds_are_refused() -> None:
    for choice in ({"subsets": 0}, {"subsets": 1}, {"seed": -1}):
        with raises_naming(ConfigError, *choice, *choice.values()):
            frechet_distance_infinity(np.eye(20), np.eye(20), **choice)
