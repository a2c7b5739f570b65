"""Load training batches from shards, in an order that any process can compute and resume in the middle.

A batch is a pure function of (seed, epoch, rank, world, position): `openclap.data.order` decides which samples it
contains, `ClipReader` decodes and augments each with a generator of its own, and `PairLoader` collates them, in worker
processes or in a thread that is one batch ahead.

B clips, V views, T frames (of a mel) or captions (of a batch), F mel bins, L tokens.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from ctypes import Array, c_int64
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain
from multiprocessing.sharedctypes import RawArray
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset, get_worker_info

from openclap.arrays import Wave
from openclap.audio.augment import UNCHANGED, AugmentConfig, draw_mix, hide_stripes, join_captions, vary
from openclap.audio.io import decoded
from openclap.audio.mono import Channels, MonoBlocks, MonoConfig
from openclap.data.lengths import ClipLengths
from openclap.data.order import (
    batches_per_epoch,
    deal_by_length,
    epoch_order,
    neighbour,
    rank_batches,
    sample_rng,
    sort_in_pools,
)
from openclap.data.phrases import TimedPhrases, cut_phrases, phrase_batch
from openclap.data.shards import TEXT, Fields, ShardIndex
from openclap.errors import AudioError, ConfigError, DataError
from openclap.formatting import join_first
from openclap.types import AudioBatch, PairBatch, Phrase, PhraseBatch, TextBatch

Tokenize = Callable[[list[str]], TextBatch]


@dataclass(frozen=True, slots=True)
class _BatchPlan:
    """The samples of one batch."""

    epoch: int
    numbers: list[int]


@dataclass(frozen=True, slots=True)
class _LoadedBatch:
    """A loaded batch: `batch` is None when none of its samples could be read; `error` is an unexpected error."""

    plan: _BatchPlan
    batch: PairBatch | None
    skipped: list[SkippedSample]
    error: str | None = None
    trace: str = ""


class PairLoader:
    """Batches of clips and their captions, for one rank of `world`.

    The content of a batch depends only on (seed, epoch, rank, world, batch_size) and the options for captions and
    augmentation: not on `workers`, nor on where reading began. A sample that cannot be read is left out of its batch
    and listed in `skipped`; a batch without readable samples is empty. The next batch is loaded while the caller uses
    the current one: by `workers` processes, or by a thread.

    Attributes:
        batches_per_epoch: the same for every rank; the few samples left over differ from epoch to epoch.
        epoch, position: the current epoch, and the number of its batches consumed so far. Save them to resume with
            `batches(epoch, position)`.
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
        fields: Fields = TEXT,
        lengths: ClipLengths | None = None,
        moment_samples: float | None = None,
    ) -> None:
        """Raises DataError when the shards do not fill one batch on every rank, ConfigError for invalid options.

        With workers, `frontend` and `tokenize` must be picklable where the platform starts processes afresh.

        Args:
            caption: one of a clip's captions at random, the first, or all; `owner_T` then gives the clip of each.
            most_captions: with "all", the most captions of a clip, drawn at random where there are more.
            augment: random changes, different in each epoch.
            channels: of multichannel sounds: "mean", "left", "right" or "loudest".
            fields: the fields of a sample's JSON from which its captions are taken, with weights (see `draw_field`).
            lengths: for front ends that keep clips at their own length: the clips' durations, by which each step is
                dealt out to the ranks, and the part of a long clip that is read.
            moment_samples: for training with moments, their length: batches then have the phrases of their clips.
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
        self.lengths = lengths
        self.clips = ClipReader(
            shards,
            frontend,
            CHOICES[caption],
            most_captions,
            augment,
            seed,
            channels=channels,
            fields=fields,
            lengths=lengths,
            moment_samples=moment_samples,
        )
        self.tokenize = tokenize
        self.batches_per_epoch = batches_per_epoch(len(shards), batch_size, world)
        self.epoch = self.position = 0
        self.skipped: list[SkippedSample] = []

    def batches(self, epoch: int, start: int = 0, *, epochs: int = 1) -> Iterator[PairBatch]:
        """Iterate over the batches of `epochs` epochs, the first from position `start` on.

        Raises ConfigError when `start` is not in the epoch. The iterator raises DataError when the shards of a whole
        batch are gone, and, naming the sample, when reading fails unexpectedly or a worker is killed.
        """
        if epoch < 0 or epochs < 1 or not 0 <= start <= self.batches_per_epoch:
            raise ConfigError(
                f"epoch {epoch}, start {start}, epochs {epochs}: expected an epoch from 0 on, "
                f"a start from 0 to {self.batches_per_epoch}, and 1 epoch or more."
            )
        return self._load(epoch, start, epochs)

    def _load(self, epoch: int, start: int, epochs: int) -> Iterator[PairBatch]:
        self.epoch, self.position = epoch, start
        # Lazily: the order of an epoch is computed when it begins.
        plans = (self._plan(each, start if each == epoch else 0) for each in range(epoch, epoch + epochs))
        # A thread ahead of the workers, too: it moves batches out of their queue while the caller computes.
        for loaded in prefetch(self._read(chain.from_iterable(plans))):
            if loaded.plan.epoch != self.epoch:
                self.epoch, self.position = loaded.plan.epoch, 0
            self._check_read(loaded)
            self.position += 1
            self.skipped += loaded.skipped
            # An empty batch instead of none: all ranks must take the same number of steps.
            yield _empty_batch(self.clips.frontend) if loaded.batch is None else loaded.batch

    def _plan(self, epoch: int, start: int) -> Iterator[_BatchPlan]:
        # Every rank computes the whole order and takes its part: nothing is communicated (docs/decisions/0003).
        order_S = epoch_order(self.shards.tar_S, self.seed, epoch)
        if self.lengths is None:
            batches = rank_batches(order_S, self.batch_size, self.rank, self.world)
        else:
            seconds_S, step = self.lengths.read_s(), self.batch_size * self.world
            order_S = sort_in_pools(order_S, seconds_S, step, self.lengths.pool, seed=self.seed, epoch=epoch)
            batches = deal_by_length(order_S, seconds_S, self.batch_size, self.rank, self.world)
        return (_BatchPlan(epoch, numbers) for numbers in batches[start:].tolist())

    def _read(self, plan: Iterable[_BatchPlan]) -> Iterator[_LoadedBatch]:
        in_progress = SamplesInProgress(self.workers)
        read = _BatchReader(self.clips, self.tokenize, in_progress)
        try:
            yield from read_by_workers(read, plan, self.workers, in_progress) if self.workers else map(read, plan)
        except WorkersError as error:
            at = [self.shards.where(number) for number in error.samples]
            raise DataError(
                f"{self.shards.folder}: a process that reads data was killed"
                f"{f' at {join_first(at, 4)}' if at else ''} ({error}). Was memory short? Choose fewer workers; if it "
                "is always the same sample, take it out of its shard."
            ) from error

    def _check_read(self, loaded: _LoadedBatch) -> None:
        if loaded.error is not None:
            error = DataError(loaded.error)
            error.add_note(loaded.trace)
            raise error
        if loaded.batch is None:
            # One unreadable sample is skipped; a whole batch means that the storage is gone.
            tars = {self.shards.tars[self.shards.tar_S[number]] for number in loaded.plan.numbers}
            gone = [tar for tar in self.shards.tars if tar in tars and not (self.shards.folder / tar).exists()]
            if gone:
                raise DataError(
                    f"{self.shards.folder}: gone since reading began: {join_first(gone, 4)}. A whole batch was there. "
                    "Put it back and run the same command to go on."
                )


@dataclass(frozen=True, slots=True)
class _BatchReader:
    """Reads and collates the clips of one batch, in a worker process or thread."""

    clips: ClipReader
    tokenize: Tokenize
    in_progress: SamplesInProgress

    def __call__(self, plan: _BatchPlan) -> _LoadedBatch:
        results: list[Clip | SkippedSample] = []
        where = ""
        try:
            for number in plan.numbers:
                where = self.clips.shards.where(number)
                self.in_progress.begin(number)
                results.append(self.clips.read(plan.epoch, number))
            clips = [result for result in results if isinstance(result, Clip)]
            skipped = [result for result in results if isinstance(result, SkippedSample)]
            where = f"the batch of {join_first([clip.key for clip in clips], 4)}"
            return _LoadedBatch(plan, self._batch(clips) if clips else None, skipped)
        # As text, because a worker's exception may not be picklable; the main process raises it.
        except Exception as error:
            reason = f"{where}: could not be read ({type(error).__name__}: {error}). Take it out or repair it."
            return _LoadedBatch(plan, None, [], reason, traceback.format_exc())

    def _batch(self, clips: list[Clip]) -> PairBatch:
        captions = [caption for clip in clips for caption in clip.captions]
        return PairBatch(
            audio=concatenate([clip.audio for clip in clips]),
            text=self.tokenize(captions),
            owner_T=torch.arange(len(clips)).repeat_interleave(torch.tensor([len(clip.captions) for clip in clips])),
            caption_id_T=torch.tensor([caption_id(caption) for caption in captions]),
            keys=tuple(clip.key for clip in clips),
            numbers=tuple(clip.number for clip in clips),
            phrases=self._phrases([clip.timed for clip in clips if clip.timed]),
        )

    def _phrases(self, timed: list[TimedPhrases]) -> PhraseBatch | None:
        step, rate = self.clips.moment_samples, self.clips.frontend.sample_rate
        return None if step is None else phrase_batch(timed, step, rate, self.tokenize)


def _empty_batch(frontend: FrontEndLike) -> PairBatch:
    """An empty batch, otherwise shaped like those of this front end."""
    # Made by the front end itself, so that the views, frames and bins are those of a full batch.
    second = frontend([np.zeros(frontend.sample_rate, np.float32)])
    frames_B = None if second.frames_B is None else second.frames_B[:0]
    none_T = torch.zeros(0, dtype=torch.long)
    text = TextBatch(none_T.view(0, 1), none_T.view(0, 1))
    return PairBatch(AudioBatch(second.mel_BVTF[:0], second.is_long_B[:0], frames_B), text, none_T, none_T, keys=())


def caption_id(caption: str) -> int:
    """Hash a caption to 63 bits (int64 is signed); unlike `hash`, the same in every process."""
    return int.from_bytes(blake2b(caption.encode(), digest_size=8).digest(), "big") >> 1


def concatenate(parts: list[AudioBatch]) -> AudioBatch:
    """Concatenate AudioBatches of equal V and F along B; zeros make up for missing frames."""
    frames = [part.frames_B for part in parts if part.frames_B is not None]
    longest = max(part.mel_BVTF.shape[2] for part in parts)
    return AudioBatch(
        mel_BVTF=torch.cat([F.pad(part.mel_BVTF, (0, 0, 0, longest - part.mel_BVTF.shape[2])) for part in parts]),
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


# -- one sample

Captions = tuple[str, ...]
Choose = Callable[[Captions, int, np.random.Generator], Captions]


class FrontEndLike(Protocol):
    """Converts waveforms to the input of an audio tower: `openclap.audio.frontend.FrontEnd`."""

    sample_rate: int
    samples: int

    def __call__(self, waves: Sequence[Wave], *, rng: np.random.Generator | None = None) -> AudioBatch: ...

    def draw_start(self, samples: int, rng: np.random.Generator) -> int: ...


@dataclass(frozen=True, slots=True)
class SkippedSample:
    """A sample that was left out of its batch in training, and the reason."""

    key: str
    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class Clip:
    """One sample, ready for a batch."""

    key: str
    number: int
    audio: AudioBatch
    captions: Captions
    timed: TimedPhrases | None = None


@dataclass(frozen=True, slots=True)
class ClipReader:
    """Reads a sample of an epoch by its number: a pure function of (seed, epoch, number).

    Attributes:
        choose, most_captions: selection among a sample's captions (`CHOICES`).
        channels: of multichannel sounds (`openclap.audio.mono`).
        fields: where the captions are (`draw_field`).
        lengths: for clips at their own length, the part that is read of a long one.
        moment_samples: of the phrases of clips; None to leave them out.
    """

    shards: ShardIndex
    frontend: FrontEndLike
    choose: Choose
    most_captions: int
    augment: AugmentConfig
    seed: int
    channels: Channels = "mean"
    fields: Fields = field(default_factory=lambda: TEXT)
    lengths: ClipLengths | None = None
    moment_samples: float | None = None

    def read(self, epoch: int, number: int) -> Clip | SkippedSample:
        """Decode, augment the waveform, mix, compute the log-mel, mask: in this order, from one generator."""
        # One generator per sample and epoch: neither workers nor ranks nor a resume change what it draws.
        rng = sample_rng(self.seed, epoch, number)
        try:
            wave_N, by_field, phrases = self._sound(number)
        except DataError as error:
            return SkippedSample(self.shards.keys[number], epoch, str(error))
        except AudioError as error:
            return SkippedSample(self.shards.keys[number], epoch, f"{self.shards.where(number)}: {error}")
        # Captions are drawn first: options of augmentation must not change which one is used.
        captions = self.choose(draw_field(by_field, self.fields, rng), self.most_captions, rng)
        wave_N = vary(wave_N, self.augment, rng)
        if self.augment.mixup and rng.random() < self.augment.mixup:
            wave_N, captions = self._mixed(number, wave_N, captions, rng)
        timed = None
        if self.lengths or self.moment_samples is not None:
            # Not by the front end: lengths have a policy of the run, and segments count from the start of what is read.
            cut = self.lengths or self.frontend
            start = cut.draw_start(len(wave_N), rng)
            wave_N = wave_N[start : start + cut.samples]
            if self.moment_samples is not None:
                timed = cut_phrases(phrases, start, len(wave_N), self.frontend.sample_rate)
        audio = hide_stripes(self.frontend([wave_N], rng=None if self.lengths else rng), self.augment, rng)
        return Clip(self.shards.keys[number], number, audio, captions, timed)

    def _sound(self, number: int) -> tuple[Wave, Mapping[str, Captions], tuple[Phrase, ...]]:
        sample = self.shards.read_sample(number, self.fields)
        name = self.shards.keys[number]
        blocks = MonoBlocks(lambda: decoded(sample.audio), self.frontend.sample_rate, MonoConfig(self.channels), name)
        # The whole sound, since the front end crops it: shards hold clips, and their lengths were limited when they
        # were built.
        wave_N = np.concatenate(list(blocks))
        return (wave_N if len(wave_N) else np.zeros(1, np.float32)), sample.by_field, sample.phrases

    def _mixed(self, number: int, wave_N: Wave, captions: Captions, rng: np.random.Generator) -> tuple[Wave, Captions]:
        """Mix with another sample of the shard; unchanged where there is none that can be read and is not silent."""
        other = neighbour(self.shards.tar_S, number, rng)
        if other is None:
            return wave_N, captions
        try:
            other_M, by_field, _ = self._sound(other)
        except (AudioError, DataError):  # reported when its own turn comes
            return wave_N, captions
        mixed_N = draw_mix(wave_N, other_M, rng)
        if mixed_N is None:
            return wave_N, captions
        [other_caption] = one_of(draw_field(by_field, self.fields, rng), 1, rng)
        return mixed_N, tuple(join_captions(caption, other_caption) for caption in captions)


def draw_field(by_field: Mapping[str, Captions], fields: Fields, rng: np.random.Generator) -> Captions:
    """Draw one of the fields that a sample has, with probabilities in proportion to their weights.

    A field of weight 0 is used only where the sample has no other. Where there is no choice, nothing is drawn.
    """
    weighted = [name for name in by_field if fields[name]] or [*by_field][:1]
    if len(weighted) == 1:
        return by_field[weighted[0]]
    weights = np.array([fields[name] for name in weighted])
    return by_field[weighted[int(rng.choice(len(weighted), p=weights / weights.sum()))]]


def one_of(captions: Captions, most: int, rng: np.random.Generator) -> Captions:
    """Draw one at random, as LAION does."""
    return (captions[int(rng.integers(len(captions)))],)


def first_of(captions: Captions, most: int, rng: np.random.Generator) -> Captions:
    """Take the first."""
    return captions[:1]


def all_of(captions: Captions, most: int, rng: np.random.Generator) -> Captions:
    """Take all, or `most` of them at random, in their order."""
    if len(captions) <= most:
        return captions
    return tuple(captions[place] for place in sorted(rng.choice(len(captions), most, replace=False)))


CHOICES: dict[str, Choose] = {"random": one_of, "first": first_of, "all": all_of}


# -- worker processes and the thread that reads ahead

Item = TypeVar("Item")
Result = TypeVar("Result")
NO_SAMPLE = -1


class SamplesInProgress:
    """The sample that each worker process reads, in memory shared with the main process.

    When a worker is killed, the error can name the sample that it was reading.
    """

    def __init__(self, workers: int) -> None:
        # Without a lock: each worker writes its own two numbers, and they are read only after its death.
        self._pid_sample: Array[c_int64] = RawArray(c_int64, [NO_SAMPLE] * (2 * workers))

    def begin(self, sample: int) -> None:
        """Note the sample that this worker begins to read; without effect outside a worker."""
        if (worker := get_worker_info()) is not None:
            self._pid_sample[2 * worker.id : 2 * worker.id + 2] = [os.getpid(), sample]

    def of_dead_workers(self) -> list[int]:
        """The samples that dead workers were reading; waits up to a second, since their pipes break first."""
        for _ in range(10):
            if samples := self._dead():
                return samples
            time.sleep(0.1)
        return []

    def _dead(self) -> list[int]:
        # active_children also reaps children that have died.
        alive = {child.pid for child in multiprocessing.active_children()}
        pairs = zip(self._pid_sample[::2], self._pid_sample[1::2], strict=True)
        return [sample for pid, sample in pairs if pid not in alive and sample != NO_SAMPLE]


class WorkersError(Exception):
    """A worker process died; `samples` are those it was reading, as far as known."""

    def __init__(self, samples: Sequence[int], reason: str) -> None:
        super().__init__(reason)
        self.samples = samples


def read_by_workers(
    read: Callable[[Item], Result], plan: Iterable[Item], workers: int, in_progress: SamplesInProgress
) -> Iterator[Result]:
    """Apply `read` to each item of the plan in worker processes, in order; each worker is two items ahead.

    Raises WorkersError when a process is killed; outside the main thread, torch notices within five seconds.
    """
    loader = DataLoader(
        _Indexed(read),
        # Batches are planned and collated here; torch only moves them between processes.
        batch_size=None,
        sampler=plan,
        num_workers=workers,
        collate_fn=_unchanged,
        worker_init_fn=_ignore_interrupts,
        generator=torch.Generator(),  # otherwise each epoch would draw from the global generator and change training
    )
    try:
        yield from loader
    except (RuntimeError, OSError, EOFError) as error:  # the last two where it dies while it hands over a batch
        reason = str(error).split("\n", 1)[0] or type(error).__name__
        raise WorkersError(in_progress.of_dead_workers(), reason) from error


class _Indexed(Dataset[Result], Generic[Item, Result]):
    """A function as a torch Dataset."""

    def __init__(self, read: Callable[[Item], Result]) -> None:
        self.read = read

    def __getitem__(self, item: Item) -> Result:
        return self.read(item)


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C in a terminal reaches every process; the training process alone decides how to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _unchanged(result: Result) -> Result:
    return result


def prefetch(batches: Iterator[Result]) -> Iterator[Result]:
    """Yield the same items, computing the next one in a thread while the caller uses the current one."""
    # No batch can be equal to it, not even an empty one.
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        upcoming = thread.submit(next, batches, end)
        while (batch := upcoming.result()) is not end:
            upcoming = thread.submit(next, batches, end)
            yield batch  # type: ignore[misc]
