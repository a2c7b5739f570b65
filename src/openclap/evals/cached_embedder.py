"""An embedder with a cache and a pool of worker processes: each sound and sentence is embedded once for all tasks.

N clips, D embedding.
"""

from __future__ import annotations

import hashlib
import io
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from openclap.data.decode import segment
from openclap.embedding_cache import EmbeddingCache, identity_of
from openclap.errors import AudioError, DataError, OpenClapError
from openclap.evals.dataset import EvalClip, EvalClips, StageProgress
from openclap.limits import PROCESSES, check_count

Embeddings = NDArray[np.float32]
"""(N, D) float32."""

CHUNK = 64
"""Clips that are read, embedded and cached as one unit of work; also the clips whose bytes are in memory at once."""


class SoundEmbedder(Protocol):
    """A model that turns sounds and sentences into unit vectors: `openclap.Embedder`, or any object like it.

    An optional attribute `clip_policy` (one sentence on clips longer than the model's input) is quoted in protocols.
    An optional method `embed_each`, as `openclap.Embedder` has it, embeds in batches without stopping at a bad sound.
    """

    def embed_audio(self, sounds: list[Any], /, *, batch_size: int = ...) -> Embeddings:
        """(N, D) float32 unit vectors of encoded sounds (open files), in their order."""

    def embed_text(self, texts: list[str], /) -> Embeddings:
        """(N, D) float32 unit vectors."""


@dataclass(frozen=True, slots=True)
class EmbeddedClips:
    """The clips that could be embedded, with their embeddings (N, D); `lost` has (key, reason) of all others."""

    clips: EvalClips
    embedding_ND: Embeddings
    lost: tuple[tuple[str, str], ...] = ()


