"""Retrieval in both directions: the clips of each caption, and the captions of each clip.

Which clips are right for a caption is one of three rules: its own clip alone, as in papers; all clips that have the
same caption; or the clips that a file of relevance names (`openclap.evals.relevance`). The ranks are computed in
`openclap.evals.ranks`, the figures in `openclap.evals.metrics`.

A clips, T captions, P pairs of a caption and a right clip, K hits per caption, D embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from openclap.evals.ranks import CUT, TIE, Ranks, Relevance, rank_vectors
from openclap.evals.relevance import RelevantClips, match_clips
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
        clip_A: the positions, among all clips, of the A clips that are searched, in which ranks and hits count. Clips
            without captions take no part, except where a file names the right clips.
        hits_TK: the best clips of each caption, best first, and `score_TK`, their cosine similarities.
        right_T: the best-placed right clip of each caption, and `right_score_T`, its cosine similarity.
    """

    captions: tuple[str, ...]
    ranks: Ranks
    clip_A: Ints
    hits_TK: Ints
    score_TK: Floats
    right_T: Ints
    right_score_T: Floats

    def measures(self, map_at: Sequence[int] = (CUT,)) -> dict[Metric, Measure]:
        """The figures; items are clips, as the split numbers them."""
        return {
            metric: Measure(measure.statistic, self.clip_A[measure.clip_N])
            for metric, measure in retrieval_measures(self.ranks, map_at).items()
        }

    def right_clips(self, caption: int) -> set[int]:
        """All right clips of one caption."""
        relevance = self.ranks.relevance
        first, last = np.searchsorted(relevance.caption_P, [caption, caption + 1])
        return set(relevance.clip_P[first:last].tolist())


def run_retrieval(task: Task, data: TaskClips, test: EmbeddedClips, model: CachedEmbedder, seed: int) -> TaskOutput:
    """Run the task of kind "retrieval". Raises DataError for fewer than two clips with captions."""
    retrieval = retrieve(model, test.clips, test.embedding_ND, named=data.relevant, share_captions=task.share_captions)
    notes = []
    if data.relevant and (gone := len(data.relevant) - len(retrieval.captions)):
        notes.append(f"{gone} queries were left out: none of their clips could be embedded.")
    if uncaptioned := len(test.clips) - len(retrieval.clip_A):
        notes.append(f"{uncaptioned} clips have no caption and were left out of retrieval.")
    if truncated := model.count_truncated(retrieval.captions):
        notes.append(
            f"{truncated} of {len(retrieval.captions)} captions are longer than the text context and were cut."
        )
    notes += [*_notes_on_shared_captions(retrieval), *_notes_on_small_pools(retrieval.ranks)]
    return TaskOutput(test.clips, retrieval.measures(task.map_at), tuple(notes), retrieval=retrieval)


