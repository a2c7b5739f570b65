"""The ranks of retrieval in both directions, from a similarity matrix or from embeddings.

Letters in names: A clips, T captions, D embedding, N pairs; R and C rows (clips) and columns (captions) of a block, Q
captions whose clips are rows of a block.

Ties count against the model: a wrong candidate with the same score ranks first. `tie` widens this to scores that differ
by no more than so much, so that embeddings with different rounding (another batch, another machine) give the same ranks
where sounds or sentences are practically equal.

A rank is a count of candidates that reach a threshold, and counts add up over blocks, so the scores of many clips are
never in memory together. The last digits of float32 products depend on the size of a block. Any score closer to a
threshold than that error is computed again in float64, so blocks of any size give the ranks of the full matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from openclap.arrays import Floats, Ints
from openclap.errors import DataError

Scores = NDArray[Any]

CUT = 10  # mAP@10: a rank beyond it earns nothing
TIE = 1e-5
"""Cosine similarities this close are a tie: the embeddings of one sound in different batches agree this far."""
ROWS, COLUMNS = 512, 8192
"""The size of a block: 16 MB of scores, and a few masks of them."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """Ranks counted from 1.

    Attributes:
        text_to_audio_T: the rank of each caption's own clip among the `clips` clips.
        audio_to_text_T: the rank of each caption among all T captions, with its own clip as the query.
        owner_T: the clip that each caption describes.
    """

    text_to_audio_T: Ints
    audio_to_text_T: Ints
    owner_T: Ints
    clips: int

    @property
    def queries(self) -> Ints:
        """(Q,) the clips that have captions, ascending: the queries of audio → text."""
        return np.unique(self.owner_T).astype(np.int64)

    def best(self) -> Ints:
        """(Q,) the rank of each clip's best-placed caption."""
        best_A = np.full(self.clips, np.iinfo(np.int64).max)
        np.minimum.at(best_A, self.owner_T, self.audio_to_text_T)
        return best_A[self.queries]

    def average_precision(self, cut: int = CUT) -> Floats:
        """(Q,) the sum of i / rank_i over a clip's captions within `cut`, best first, divided by their whole count."""
        # By clip, and within a clip best first.
        return self._precision(np.lexsort((self.audio_to_text_T, self.owner_T)), cut)

    def published_average_precision(self, cut: int = CUT) -> Floats:
        """(Q,) the same as LAION-CLAP's code computes it: with captions in the order in which they are listed.

        Only for comparison with published audio → text mAP@10 of several captions per clip.
        """
        # LAION: evaluate_clotho_audiocaps announces "sort", but numbers the captions within 10 in listing order: the
        # value depends on that order and can pass 1 (test_published_average_precision_can_pass_one)
        return self._precision(np.argsort(self.owner_T, kind="stable"), cut)

    def _precision(self, order: Ints, cut: int) -> Floats:
        within = order[self.audio_to_text_T[order] <= cut]
        # The precision at the rank of the i-th caption that was found: i of the first rank_i are right.
        gain = place_in_run(self.owner_T[within]) / self.audio_to_text_T[within]
        gain_A = np.bincount(self.owner_T[within], weights=gain, minlength=self.clips)
        return (gain_A / np.maximum(np.bincount(self.owner_T, minlength=self.clips), 1))[self.queries]


def rank_retrieval(similarity_AT: ArrayLike, owner_T: ArrayLike, *, tie: float = 0.0) -> Ranks:
    """Rank in both directions, given the score of every clip with every caption and the clip of each caption.

    Takes numpy arrays, torch tensors and lists. Clips without captions are candidates, but no queries. Raises DataError
    where shapes, owners or scores do not fit.
    """
    score_AT, owners = as_numpy(similarity_AT), as_indices(owner_T, "Owners")
    if score_AT.ndim != 2 or owners.shape != score_AT.shape[1:] or not score_AT.size:
        raise DataError(
            f"Similarities {score_AT.shape} and owners {owners.shape} do not fit: "
            "expected (clips, captions) and (captions,), with at least one of each."
        )
    _check_owners(owners, len(score_AT))
    _check_numbers(score_AT, "similarities")
    scores = _PairScores(
        clips=len(score_AT),
        block=lambda rows, columns: score_AT[rows, columns],
        exact=lambda clip_N, caption_N: score_AT[clip_N, caption_N],
    )
    return _rank(scores, owners, tie)


def rank_vectors(audio_AD: ArrayLike, text_TD: ArrayLike, owner_T: ArrayLike, *, tie: float = TIE) -> Ranks:
    """Rank in both directions from unit vectors: the score of a clip and a caption is their product.

    Memory beside the embeddings: one block, and a few numbers per caption. Raises DataError as `rank_retrieval`.
    """
    audio, text = (np.ascontiguousarray(as_numpy(embeddings), np.float32) for embeddings in (audio_AD, text_TD))
    owners = as_indices(owner_T, "Owners")
    if audio.ndim != 2 or text.ndim != 2 or audio.shape[1:] != text.shape[1:] or not audio.size or not text.size:
        raise DataError(f"Vectors {audio.shape} and {text.shape} do not fit: expected (clips, D) and (captions, D).")
    if owners.shape != text.shape[:1]:
        raise DataError(f"{len(text)} captions and owners {owners.shape} do not fit: expected one owner per caption.")
    _check_owners(owners, len(audio))
    _check_numbers(audio, "vectors")
    _check_numbers(text, "vectors")

    def exact(clip_N: Ints, caption_N: Ints) -> Floats:
        parts = [
            np.einsum("nd,nd->n", audio[clip_N[part]], text[caption_N[part]], dtype=np.float64)
            for part in _slices(len(clip_N), ROWS)
        ]
        return np.concatenate(parts) if parts else np.zeros(0)

    # The most that a float32 product of D terms can be off, in any order of summation, for vectors of these lengths.
    squares = (float(np.einsum("nd,nd->n", embedding_ND, embedding_ND).max()) for embedding_ND in (audio, text))
    error = float((audio.shape[1] + 2) * np.finfo(np.float32).eps * max(1.0, *squares))
    return _rank(
        _PairScores(len(audio), lambda rows, columns: audio[rows] @ text[columns].T, exact, error), owners, tie
    )