class CachedEmbedder:
    """An embedder that looks into its cache first.

    Attributes:
        name: the model's name in tables.
        cache: None for an embedder that does not state what its embeddings depend on.
    """

    def __init__(
        self,
        name: str,
        embedder: SoundEmbedder,
        *,
        cache: EmbeddingCache | None = None,
        batch_size: int = 16,
        processes: int = 1,
        load: Callable[[], SoundEmbedder] | None = None,
        progress: StageProgress | None = None,
    ) -> None:
        """With `processes` above 1, each worker makes a model of its own with `load`, which must be picklable.

        Raises ConfigError for numbers out of range.
        """
        check_count("batch_size", batch_size)
        check_count("processes", processes, most=PROCESSES)
        self.name, self.embedder, self.cache = name, embedder, cache
        self.batch_size, self.processes, self.progress = batch_size, processes, progress
        self._load = load
        self._embedded: dict[tuple[str, ...], EmbeddedClips] = {}

    def with_embedder(self, wrap: Callable[[SoundEmbedder], SoundEmbedder], kind: str) -> CachedEmbedder:
        """The same model with its embedder wrapped; its embeddings have a cache of their own, named after `kind`."""
        cache = self.cache and EmbeddingCache(
            self.cache.made_by | {"vectors": kind}, self.cache.model, self.cache.file.folder
        )
        return CachedEmbedder(
            self.name,
            wrap(self.embedder),
            cache=cache,
            batch_size=self.batch_size,
            processes=self.processes,
            load=partial(_load_wrapped, wrap, self._load) if self._load else None,
            progress=self.progress,
        )

    def check_tokenizer(self) -> None:
        """Raise MissingTokenizerError for a model that cannot read text, before any sound is embedded."""
        if check := getattr(self.embedder, "check_tokenizer", None):
            check()

    @property
    def clip_policy(self) -> str | None:
        """What happens to clips longer than the model's input, where the model states it."""
        return getattr(self.embedder, "clip_policy", None)

    @property
    def logit_scale(self) -> float | None:
        """The logit scale, where the model has one."""
        clap = getattr(self.embedder, "clap", None)
        return None if clap is None else float(clap.scale.detach())

    def embed_clips(self, clips: EvalClips) -> EmbeddedClips:
        """Embed every clip. Clips that cannot be read or decoded are left out and listed.

        Raises DataError where no clip is left, OpenClapError for an embedder that returns something else.
        """
        if not clips.digest:
            return self._embed_clips(clips)
        # All tasks on a collection share its clips, so its shards are read once. Published sets differ by task.
        key = (clips.digest, *(clip.key for clip in clips.clips))
        if key not in self._embedded:
            self._embedded[key] = self._embed_clips(clips)
        return self._embedded[key]

    def _embed_clips(self, clips: EvalClips) -> EmbeddedClips:
        hash_N, lost = self._hash_sounds(clips)
        embeddings = self.cache.get(sorted(set(hash_N.values()))) if self.cache else {}
        missing: dict[str, int] = {}
        for index, key in hash_N.items():
            if key not in embeddings:
                missing.setdefault(key, index)
        # Cached sounds, and repetitions of a sound, count as done.
        done = len(hash_N) - len(missing)
        failed: dict[str, str] = {}
        for keys, outcomes in self._embed_chunks(clips, missing):
            new = {key: outcome for key, outcome in zip(keys, outcomes, strict=True) if not isinstance(outcome, str)}
            failed |= {key: outcome for key, outcome in zip(keys, outcomes, strict=True) if isinstance(outcome, str)}
            embeddings |= new
            if self.cache:  # after each chunk, so that a stopped evaluation loses one at most
                self.cache.add(new.items())
            done += len(keys)
            if self.progress:
                self.progress(f"Embedding {clips.name}", done, len(hash_N))
        lost |= {index: failed[key] for index, key in hash_N.items() if key in failed}
        remaining = [index for index in range(len(clips)) if index not in lost]
        reasons = tuple((clips.clips[index].key, reason) for index, reason in sorted(lost.items()))
        if not remaining:
            raise DataError(f"{clips.name}: none of its {len(clips)} sounds could be embedded. First: {reasons[0][1]}")
        digest = clips.digest
        if lost or not digest:  # a digest from loading covers exactly the clips that were loaded
            digest = hashlib.sha256(
                b"".join(_clip_digest(clips.clips[index], hash_N[index]) for index in remaining)
            ).hexdigest()
        embedded = replace(clips.select(remaining), digest=digest)
        return EmbeddedClips(embedded, np.stack([embeddings[hash_N[index]] for index in remaining]), reasons)

    def embed_audio(self, sounds: list[Any], /, *, batch_size: int = 16) -> Embeddings:
        """The embedder's own method, without the cache."""
        return self.embedder.embed_audio(sounds, batch_size=batch_size)

    def embed_text(self, texts: list[str], /) -> Embeddings:
        """(N, D) unit vectors of sentences."""
        if self.cache is None:
            return self.embedder.embed_text(texts)
        return self.cache.embed_texts(
            texts, lambda missing: embed_sentences(self.embedder, missing)[0], getattr(self.embedder, "tokenizer", None)
        )

    def count_truncated(self, texts: Sequence[str]) -> int:
        """The number of sentences that are longer than the model's text context."""
        too_long = getattr(getattr(self.embedder, "tokenizer", None), "too_long", None)
        return sum(too_long(texts)) if too_long and texts else 0

    def _hash_sounds(self, clips: EvalClips) -> tuple[dict[int, str], dict[int, str]]:
        """(the key of each clip's sound, the reasons why others could not be read), by position."""
        hashes: dict[int, str] = {}
        lost: dict[int, str] = {}
        for index, clip in enumerate(clips.clips):
            try:
                if clip.path and self.cache:
                    sha256 = self.cache.hash_file(clip.path)
                else:
                    data = Path(clip.path).read_bytes() if clip.path else clips.audio(index)
                    sha256 = hashlib.sha256(data).hexdigest()
            except FileNotFoundError:
                lost[index] = f"{clip.path}: does not exist."
            except (OSError, DataError) as error:
                lost[index] = f"{clip.path or clip.key}: cannot be read ({error})."
            else:
                # A stretch of a file is another sound than the whole file.
                hashes[index] = f"{sha256}@{clip.start_s}+{clip.duration_s}" if clip.start_s is not None else sha256
        if self.cache:
            self.cache.file.write()
        return hashes, lost

    def _embed_chunks(
        self, clips: EvalClips, missing: dict[str, int]
    ) -> Iterator[tuple[list[str], list[EmbedOutcome]]]:
        """(keys, outcomes) of each chunk of `missing`.

        A chunk never shares a batch with another one, so embeddings depend neither on earlier runs nor on the number of
        processes.
        """
        keys = list(missing)
        chunks = [keys[start : start + CHUNK] for start in range(0, len(keys), CHUNK)]
        if not chunks:
            return
        # No more workers than chunks: each loads a model of its own.
        with _mapper(self.embedder, self.batch_size, min(self.processes, len(chunks)), self._load) as mapped:
            sounds = ([_sound_source(clips, missing[key]) for key in chunk] for chunk in chunks)
            yield from zip(chunks, mapped(sounds), strict=True)


