"""Teachers of a run: models whose similarities between sounds and captions become part of its targets.

Each teacher embeds every sound and caption of the training data once, before the first step, and the vectors are stored
in the run folder:

    teacher/0-of-1/model-0/     one folder for each teacher, and one above it for each process's part of the samples
        audio.npy               (n, E) by sample; NaN where a sound cannot be embedded
        text.npy                (c, E) by distinct caption
        caption_ids.npy         (c,) sorted
        teacher.json            digest and scale of the teacher, digest of the data

A process embeds every P-th sample; all processes read all parts. While a part is made, finished embeddings are in the
cache of embeddings, so that a stopped run goes on where it was.

P processes, B clips, T captions, E embedding size of a teacher, M teachers.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from openclap.audio.mono import Channels
from openclap.data.loader import caption_id
from openclap.data.shards import TEXT, Fields, ShardIndex
from openclap.embedder import Embedder, Vectors
from openclap.embedding_cache import EmbeddingCache, identity_of
from openclap.errors import AudioError, CheckpointError, ConfigError, DataError
from openclap.loading import load
from openclap.storage import sync_tree
from openclap.types import Features, PairBatch, Progress

FOLDER, FACTS = "teacher", "teacher.json"
TEXTS_AT_ONCE = 1024
"""Captions that are embedded and cached together."""


def load_teachers(names: Sequence[str], device: torch.device | str, channels: Channels = "mean") -> list[Embedder]:
    """Load the teachers, which make sounds mono as the run does.

    Raises ConfigError for a teacher that cannot embed text.
    """
    teachers = [load(name, device=device, channels=channels) for name in names]
    for name, teacher in zip(names, teachers, strict=True):
        try:
            teacher.check_tokenizer()
        except CheckpointError as error:
            raise ConfigError(f"teacher {name}: cannot embed captions. {error}") from None
    return teachers


class Teachers:
    """The stored vectors of all teachers, added to the features of each batch.

    The logits of several teachers are averaged: teacher m's unit vectors are multiplied by √(scale/M), so the products
    of the concatenated vectors are that mean.
    """

    def __init__(self, tables: Sequence[_Table]) -> None:
        self.tables = tables

    def __call__(self, features: Features, batch: PairBatch) -> Features:
        """Add the vectors of this process's clips (by their numbers) and captions (by their ids)."""
        ids_T = batch.caption_id_T.cpu().numpy()
        numbers_B = np.array(batch.numbers, np.int64)
        rows = {
            "teacher_audio_BE": np.concatenate([table.audio(numbers_B) for table in self.tables], axis=1),
            "teacher_text_TE": np.concatenate([table.text(ids_T) for table in self.tables], axis=1),
        }
        like = features.audio_BD
        vectors: dict[str, Any] = {name: torch.from_numpy(x).to(like.device, like.dtype) for name, x in rows.items()}
        return replace(features, **vectors)


def embed_with_teachers(
    teachers: Sequence[Embedder],
    names: Sequence[str],
    shards: ShardIndex,
    out: Path,
    *,
    rank: int,
    world: int,
    fields: Fields = TEXT,
    progress: Progress = lambda done, total: None,
) -> None:
    """Embed this process's part of the samples with every teacher, unless `out` holds it already.

    Args:
        out: the run folder.
        fields: the fields whose captions training may draw.
        progress: called with sounds embedded and sounds in all, over all teachers.
    """
    part = range(rank, len(shards), world)
    for number, (name, teacher) in enumerate(zip(names, teachers, strict=True)):
        folder = _folder(out, rank, world, number)
        facts = _facts(teacher, shards)
        if _read_facts(folder) != facts:
            report = _shifted(progress, number * len(part), len(teachers) * len(part))
            _write_part(teacher, name, shards, part=part, fields=fields, folder=folder, facts=facts, progress=report)


def open_teachers(teachers: int, out: Path, world: int) -> Teachers:
    """Open the parts of all processes, when each of them has finished its own."""
    folders = [[_folder(out, rank, world, number) for rank in range(world)] for number in range(teachers)]
    return Teachers([_Table(parts, teachers) for parts in folders])


