"""One sample of one epoch: its sound as a tower reads it, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from openclap.audio.augment import AugmentConfig, draw_mix, hide_stripes, join_captions, vary
from openclap.audio.io import Wave, decoded
from openclap.audio.mono import Channels, MonoBlocks, MonoConfig
from openclap.data.order import neighbour, sample_rng
from openclap.data.shards import ShardIndex
from openclap.errors import AudioError, DataError
from openclap.types import AudioBatch

Captions = tuple[str, ...]
Choose = Callable[[Captions, int, np.random.Generator], Captions]


class FrontEndLike(Protocol):
    """What makes of waveforms the input of an audio tower (`openclap.audio.frontend.FrontEnd`)."""

    sample_rate: int

    def __call__(self, waves: Sequence[Wave], *, rng: np.random.Generator | None = None) -> AudioBatch: ...


@dataclass(frozen=True, slots=True)
class SkippedSample:
    """A sample that was left out of its batch in training, and why."""

    key: str
    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class Clip:
    """One sample, ready to be put in a batch."""

    key: str
    audio: AudioBatch
    captions: Captions


@dataclass(frozen=True, slots=True)
class ClipReader:
    """Samples by number, as they are in one epoch: a pure function of (seed, epoch, number).

    Attributes:
        choose, most_captions: which of a sample's captions are taken (`CHOICES`).
        channels: read of sounds with several (`openclap.audio.mono`).
    """

    shards: ShardIndex
    frontend: FrontEndLike
    choose: Choose
    most_captions: int
    augment: AugmentConfig
    seed: int
    channels: Channels = "mean"

    def read(self, epoch: int, number: int) -> Clip | SkippedSample:
        """Decoded, varied, mixed, made a log-mel, some of it hidden; in this order, everything from one generator."""
        rng = sample_rng(self.seed, epoch, number)
        try:
            wave_N, every = self._sound(number)
        except DataError as error:
            return SkippedSample(self.shards.keys[number], epoch, str(error))
        except AudioError as error:
            return SkippedSample(self.shards.keys[number], epoch, f"{self.shards.where(number)}: {error}")
        captions = self.choose(every, self.most_captions, rng)
        wave_N = vary(wave_N, self.augment, rng)
        if self.augment.mixup and rng.random() < self.augment.mixup:
            wave_N, captions = self._mixed(number, wave_N, captions, rng)
        audio = hide_stripes(self.frontend([wave_N], rng=rng), self.augment, rng)
        return Clip(self.shards.keys[number], audio, captions)

    def _sound(self, number: int) -> tuple[Wave, Captions]:
        sample = self.shards.read_sample(number)
        name = self.shards.keys[number]
        blocks = MonoBlocks(lambda: decoded(sample.audio), self.frontend.sample_rate, MonoConfig(self.channels), name)
        wave_N = np.concatenate(list(blocks))
        return (wave_N if len(wave_N) else np.zeros(1, np.float32)), sample.captions

    def _mixed(self, number: int, wave_N: Wave, captions: Captions, rng: np.random.Generator) -> tuple[Wave, Captions]:
        """With another sample of the shard; as it was where there is none that can be read and heard."""
        other = neighbour(self.shards.tar_S, number, rng)
        if other is None:
            return wave_N, captions
        try:
            other_M, theirs = self._sound(other)
        except (AudioError, DataError):  # told of when its own turn comes
            return wave_N, captions
        mixed_N = draw_mix(wave_N, other_M, rng)
        if mixed_N is None:
            return wave_N, captions
        [their_caption] = one_of(theirs, 1, rng)
        return mixed_N, tuple(join_captions(caption, their_caption) for caption in captions)


def one_of(captions: Captions, most: int, rng: np.random.Generator) -> Captions:
    """One, at random, as LAION draws it."""
    return (captions[int(rng.integers(len(captions)))],)


def first_of(captions: Captions, most: int, rng: np.random.Generator) -> Captions:
    """The first."""
    return captions[:1]


def all_of(captions: Captions, most: int, rng: np.random.Generator) -> Captions:
    """Every one, or `most` of them at random, in their order."""
    if len(captions) <= most:
        return captions
    return tuple(captions[place] for place in sorted(rng.choice(len(captions), most, replace=False)))


CHOICES: dict[str, Choose] = {"random": one_of, "first": first_of, "all": all_of}
