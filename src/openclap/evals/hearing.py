"""A model with a memory: sounds and sentences are embedded once, kept, and shared by all tasks.

N clips, D embedding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from openclap.errors import DataError
from openclap.evals.clips import EvalClip, EvalClips, Progress, SoundEmbedder, Vectors, check_text, embed_sentences
from openclap.evals.embedding_cache import VectorCache
from openclap.evals.outcomes import Outcome, mapper, place_of
from openclap.limits import PROCESSES, check_count

CHUNK = 64
"""Clips that are read, embedded and kept as one piece of work."""


@dataclass(frozen=True, slots=True)
class Heard:
    """The clips that could be embedded, with their vectors (N, D). `lost` names the others, and says why."""

    clips: EvalClips
    vectors_ND: Vectors
    lost: tuple[tuple[str, str], ...] = ()


class Listener:
    """What the tasks ask for vectors: an embedder, with what it embedded before.

    Attributes:
        name: as tables call the model.
        cache: None for an embedder that does not say what its vectors hang on.
    """

    def __init__(
        self,
        name: str,
        embedder: SoundEmbedder,
        *,
        cache: VectorCache | None = None,
        batch_size: int = 16,
        processes: int = 1,
        load: Callable[[], SoundEmbedder] | None = None,
        progress: Progress | None = None,
    ) -> None:
        """With more than one of `processes`, each makes a model of its own with `load`.

        Raises ConfigError for numbers out of range.
        """
        check_count("batch_size", batch_size)
        check_count("processes", processes, most=PROCESSES)
        self.name, self.embedder, self.cache = name, embedder, cache
        self.batch_size, self.processes, self.progress = batch_size, processes, progress
        self._load = load

    def changed(self, change: Callable[[SoundEmbedder], SoundEmbedder], what: str) -> Listener:
        """The same model with another embedder made of its own; vectors are kept apart, as `what`."""
        cache = self.cache and VectorCache(self.cache.path.parent, self.cache.made_by | {"vectors": what})
        return Listener(
            self.name,
            change(self.embedder),
            cache=cache,
            batch_size=self.batch_size,
            processes=self.processes,
            load=partial(_changed, change, self._load) if self._load else None,
            progress=self.progress,
        )

    def check_tokenizer(self) -> None:
        """Raises CheckpointError where the model cannot read text."""
        check_text(self.embedder)

    @property
    def clip_policy(self) -> str | None:
        """What becomes of long clips, where the model states it."""
        return getattr(self.embedder, "clip_policy", None)

    @property
    def scale(self) -> float | None:
        """The logit scale, where the model has one."""
        clap = getattr(self.embedder, "clap", None)
        return None if clap is None else float(clap.scale.detach())

    def hear(self, clips: EvalClips) -> Heard:
        """Every clip's vector. What cannot be read or decoded is left out and named; raises DataError where nothing is
        left."""
        print_N, lost = self._prints(clips)
        vectors = self.cache.get(sorted(set(print_N.values()))) if self.cache else {}
        wanted: dict[str, int] = {}
        for index, name in print_N.items():
            if name not in vectors:
                wanted.setdefault(name, index)
        done = len(print_N) - len(wanted)
        failed: dict[str, str] = {}
        for names, outcomes in self._embedded(clips, wanted):
            made = {name: each for name, each in zip(names, outcomes, strict=True) if not isinstance(each, str)}
            failed |= {name: each for name, each in zip(names, outcomes, strict=True) if isinstance(each, str)}
            vectors |= made
            if self.cache:
                self.cache.add(made.items())
            done += len(names)
            if self.progress:
                self.progress(f"Embedding {clips.name}", done, len(print_N))
        lost |= {index: failed[name] for index, name in print_N.items() if name in failed}
        kept = [index for index in range(len(clips)) if index not in lost]
        told = tuple((clips.clips[index].key, reason) for index, reason in sorted(lost.items()))
        if not kept:
            raise DataError(f"{clips.name}: none of its {len(clips)} sounds could be embedded. First: {told[0][1]}")
        digest = hashlib.sha256()
        for index in kept:
            digest.update(_said(clips.clips[index], print_N[index]))
        chosen = replace(clips.select(kept), digest=digest.hexdigest())
        return Heard(chosen, np.stack([vectors[print_N[index]] for index in kept]), told)

    def embed_audio(self, sounds: list[Any], /, *, batch_size: int = 16) -> Vectors:
        """The embedder's own, remembering nothing."""
        return self.embedder.embed_audio(sounds, batch_size=batch_size)

    def embed_text(self, texts: list[str], /) -> Vectors:
        """(N, D) unit vectors of sentences."""
        if self.cache is None:
            return self.embedder.embed_text(texts)
        tokenizer = getattr(self.embedder, "tokenizer", None)
        by = hashlib.sha256(f"{getattr(tokenizer, 'context', '')}{getattr(tokenizer, 'definition', '')}".encode())
        keys = [hashlib.sha256(by.digest() + b"text:" + text.encode()).hexdigest() for text in texts]
        vectors = self.cache.get(keys)
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in vectors}
        if new:
            made, _ = embed_sentences(self.embedder, list(new.values()))
            order = sorted(range(len(new)), key=list(new.values()).__getitem__)
            names = list(new)
            fresh = {names[place]: vector for place, vector in zip(order, made, strict=True)}
            self.cache.add(fresh.items())
            vectors |= fresh
        return np.stack([vectors[key] for key in keys])

    def cut_off(self, texts: Sequence[str]) -> int:
        """How many sentences are longer than the model reads."""
        too_long = getattr(getattr(self.embedder, "tokenizer", None), "too_long", None)
        return sum(too_long(texts)) if too_long and texts else 0

    def _prints(self, clips: EvalClips) -> tuple[dict[int, str], dict[int, str]]:
        """(the SHA-256 of each clip's sound, why others could not be read), by position."""
        prints: dict[int, str] = {}
        lost: dict[int, str] = {}
        paths = [clip.path for clip in clips.clips if clip.path]
        known = self.cache.known_files(paths) if self.cache else {}
        fresh = []
        for index, clip in enumerate(clips.clips):
            try:
                stamp = _stamp(clip)
                before = known.get(clip.path)
                if stamp and before and before[:2] == stamp:
                    sha256 = before[2]
                else:
                    data = Path(clip.path).read_bytes() if clip.path else clips.audio(index)
                    sha256 = hashlib.sha256(data).hexdigest()
                    if stamp:
                        fresh.append((clip.path, *stamp, sha256))
            except FileNotFoundError:
                lost[index] = f"{clip.path}: is not there."
            except (OSError, DataError) as error:
                lost[index] = f"{clip.path or clip.key}: cannot be read ({error})."
            else:
                prints[index] = f"{sha256}@{clip.start_s}+{clip.duration_s}" if clip.start_s is not None else sha256
        if self.cache and fresh:
            self.cache.add_files(fresh)
        return prints, lost

    def _embedded(self, clips: EvalClips, wanted: dict[str, int]) -> Iterator[tuple[list[str], list[Outcome]]]:
        """(names, outcomes) of each chunk of `wanted`. A chunk never shares a batch with another, so that its vectors
        do not hang on what was embedded before, nor on the number of processes."""
        names = list(wanted)
        chunks = [names[start : start + CHUNK] for start in range(0, len(names), CHUNK)]
        if not chunks:
            return
        with mapper(self.embedder, self.batch_size, min(self.processes, len(chunks)), self._load) as mapped:
            sounds = ([place_of(clips, wanted[name]) for name in chunk] for chunk in chunks)
            yield from zip(chunks, mapped(sounds), strict=True)


