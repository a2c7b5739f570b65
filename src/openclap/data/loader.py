"""Shards to training batches, in an order that any process can compute and resume in the middle.

B clips, V views, T frames (of a mel) or captions (of a batch), F mel bins, L tokens.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from typing import Literal

import numpy as np
import torch

from openclap.audio.augment import UNCHANGED, AugmentConfig
from openclap.audio.mono import Channels
from openclap.data.clip import CHOICES, Clip, ClipReader, FrontEndLike, SkippedSample
from openclap.data.order import batches_per_epoch, epoch_order, rank_batches
from openclap.data.reading import InHand, WorkersError, one_ahead, read_by_workers
from openclap.data.shards import ShardIndex
from openclap.errors import ConfigError, DataError
from openclap.types import AudioBatch, PairBatch, TextBatch

Tokenize = Callable[[list[str]], TextBatch]


@dataclass(frozen=True, slots=True)
class _Asked:
    """One batch of the plan."""

    epoch: int
    numbers: list[int]


@dataclass(frozen=True, slots=True)
class _Fetched:
    """What came of it: `batch` is None when none of its samples could be read; `error` is what nobody foresaw."""

    asked: _Asked
    batch: PairBatch | None
    skipped: list[SkippedSample]
    error: str | None = None
    trace: str = ""


class PairLoader:
    """Batches of clips and their captions, for one rank of `world`.

    What a batch holds depends on (seed, epoch, rank, world, batch_size) and on the choices about captions and
    augmentation alone: not on `workers`, not on where reading began. A sample that cannot be read is left out of its
    batch and listed in `skipped`; a batch of which nothing is left is empty. The next batch is read while the caller is
    at this one: by `workers` processes, or without them by a thread.

    Attributes:
        batches_per_epoch: the same for every rank; the few samples left over differ from epoch to epoch.
        epoch, position: the current epoch, and batches of it consumed so far. They are what to save, and to give back
            as `epoch` and `start`.
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
        caption: Literal["random", "first", "all"] = "random",
        most_captions: int = 5,
        augment: AugmentConfig = UNCHANGED,
        channels: Channels = "mean",
    ) -> None:
        """Raises DataError when the shards do not fill one batch on every rank, ConfigError for odd choices.

        With workers, `frontend` and `tokenize` must be picklable where the platform starts processes afresh.

        Args:
            caption: one of a clip's captions at random, the first, or all: then `owner_T` says whose each is.
            most_captions: with "all", so many of a clip at most, drawn at random where there are more.
            augment: what is made different in each epoch.
            channels: read of sounds with several: "mean", "left", "right" or "loudest".
        """
        _check(batch_size=batch_size, seed=seed, rank=rank, world=world, workers=workers)
        _check_enough(shards, batch_size, world)
        if caption not in CHOICES or most_captions < 1:
            raise ConfigError(
                f"caption {caption!r}, most_captions {most_captions}: expected one of {', '.join(CHOICES)}, "
                "and a number from 1 on."
            )
        self.shards, self.seed, self.workers = shards, seed, workers
        self.batch_size, self.rank, self.world = batch_size, rank, world
        self.clips = ClipReader(shards, frontend, CHOICES[caption], most_captions, augment, seed, channels)
        self.tokenize = tokenize
        self.batches_per_epoch = batches_per_epoch(len(shards), batch_size, world)
        self.epoch = self.position = 0
        self.skipped: list[SkippedSample] = []

    def batches(self, epoch: int, start: int = 0, *, epochs: int = 1) -> Iterator[PairBatch]:
        """The batches of so many epochs, those of the first from position `start` on.

        Raises ConfigError when `start` is not in the epoch. The iterator raises DataError when shards are gone that a
        whole batch stood in, and, naming the sample, when reading fails in a way that nobody foresaw or a worker is
        killed.
        """
        if epoch < 0 or epochs < 1 or not 0 <= start <= self.batches_per_epoch:
            raise ConfigError(
                f"epoch {epoch}, start {start}, epochs {epochs}: expected an epoch from 0 on, "
                f"a start from 0 to {self.batches_per_epoch}, and 1 epoch or more."
            )
        return self._fetch(epoch, start, epochs)

    def _fetch(self, epoch: int, start: int, epochs: int) -> Iterator[PairBatch]:
        self.epoch, self.position = epoch, start
        plans = (self._plan(each, start if each == epoch else 0) for each in range(epoch, epoch + epochs))
        for fetched in one_ahead(self._read(chain.from_iterable(plans))):
            if fetched.asked.epoch != self.epoch:
                self.epoch, self.position = fetched.asked.epoch, 0
            self._check_read(fetched)
            self.position += 1
            self.skipped += fetched.skipped
            yield _nothing_for(self.clips.frontend) if fetched.batch is None else fetched.batch

    def _plan(self, epoch: int, start: int) -> Iterator[_Asked]:
        order_S = epoch_order(self.shards.tar_S, self.seed, epoch)
        batches = rank_batches(order_S, self.batch_size, self.rank, self.world)[start:]
        return (_Asked(epoch, numbers) for numbers in batches.tolist())

    def _read(self, plan: Iterable[_Asked]) -> Iterator[_Fetched]:
        in_hand = InHand(self.workers)
        read = _BatchReader(self.clips, self.tokenize, in_hand)
        try:
            yield from read_by_workers(read, plan, self.workers, in_hand) if self.workers else map(read, plan)
        except WorkersError as error:
            at = [self.shards.where(number) for number in error.samples]
            raise DataError(
                f"{self.shards.folder}: a process that reads data was killed"
                f"{f' at {_listed(at)}' if at else ''} ({error}). Was memory short? Choose fewer workers; if it is "
                "always the same sample, take it out of its shard."
            ) from error

    def _check_read(self, fetched: _Fetched) -> None:
        if fetched.error is not None:
            error = DataError(fetched.error)
            error.add_note(fetched.trace)
            raise error
        if fetched.batch is None:
            tars = {self.shards.tars[self.shards.tar_S[number]] for number in fetched.asked.numbers}
            gone = [tar for tar in self.shards.tars if tar in tars and not (self.shards.folder / tar).exists()]
            if gone:
                raise DataError(
                    f"{self.shards.folder}: gone since reading began: {_listed(gone)}. A whole batch stood there. "
                    "Put it back and run the same command to go on."
                )


