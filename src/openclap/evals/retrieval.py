"""Retrieval in both directions: the clip of each caption, and the captions of each clip.

The ranks are computed in `openclap.evals.ranks`, the figures in `openclap.evals.metrics`.

A clips, T captions, K hits per caption, D embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from openclap.arrays import Floats, Ints
from openclap.errors import DataError
from openclap.evals.cached_embedder import (
    CachedEmbedder,
    EmbeddedClips,
    Embeddings,
    SoundEmbedder,
    embed_sentences,
)
from openclap.evals.dataset import EvalClips, TaskClips
from openclap.evals.metrics import DIRECTION_LABELS, RECALL_AT, Measure, Metric, retrieval_measures
from openclap.evals.ranks import TIE, Ranks, rank_vectors
from openclap.evals.results import TaskOutput

if TYPE_CHECKING:
    from openclap.evals.tasks import Task

HITS = 10  # clips stored per caption, for the report
CAPTIONS_AT_ONCE = 256  # bounds the memory: similarities of this many captions with all clips


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Ranks and hits of all captions.

    Attributes:
        captions: the T queries.
        clip_A: the positions, among all clips, of the A clips that have captions. Clips without captions take no part;
            ranks and hits count in these A.
        hits_TK: the best clips of each caption, best first, and `score_TK`, their cosine similarities.
        own_score_T: the cosine similarity of each caption with its own clip.
    """

    captions: tuple[str, ...]
    ranks: Ranks
    clip_A: Ints
    hits_TK: Ints
    score_TK: Floats
    own_score_T: Floats

    def measures(self) -> dict[Metric, Measure]:
        """The figures; items are clips, as the split numbers them."""
        return {
            metric: Measure(measure.statistic, self.clip_A[measure.clip_N])
            for metric, measure in retrieval_measures(self.ranks).items()
        }


def run_retrieval(task: Task, data: TaskClips, test: EmbeddedClips, model: CachedEmbedder, seed: int) -> TaskOutput:
    """Run the task of kind "retrieval". Raises DataError for fewer than two clips with captions."""
    retrieval = retrieve(model, test.clips, test.embedding_ND)
    notes = []
    if uncaptioned := len(test.clips) - len(retrieval.clip_A):
        notes.append(f"{uncaptioned} clips have no caption and were left out of retrieval.")
    if truncated := model.count_truncated(retrieval.captions):
        notes.append(
            f"{truncated} of {len(retrieval.captions)} captions are longer than the text context and were cut."
        )
    notes += [*_notes_on_shared_captions(retrieval), *_notes_on_small_pools(retrieval.ranks)]
    return TaskOutput(test.clips, retrieval.measures(), tuple(notes), retrieval=retrieval)


def retrieve(embedder: SoundEmbedder, clips: EvalClips, audio_ND: Embeddings) -> Retrieval:
    """Rank all clips with captions against all captions.

    Args:
        audio_ND: the embeddings of all clips.

    Raises DataError for fewer than two clips with captions: every figure would be perfect, or there is none.
    """
    clip_A = np.array([i for i, clip in enumerate(clips.clips) if clip.captions], np.int64)
    if len(clip_A) < 2:
        raise DataError(
            f"{clips.name}: {len(clip_A)} {'clip has' if len(clip_A) == 1 else 'clips have'} a caption; retrieval "
            "needs at least two."
        )
    captions = tuple(caption for i in clip_A for caption in clips.clips[i].captions)
    owner_T = np.repeat(np.arange(len(clip_A)), [len(clips.clips[i].captions) for i in clip_A])
    # Equal captions are embedded once: `unique_T` leads each to its embedding.
    text_UD, unique_T = embed_sentences(embedder, captions)
    audio_AD, text_TD = audio_ND[clip_A], text_UD[unique_T]
    blocks = [
        _best_hits(audio_AD, text_TD[start : start + CAPTIONS_AT_ONCE], owner_T[start : start + CAPTIONS_AT_ONCE])
        for start in range(0, len(captions), CAPTIONS_AT_ONCE)
    ]
    return Retrieval(
        captions=captions,
        ranks=rank_vectors(audio_AD, text_TD, owner_T),
        clip_A=clip_A,
        hits_TK=np.concatenate([hits for hits, _ in blocks]),
        score_TK=np.concatenate([scores for _, scores in blocks]).astype(np.float64),
        # The report shows it where a caption's own clip is not among the hits.
        own_score_T=np.einsum("td,td->t", audio_AD[owner_T], text_TD).astype(np.float64),
    )


def _best_hits(audio_AD: Embeddings, text_CD: Embeddings, owner_C: Ints) -> tuple[Ints, Embeddings]:
    """(C, K) the best clips of some captions, and their cosine similarities."""
    cosine_CA = text_CD @ audio_AD.T
    row_C = np.arange(len(owner_C))
    # On a tie the caption's own clip comes last, so that hits agree with ranks.
    lowered_CA = cosine_CA.copy()
    # As in `rank_vectors`, which counts scores within TIE as equal.
    lowered_CA[row_C, owner_C] -= TIE
    is_own_CA = np.zeros(lowered_CA.shape, bool)
    is_own_CA[row_C, owner_C] = True
    # Sorted by the last key first: score, then other clips before the own one.
    hits_CK = np.lexsort((is_own_CA, -lowered_CA))[:, :HITS].astype(np.int64)
    return hits_CK, np.take_along_axis(cosine_CA, hits_CK, 1)


def _notes_on_shared_captions(retrieval: Retrieval) -> Iterator[str]:
    owners: dict[str, set[int]] = {}
    for caption, owner in zip(retrieval.captions, retrieval.ranks.owner_T.tolist(), strict=True):
        owners.setdefault(caption, set()).add(owner)
    if shared := sum(len(owners[caption]) > 1 for caption in retrieval.captions):
        yield (
            f"{shared} of {len(retrieval.captions)} captions describe more than one clip. Only a caption's own clip "
            "counts as right, so retrieval figures are too low."
        )


def _notes_on_small_pools(ranks: Ranks) -> Iterator[str]:
    """Figures that are perfect for any model, because the pool is no larger than k."""
    pools = dict(zip(DIRECTION_LABELS.values(), (ranks.clips, len(ranks.owner_T)), strict=True))
    if trivial := [f"{direction} R@{k}" for direction, pool in pools.items() for k in RECALL_AT if k >= pool]:
        yield f"{', '.join(trivial)}: 100 % for any model, with {ranks.clips} clips to search."
