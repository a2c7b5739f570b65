"""Shards to training batches, in an order that any process can compute and resume in the middle.

B clips, V views, T frames (of a mel) or captions (of a batch), F mel bins, L tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from openclap.audio.io import Wave, read_mono
from openclap.data.order import batches_per_epoch, epoch_order, rank_batches, sample_rng
from openclap.data.shards import ShardIndex
from openclap.errors import AudioError, ConfigError, DataError
from openclap.types import AudioBatch, PairBatch, TextBatch


class FrontEndLike(Protocol):
    """What makes of waveforms the input of an audio tower (`openclap.audio.frontend.FrontEnd`)."""

    sample_rate: int

    def __call__(self, waves: Sequence[Wave], *, rng: np.random.Generator | None = None) -> AudioBatch: ...


Tokenize = Callable[[list[str]], TextBatch]
Choose = Callable[[tuple[str, ...], np.random.Generator], str]


@dataclass(frozen=True, slots=True)
class SkippedSample:
    """A sample that was left out of its batch in training, and why."""

    key: str
    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class _Clip:
    """One sample, ready to be put in a batch."""

    key: str
    audio: AudioBatch
    caption: str


@dataclass(frozen=True, slots=True)
class _Fetched:
    """What a worker sends back for one batch; `batch` is None when none of its samples could be read."""

    batch: PairBatch | None
    skipped: list[SkippedSample]


class PairLoader:
    """Batches of clips, one caption each, for one rank of `world`.

    What a batch holds depends on (seed, epoch, rank, world, batch_size) alone: not on `workers`, not on where
    reading began. A sample that cannot be read is left out of its batch and listed in `skipped`; a batch of
    which nothing is left is passed over.

    Attributes:
        batches_per_epoch: the same for every rank; the few samples left over differ from epoch to epoch.
        position: batches of the current epoch consumed so far, those passed over included. It is what to
            save, and to give back as `start`.
        skipped: samples left out so far.
    """

    def __init__(
        self,
        shards: ShardIndex,
        frontend: FrontEndLike,
        tokenize: Tokenize,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        caption: Literal["random", "first"] = "random",
    ) -> None:
        """Raises DataError when the shards do not fill one batch on every rank, ConfigError for odd choices.

        With workers, `frontend` and `tokenize` must be picklable where the platform starts processes afresh.
        """
        _check(batch_size=batch_size, seed=seed, rank=rank, world=world, workers=workers)
        _check_enough(len(shards), batch_size, world)
        if caption not in CHOICES:
            raise ConfigError(f"caption {caption!r}: expected one of: {', '.join(CHOICES)}.")
        self.shards, self.frontend, self.tokenize = shards, frontend, tokenize
        self.batch_size, self.seed, self.rank, self.world, self.workers = (
            batch_size,
            seed,
            rank,
            world,
            workers,
        )
        self.choose = CHOICES[caption]
        self.batches_per_epoch = batches_per_epoch(len(shards), batch_size, world)
        self.position = 0
        self.skipped: list[SkippedSample] = []

    def batches(self, epoch: int, start: int = 0) -> Iterator[PairBatch]:
        """The batches of one epoch from position `start` on.

        Raises ConfigError when `start` is not in the epoch, DataError when a whole epoch cannot be read.
        """
        if epoch < 0 or not 0 <= start <= self.batches_per_epoch:
            raise ConfigError(
                f"epoch {epoch}, start {start}: expected an epoch from 0 on, "
                f"and a start from 0 to {self.batches_per_epoch}."
            )
        order_S = epoch_order(self.shards.tar_S, self.seed, epoch)
        plan = rank_batches(order_S, self.batch_size, self.rank, self.world)[start:]
        return self._fetch(plan.tolist(), epoch, start)

    def _fetch(self, plan: list[list[int]], epoch: int, start: int) -> Iterator[PairBatch]:
        yielded = 0
        self.position = start
        for fetched in self._read(plan, epoch):
            self.position += 1
            self.skipped += fetched.skipped
            if fetched.batch is not None:
                yielded += 1
                yield fetched.batch
        if not yielded and start == 0:
            reason = self.skipped[-1].reason
            raise DataError(f"{self.shards.folder}: no sample of epoch {epoch} could be read. The last: {reason}")

    def _read(self, plan: list[list[int]], epoch: int) -> Iterator[_Fetched]:
        clips = _Clips(self.shards, self.frontend, self.choose, self.seed, epoch)
        yield from DataLoader(
            clips,
            batch_sampler=plan,
            num_workers=self.workers,
            collate_fn=_Collate(self.tokenize),
            generator=torch.Generator(),  # of its own, or every epoch would draw from the global one
        )


class _Clips(Dataset["_Clip | SkippedSample"]):
    """Samples by number, as they are in one epoch."""

    def __init__(self, shards: ShardIndex, frontend: FrontEndLike, choose: Choose, seed: int, epoch: int) -> None:
        self.shards, self.frontend, self.choose, self.seed, self.epoch = shards, frontend, choose, seed, epoch

    def __getitem__(self, number: int) -> _Clip | SkippedSample:
        rng = sample_rng(self.seed, self.epoch, number)
        try:
            sample = self.shards.read_sample(number)
            wave_N = read_mono(sample.audio, self.frontend.sample_rate)
        except DataError as error:
            return SkippedSample(self.shards.keys[number], self.epoch, str(error))
        except AudioError as error:
            return SkippedSample(self.shards.keys[number], self.epoch, f"{self.shards.where(number)}: {error}")
        caption = self.choose(sample.captions, rng)
        return _Clip(sample.key, self.frontend([wave_N], rng=rng), caption)


@dataclass(frozen=True, slots=True)
class _Collate:
    """Clips to a batch, in the worker."""

    tokenize: Tokenize

    def __call__(self, results: list[_Clip | SkippedSample]) -> _Fetched:
        clips = [result for result in results if isinstance(result, _Clip)]
        skipped = [result for result in results if isinstance(result, SkippedSample)]
        return _Fetched(self._batch(clips) if clips else None, skipped)

    def _batch(self, clips: list[_Clip]) -> PairBatch:
        captions = [clip.caption for clip in clips]
        return PairBatch(
            audio=_join([clip.audio for clip in clips]),
            text=self.tokenize(captions),
            owner_T=torch.arange(len(clips)),
            caption_id_T=torch.tensor([_caption_id(caption) for caption in captions]),
            keys=tuple(clip.key for clip in clips),
        )


def _caption_id(caption: str) -> int:
    """63 bits that are the same for the same caption on every process."""
    return int.from_bytes(blake2b(caption.encode(), digest_size=8).digest(), "big") >> 1


def _join(parts: list[AudioBatch]) -> AudioBatch:
    """AudioBatches of equal V, T, F to one over all their clips."""
    frames = [part.frames_B for part in parts if part.frames_B is not None]
    return AudioBatch(
        mel_BVTF=torch.cat([part.mel_BVTF for part in parts]),
        is_long_B=torch.cat([part.is_long_B for part in parts]),
        frames_B=torch.cat(frames) if frames else None,
    )


def _random(captions: tuple[str, ...], rng: np.random.Generator) -> str:
    return captions[int(rng.integers(len(captions)))]


def _first(captions: tuple[str, ...], rng: np.random.Generator) -> str:
    return captions[0]


CHOICES: dict[str, Choose] = {"random": _random, "first": _first}
"""LAION draws one of a clip's captions at random."""


def _check(*, batch_size: int, seed: int, rank: int, world: int, workers: int) -> None:
    if batch_size < 1 or world < 1 or not 0 <= rank < world or workers < 0 or seed < 0:
        raise ConfigError(
            f"batch_size {batch_size}, seed {seed}, rank {rank}, world {world}, workers {workers}: expected "
            "batch_size and world from 1 on, seed and workers from 0 on, and rank from 0 to world - 1."
        )


def _check_enough(samples: int, batch_size: int, world: int) -> None:
    if samples < batch_size * world:
        raise DataError(
            f"{samples} samples are fewer than one batch of {batch_size} on each of {world} ranks. "
            "Choose a smaller batch, or add data."
        )