def open_cached(
    name: str,
    load: Callable[[], SoundEmbedder],
    folder: Path | None = None,
    *,
    batch_size: int = 16,
    processes: int = 1,
    progress: StageProgress | None = None,
) -> CachedEmbedder:
    """An embedder with its cache in `folder`, or in openclap's home. `load` makes the model here and in each worker."""
    embedder = load()
    cache = open_cache(name, embedder, folder)
    return CachedEmbedder(
        name, embedder, cache=cache, batch_size=batch_size, processes=processes, load=load, progress=progress
    )


def open_cache(name: str, embedder: SoundEmbedder, folder: Path | None) -> EmbeddingCache | None:
    """The cache of a model's embeddings; None for an embedder that does not state what they depend on."""
    made_by = identity_of(embedder)
    return EmbeddingCache(made_by, name, folder) if made_by else None


def embed_clips(embedder: SoundEmbedder, clips: EvalClips, *, batch_size: int = 16) -> Embeddings:
    """(N, D) embeddings of all clips in plain batches, without a cache. Raises OpenClapError on unusable clips."""
    parts: list[Embeddings] = []
    for start in range(0, len(clips), CHUNK):
        sounds = [io.BytesIO(clips.audio(index)) for index in range(start, min(start + CHUNK, len(clips)))]
        parts.append(_check_embeddings(embedder.embed_audio(sounds, batch_size=batch_size), len(sounds)))
    return np.concatenate(parts)


def embed_sentences(embedder: SoundEmbedder, sentences: Sequence[str]) -> tuple[Embeddings, NDArray[np.int64]]:
    """((U, D) embeddings of the distinct sentences, (T,) the number of each sentence's embedding).

    Equal sentences are embedded once, so that their scores tie exactly.
    """
    unique = sorted(set(sentences))
    number = {sentence: index for index, sentence in enumerate(unique)}
    unique_UD = _check_embeddings(embedder.embed_text(unique), len(unique))
    return unique_UD, np.array([number[sentence] for sentence in sentences], np.int64)


def _check_embeddings(embeddings: Any, count: int) -> Embeddings:
    array = np.asarray(embeddings, np.float32)
    if array.ndim != 2 or len(array) != count:
        raise OpenClapError(
            f"The embedder returned an array of shape {array.shape} for {count} items, expected ({count}, D)."
        )
    if not np.isfinite(array).all():
        raise OpenClapError("The embedder returned NaN or infinite numbers. Is the checkpoint damaged or diverged?")
    return array


def _load_wrapped(wrap: Callable[[SoundEmbedder], SoundEmbedder], load: Callable[[], SoundEmbedder]) -> SoundEmbedder:
    return wrap(load())


def _clip_digest(clip: EvalClip, sound: str) -> bytes:
    identity = repr((clip.key, clip.captions, clip.label, clip.tags, clip.group, clip.fold, sound))
    return hashlib.sha256(identity.encode()).digest()


