"""Retrieval both ways: find the sound by its caption, and the caption by its sound.

A clips, T captions, U different captions, K hits kept, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from openclap.evals.clips import EvalClips, SoundEmbedder, Vectors, embed_sentences
from openclap.evals.metrics import RECALL_AT, Measure, retrieval_measures
from openclap.evals.ranks import TIE, Floats, Ints, Ranks, rank_vectors

KEPT = 10  # hits remembered for each caption: what a report shows
TOGETHER = 256  # captions whose cosines with all clips are in memory together


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
    """Rank all captioned clips against all captions; `audio_ND` is the split's. None for fewer than two clips
    with captions: every figure would be perfect, or there is none (`too_few` says so)."""
    clip_A = np.array([i for i, clip in enumerate(clips.clips) if clip.captions], np.int64)
    captions = tuple(caption for i in clip_A for caption in clips.clips[i].captions)
    if len(clip_A) < 2:
        return None
    owner_T = np.repeat(np.arange(len(clip_A)), [len(clips.clips[i].captions) for i in clip_A])
    text_UD, which_T = embed_sentences(embedder, captions)
    audio_AD, text_TD = audio_ND[clip_A], text_UD[which_T]
    blocks = [_hits(audio_AD, text_TD[part], owner_T[part]) for part in _parts(len(captions))]
    return Retrieval(
        captions=captions,
        ranks=rank_vectors(audio_AD, text_TD, owner_T),
        clip_A=clip_A,
        hits_TK=np.concatenate([hits for hits, _ in blocks]),
        scores_TK=np.concatenate([scores for _, scores in blocks]).astype(np.float64),
        own_score_T=np.einsum("td,td->t", audio_AD[owner_T], text_TD).astype(np.float64),
    )


def too_few(clips: EvalClips) -> str:
    """Why `retrieve` finds nothing to do."""
    captioned = sum(bool(clip.captions) for clip in clips.clips)
    return (
        "no clip has a caption." if not captioned else "1 clip has a caption, and finding one among others needs two."
    )


def trivial(ranks: Ranks) -> str | None:
    """A note on figures that no model can miss, because what is searched is no larger than their k."""
    pools = {"text→audio": ranks.clips, "audio→text": len(ranks.owner_T)}
    told = [f"{way} R@{k}" for way, pool in pools.items() for k in RECALL_AT if k >= pool]
    return f"{', '.join(told)}: 100 % for any model, with {ranks.clips} clips to search." if told else None


def _parts(captions: int) -> list[slice]:
    return [slice(start, start + TOGETHER) for start in range(0, captions, TOGETHER)]


def _hits(audio_AD: Vectors, text_CD: Vectors, owner_C: Ints) -> tuple[Ints, Vectors]:
    """(C, K) the best clips of some captions, and their cosines; on a tie the own clip stands last, as its rank has
    it."""
    cosine_CA = text_CD @ audio_AD.T
    row_C = np.arange(len(owner_C))
    placed_CA = cosine_CA.copy()
    placed_CA[row_C, owner_C] -= TIE
    is_own_CA = np.zeros(placed_CA.shape, bool)
    is_own_CA[row_C, owner_C] = True
    hits_CK = np.lexsort((is_own_CA, -placed_CA))[:, :KEPT].astype(np.int64)
    return hits_CK, np.take_along_axis(cosine_CA, hits_CK, 1)
