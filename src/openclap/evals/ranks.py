"""The ranks of retrieval in both directions, from a similarity matrix or from embeddings.

Letters in names: A clips, T captions, P pairs of a caption and a clip that is right for it, D embedding, N other pairs,
Q queries; R and C rows (clips) and columns (captions) of a block.

The right pairs are a sparse matrix (`Relevance`). One clip for each caption, its owner, is the special case of papers.

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


@dataclass(frozen=True, slots=True, eq=False)
class Relevance:
    """The pairs of a clip and a caption that are right for each other: a sparse (A, T) matrix.

    Attributes:
        clip_P, caption_P: the pairs, each once, sorted by caption and then by clip.
        clips, captions: A and T. Clips and captions without a pair are candidates, but no queries.
    """

    clip_P: Ints
    caption_P: Ints
    clips: int
    captions: int

    @classmethod
    def of_owners(cls, owner_T: ArrayLike, clips: int) -> Relevance:
        """One right clip for each caption. Raises DataError for owners that are not among the clips."""
        owners = as_indices(owner_T, "Owners")
        _check_positions(owners, clips, "Owners", "clips")
        return cls(owners, np.arange(len(owners)), clips, len(owners))

    @classmethod
    def of_pairs(cls, clip_P: ArrayLike, caption_P: ArrayLike, clips: int, captions: int) -> Relevance:
        """Pairs in any order. Raises DataError for positions outside the clips or captions, and for no pair."""
        clip, caption = as_indices(clip_P, "Clips"), as_indices(caption_P, "Captions")
        if clip.ndim != 1 or clip.shape != caption.shape or not clip.size:
            raise DataError(
                f"Clips {clip.shape} and captions {caption.shape} are no pairs: expected (P,) twice, P ≥ 1."
            )
        _check_positions(clip, clips, "Clips", "clips")
        _check_positions(caption, captions, "Captions", "captions")
        key_P = np.unique(caption * clips + clip)
        return cls(key_P % clips, key_P // clips, clips, captions)

    @classmethod
    def of(cls, right: Any, clips: int, captions: int) -> Relevance:
        """Owners (T,), a matrix (A, T) of true and false (dense, or sparse as scipy has it), or a Relevance.

        Raises DataError for other shapes, and for a matrix of other values than 0 and 1.
        """
        if isinstance(right, Relevance):
            if (right.clips, right.captions) != (clips, captions):
                raise DataError(
                    f"Relevance of {right.clips} clips and {right.captions} captions does not fit {clips} clips and "
                    f"{captions} captions."
                )
            return right
        is_sparse = hasattr(right, "tocoo")
        matrix: Any = right.tocoo() if is_sparse else as_numpy(right)
        if matrix.shape == (captions,) and not is_sparse:
            return cls.of_owners(matrix, clips)
        if matrix.shape != (clips, captions):
            raise DataError(
                f"Owners or relevance {matrix.shape} do not fit (clips, captions) = {(clips, captions)}: expected "
                "(captions,) or (clips, captions)."
            )
        values = matrix.data if is_sparse else matrix
        if values.dtype != bool and not np.isin(values, (0, 1)).all():
            raise DataError("The relevance holds other values than 0 and 1, expected which clips are right for what.")
        clip_P, caption_P = matrix.nonzero()
        return cls.of_pairs(clip_P, caption_P, clips, captions)

    @property
    def is_of_owners(self) -> bool:
        """Whether each caption has exactly one right clip."""
        return len(self.caption_P) == self.captions and bool((self.caption_P == np.arange(self.captions)).all())

    def first_clips(self) -> Ints:
        """(Q,) the first right clip of each caption that has one."""
        return self.clip_P[np.unique(self.caption_P, return_index=True)[1]]


@dataclass(frozen=True, slots=True, eq=False)
class QueryRanks:
    """The ranks of one direction, counted from 1.

    Attributes:
        rank_P: the rank of each right candidate among all candidates.
        query_P: the query that each is right for.
    """

    rank_P: Ints
    query_P: Ints

    @property
    def queries(self) -> Ints:
        """(Q,) the queries with a right candidate, ascending."""
        return np.unique(self.query_P).astype(np.int64)

    def best(self) -> Ints:
        """(Q,) the rank of each query's best-placed right candidate."""
        best = np.full(int(self.query_P.max()) + 1, np.iinfo(np.int64).max)
        np.minimum.at(best, self.query_P, self.rank_P)
        return best[self.queries]

    def average_precision(self, cut: int = CUT) -> Floats:
        """(Q,) the sum of i / rank_i over a query's right candidates within `cut`, best first, divided by their whole
        number (also where that is larger than `cut`)."""
        within = np.flatnonzero(self.rank_P <= cut)
        # By query, and within a query best first.
        return self._precision(within[np.lexsort((self.rank_P[within], self.query_P[within]))])

    def published_average_precision(self, cut: int = CUT) -> Floats:
        """(Q,) the same as LAION-CLAP's code computes it: with candidates in the order in which they are listed.

        Only for comparison with published audio → text mAP@10 of several captions per clip.
        """
        # LAION: evaluate_clotho_audiocaps announces "sort", but numbers the captions within 10 in listing order: the
        # value depends on that order and can pass 1 (test_published_average_precision_can_pass_one)
        within = np.flatnonzero(self.rank_P <= cut)
        return self._precision(within[np.argsort(self.query_P[within], kind="stable")])

    def _precision(self, within: Ints) -> Floats:
        # The precision at the rank of the i-th right candidate: i of the first rank_i are right.
        query_N = self.query_P[within]
        gain = np.bincount(
            query_N, weights=place_in_run(query_N) / self.rank_P[within], minlength=int(self.query_P.max()) + 1
        )
        return (gain / np.maximum(np.bincount(self.query_P, minlength=len(gain)), 1))[self.queries]


