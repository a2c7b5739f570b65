"""The fit of a text query: where its best cosine lies among those of a background of queries.

A cosine alone says little: it depends on the model and on the index. So the index stores the best cosine of each
background query in it (`fit.npz`), and a query's fit is the part of them that are not higher. Of the statistics that
were compared (docs/decisions/0020), this one separates best, and it is the simplest.

B background queries, D embedding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from openclap.search.archive import archive_facts, read_archive, write_archive
from openclap.search.background import descriptions
from openclap.search.hits import SearchInfo
from openclap.search.index import Index
from openclap.search.place import FIT_NAME
from openclap.search.rows import FloatArray

PROBABLY_NOTHING = 0.1
"""Fit below which there is probably nothing: of queries with a sound in the index, about a tenth lies below too."""
FEWEST_WINDOWS = 64
"""Windows from which on an index has a fit: fewer are indexed sooner than the background is embedded."""
_GROWTH = 1.5
"""Change of the number of windows, up or down, after which the background is searched for again."""
_FORMAT = 1

EmbedTexts = Callable[[Sequence[str]], FloatArray]
"""Texts to unit vectors (N, D)."""


@dataclass(frozen=True)
class Background:
    """The best cosines of the background in an index.

    Attributes:
        windows: of the index at that time.
        best_B: the best cosine of each description, in ascending order.
        vectors_BD: their embeddings, in the order of `background.descriptions`.
    """

    windows: int
    best_B: FloatArray
    vectors_BD: np.ndarray[Any, np.dtype[np.float16]]

    def fit(self, score: float) -> float:
        """The part of the best cosines that are not above `score`."""
        return _fit(self.best_B, score)


def with_fit(index: Index, info: SearchInfo, score: float) -> SearchInfo:
    """`info` with the fit of a text query with this best cosine; unchanged when the index has no background."""
    try:
        with read_archive(index.place, FIT_NAME) as stored:
            if not _is_of(index, stored):
                return info
            fit = _fit(stored["best_B"], score)
    except Exception:  # missing, or damaged: then NumPy raises a dozen kinds of errors, even of Python's tokenizer
        return info
    return replace(info, fit=fit, probably_nothing=fit < PROBABLY_NOTHING)


def read_background(index: Index) -> Background | None:
    """The background of an index; None when there is none, or it is damaged or of another model or version."""
    try:
        with read_archive(index.place, FIT_NAME) as stored:
            if not _is_of(index, stored):
                return None
            background = Background(archive_facts(stored)["windows"], stored["best_B"], stored["vectors_BD"])
    except Exception:  # as above
        return None
    shape = (len(descriptions()), index.identity.dim)
    return background if background.vectors_BD.shape == shape else None


def update_background(index: Index, embed: EmbedTexts) -> bool:
    """Search for the background where there is none yet, or the index grew or shrank by half; whether that was done.

    The descriptions are embedded once: later updates use their stored embeddings. An index with few windows, or
    without a snapshot, is left as it is.

    Raises DataError when the index cannot be read or written, or another process is writing to it, and as `embed`.
    """
    windows, stored = index.count()[1], read_background(index)
    if windows < FEWEST_WINDOWS or (
        stored and windows < _GROWTH * stored.windows and stored.windows < _GROWTH * windows
    ):
        return False
    vectors_BD = stored.vectors_BD if stored else np.asarray(embed(descriptions()), np.float16)
    best_B = index.best_scores(vectors_BD.astype(np.float32))
    if best_B is None:
        return False
    write_background(index, Background(windows, np.sort(best_B), vectors_BD))
    return True


def write_background(index: Index, background: Background) -> None:
    """Store the background of an index. Raises DataError when it cannot be written, or another process is writing."""
    facts = {**_key(index), "windows": background.windows}
    arrays = {"best_B": background.best_B, "vectors_BD": background.vectors_BD}
    write_archive(index.place, FIT_NAME, facts, arrays, "openclap index update")


def _key(index: Index) -> dict[str, Any]:
    """The format, model and descriptions that a background must have to be of use."""
    texts = hashlib.sha256("\n".join(descriptions()).encode()).hexdigest()
    return {"format": _FORMAT, "digest": index.identity.digest, "descriptions": texts}


def _is_of(index: Index, stored: Any) -> bool:
    facts = archive_facts(stored)
    return {name: facts[name] for name in ("format", "digest", "descriptions")} == _key(index)


def _fit(best_B: FloatArray, score: float) -> float:
    return float(np.searchsorted(best_B, np.float32(score), side="right") / len(best_B))
