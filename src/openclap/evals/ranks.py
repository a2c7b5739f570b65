"""Where everything was found: the ranks of retrieval, from scores or from the vectors that give them.

Letters in names: A clips, T captions, D embedding, K captions of one clip; R and C rows and columns of a block.

Ties stand against us: what is wrong and scores the same stands first. `tie` widens this to what scores the same within
so much, so that vectors which differ by a rounding (another batch, another machine) give the same ranks where sounds or
sentences are as good as equal.

All scores of many clips do not fit into memory, and are never there together: ranks are counts of what is not worse
than a threshold, and counts add up block by block. Products of matrices in float32 depend on the size of the blocks in
their last digits. Whatever lies closer to a threshold than this can reach is decided again in float64, so blocks of any
size give the ranks of the full matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from openclap.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Scores = NDArray[Any]

CUT = 10  # mAP@10: a rank beyond it earns nothing
TIE = 1e-5
"""Cosines this close are a tie: as close as vectors of one sound agree, whatever batch they were made in."""
ROWS, COLUMNS = 512, 8192
"""Of a block: 16 MB of scores, and some masks of them."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """Where everything was found, counted from 1.

    `text_to_audio_T`: the rank of a caption's own clip among the `clips` clips.
    `audio_to_text_T`: the rank of a caption among all T captions, when its own clip asks.
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
        """(Q,) sum of i / rank_i over a clip's captions within `cut`, divided by their whole count."""
        return self._precision(np.lexsort((self.audio_to_text_T, self.owner_T)), cut)

    def published_average_precision(self, cut: int = CUT) -> Floats:
        """(Q,) the same as LAION-CLAP's code counts it: with captions in the order they are listed.

        Only for comparing with published audio → text mAP@10 of several captions a clip.
        """
        # LAION: evaluate_clotho_audiocaps announces "sort", but numbers the captions within 10 in listing
        # order: the value depends on that order and can pass 1
        # (test_published_average_precision_can_pass_one)
        return self._precision(np.argsort(self.owner_T, kind="stable"), cut)

    def _precision(self, order: Ints, cut: int) -> Floats:
        found = order[self.audio_to_text_T[order] <= cut]
        gain = place_in_run(self.owner_T[found]) / self.audio_to_text_T[found]
        gain_A = np.bincount(self.owner_T[found], weights=gain, minlength=self.clips)
        return (gain_A / np.maximum(np.bincount(self.owner_T, minlength=self.clips), 1))[self.queries]


def rank_retrieval(similarity_AT: ArrayLike, owner_T: ArrayLike, *, tie: float = 0.0) -> Ranks:
    """Rank both ways, given every clip's score with every caption and each caption's clip `owner_T`.

    numpy arrays or torch tensors. Clips without captions are found, never asked. Raises DataError where shapes, owners
    or scores cannot be.
    """
    score_AT, owners = as_numpy(similarity_AT), as_indices(owner_T, "Owners")
    if score_AT.ndim != 2 or owners.shape != score_AT.shape[1:] or not score_AT.size:
        raise DataError(
            f"Similarities {score_AT.shape} and owners {owners.shape} do not fit: "
            "expected (clips, captions) and (captions,), with at least one of each."
        )
    _check_owners(owners, len(score_AT))
    _check_numbers(score_AT, "similarities")
    return _rank(_Matrix(score_AT), owners, tie)


def rank_vectors(audio_AD: ArrayLike, text_TD: ArrayLike, owner_T: ArrayLike, *, tie: float = TIE) -> Ranks:
    """The same from unit vectors: the score of a clip and a caption is their product.

    Memory beside the vectors: one block, and three numbers a caption. Raises DataError as `rank_retrieval`.
    """
    audio, text = (np.ascontiguousarray(as_numpy(each), np.float32) for each in (audio_AD, text_TD))
    owners = as_indices(owner_T, "Owners")
    if audio.ndim != 2 or text.ndim != 2 or audio.shape[1:] != text.shape[1:] or not audio.size or not text.size:
        raise DataError(f"Vectors {audio.shape} and {text.shape} do not fit: expected (clips, D) and (captions, D).")
    if owners.shape != text.shape[:1]:
        raise DataError(f"{len(text)} captions and owners {owners.shape} do not fit: expected one owner a caption.")
    _check_owners(owners, len(audio))
    _check_numbers(audio, "vectors")
    _check_numbers(text, "vectors")
    return _rank(_Products(audio, text), owners, tie)