class _Table:
    """The vectors of one teacher, scaled; mapped from the disk."""

    def __init__(self, parts: Sequence[Path], teachers: int) -> None:
        facts = [_read_facts(part) for part in parts]
        if any(fact != facts[0] for fact in facts):
            raise ConfigError(f"{parts[0].parents[1]}: its parts are of different teachers. Delete the folder.")
        self.factor = np.float32(math.sqrt(facts[0]["scale"] / teachers))
        self.audio_parts = [np.load(part / "audio.npy", mmap_mode="r") for part in parts]
        self.text_parts = [np.load(part / "text.npy", mmap_mode="r") for part in parts]
        self.id_parts = [np.load(part / "caption_ids.npy", mmap_mode="r") for part in parts]

    def audio(self, numbers_B: NDArray[np.int64]) -> Vectors:
        world = len(self.audio_parts)
        rows_BE = np.empty((len(numbers_B), self.audio_parts[0].shape[1]), np.float32)
        for row_E, number in zip(rows_BE, numbers_B, strict=True):
            row_E[:] = self.audio_parts[number % world][number // world]
        return rows_BE * self.factor

    def text(self, ids_T: NDArray[np.int64]) -> Vectors:
        rows_TE = np.full((len(ids_T), self.text_parts[0].shape[1]), np.nan, np.float32)
        # Backwards, so that a caption in several parts has the vector of the first: the same one on every process.
        for ids_C, text_CE in zip(self.id_parts[::-1], self.text_parts[::-1], strict=True):
            if len(ids_C):
                place_T = np.searchsorted(ids_C, ids_T).clip(max=len(ids_C) - 1)
                found_T = ids_C[place_T] == ids_T
                rows_TE[found_T] = text_CE[place_T[found_T]]
        return rows_TE * self.factor


def _write_part(
    teacher: Embedder,
    name: str,
    shards: ShardIndex,
    *,
    part: range,
    fields: Fields,
    folder: Path,
    facts: dict[str, Any],
    progress: Progress,
) -> None:
    """Write the part into a draft, which is renamed when it is complete."""
    draft = folder.with_name(f".draft-{folder.name}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    shape = (len(part), teacher.preset.embedding_size)
    made_by = identity_of(teacher)
    cache = EmbeddingCache(made_by, name) if made_by else None
    captions: dict[int, str] = {}
    audio_NE = open_memmap(draft / "audio.npy", "w+", np.float32, shape)
    audio_NE[:] = np.nan
    rows: list[int] = []

    def sounds() -> Iterator[bytes]:
        for row, number in enumerate(part):
            try:
                sample = shards.read_sample(number, fields)
            except DataError:  # training leaves it out and reports it
                continue
            every = chain.from_iterable(sample.by_field.values())
            captions.update((caption_id(caption), caption) for caption in every)
            rows.append(row)
            yield sample.audio

    vectors = cache.embed_each(sounds(), teacher.embed_each) if cache else teacher.embed_each(sounds())
    for done, vector in enumerate(vectors):
        if not isinstance(vector, AudioError):
            audio_NE[rows[done]] = vector
        progress(rows[done] + 1, len(part))
    audio_NE.flush()
    ids_C = sorted(captions)
    text_CE = open_memmap(draft / "text.npy", "w+", np.float32, (len(ids_C), shape[1]))
    for start in range(0, len(ids_C), TEXTS_AT_ONCE):
        texts = [captions[each] for each in ids_C[start : start + TEXTS_AT_ONCE]]
        text_CE[start : start + len(texts)] = (
            cache.embed_texts(texts, teacher.embed_text, teacher.tokenizer) if cache else teacher.embed_text(texts)
        )
    text_CE.flush()
    np.save(draft / "caption_ids.npy", np.array(ids_C, np.int64))
    (draft / FACTS).write_text(json.dumps(facts), encoding="utf-8")
    sync_tree(draft)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def _facts(teacher: Embedder, shards: ShardIndex) -> dict[str, Any]:
    return {"digest": teacher.digest(), "scale": float(teacher.runtime.logit_scale), "data_digest": shards.digest()}


def _read_facts(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / FACTS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _folder(out: Path, rank: int, world: int, number: int) -> Path:
    return out / FOLDER / f"{rank}-of-{world}" / f"model-{number}"


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    return lambda done, count: progress(before + done, total)
