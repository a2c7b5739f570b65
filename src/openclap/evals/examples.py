"""Queries to listen to: chosen by a seed, right ones and wrong ones, with what was found for each.

T captions, A clips.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from openclap.audio.io import decode, resample, to_mono
from openclap.audio.mono import is_silent
from openclap.errors import AudioError, DataError
from openclap.evals.clips import EvalClip, EvalClips
from openclap.evals.retrieval import Retrieval

SHOWN = 3
PLAYED_S = 10.0
RATE = 48_000
COMPRESSION = 0.8  # of libsndfile's Opus encoder: about 58 kbit/s
PLAYERS_BYTES = 4_600_000  # of all players of a page together, as base64

# kind of query → (how many to draw, the worst rank it may have, what it is called)
KINDS = (
    (4, 1, "found first"),
    (2, 10, "found at place 2 to 10"),
    (2, 10**9, "found later"),
)


@dataclass(frozen=True, slots=True)
class Hit:
    """One found clip as a page shows it. `player` is a data URI, or None: no room left, or unreadable."""

    clip: EvalClip
    rank: int
    score: float
    right: bool
    same_words: bool
    player: str | None


@dataclass(frozen=True, slots=True)
class Query:
    """A caption, the rank of its own clip, its first hits, and its own clip where that is not among them."""

    caption: str
    rank: int
    hits: tuple[Hit, ...]
    wanted: Hit | None


def choose_queries(retrieval: Retrieval, *, seed: int = 0) -> list[int]:
    """Up to eight captions of different words: four whose clip came first, two at 2 to 10, two later, drawn
    at random within each kind. Where a kind has too few, others take their place."""
    order = np.random.default_rng(seed).permutation(len(retrieval.captions)).tolist()
    rank_T, chosen, spoken = retrieval.ranks.text_to_audio_T, list[int](), set[str]()

    def take(count: int, low: int, high: int) -> None:
        for t in order:
            if count and low <= rank_T[t] <= high and retrieval.captions[t] not in spoken:
                chosen.append(t)
                spoken.add(retrieval.captions[t])
                count -= 1

    low = 1
    for count, high, _ in KINDS:
        take(count, low, high)
        low = high + 1
    take(sum(count for count, _, _ in KINDS) - len(chosen), 1, 10**9)
    return sorted(chosen, key=lambda t: (rank_T[t] > 1, rank_T[t] > 10, order.index(t)))


def kind_counts(retrieval: Retrieval) -> list[tuple[int, str]]:
    """How many of all captions are of each kind, so that the choice does not pass for the shares."""
    counts, low = [], 1
    for _, high, name in KINDS:
        rank_T = retrieval.ranks.text_to_audio_T
        counts.append((int(((rank_T >= low) & (rank_T <= high)).sum()), name))
        low = high + 1
    return counts


def queries(retrieval: Retrieval, clips: EvalClips, *, seed: int = 0) -> list[Query]:
    """The chosen queries with players, as long as there is room for them."""
    player = players(clips, PLAYERS_BYTES)
    return [_query(retrieval, clips, t, player) for t in choose_queries(retrieval, seed=seed)]


def hardest(retrieval: Retrieval, clips: EvalClips, count: int, player: Callable[[int], str | None]) -> list[Query]:
    """The captions of different clips whose clip was found last, the last one first."""
    order = np.argsort(-retrieval.ranks.text_to_audio_T, kind="stable").tolist()
    first: dict[int, int] = {}
    for t in order:
        first.setdefault(int(retrieval.ranks.owner_T[t]), t)
    worst = [t for t in first.values() if retrieval.ranks.text_to_audio_T[t] > 1][:count]
    return [_query(retrieval, clips, t, player) for t in worst]


def encode(audio: bytes) -> str:
    """The first seconds of a sound as a data URI: mono Ogg Opus. Raises AudioError."""
    import soundfile

    wave_NC, rate = decode(audio)
    mono_N = to_mono(wave_NC)
    mono_N = wave_NC[:, 0] if is_silent(mono_N) else mono_N  # channels of inverted polarity cancel in their mean
    wave_N = resample(mono_N[: int(PLAYED_S * rate)], rate, RATE)
    out = io.BytesIO()
    with soundfile.SoundFile(
        out, "w", samplerate=RATE, channels=1, format="OGG", subtype="OPUS", compression_level=COMPRESSION
    ) as file:
        file.write(np.clip(wave_N, -1, 1))
    return "data:audio/ogg;base64," + base64.b64encode(out.getvalue()).decode()


def _query(retrieval: Retrieval, clips: EvalClips, t: int, player: Callable[[int], str | None]) -> Query:
    own, rank = int(retrieval.ranks.owner_T[t]), int(retrieval.ranks.text_to_audio_T[t])
    caption = retrieval.captions[t]

    def hit(found: int, place: int, score: float) -> Hit:
        position = int(retrieval.clip_A[found])
        clip = clips.clips[position]
        same = found != own and caption in clip.captions
        return Hit(clip, place, score, found == own, same, player(position))

    first = list(zip(retrieval.hits_TK[t, :SHOWN].tolist(), retrieval.scores_TK[t, :SHOWN].tolist(), strict=True))
    hits = tuple(hit(found, place, score) for place, (found, score) in enumerate(first, 1))
    missed = own not in [found for found, _ in first]
    return Query(caption, rank, hits, hit(own, rank, float(retrieval.own_score_T[t])) if missed else None)


def players(clips: EvalClips, room: int) -> Callable[[int], str | None]:
    """A function from a clip's position to its player, giving none once `room` bytes are used."""
    made: dict[int, str | None] = {}
    left = room

    def player(position: int) -> str | None:
        nonlocal left
        if position not in made:
            try:
                made[position] = encode(clips.audio(position))
            except (AudioError, DataError):
                made[position] = None
        uri = made[position]
        if uri is None or len(uri) > left:
            return None
        left -= len(uri)
        return uri

    return player