def as_numpy(values: Any) -> NDArray[Any]:
    """A numpy view of an array, a list or a torch tensor (on any device, with or without gradients)."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if str(values.dtype) == "torch.bfloat16" else values
    return np.asarray(values)


def as_indices(values: Any, what: str) -> Ints:
    """Rows or columns by number. Raises DataError for anything but whole numbers, which would be cut to some."""
    found = as_numpy(values)
    if found.dtype.kind not in "iu" and found.size:
        raise DataError(f"{what} are of the type {found.dtype}; expected whole numbers, counted from 0.")
    return found.astype(np.int64)


def place_in_run(sorted_N: Ints) -> Ints:
    """1, 2, 3, … within each run of equal values."""
    start_N = np.searchsorted(sorted_N, sorted_N, side="left")
    return np.arange(1, len(sorted_N) + 1) - start_N


class _Pairs(Protocol):
    """Scores of clips with captions: in blocks, where each is off by `error` at most, and pair by pair, exactly."""

    @property
    def clips(self) -> int: ...
    @property
    def error(self) -> float: ...
    def block(self, rows: slice, columns: slice) -> Scores: ...
    def at(self, clip_N: Ints, caption_N: Ints) -> Scores: ...


@dataclass(frozen=True, slots=True)
class _Matrix:
    score_AT: Scores
    error: float = 0.0

    @property
    def clips(self) -> int:
        return len(self.score_AT)

    def block(self, rows: slice, columns: slice) -> Scores:
        return self.score_AT[rows, columns]

    def at(self, clip_N: Ints, caption_N: Ints) -> Scores:
        return self.score_AT[clip_N, caption_N]


@dataclass(frozen=True, slots=True)
class _Products:
    audio_AD: NDArray[np.float32]
    text_TD: NDArray[np.float32]

    @property
    def clips(self) -> int:
        return len(self.audio_AD)

    @property
    def error(self) -> float:
        """What a float32 product of D terms can be off, in any order of summation, for vectors of these lengths."""
        squares = (float(np.einsum("nd,nd->n", each, each).max()) for each in (self.audio_AD, self.text_TD))
        return float((self.audio_AD.shape[1] + 2) * np.finfo(np.float32).eps * max(1.0, *squares))

    def block(self, rows: slice, columns: slice) -> Scores:
        return self.audio_AD[rows] @ self.text_TD[columns].T

    def at(self, clip_N: Ints, caption_N: Ints) -> Scores:
        parts = [
            np.einsum("nd,nd->n", self.audio_AD[clip_N[part]], self.text_TD[caption_N[part]], dtype=np.float64)
            for part in _slices(len(clip_N), ROWS)
        ]
        return np.concatenate(parts) if parts else np.zeros(0)


def _rank(scores: _Pairs, owner_T: Ints, tie: float) -> Ranks:
    captions = len(owner_T)
    own_T = scores.at(owner_T, np.arange(captions))
    counts = _Counts(scores, owner_T, own_T, tie)
    for rows in _slices(scores.clips, ROWS):
        for columns in _slices(captions, COLUMNS):
            counts.add(rows, columns)
    order = np.lexsort((-own_T.astype(np.float64), owner_T))
    caption_rank_T = np.empty(captions, np.int64)
    caption_rank_T[order] = (counts.captions_T - counts.own_T)[order] + place_in_run(owner_T[order])
    return Ranks(counts.clips_T, caption_rank_T, owner_T, scores.clips)


class _Counts:
    """For each caption, how many are not worse than it and its clip: clips of its own, captions of its clip's."""

    def __init__(self, scores: _Pairs, owner_T: Ints, own_T: Scores, tie: float) -> None:
        self.scores, self.owner_T, self.score_T = scores, owner_T, own_T
        self.wanted_T = own_T - own_T.dtype.type(tie) if tie else own_T
        self.error = scores.error
        captions = len(owner_T)
        self.clips_T, self.captions_T = np.zeros(captions, np.int64), np.zeros(captions, np.int64)
        order = np.argsort(owner_T, kind="stable")
        place_T = place_in_run(owner_T[order]) - 1
        self.asks_K = [order[place_T == place] for place in range(int(place_T.max()) + 1)]
        """The first caption of every clip that has one, the second, …; each in the order of clips."""
        self.own_T = self._own(order)

    def add(self, rows: slice, columns: slice) -> None:
        """Count one block of clips and captions."""
        block_RC = self.scores.block(rows, columns)
        caption_C = np.arange(columns.start, columns.stop)
        clip_R = np.arange(rows.start, rows.stop)
        self.clips_T[columns] += _count(self._not_worse(block_RC, clip_R, caption_C, caption_C[None, :]), 0)
        for ask_A in self.asks_K:
            first, last = np.searchsorted(self.owner_T[ask_A], [rows.start, rows.stop])
            ask_R = ask_A[first:last]
            if len(ask_R):
                clip_N = self.owner_T[ask_R]
                own_rows = block_RC if len(ask_R) == len(block_RC) else block_RC[clip_N - rows.start]
                self.captions_T[ask_R] += _count(self._not_worse(own_rows, clip_N, caption_C, ask_R[:, None]), 1)

    def _not_worse(self, block_RC: Scores, clip_R: Ints, caption_C: Ints, ask: Ints) -> NDArray[np.bool_]:
        """(R, C) whether a score reaches what `ask`, (1, C) or (R, 1) captions, want."""
        wanted = self.wanted_T[ask]
        if not self.error:
            return np.asarray(block_RC >= wanted)
        surely = block_RC >= (wanted + self.error).astype(np.float32)
        perhaps = block_RC >= (wanted - self.error).astype(np.float32)
        row_N, column_N = np.divmod(np.flatnonzero(surely != perhaps), block_RC.shape[1])
        clip_N, caption_N = clip_R[row_N], caption_C[column_N]
        asked_N = np.broadcast_to(ask, block_RC.shape)[row_N, column_N]
        surely[row_N, column_N] = self._score(clip_N, caption_N) >= self.wanted_T[asked_N]
        return np.asarray(surely)

    def _score(self, clip_N: Ints, caption_N: Ints) -> Scores:
        """Pair by pair; a caption with its own clip is the very number that thresholds are made of."""
        return np.where(self.owner_T[caption_N] == clip_N, self.score_T[caption_N], self.scores.at(clip_N, caption_N))

    def _own(self, order: Ints) -> Ints:
        """(T,) how many captions of a caption's own clip, itself included, are not worse than it."""
        own_T = np.empty(len(order), np.int64)
        starts = np.flatnonzero(np.diff(self.owner_T[order])) + 1
        for same in np.split(order, starts):
            own_T[same] = (self.score_T[same] >= self.wanted_T[same][:, None]).sum(1)
        return own_T


def _count(mask_RC: NDArray[np.bool_], axis: int) -> NDArray[np.uint16]:
    """How many are set along an axis; blocks are small enough for 16 bits."""
    return np.asarray(mask_RC.view(np.uint8).sum(axis, dtype=np.uint16))


def _check_owners(owner_T: Ints, clips: int) -> None:
    if owner_T.min() < 0 or owner_T.max() >= clips:
        raise DataError(f"Owners run from {owner_T.min()} to {owner_T.max()}, but there are {clips} clips.")


def _check_numbers(values: NDArray[Any], what: str) -> None:
    if np.isnan(values).any():
        raise DataError(f"The {what} hold NaN, so nothing can be ranked. Check the model they come from.")


def _slices(count: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, count)) for start in range(0, count, step))
