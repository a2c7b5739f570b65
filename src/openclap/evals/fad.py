"""Fréchet audio distance: how far apart two collections of sounds are, as a model hears them.

Letters in names: N and M vectors of the two collections, D embedding, R rows of a covariance's root (at most D).

A Gaussian is laid over each collection's vectors, and the distance is that between the two (Kilgour et al. 2019,
arXiv:1812.08466). It is biased upwards by about a constant over M, more so with many dimensions; fitting a line over
1 / M and reading it at 0 takes most of that away (FAD∞, Gui et al. 2024, arXiv:2311.01616).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from openclap.errors import ConfigError, DataError
from openclap.limits import check_count

Floats = NDArray[np.float64]

SUBSETS = 25
SMALLEST = 500  # vectors in a subset, as Gui et al. begin; half of them where there are fewer than 1,000
FEWEST = 10


@dataclass(frozen=True, slots=True)
class Extrapolation:
    """FAD∞: the distance read off where 1 / M is 0.

    `value` can fall below 0, which says that the distance is lost in the noise. `r_squared` is the share of the
    spread between subsets that the line explains (1 where there is none), `distance_S` the distance at each of `size_S`
    vectors.
    """

    value: float
    slope: float
    r_squared: float
    size_S: tuple[int, ...]
    distance_S: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Mean and covariance of some vectors; the covariance is root_RDᵀ @ root_RD, and is never formed."""

    mean_D: Floats
    root_RD: Floats

    @classmethod
    def of(cls, vectors_ND: Floats) -> Gaussian:
        """Laid over (N, D), N ≥ 2; the covariance is the unbiased one."""
        mean_D = vectors_ND.mean(axis=0)
        return cls(mean_D, np.linalg.qr(vectors_ND - mean_D, mode="r") / np.sqrt(len(vectors_ND) - 1))

    def distance(self, other: Gaussian) -> float:
        """|m₁ - m₂|² + tr(C₁ + C₂ - 2 (C₁ C₂)^½).

        The eigenvalues of C₁ C₂ are the squares of the singular values of root₁ @ root₂ᵀ, so the last trace is their
        sum: no square root of a matrix that may be singular, and no complex numbers to throw away.
        """
        common = np.linalg.svd(self.root_RD @ other.root_RD.T, compute_uv=False).sum()
        spread = np.square(self.root_RD).sum() + np.square(other.root_RD).sum() - 2 * common
        return max(0.0, float(np.square(self.mean_D - other.mean_D).sum() + spread))


def frechet_distance(a_ND: ArrayLike, b_MD: ArrayLike) -> float:
    """The Fréchet distance between Gaussians laid over two collections of vectors, in float64; 0 or more.

    Works with fewer vectors than dimensions, where the distance is far too large to mean much. Raises DataError for
    fewer than 2 vectors on a side, other shapes than (N, D) and (M, D), and numbers that are not finite.
    """
    return Gaussian.of(_checked(a_ND, "a")).distance(Gaussian.of(_checked(b_MD, "b", a_ND)))


def frechet_distance_infinity(
    a_ND: ArrayLike, b_MD: ArrayLike, *, seed: int = 0, subsets: int = SUBSETS
) -> Extrapolation:
    """The Fréchet distance to `b_MD` as if M were endless; `a_ND` is the reference and stays whole.

    Random subsets of b, of evenly spaced sizes up to M, are each compared with all of a, and a line is fitted to the
    distances over 1 / size. The same seed gives the same result. Raises as `frechet_distance`, DataError for fewer than
    10 vectors in b, and ConfigError for fewer than two subsets or a seed below 0.
    """
    if subsets < 2 or seed < 0:
        raise ConfigError(f"subsets is {subsets} and seed {seed}, expected 2 or more subsets and a seed of 0 or more.")
    check_count("subsets", subsets)
    reference, b_MD = Gaussian.of(_checked(a_ND, "a")), _checked(b_MD, "b", a_ND)
    count = len(b_MD)
    if count < FEWEST:
        raise DataError(f"b has {count} vectors: extrapolating to endless vectors needs {FEWEST} or more.")
    rng = np.random.default_rng(seed)
    size_S = np.unique(np.linspace(min(SMALLEST, count // 2), count, subsets).astype(np.int64))
    chosen = (rng.choice(count, size, replace=False) for size in size_S)
    distance_S = np.array([reference.distance(Gaussian.of(b_MD[rows])) for rows in chosen])
    slope, value = np.polyfit(1 / size_S, distance_S, 1)
    unexplained = np.square(distance_S - (value + slope / size_S)).sum()
    total = np.square(distance_S - distance_S.mean()).sum()
    spread = np.square(reference.mean_D).sum() + np.square(reference.root_RD).sum() + distance_S.max()
    is_level = np.ptp(distance_S) <= 1e-9 * spread  # what is left is rounding, which no line explains
    return Extrapolation(
        value=float(value),
        slope=float(slope),
        r_squared=1.0 if is_level else float(1 - unexplained / total),
        size_S=tuple(size_S.tolist()),
        distance_S=tuple(distance_S.tolist()),
    )


def _checked(vectors: ArrayLike, name: str, beside: ArrayLike | None = None) -> Floats:
    array: Floats = np.asarray(vectors, np.float64)
    if array.ndim != 2 or len(array) < 2 or (beside is not None and array.shape[1:] != np.shape(beside)[1:]):
        both = "" if beside is None else f" beside one of {np.shape(beside)}"
        raise DataError(
            f"{name} is an array of {array.shape}{both}, expected 2 or more vectors, as long as the other side's."
        )
    if not np.isfinite(array).all():
        raise DataError(f"{name} holds NaN or infinite numbers, expected vectors of finite ones.")
    return array
