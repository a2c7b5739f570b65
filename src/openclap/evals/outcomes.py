"""Clips to vectors, here or in other processes; one bad sound stops no other."""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np

from openclap.data.decode import segment
from openclap.errors import AudioError
from openclap.evals.clips import EvalClip, EvalClips, SoundEmbedder, Vector

Place = EvalClip | bytes
"""A clip that lies in a file, or the sound of one that does not."""
Outcome = Vector | str
"""A vector, or why there is none."""
Mapped = Callable[[Iterator[list[Place]]], Iterator[list[Outcome]]]
"""Lists of places to lists of what came of them, in their order."""


def mapper(
    embedder: SoundEmbedder, batch_size: int, processes: int, load: Callable[[], SoundEmbedder] | None
) -> AbstractContextManager[Mapped]:
    """What embeds: this process, or several that each `load` a model of their own."""
    if processes == 1 or load is None:
        return nullcontext(partial(map, partial(_outcomes, embedder, batch_size)))
    return _Pool(load, processes, batch_size)


def place_of(clips: EvalClips, index: int) -> Place:
    """A clip that lies in a file, or the sound of one that does not."""
    return clips.clips[index] if clips.clips[index].path else clips.audio(index)


def sound_at(clips: EvalClips, index: int) -> Any:
    """The sound of a clip, as embedders take it: a file, a stretch of one, or the bytes of one. Raises AudioError,
    DataError or OSError for one that is gone or ends too soon."""
    place = place_of(clips, index)
    return place if isinstance(place, bytes) else _sound(place)


class _Pool:
    """Processes that each have a model of their own."""

    def __init__(self, load: Callable[[], SoundEmbedder], processes: int, batch_size: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(processes, context, _begin, (load, batch_size, processes))

    def __enter__(self) -> Mapped:
        return partial(self._pool.map, _in_process)

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)


_embed: Callable[[list[Place]], list[Outcome]] | None = None


def _begin(load: Callable[[], SoundEmbedder], batch_size: int, processes: int) -> None:
    global _embed  # noqa: PLW0603 - what a process of the pool keeps between chunks
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    _embed = partial(_outcomes, load(), batch_size)


def _in_process(sounds: list[Place]) -> list[Outcome]:
    assert _embed is not None
    return _embed(sounds)


def _outcomes(embedder: SoundEmbedder, batch_size: int, places: list[Place]) -> list[Outcome]:
    """A vector of each, or why it has none; one bad sound stops no other."""
    found: list[Outcome] = []
    sounds: list[Any] = []
    for place in places:
        try:
            sounds.append(place if isinstance(place, bytes) else _sound(place))
            found.append("")
        except (AudioError, OSError) as error:
            found.append(str(error))
    good = [index for index, reason in enumerate(found) if not reason]
    each = getattr(embedder, "embed_each", None)
    vectors = each(sounds, batch_size) if each else _one_by_one(embedder, sounds)
    for index, vector in zip(good, vectors, strict=True):
        found[index] = str(vector) if isinstance(vector, AudioError) else np.asarray(vector, np.float32)
    return found


def _one_by_one(embedder: SoundEmbedder, sounds: list[Any]) -> Iterator[Vector | AudioError]:
    for sound in sounds:
        try:
            yield embedder.embed_audio([io.BytesIO(sound) if isinstance(sound, bytes) else sound])[0]
        except AudioError as error:
            yield error


def _sound(clip: EvalClip) -> Any:
    """A file, or the stretch of it that the clip is."""
    if clip.start_s is None:
        return clip.path
    pieces = list(segment(clip.path, clip.start_s, clip.duration_s or None))
    return np.concatenate([wave_NC for wave_NC, _ in pieces]), pieces[0][1]
