"""The clips an evaluation asks about: what is said of them, where they come from, and their sound on demand.

N clips, T captions, D embedding.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from openclap.audio.io import decode
from openclap.errors import AudioError, DataError, OpenClapError
from openclap.types import Sample

Vector = NDArray[np.float32]
Vectors = NDArray[np.float32]
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much is done, and of how much."""

READ_AT_ONCE = 64  # clips whose bytes are in memory together


class SoundEmbedder(Protocol):
    """Whatever turns sounds and sentences into unit vectors: `openclap.Embedder`, or anything that acts
    like it.

    An optional attribute `clip_policy` (one sentence: what happens to clips longer than the model's input) is
    quoted in the protocol.
    """

    def embed_audio(self, sounds: list[Any], /, *, batch_size: int = ...) -> Vectors:
        """(N, D) float32 unit vectors of encoded sounds (open files), in their order."""

    def embed_text(self, texts: list[str], /) -> Vectors:
        """(N, D) float32 unit vectors."""


@dataclass(frozen=True, slots=True)
class EvalClip:
    """One clip without its sound. Clips of one `group` (takes of one recording) are one piece of evidence.

    Attributes:
        tags: its labels, where it has several.
        fold: the official fold it is in, where its set has such.
        path: of the file it lies in, "" for one that lies in a shard; its sound is all of it, or begins at `start_s`.
    """

    key: str
    captions: tuple[str, ...]
    label: str | None
    group: str
    duration_s: float
    title: str = ""
    author: str = ""
    licence: str = ""
    link: str = ""
    source: str = ""
    tags: tuple[str, ...] = ()
    fold: str | None = None
    path: str = ""
    start_s: float | None = None


@dataclass(frozen=True, slots=True)
class EvalClips:
    """The clips of one split. `digest` is a SHA-256 of keys, captions, labels, groups and audio bytes;
    `skipped` tells what was left out and why."""

    name: str
    clips: tuple[EvalClip, ...]
    digest: str
    read: Callable[[int], bytes]
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.clips)

    def audio(self, index: int) -> bytes:
        """The encoded sound of clip `index`. Raises DataError when its shard has become unreadable."""
        return self.read(index)

    @property
    def groups(self) -> list[str]:
        """Each clip's group."""
        return [clip.group for clip in self.clips]

    def select(self, keep: Sequence[int]) -> EvalClips:
        """The clips at these positions, in this order, under the digest of the whole."""
        chosen, read = list(keep), self.read
        return replace(self, clips=tuple(self.clips[i] for i in chosen), read=lambda index: read(chosen[index]))


def load_clips(folder: str | os.PathLike[str], *, progress: Progress | None = None) -> EvalClips:
    """The clips of a split's folder of shards. Every sample is read and decoded once, so that what is
    damaged is listed in `skipped` now and not found out later. Raises DataError when no clip is left.
    """
    from openclap.data.shards import index_shards

    index = index_shards(folder)
    found = clips_from(index.folder.name, len(index), index.read_sample, progress=progress)
    cut_off = tuple(f"{tar}: {reason}" for tar, reason in index.damaged)
    return replace(found, skipped=cut_off + found.skipped)


def clips_from(
    name: str, count: int, read_sample: Callable[[int], Sample], *, progress: Progress | None = None
) -> EvalClips:
    """The clips of any numbered samples. Raises DataError when none can be used."""
    clips: list[EvalClip] = []
    places: list[int] = []
    skipped: list[str] = []
    digest = hashlib.sha256()
    for place in range(count):
        try:
            sample = read_sample(place)
            clip = describe(sample)
        except (DataError, AudioError) as error:
            skipped.append(str(error))
            continue
        clips.append(clip)
        places.append(place)
        digest.update(_fingerprint(clip, sample.audio))
        if progress:
            progress(f"Reading {name}", place + 1, count)
    if not clips:
        raise DataError(f"{name}: none of {count} samples can be evaluated. First reason: {(skipped or ['empty'])[0]}")
    return EvalClips(
        name, tuple(clips), digest.hexdigest(), lambda index: read_sample(places[index]).audio, tuple(skipped)
    )


def describe(sample: Sample) -> EvalClip:
    """What an evaluation needs of a sample. A clip without a group is its own. Raises AudioError."""
    try:
        wave_NC, rate = decode(sample.audio)
    except AudioError as error:
        raise AudioError(f"{sample.key}: {error}") from error
    facts = {name: str(value) for name, value in sample.original.items() if value is not None}
    captions = tuple(caption for caption in sample.captions if caption.strip())
    return EvalClip(
        key=sample.key,
        captions=captions,
        label=facts.get("label") or None,
        group=facts.get("group") or sample.key,
        duration_s=len(wave_NC) / rate,
        title=facts.get("title", ""),
        author=facts.get("author", ""),
        licence=facts.get("licence", ""),
        link=facts.get("link", ""),
        source=facts.get("source", ""),
    )


def check_text(embedder: Any) -> None:
    """Raise what embedding text would raise for a missing tokenizer, before any sound is embedded."""
    if check := getattr(embedder, "check_tokenizer", None):
        check()


def embed_clips(
    embedder: SoundEmbedder, clips: EvalClips, *, batch_size: int = 16, progress: Progress | None = None
) -> Vectors:
    """(N, D) vectors of all clips, reading a few at a time. Raises OpenClapError on unusable ones."""
    parts: list[Vectors] = []
    for start in range(0, len(clips), READ_AT_ONCE):
        stop = min(start + READ_AT_ONCE, len(clips))
        sounds = [io.BytesIO(clips.audio(index)) for index in range(start, stop)]
        parts.append(_checked(embedder.embed_audio(sounds, batch_size=batch_size), len(sounds)))
        if progress:
            progress(f"Embedding {clips.name}", stop, len(clips))
    return np.concatenate(parts)


def embed_sentences(embedder: SoundEmbedder, sentences: Sequence[str]) -> tuple[Vectors, NDArray[np.int64]]:
    """((U, D) vectors of the different sentences, (T,) which of them each is): equal sentences are embedded
    once, so they tie exactly."""
    unique = sorted(set(sentences))
    place = {sentence: index for index, sentence in enumerate(unique)}
    vectors_UD = _checked(embedder.embed_text(unique), len(unique))
    return vectors_UD, np.array([place[sentence] for sentence in sentences], np.int64)


def _checked(vectors: Any, count: int) -> Vectors:
    array = np.asarray(vectors, np.float32)
    if array.ndim != 2 or len(array) != count:
        raise OpenClapError(
            f"The embedder gave an array of shape {array.shape} for {count} items, expected ({count}, D)."
        )
    if not np.isfinite(array).all():
        raise OpenClapError("The embedder gave NaN or infinite vectors. Is the checkpoint damaged or diverged?")
    return array


def _fingerprint(clip: EvalClip, audio: bytes) -> bytes:
    said = json.dumps([clip.key, clip.captions, clip.label, clip.group, hashlib.sha256(audio).hexdigest()])
    return hashlib.sha256(said.encode()).digest()