@dataclass(frozen=True, slots=True, eq=False)
class Ranks:
    """The ranks of all right pairs, counted from 1.

    Attributes:
        text_to_audio_P: the rank of each pair's clip among all clips, with its caption as the query.
        audio_to_text_P: the rank of each pair's caption among all captions, with its clip as the query.
    """

    relevance: Relevance
    text_to_audio_P: Ints
    audio_to_text_P: Ints

    @property
    def clips(self) -> int:
        """The number of clips that are searched."""
        return self.relevance.clips

    @property
    def text_to_audio(self) -> QueryRanks:
        """Captions search clips."""
        return QueryRanks(self.text_to_audio_P, self.relevance.caption_P)

    @property
    def audio_to_text(self) -> QueryRanks:
        """Clips search captions."""
        return QueryRanks(self.audio_to_text_P, self.relevance.clip_P)


def rank_retrieval(similarity_AT: ArrayLike, owner_T: Any, *, tie: float = 0.0) -> Ranks:
    """Rank in both directions, given the score of every clip with every caption and what is right for what.

    Args:
        owner_T: the clip of each caption (T,), a matrix (A, T) of true and false, or a `Relevance`.

    Takes numpy arrays, torch tensors and lists. Clips without captions are candidates, but no queries. Raises DataError
    where shapes, owners or scores do not fit.
    """
    score_AT = as_numpy(similarity_AT)
    if score_AT.ndim != 2 or not score_AT.size:
        raise DataError(f"Similarities {score_AT.shape} do not fit: expected (clips, captions), one of each at least.")
    relevance = Relevance.of(owner_T, *score_AT.shape)
    _check_numbers(score_AT, "similarities")
    scores = _PairScores(
        block=lambda rows, columns: score_AT[rows, columns],
        exact=lambda clip_N, caption_N: score_AT[clip_N, caption_N],
    )
    return _rank(scores, relevance, tie)


def rank_vectors(audio_AD: ArrayLike, text_TD: ArrayLike, owner_T: Any, *, tie: float = TIE) -> Ranks:
    """Rank in both directions from unit vectors: the score of a clip and a caption is their product.

    Memory beside the embeddings: one block, and a few numbers per right pair. `owner_T` and errors are those of
    `rank_retrieval`.
    """
    audio, text = (np.ascontiguousarray(as_numpy(embeddings), np.float32) for embeddings in (audio_AD, text_TD))
    if audio.ndim != 2 or text.ndim != 2 or audio.shape[1:] != text.shape[1:] or not audio.size or not text.size:
        raise DataError(f"Vectors {audio.shape} and {text.shape} do not fit: expected (clips, D) and (captions, D).")
    relevance = Relevance.of(owner_T, len(audio), len(text))
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
    return _rank(_PairScores(lambda rows, columns: audio[rows] @ text[columns].T, exact, error), relevance, tie)


@dataclass(frozen=True, slots=True)
class _PairScores:
    """Scores of clips with captions: (R, C) blocks that are off by `error` at most, and exact scores of (N,) pairs."""

    block: Callable[[slice, slice], Scores]
    exact: Callable[[Ints, Ints], Scores]
    error: float = 0.0