@dataclass(frozen=True, slots=True)
class _BatchReader:
    """Clips to a batch, in the process or thread that reads."""

    clips: ClipReader
    tokenize: Tokenize
    in_hand: InHand

    def __call__(self, asked: _Asked) -> _Fetched:
        results: list[Clip | SkippedSample] = []
        where = ""
        try:
            for number in asked.numbers:
                where = self.clips.shards.where(number)
                self.in_hand.take(number)
                results.append(self.clips.read(asked.epoch, number))
            clips = [result for result in results if isinstance(result, Clip)]
            skipped = [result for result in results if isinstance(result, SkippedSample)]
            where = f"the batch of {_listed([clip.key for clip in clips])}"
            return _Fetched(asked, self._batch(clips) if clips else None, skipped)
        except Exception as error:
            reason = f"{where}: could not be read ({type(error).__name__}: {error}). Take it out or repair it."
            return _Fetched(asked, None, [], reason, traceback.format_exc())

    def _batch(self, clips: list[Clip]) -> PairBatch:
        captions = [caption for clip in clips for caption in clip.captions]
        return PairBatch(
            audio=join([clip.audio for clip in clips]),
            text=self.tokenize(captions),
            owner_T=torch.arange(len(clips)).repeat_interleave(torch.tensor([len(clip.captions) for clip in clips])),
            caption_id_T=torch.tensor([_caption_id(caption) for caption in captions]),
            keys=tuple(clip.key for clip in clips),
        )


def _nothing_for(frontend: FrontEndLike) -> PairBatch:
    """A batch of no clips, otherwise shaped like those of this front end."""
    second = frontend([np.zeros(frontend.sample_rate, np.float32)])
    frames_B = None if second.frames_B is None else second.frames_B[:0]
    none_T = torch.zeros(0, dtype=torch.long)
    text = TextBatch(none_T.view(0, 1), none_T.view(0, 1))
    return PairBatch(AudioBatch(second.mel_BVTF[:0], second.is_long_B[:0], frames_B), text, none_T, none_T, keys=())


def _caption_id(caption: str) -> int:
    """63 bits that are the same for the same caption on every process."""
    return int.from_bytes(blake2b(caption.encode(), digest_size=8).digest(), "big") >> 1


def join(parts: list[AudioBatch]) -> AudioBatch:
    """AudioBatches of equal V, T, F to one over all their clips."""
    frames = [part.frames_B for part in parts if part.frames_B is not None]
    return AudioBatch(
        mel_BVTF=torch.cat([part.mel_BVTF for part in parts]),
        is_long_B=torch.cat([part.is_long_B for part in parts]),
        frames_B=torch.cat(frames) if frames else None,
    )


def _check(*, batch_size: int, seed: int, rank: int, world: int, workers: int) -> None:
    if batch_size < 1 or world < 1 or not 0 <= rank < world or workers < 0 or seed < 0:
        raise ConfigError(
            f"batch_size {batch_size}, seed {seed}, rank {rank}, world {world}, workers {workers}: expected "
            "batch_size and world from 1 on, seed and workers from 0 on, and rank from 0 to world - 1."
        )


def _check_enough(shards: ShardIndex, batch_size: int, world: int) -> None:
    if len(shards) >= batch_size * world:
        return
    each = f" on each of {world} processes" if world > 1 else ""
    way = "Choose a smaller batch, or add data."
    if shards.damaged:
        tar, reason = shards.damaged[0]
        way = f"{len(shards.damaged)} of {len(shards.tars)} tars are not whole; the first is {tar}: {reason}."
    raise DataError(f"{shards.folder}: {len(shards)} samples are fewer than one batch of {batch_size}{each}. {way}")


def _listed(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