def retrieve(
    embedder: SoundEmbedder,
    clips: EvalClips,
    audio_ND: Embeddings,
    *,
    named: Sequence[RelevantClips] | None = None,
    share_captions: bool = False,
) -> Retrieval:
    """Rank all clips with captions against all captions.

    Args:
        audio_ND: the embeddings of all clips.
        named: the queries, each with its right clips, in place of the captions of the clips; all clips are searched.
        share_captions: whether equal captions are one query, right for all clips that have it.

    Raises DataError for fewer than two clips to search: every figure would be perfect, or there is none.
    """
    if named is None:
        clip_A = np.array([i for i, clip in enumerate(clips.clips) if clip.captions], np.int64)
        pairs = [(caption, a) for a, i in enumerate(clip_A) for caption in clips.clips[i].captions]
    else:
        clip_A = np.arange(len(clips))
        pairs = match_clips(named, clips)
    if len(clip_A) < 2:
        raise DataError(
            f"{clips.name}: {len(clip_A)} {'clip has' if len(clip_A) == 1 else 'clips have'} a caption; retrieval "
            "needs at least two."
        )
    if not pairs:
        raise DataError(f"{clips.name}: none of the clips that its {len(named or ())} queries name could be embedded.")
    if named is None and not share_captions:
        captions = tuple(caption for caption, _ in pairs)
        relevance = Relevance.of_owners([a for _, a in pairs], len(clip_A))
    else:
        number = {caption: t for t, caption in enumerate(dict.fromkeys(caption for caption, _ in pairs))}
        captions = tuple(number)
        relevance = Relevance.of_pairs(
            [a for _, a in pairs], [number[caption] for caption, _ in pairs], len(clip_A), len(captions)
        )
    # Equal captions are embedded once: `unique_T` leads each to its embedding.
    text_UD, unique_T = embed_sentences(embedder, captions)
    audio_AD, text_TD = audio_ND[clip_A], text_UD[unique_T]
    blocks = [_best_hits(audio_AD, text_TD, relevance, start) for start in range(0, len(captions), CAPTIONS_AT_ONCE)]
    ranks = rank_vectors(audio_AD, text_TD, relevance)
    # Pairs by caption, and within a caption the best rank first.
    best_first_P = np.lexsort((ranks.text_to_audio_P, relevance.caption_P))
    right_T = relevance.clip_P[best_first_P[np.searchsorted(relevance.caption_P, np.arange(len(captions)))]]
    return Retrieval(
        captions=captions,
        ranks=ranks,
        clip_A=clip_A,
        hits_TK=np.concatenate([hits for hits, _ in blocks]),
        score_TK=np.concatenate([scores for _, scores in blocks]).astype(np.float64),
        # The report shows it where no right clip is among the hits.
        right_T=right_T,
        right_score_T=np.einsum("td,td->t", audio_AD[right_T], text_TD).astype(np.float64),
    )


def _best_hits(audio_AD: Embeddings, text_TD: Embeddings, relevance: Relevance, start: int) -> tuple[Ints, Embeddings]:
    """(C, K) the best clips of the captions from `start`, and their cosine similarities."""
    cosine_CA = text_TD[start : start + CAPTIONS_AT_ONCE] @ audio_AD.T
    pairs = slice(*np.searchsorted(relevance.caption_P, [start, start + len(cosine_CA)]).tolist())
    right = relevance.caption_P[pairs] - start, relevance.clip_P[pairs]
    # On a tie a right clip comes last, so that hits agree with ranks.
    lowered_CA = cosine_CA.copy()
    # As in `rank_vectors`, which counts scores within TIE as equal.
    lowered_CA[right] -= TIE
    is_right_CA = np.zeros(lowered_CA.shape, bool)
    is_right_CA[right] = True
    # Sorted by the last key first: score, then other clips before right ones.
    hits_CK = np.lexsort((is_right_CA, -lowered_CA))[:, :HITS].astype(np.int64)
    return hits_CK, np.take_along_axis(cosine_CA, hits_CK, 1)


def _notes_on_shared_captions(retrieval: Retrieval) -> Iterator[str]:
    relevance = retrieval.ranks.relevance
    if not relevance.is_of_owners:
        return
    owners: dict[str, set[int]] = {}
    for caption, owner in zip(retrieval.captions, relevance.clip_P.tolist(), strict=True):
        owners.setdefault(caption, set()).add(owner)
    if shared := sum(len(owners[caption]) > 1 for caption in retrieval.captions):
        yield (
            f"{shared} of {len(retrieval.captions)} captions describe more than one clip. Only a caption's own clip "
            "counts as right, so retrieval figures are too low. (share_captions in a suite file counts all.)"
        )


def _notes_on_small_pools(ranks: Ranks) -> Iterator[str]:
    """Figures that are perfect for any model, because the pool is no larger than k."""
    clips, captions = ranks.clips, ranks.relevance.captions
    pools = dict(zip(DIRECTION_LABELS.values(), (clips, captions), strict=True))
    if trivial := [f"{direction} R@{k}" for direction, pool in pools.items() for k in RECALL_AT if k >= pool]:
        yield f"{', '.join(trivial)}: 100 % for any model, with {clips} clips and {captions} captions."
