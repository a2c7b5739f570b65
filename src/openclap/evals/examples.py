"""Retrieval queries to listen to: sampled ones and the hardest, with their first hits as players.

T captions, A clips.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from openclap.audio.io import decode, to_mono
from openclap.audio.mono import is_silent
from openclap.audio.resample import resample
from openclap.errors import AudioError, DataError
from openclap.evals.dataset import EvalClip, EvalClips
from openclap.evals.retrieval import Retrieval

HITS_SHOWN = 3
PLAYED_S = 10.0
RATE = 48_000
COMPRESSION = 0.8  # of libsndfile's Opus encoder: about 58 kbit/s

# (the number of queries to draw, the worst rank of their own clip, a name for them)
RANK_BANDS = (
    (4, 1, "ranked first"),
    (2, 10, "ranked 2 to 10"),
    (2, 10**9, "ranked beyond 10"),
)


@dataclass(frozen=True, slots=True)
class PlayableHit:
    """A retrieved clip as a page shows it.

    Attributes:
        right: whether it is right for the caption: its own clip, or one of several.
        same_words: whether it is another clip with the same caption.
        player: a data URI; None for an unreadable clip, or where the page has no room left.
    """

    clip: EvalClip
    rank: int
    score: float
    right: bool
    same_words: bool
    player: str | None


@dataclass(frozen=True, slots=True)
class ExampleQuery:
    """A caption, the rank of its best-placed right clip, its first hits, and that clip where none of them is right."""

    caption: str
    rank: int
    hits: tuple[PlayableHit, ...]
    own: PlayableHit | None


def choose_queries(retrieval: Retrieval, *, seed: int = 0) -> list[int]:
    """Up to eight captions of different words, drawn at random within each band of ranks: four whose own clip ranks
    first, two at 2 to 10, two beyond. Where a band has too few, others take their place."""
    # Drawn and not chosen, so that the page shows what the model does, good and bad.
    order = np.random.default_rng(seed).permutation(len(retrieval.captions)).tolist()
    rank_T, chosen, used_words = retrieval.ranks.text_to_audio.best(), list[int](), set[str]()

    def take(count: int, low: int, high: int) -> None:
        for t in order:
            if count and low <= rank_T[t] <= high and retrieval.captions[t] not in used_words:
                chosen.append(t)
                used_words.add(retrieval.captions[t])
                count -= 1

    low = 1
    for count, high, _ in RANK_BANDS:
        take(count, low, high)
        low = high + 1
    take(sum(count for count, _, _ in RANK_BANDS) - len(chosen), 1, 10**9)
    return sorted(chosen, key=lambda t: (rank_T[t] > 1, rank_T[t] > 10, order.index(t)))


def band_counts(retrieval: Retrieval) -> list[tuple[int, str]]:
    """The number of all captions in each band, so that the sample is not mistaken for the distribution."""
    counts, low = [], 1
    rank_T = retrieval.ranks.text_to_audio.best()
    for _, high, name in RANK_BANDS:
        counts.append((int(((rank_T >= low) & (rank_T <= high)).sum()), name))
        low = high + 1
    return counts


def sampled_queries(
    retrieval: Retrieval, clips: EvalClips, player: Callable[[int], str | None], *, seed: int = 0
) -> list[ExampleQuery]:
    """The queries of `choose_queries`, with players."""
    return [_query(retrieval, clips, t, player) for t in choose_queries(retrieval, seed=seed)]


def hardest_queries(
    retrieval: Retrieval, clips: EvalClips, count: int, player: Callable[[int], str | None]
) -> list[ExampleQuery]:
    """The captions with the worst ranks, worst first, one per clip; no caption whose own clip ranks first."""
    rank_T = retrieval.ranks.text_to_audio.best()
    order = np.argsort(-rank_T, kind="stable").tolist()
    first: dict[int, int] = {}
    for t in order:
        # One caption per clip, or one hard clip with five captions would fill the list.
        first.setdefault(int(retrieval.right_T[t]), t)
    worst = [t for t in first.values() if rank_T[t] > 1][:count]
    return [_query(retrieval, clips, t, player) for t in worst]


def encode(audio: bytes) -> str:
    """The first seconds of a sound as a data URI: mono Ogg Opus. Raises AudioError."""
    import soundfile

    wave_NC, rate = decode(audio)
    mono_N = to_mono(wave_NC)
    # Channels of inverted polarity cancel in their mean.
    mono_N = wave_NC[:, 0] if is_silent(mono_N) else mono_N
    wave_N = resample(mono_N[: int(PLAYED_S * rate)], rate, RATE)
    out = io.BytesIO()
    with soundfile.SoundFile(
        out, "w", samplerate=RATE, channels=1, format="OGG", subtype="OPUS", compression_level=COMPRESSION
    ) as file:
        file.write(np.clip(wave_N, -1, 1))
    return "data:audio/ogg;base64," + base64.b64encode(out.getvalue()).decode()


def players(clips: EvalClips, room: int) -> Callable[[int], str | None]:
    """A function from the position of a clip to its player, which gives None once `room` bytes are used."""
    encoded: dict[int, str | None] = {}
    left = room

    def player(position: int) -> str | None:
        nonlocal left
        if position not in encoded:
            try:
                encoded[position] = encode(clips.audio(position))
            except (AudioError, DataError, OSError):
                encoded[position] = None
        uri = encoded[position]
        if uri is None or len(uri) > left:
            return None
        left -= len(uri)
        return uri

    return player


def _query(retrieval: Retrieval, clips: EvalClips, t: int, player: Callable[[int], str | None]) -> ExampleQuery:
    own, rank = int(retrieval.right_T[t]), int(retrieval.ranks.text_to_audio.best()[t])
    caption, right = retrieval.captions[t], retrieval.right_clips(t)

    def hit(found: int, place: int, score: float) -> PlayableHit:
        position = int(retrieval.clip_A[found])
        clip = clips.clips[position]
        is_right = found in right
        return PlayableHit(clip, place, score, is_right, not is_right and caption in clip.captions, player(position))

    shown = slice(HITS_SHOWN)
    first = list(zip(retrieval.hits_TK[t, shown].tolist(), retrieval.score_TK[t, shown].tolist(), strict=True))
    hits = tuple(hit(found, place, score) for place, (found, score) in enumerate(first, 1))
    missed = right.isdisjoint(found for found, _ in first)
    return ExampleQuery(caption, rank, hits, hit(own, rank, float(retrieval.right_score_T[t])) if missed else None)