def _rank(scores: _PairScores, relevance: Relevance, tie: float) -> Ranks:
    clip_P, caption_P, clips, captions = relevance.clip_P, relevance.caption_P, relevance.clips, relevance.captions
    own_P = scores.exact(clip_P, caption_P)
    # In the type of the scores: a float64 threshold would promote every block that is compared with it.
    wanted_P = own_P - own_P.dtype.type(tie) if tie else own_P
    key_P = caption_P * clips + clip_P  # ascending
    # Pairs by clip, so that those of a block of clips are one slice.
    by_clip_P = np.argsort(clip_P, kind="stable")
    first_A = np.searchsorted(clip_P[by_clip_P], np.arange(clips + 1))
    first_T = np.searchsorted(caption_P, np.arange(captions + 1))
    caption_T, is_of_owners = np.arange(captions), relevance.is_of_owners
    clips_P, captions_P = np.zeros(len(clip_P), np.int64), np.zeros(len(clip_P), np.int64)

    def reaches(block_RC: Scores, clip_R: Ints, caption_C: Ints, pair: Ints | slice, axis: int) -> NDArray[np.bool_]:
        """(R, C) whether a score reaches the threshold of the pair of its column (axis 1) or of its row (axis 0)."""
        wanted = np.expand_dims(wanted_P[pair], 1 - axis)
        if not scores.error:
            return np.asarray(block_RC >= wanted)
        # Only scores between the two bounds are in doubt, and only these are computed again.
        surely = block_RC >= (wanted + scores.error).astype(np.float32)
        possibly = block_RC >= (wanted - scores.error).astype(np.float32)
        row_N, column_N = np.divmod(np.flatnonzero(surely != possibly), block_RC.shape[1])
        clip_N, caption_N = clip_R[row_N], caption_C[column_N]
        # A right pair must equal its own threshold to the last digit, so that its score is not computed again.
        key_N = caption_N * clips + clip_N
        pair_N = np.minimum(np.searchsorted(key_P, key_N), len(key_P) - 1)
        score_N = np.where(key_P[pair_N] == key_N, own_P[pair_N], scores.exact(clip_N, caption_N))
        surely[row_N, column_N] = score_N >= wanted_P[pair][column_N if axis else row_N]
        return np.asarray(surely)

    # Both directions from one block: it is the product of the embeddings that takes the time.
    for rows in _slices(clips, ROWS):
        by_clip_Q = by_clip_P[first_A[rows.start] : first_A[rows.stop]]
        clip_R = np.arange(rows.start, rows.stop)
        for columns in _slices(captions, COLUMNS):
            block_RC = scores.block(rows, columns)
            caption_C = caption_T[columns]
            if is_of_owners:  # the pairs are the columns, and the block need not be copied
                clips_P[columns] += _count(reaches(block_RC, clip_R, caption_C, columns, 1), 0)
            else:  # a caption has none or several pairs: bound the copies of its column
                for part in _slices(int(first_T[columns.stop]), COLUMNS, int(first_T[columns.start])):
                    caption_Q = caption_P[part]
                    block_RQ = block_RC[:, caption_Q - columns.start]
                    clips_P[part] += _count(reaches(block_RQ, clip_R, caption_Q, part, 1), 0)
            for part in _slices(len(by_clip_Q), ROWS):  # a clip has several captions: bound the copies of its row
                pair = by_clip_Q[part]
                block_QC = block_RC[clip_P[pair] - rows.start]
                captions_P[pair] += _count(reaches(block_QC, clip_P[pair], caption_C, pair, 0), 1)
    return Ranks(
        relevance,
        clips_P + _among_siblings(own_P, wanted_P, caption_P),
        captions_P + _among_siblings(own_P, wanted_P, clip_P),
    )


def _among_siblings(own_P: Scores, wanted_P: Scores, query_P: Ints) -> Ints:
    """(P,) the correction of counts that took the other right candidates of a query for rivals.

    They are none: each is taken out of the count, and the i-th best has i - 1 in front of it, which do count.
    """
    value_U, own_rank_P = np.unique(own_P, return_inverse=True)
    # One whole number for query and score, so that one sorted list answers for all queries how many of theirs reach a
    # threshold: a loop over queries, or their matrices, would be slow where a caption is right for thousands of clips.
    stride = len(value_U) + 1
    key_P = np.sort(query_P * stride + own_rank_P)
    reaching_P = np.searchsorted(key_P, (query_P + 1) * stride) - np.searchsorted(
        key_P, query_P * stride + np.searchsorted(value_U, wanted_P)
    )
    best_first_P = np.lexsort((-own_P.astype(np.float64), query_P))
    place_P = np.empty(len(own_P), np.int64)
    place_P[best_first_P] = place_in_run(query_P[best_first_P])
    return place_P - reaching_P


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


def _check_positions(position_N: Ints, count: int, name: str, of: str) -> None:
    if not position_N.size or position_N.min() < 0 or position_N.max() >= count:
        span = f"run from {position_N.min()} to {position_N.max()}" if position_N.size else "are none"
        raise DataError(f"{name} {span}, but there are {count} {of}.")


def _check_numbers(values: NDArray[Any], name: str) -> None:
    if np.isnan(values).any():
        raise DataError(f"The {name} hold NaN, so nothing can be ranked. Check the model they come from.")


def _slices(end: int, step: int, begin: int = 0) -> Iterator[slice]:
    return (slice(start, min(start + step, end)) for start in range(begin, end, step))
