"""Fréchet audio distance: the distance of two collections of sounds in the embedding space of a model.

Letters in names: N and M embeddings of the two collections, D embedding, R rows of a covariance's root (at most D).

A Gaussian is fitted to the embeddings of each collection, and the result is the Fréchet distance of the two (Kilgour et
al. 2019, arXiv:1812.08466). It is biased upwards by about a constant over M, more with more dimensions; extrapolating a
line over 1 / M to 0 removes most of the bias (FAD∞, Gui et al. 2024, arXiv:2311.01616).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from openclap.arrays import Floats
from openclap.errors import ConfigError, DataError
from openclap.limits import check_count

# As in Gui et al.
SUBSETS = 25
SMALLEST = 500  # embeddings in the smallest subset, as in Gui et al.; half of all where there are fewer than 1,000
FEWEST = 10


@dataclass(frozen=True, slots=True)
class Extrapolation:
    """FAD∞: the distance extrapolated to 1 / M = 0.

    Attributes:
        value: can be below 0 where the distance is smaller than the noise.
        r_squared: the share of the variance between subsets that the line explains; 1 where there is no variance.
        distance_S: the distance of a subset of each size `size_S`.
    """

    value: float
    slope: float
    r_squared: float
    size_S: tuple[int, ...]
    distance_S: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Mean and covariance of embeddings; the covariance is root_RDᵀ @ root_RD, and is never formed."""

    mean_D: Floats
    root_RD: Floats

    @classmethod
    def of(cls, vectors_ND: Floats) -> Gaussian:
        """Fitted to (N, D), N ≥ 2, with the unbiased covariance."""
        mean_D = vectors_ND.mean(axis=0)
        # R of a QR decomposition has the same RᵀR as the centred vectors, at most D rows of it.
        return cls(mean_D, np.linalg.qr(vectors_ND - mean_D, mode="r") / np.sqrt(len(vectors_ND) - 1))

    def distance(self, other: Gaussian) -> float:
        """|m₁ - m₂|² + tr(C₁ + C₂ - 2 (C₁ C₂)^½).

        The eigenvalues of C₁ C₂ are the squares of the singular values of root₁ @ root₂ᵀ, so the last trace is their
        sum. This needs no square root of a matrix that may be singular, and gives no complex numbers to discard.
        """
        common = np.linalg.svd(self.root_RD @ other.root_RD.T, compute_uv=False).sum()
        spread = np.square(self.root_RD).sum() + np.square(other.root_RD).sum() - 2 * common
        # Rounding can bring equal collections below 0.
        return max(0.0, float(np.square(self.mean_D - other.mean_D).sum() + spread))


def frechet_distance(a_ND: ArrayLike, b_MD: ArrayLike) -> float:
    """Compute the Fréchet distance between Gaussians fitted to two collections of embeddings, in float64; 0 or more.

    With fewer embeddings than dimensions the distance is defined, but far too large. Raises DataError for fewer than 2
    embeddings on a side, other shapes than (N, D) and (M, D), and numbers that are not finite.
    """
    return Gaussian.of(_checked(a_ND, "a")).distance(Gaussian.of(_checked(b_MD, "b", a_ND)))


def frechet_distance_infinity(
    a_ND: ArrayLike, b_MD: ArrayLike, *, seed: int = 0, subsets: int = SUBSETS
) -> Extrapolation:
    """Extrapolate the Fréchet distance to `b_MD` to infinite M; `a_ND` is the reference and stays whole.

    Random subsets of b, of evenly spaced sizes up to M, are each compared with all of a, and a line is fitted to the
    distances over 1 / size. The same seed gives the same result. Raises as `frechet_distance`, DataError for fewer than
    10 embeddings in b, and ConfigError for fewer than two subsets or a seed below 0.
    """
    if subsets < 2 or seed < 0:
        raise ConfigError(f"subsets is {subsets} and seed {seed}, expected 2 or more subsets and a seed of 0 or more.")
    check_count("subsets", subsets)
    # The reference stays whole, so its bias is the same in all distances.
    reference, b_MD = Gaussian.of(_checked(a_ND, "a")), _checked(b_MD, "b", a_ND)
    count = len(b_MD)
    if count < FEWEST:
        raise DataError(f"The second set has {count} vectors: the extrapolation needs {FEWEST} or more.")
    rng = np.random.default_rng(seed)
    size_S = np.unique(np.linspace(min(SMALLEST, count // 2), count, subsets).astype(np.int64))
    # Each subset is drawn anew from all of b.
    chosen = (rng.choice(count, size, replace=False) for size in size_S)
    distance_S = np.array([reference.distance(Gaussian.of(b_MD[rows])) for rows in chosen])
    # The intercept is the value at 1 / size = 0.
    slope, value = np.polyfit(1 / size_S, distance_S, 1)
    unexplained = np.square(distance_S - (value + slope / size_S)).sum()
    total = np.square(distance_S - distance_S.mean()).sum()
    spread = np.square(reference.mean_D).sum() + np.square(reference.root_RD).sum() + distance_S.max()
    is_level = np.ptp(distance_S) <= 1e-9 * spread  # any variance is rounding, which no line explains
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