@dataclass(frozen=True, slots=True)
class _PairScores:
    """Scores of clips with captions: (R, C) blocks that are off by `error` at most, and exact scores of (N,) pairs."""

    clips: int
    block: Callable[[slice, slice], Scores]
    exact: Callable[[Ints, Ints], Scores]
    error: float = 0.0


def _rank(scores: _PairScores, owner_T: Ints, tie: float) -> Ranks:
    caption_T = np.arange(len(owner_T))
    own_T = scores.exact(owner_T, caption_T)
    # In the type of the scores: a float64 threshold would promote every block that is compared with it.
    wanted_T = own_T - own_T.dtype.type(tie) if tie else own_T
    # Captions by clip, so that those of a block of clips are one slice.
    order_T = np.argsort(owner_T, kind="stable")
    first_A = np.searchsorted(owner_T[order_T], np.arange(scores.clips + 1))
    clips_T, captions_T = np.zeros(len(owner_T), np.int64), np.zeros(len(owner_T), np.int64)

    def reaches(block_RC: Scores, clip_R: Ints, caption_C: Ints, query: Ints) -> NDArray[np.bool_]:
        """(R, C) whether a score reaches the threshold of the captions `query`, (1, C) or (R, 1)."""
        wanted = wanted_T[query]
        if not scores.error:
            return np.asarray(block_RC >= wanted)
        # Only scores between the two bounds are in doubt, and only these are computed again.
        surely = block_RC >= (wanted + scores.error).astype(np.float32)
        possibly = block_RC >= (wanted - scores.error).astype(np.float32)
        row_N, column_N = np.divmod(np.flatnonzero(surely != possibly), block_RC.shape[1])
        clip_N, caption_N = clip_R[row_N], caption_C[column_N]
        query_N = np.broadcast_to(query, block_RC.shape)[row_N, column_N]
        # A caption with its own clip must equal its threshold to the last digit, so that score is not computed again.
        is_own_N = owner_T[caption_N] == clip_N
        score_N = np.where(is_own_N, own_T[caption_N], scores.exact(clip_N, caption_N))
        surely[row_N, column_N] = score_N >= wanted_T[query_N]
        return np.asarray(surely)

    # Both directions from one block: it is the product of the embeddings that takes the time.
    for rows in _slices(scores.clips, ROWS):
        query_Q = order_T[first_A[rows.start] : first_A[rows.stop]]
        for columns in _slices(len(owner_T), COLUMNS):
            block_RC = scores.block(rows, columns)
            caption_C = caption_T[columns]
            clip_R = np.arange(rows.start, rows.stop)
            clips_T[columns] += _count(reaches(block_RC, clip_R, caption_C, caption_C[None, :]), 0)
            for part in _slices(len(query_Q), ROWS):  # a clip has several captions: bound the copies of its row
                query = query_Q[part]
                block_QC = block_RC[owner_T[query] - rows.start]
                captions_T[query] += _count(reaches(block_QC, owner_T[query], caption_C, query[:, None]), 1)

    # The captions of a clip are no rivals of each other: take them out of the count, and number them best first.
    for same in np.split(order_T, first_A[1:-1]):
        captions_T[same] -= (own_T[same] >= wanted_T[same][:, None]).sum(1)
    # The i-th best caption of a clip has i - 1 siblings in front of it, which do count for its rank.
    best_first_T = np.lexsort((-own_T.astype(np.float64), owner_T))
    captions_T[best_first_T] += place_in_run(owner_T[best_first_T])
    return Ranks(clips_T, captions_T, owner_T, scores.clips)


def _count(mask_RC: NDArray[np.bool_], axis: int) -> NDArray[np.uint16]:
    """The number of true values along an axis. 16 bits are enough for a block, and several times as fast as 64."""
    return np.asarray(mask_RC.view(np.uint8).sum(axis, dtype=np.uint16))


def as_numpy(values: Any) -> NDArray[Any]:
    """A numpy view of an array, a list or a torch tensor (on any device, with or without gradients)."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        # numpy has no bfloat16. The type is compared as text, so that torch is not imported.
        values = values.float() if str(values.dtype) == "torch.bfloat16" else values
    return np.asarray(values)


def as_indices(values: Any, name: str) -> Ints:
    """Positions, from 0. Raises DataError for anything but whole numbers, which a cast would cut to whole ones."""
    array = as_numpy(values)
    if array.dtype.kind not in "iu" and array.size:
        raise DataError(f"{name} are of the type {array.dtype}; expected whole numbers, counted from 0.")
    return array.astype(np.int64)


def place_in_run(sorted_N: Ints) -> Ints:
    """1, 2, 3, … within each run of equal values."""
    start_N = np.searchsorted(sorted_N, sorted_N, side="left")
    return np.arange(1, len(sorted_N) + 1) - start_N


def _check_owners(owner_T: Ints, clips: int) -> None:
    if owner_T.min() < 0 or owner_T.max() >= clips:
        raise DataError(f"Owners run from {owner_T.min()} to {owner_T.max()}, but there are {clips} clips.")


def _check_numbers(values: NDArray[Any], name: str) -> None:
    if np.isnan(values).any():
        raise DataError(f"The {name} hold NaN, so nothing can be ranked. Check the model they come from.")


def _slices(count: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, count)) for start in range(0, count, step))
