"""Retrieval both ways: find the sound by its caption, and the caption by its sound.

A clips, T captions, U different captions, K hits kept, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from openclap.evals.clips import EvalClips, SoundEmbedder, Vectors, embed_sentences
from openclap.evals.metrics import Floats, Ints, Measure, Ranks, rank_retrieval, retrieval_measures

KEPT = 10  # hits remembered for each caption: what a report shows


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What was found. `captions` are the T queries; `hits_TK` the best clips of each, best first, and their
    cosines.

    Clips without captions take no part; `clip_A` gives the position, in the split, of the A that do. Ranks
    and hits count in those A.
    """

    captions: tuple[str, ...]
    ranks: Ranks
    clip_A: Ints
    hits_TK: Ints
    scores_TK: Floats
    own_score_T: Floats

    def measures(self) -> dict[str, Measure]:
        """The figures; items belong to clips as the split numbers them."""
        return {
            name: Measure(measure.statistic, self.clip_A[measure.clip_N])
            for name, measure in retrieval_measures(self.ranks).items()
        }


def retrieve(embedder: SoundEmbedder, clips: EvalClips, audio_ND: Vectors) -> Retrieval | None:
    """Rank all captioned clips against all captions; `audio_ND` is the split's. None without captions."""
    clip_A = np.array([i for i, clip in enumerate(clips.clips) if clip.captions], np.int64)
    captions = tuple(caption for i in clip_A for caption in clips.clips[i].captions)
    if not captions:
        return None
    owner_T = np.repeat(np.arange(len(clip_A)), [len(clips.clips[i].captions) for i in clip_A])
    text_UD, which_T = embed_sentences(embedder, captions)
    cosine_AT = (audio_ND[clip_A] @ text_UD.T)[:, which_T]
    ranks = rank_retrieval(cosine_AT, owner_T)
    hits_TK = np.stack([_best_clips(cosine_AT[:, t], int(owner_T[t])) for t in range(len(captions))])
    column_T = np.arange(len(captions))
    return Retrieval(
        captions=captions,
        ranks=ranks,
        clip_A=clip_A,
        hits_TK=hits_TK,
        scores_TK=cosine_AT[hits_TK, column_T[:, None]].astype(np.float64),
        own_score_T=cosine_AT[owner_T, column_T].astype(np.float64),
    )


def _best_clips(cosine_A: Vectors, own: int) -> Ints:
    """The first KEPT clips; on a tie the own clip stands last, as its rank has it."""
    order = np.lexsort((np.arange(len(cosine_A)) == own, -cosine_A))
    return order[:KEPT].astype(np.int64)