def open_listener(
    name: str,
    load: Callable[[], SoundEmbedder],
    folder: Path,
    *,
    batch_size: int = 16,
    processes: int = 1,
    progress: Progress | None = None,
) -> Listener:
    """A listener that keeps its vectors under `folder`. `load` makes the model, here and in every process."""
    embedder = load()
    made_by = identity(embedder)
    cache = VectorCache(folder, made_by) if made_by else None
    return Listener(
        name, embedder, cache=cache, batch_size=batch_size, processes=processes, load=load, progress=progress
    )


def identity(embedder: Any) -> dict[str, str] | None:
    """What vectors hang on: weights and preset, software and precision, windowing. None where it is not stated."""
    try:
        digest, engine, policy = embedder.digest(), embedder.runtime.name, embedder.clip_policy
    except AttributeError:
        return None
    return {"weights and preset": digest, "engine": engine, "long clips": policy}


def _changed(change: Callable[[SoundEmbedder], SoundEmbedder], load: Callable[[], SoundEmbedder]) -> SoundEmbedder:
    return change(load())


def _stamp(clip: EvalClip) -> tuple[int, int] | None:
    if not clip.path:
        return None
    status = Path(clip.path).stat()
    return status.st_size, status.st_mtime_ns


def _said(clip: EvalClip, sound: str) -> bytes:
    said = repr((clip.key, clip.captions, clip.label, clip.tags, clip.group, clip.fold, sound))
    return hashlib.sha256(said.encode()).digest()
