"""A sketch of many windows: 4 bits for every few dimensions, scanned in milliseconds. N windows, D embedding.

Product quantization (Jégou et al. 2011) with 16 centroids for each sub-space, in FAISS's fast scan: one list, so every
window is compared, and a filter is a bitmap. The codes are mapped into memory and not read.

The estimates of a sketch have errors. Their standard deviation for a query follows from the covariance of the
quantization error over the training windows. It says how far below the best estimates the best windows may be, and so
how many have to be scored exactly.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from openclap.arrays import Ints
from openclap.errors import DataError, require
from openclap.search.rows import FloatArray

BLOCK = 32
"""Windows whose codes FAISS stores together. A sketch has whole blocks, so one can be extended by appending."""
_BITS = 4
_TRAINED_ON = 16_384
"""Windows that a codebook is trained on: a thousand for each of 16 centroids."""
_AT_ONCE = 16_384
"""Windows that are encoded at once: 32 MB in float32 at 512 dimensions."""
_DIMENSIONS = 2
"""Dimensions of a sub-space: 2 bits a dimension."""
_SEED = 0

Halves = NDArray[np.float16]


@dataclass(frozen=True)
class Codebook:
    """The trained quantizer of a sketch.

    Vectors are rotated at random first, so that all sub-spaces vary equally. A centroid is a mean, so codes lie nearer
    to the mean of all vectors than the vectors do; estimates are stretched by that ratio, as in RaBitQ (Gao and Long
    2024). Without it the windows nearest to a query would be underestimated most.

    Attributes:
        index: FAISS's index, serialized and without vectors.
        rotation_DD: applied to vectors and queries.
        mean_D: of the rotated vectors.
        ratio: length of a code along its vector, both without the mean.
        covariance_DD: of the error of rotated vectors after stretching.
        trained_on: windows in the snapshot when it was trained.
    """

    index: NDArray[np.uint8]
    rotation_DD: FloatArray
    mean_D: FloatArray
    ratio: float
    covariance_DD: FloatArray
    trained_on: int

    @classmethod
    def train(cls, vectors_ND: Halves) -> Codebook:
        """Train on a sample of the windows."""
        faiss = require("faiss", "search")
        count, dim = vectors_ND.shape
        rng = np.random.default_rng(_SEED)
        rotation_DD = np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)
        chosen = np.sort(rng.choice(count, min(count, _TRAINED_ON), replace=False))
        sample_ND = vectors_ND[chosen].astype(np.float32) @ rotation_DD
        index = faiss.IndexIVFPQFastScan(
            faiss.IndexFlatIP(dim), dim, 1, dim // _DIMENSIONS, _BITS, faiss.METRIC_INNER_PRODUCT
        )
        index.by_residual = False
        index.train(sample_ND)
        mean_D = sample_ND.mean(axis=0)
        code_ND = index.pq.decode(index.pq.compute_codes(sample_ND)) - mean_D
        ratio = float((code_ND * (sample_ND - mean_D)).sum() / ((sample_ND - mean_D) ** 2).sum())
        error_ND = sample_ND - mean_D - code_ND / ratio
        covariance_DD = error_ND.T @ error_ND / np.float32(len(error_ND))
        return cls(faiss.serialize_index(index), rotation_DD, mean_D, ratio, covariance_DD, count)

    @staticmethod
    def fits(dim: int) -> bool:
        """Whether vectors (dim,) can be split into sub-spaces, an even number of them."""
        return dim % (2 * _DIMENSIONS) == 0

    def deviation(self, rotated_D: FloatArray) -> float:
        """The standard deviation of the error of an estimated cosine with this rotated query."""
        return float(np.sqrt(max(0.0, rotated_D @ self.covariance_DD @ rotated_D)))

    def stretched(self, products: FloatArray, rotated_D: FloatArray) -> FloatArray:
        """The estimated cosines, from the products of codes with a rotated query."""
        middle = rotated_D @ self.mean_D
        return np.asarray(middle + (products - middle) / np.float32(self.ratio), np.float32)

    def encode(self, vectors_ND: Halves) -> Iterator[NDArray[np.uint8]]:
        """Yield the codes of windows; their number must be a multiple of BLOCK."""
        faiss = require("faiss", "search")
        for first in range(0, len(vectors_ND), _AT_ONCE):
            index = self.empty()
            part_ND = vectors_ND[first : first + _AT_ONCE].astype(np.float32) @ self.rotation_DD
            index.add(part_ND)
            yield faiss.rev_swig_ptr(index.invlists.get_codes(0), len(part_ND) * index.code_size).copy()

    def empty(self) -> Any:
        """FAISS's index without vectors."""
        return require("faiss", "search").deserialize_index(self.index)

    def save(self, file: BinaryIO) -> None:
        """Write to an open file, for `load`."""
        np.savez(file, **asdict(self))

    @classmethod
    def load(cls, content: bytes) -> Codebook:
        """Read what `save` wrote. Raises DataError when it is something else."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                values = {field.name: stored[field.name] for field in fields(cls)}
                return cls(**{**values, "ratio": float(values["ratio"]), "trained_on": int(values["trained_on"])})
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise DataError("The codebook of the sketch cannot be read.") from error


def write_codes(file: BinaryIO, codes: Iterator[NDArray[np.uint8]], count: int) -> None:
    """Write the sketch of `count` windows, a multiple of BLOCK: the codes of all, then their numbers."""
    for part in codes:
        file.write(part.data)
    for first in range(0, count, _AT_ONCE):
        file.write(np.arange(first, min(count, first + _AT_ONCE), dtype=np.int64).data)


class Sketch:
    """The sketch of the windows 0 to `count` of a snapshot, mapped from a file."""

    def __init__(self, path: Path, codebook: Codebook, count: int) -> None:
        self.path, self.codebook, self.count = path, codebook, count

    def nearest(
        self, query_D: FloatArray, n: int, allowed_N: NDArray[np.bool_] | None
    ) -> tuple[Ints, FloatArray, float]:
        """The n windows of highest estimates, best first, fewer if fewer are allowed; their estimates; and the standard
        deviation of the errors of these."""
        faiss = require("faiss", "search")
        rotated_D = query_D @ self.codebook.rotation_DD
        parameters = faiss.IVFSearchParameters(nprobe=1)
        if allowed_N is not None:
            bits = np.packbits(allowed_N, bitorder="little")
            parameters = faiss.IVFSearchParameters(nprobe=1, sel=faiss.IDSelectorBitmap(bits))
        products_QN, ids_QN = self._index.search(rotated_D[None], min(n, self.count), params=parameters)
        found = ids_QN[0] >= 0
        estimates = self.codebook.stretched(products_QN[0][found], rotated_D)
        return ids_QN[0][found], estimates, self.codebook.deviation(rotated_D)

    def codes(self) -> NDArray[np.uint8]:
        """The codes of all windows, mapped."""
        size = self.path.stat().st_size - self.count * np.dtype(np.int64).itemsize
        return np.asarray(np.memmap(self.path, np.uint8, "r", shape=(size,)))

    @cached_property
    def _index(self) -> Any:
        faiss = require("faiss", "search")
        index = self.codebook.empty()
        lists = faiss.OnDiskInvertedLists()
        lists.nlist, lists.code_size, lists.read_only = 1, index.code_size, True
        lists.filename, lists.totsize = str(self.path), self.path.stat().st_size
        only = faiss.OnDiskOneList()
        only.size = only.capacity = self.count
        only.offset = 0
        lists.lists.clear()
        lists.lists.push_back(only)
        lists.do_mmap()
        index.replace_invlists(lists, True)
        lists.this.disown()  # the index owns it from here on
        index.ntotal = self.count
        return index