# Worker processes -----------------------------------------------------------------------------------------------------

SoundSource = EvalClip | bytes
"""A clip in a file, or the encoded sound of a clip in a shard: small enough to send to another process."""
EmbedOutcome = Embeddings | str
"""An embedding (D,), or the reason why there is none."""
ChunkMapper = Callable[[Iterator[list[SoundSource]]], Iterator[list[EmbedOutcome]]]
"""Chunks of sounds to the outcomes of each, in their order."""


def read_sound(clips: EvalClips, index: int) -> Any:
    """The sound of a clip as embedders take it: a path, a waveform with its rate, or bytes.

    Raises AudioError, DataError or OSError for a sound that is missing or ends too soon.
    """
    source = _sound_source(clips, index)
    return source if isinstance(source, bytes) else _read_file(source)


def _sound_source(clips: EvalClips, index: int) -> SoundSource:
    return clips.clips[index] if clips.clips[index].path else clips.audio(index)


def _read_file(clip: EvalClip) -> Any:
    """The path of a whole file, or the waveform and rate of the stretch of it that the clip is."""
    if clip.start_s is None:
        return clip.path
    pieces = list(segment(clip.path, clip.start_s, clip.duration_s or None))
    return np.concatenate([wave_NC for wave_NC, _ in pieces]), pieces[0][1]


def _mapper(
    embedder: SoundEmbedder, batch_size: int, processes: int, load: Callable[[], SoundEmbedder] | None
) -> AbstractContextManager[ChunkMapper]:
    if processes == 1 or load is None:
        return nullcontext(partial(map, partial(_embed_chunk, embedder, batch_size)))
    return _WorkerPool(load, processes, batch_size)


class _WorkerPool:
    """Processes that each hold a model of their own."""

    def __init__(self, load: Callable[[], SoundEmbedder], processes: int, batch_size: int) -> None:
        # Not fork: torch's threads do not survive it.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(processes, context, _start_worker, (load, batch_size, processes))

    def __enter__(self) -> ChunkMapper:
        return partial(self._pool.map, _work)

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)


_embed: Callable[[list[SoundSource]], list[EmbedOutcome]] | None = None


def _start_worker(load: Callable[[], SoundEmbedder], batch_size: int, processes: int) -> None:
    global _embed  # noqa: PLW0603 - the state of a worker process between chunks
    import torch

    # The workers share the cores: processes with a thread per core each would slow each other down.
    torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    _embed = partial(_embed_chunk, load(), batch_size)


def _work(sources: list[SoundSource]) -> list[EmbedOutcome]:
    assert _embed is not None
    return _embed(sources)


def _embed_chunk(embedder: SoundEmbedder, batch_size: int, sources: list[SoundSource]) -> list[EmbedOutcome]:
    """An embedding of each sound, or the reason why it has none; one bad sound does not stop the others."""
    outcomes: list[EmbedOutcome] = []
    sounds: list[Any] = []
    for source in sources:
        try:
            sounds.append(source if isinstance(source, bytes) else _read_file(source))
            outcomes.append("")
        except (AudioError, OSError) as error:
            outcomes.append(str(error))
    readable = [index for index, reason in enumerate(outcomes) if not reason]
    embed_each = getattr(embedder, "embed_each", None)
    results = embed_each(sounds, batch_size) if embed_each else _embed_one_by_one(embedder, sounds)
    for index, result in zip(readable, results, strict=True):
        outcomes[index] = str(result) if isinstance(result, AudioError) else np.asarray(result, np.float32)
    return outcomes


def _embed_one_by_one(embedder: SoundEmbedder, sounds: list[Any]) -> Iterator[Embeddings | AudioError]:
    for sound in sounds:
        try:
            made = embedder.embed_audio([io.BytesIO(sound) if isinstance(sound, bytes) else sound])
            yield _check_embeddings(made, 1)[0]
        except AudioError as error:
            yield error
