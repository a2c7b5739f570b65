"""Compare the recordings in sound files by their samples, to find the duplicates of an index.

`search.duplicates` names the pairs, and this module decodes and aligns them. S samples, N samples of C channels.
"""

from __future__ import annotations

import hashlib
import json
import struct
from functools import lru_cache
from pathlib import Path

import numpy as np

from openclap.arrays import Wave
from openclap.audio.alignment import LONGEST_S, RATE, align, excerpt
from openclap.audio.inputs import blocks
from openclap.audio.io import decoded, decoder_version
from openclap.embedding_cache import CacheFile, cache_folder
from openclap.errors import AudioError
from openclap.search.duplicates import KINDS, DuplicateGroup, PairComparison, SamePart, find_duplicates
from openclap.search.index import Index
from openclap.types import Progress

SAME = 0.95
"""The least similarity of two forms of one recording, chosen by measurement (docs/decisions/0023)."""
NEARLY_EQUAL = 0.999
"""The similarity from which on the samples are compared."""
_VERSION = 3
"""Part of the key of cached comparisons: other rules start over."""


def duplicates_of(
    index: Index, *, progress: Progress = lambda done, total: None
) -> tuple[list[DuplicateGroup], list[tuple[str, str]]]:
    """The duplicates in an index, as `openclap.Library.duplicates`; no model is needed."""
    compare = RecordingComparison()
    try:
        return find_duplicates(index, compare, progress=progress)
    finally:
        compare.close()


class RecordingComparison:
    """Decides by their samples whether two files hold the same recording. The result of a pair is cached."""

    def __init__(self) -> None:
        self._cache = CacheFile(cache_folder())
        self._space = json.dumps(
            {"vectors": "alignments of two sounds", "decoders": decoder_version(), "version": str(_VERSION)}
        )
        self._excerpt = lru_cache(256)(_excerpt)

    def __call__(self, pair: SamePart) -> PairComparison:
        """Raises AudioError where a file cannot be decoded or was changed since it was indexed."""
        starts = [
            0.0 if max(pair.first.duration_s, pair.second.duration_s) <= LONGEST_S else max(0.0, start - LONGEST_S / 2)
            for start in (pair.first_s, pair.second_s)
        ]
        key = hashlib.sha256(f"{self._space} {pair.first.hash} {pair.second.hash} {starts}".encode()).digest()
        if (known := self._cache.get([key]).get(key)) is None:
            one_S, other_S = (
                self._excerpt(row.path, row.size, row.mtime_ns, start)
                for row, start in zip((pair.first, pair.second), starts, strict=True)
            )
            found = align(one_S, other_S)
            kind = (found.similarity >= SAME) + (found.similarity > NEARLY_EQUAL and _same_samples(pair))
            known = struct.pack("<Bdd", kind, found.similarity, found.offset_s)
            self._cache.add(self._space, "", {key: known})
        kind, similarity, offset_s = struct.unpack("<Bdd", known)
        return PairComparison(("", KINDS[2], KINDS[1])[kind], similarity, offset_s + starts[0] - starts[1])

    def close(self) -> None:
        """Store the results of the last second."""
        self._cache.close()


def _excerpt(path: str, size: int, mtime_ns: int, start_s: float) -> Wave:
    """The excerpt of a file that is as it was indexed. Raises AudioError otherwise."""
    status = Path(path).stat()
    if (status.st_size, status.st_mtime_ns) != (size, mtime_ns):
        raise AudioError(f"{path}: was changed since it was indexed. Run 'openclap index add' first.")
    return excerpt(blocks(path, RATE, path), start_s)


def _same_samples(pair: SamePart) -> bool:
    """Whether two files decode to equal samples at one rate, however they are encoded."""
    digests = []
    for row in (pair.first, pair.second):
        digest, form = hashlib.sha256(), (0, 0)
        for wave_NC, rate in decoded(row.path):
            form = rate, wave_NC.shape[1]
            digest.update(np.ascontiguousarray(wave_NC).tobytes())
        digests.append((form, digest.digest()))
    return digests[0] == digests[1]
