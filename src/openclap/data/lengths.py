"""Durations of training clips before they are decoded, and the part that is read of a long one.

S samples of a data set, N audio samples of a clip.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from openclap.audio.io import describe, header_seconds
from openclap.data.layout import MANIFEST, read_table
from openclap.data.shards import ShardIndex
from openclap.errors import AudioError, ConfigError, DataError
from openclap.limits import COUNT, check_count

Part = Literal["start", "middle", "random"]
LONGEST_S = 600.0
"""Limit of `longest_s`: attention over ten minutes already has a hundred thousand patches."""


@dataclass(frozen=True, slots=True)
class LengthConfig:
    """Clips at their own length, for towers that read any length (NaFlex). Other towers ignore it.

    Attributes:
        longest_s: seconds that are read of a clip at most; 0 for the model's training length (10 s).
        part: the part that is read of a longer clip: its "start", as open_clip, its "middle", or a stretch at "random",
            drawn anew in each epoch.
        patches: patches, padding included, that pass through the audio tower at a time: 0 for 512 on a CPU and 65,536
            on a GPU. It changes time and memory, and no result beyond rounding.
        pool: the pairs of this many steps are sorted by length and divided among them, in random order; 1 leaves clips
            of all lengths in each step.
    """

    longest_s: float = 0.0
    part: Part = "start"
    patches: int = 0
    pool: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.longest_s <= LONGEST_S:
            raise ConfigError(f"lengths.longest_s is {self.longest_s}, expected seconds from 0 to {LONGEST_S:g}.")
        if self.part not in PARTS:
            raise ConfigError(f"lengths.part is {self.part!r}, expected one of: {', '.join(PARTS)}.")
        check_count("lengths.patches", self.patches, least=0, most=COUNT)
        check_count("lengths.pool", self.pool, most=COUNT)


def _start(surplus: int, rng: np.random.Generator) -> int:
    return 0


def _middle(surplus: int, rng: np.random.Generator) -> int:
    return surplus // 2


def _random(surplus: int, rng: np.random.Generator) -> int:
    return int(rng.integers(surplus + 1))


PARTS: dict[Part, Callable[[int, np.random.Generator], int]] = {"start": _start, "middle": _middle, "random": _random}
"""The first sample that is read, by the number of samples too many."""


@dataclass(frozen=True, slots=True)
class ClipLengths:
    """What the loader knows of lengths.

    Attributes:
        seconds_S: the duration of each clip, as known before decoding.
        samples: audio samples that are read of a clip at most.
        seconds: the same in seconds.
    """

    seconds_S: NDArray[np.float64]
    samples: int
    seconds: float
    part: Part = "start"
    pool: int = 1

    def draw_start(self, samples: int, rng: np.random.Generator) -> int:
        """Where the part begins that is read of a clip of so many samples. Only a "random" part draws from `rng`, and
        only for a longer clip."""
        surplus = samples - self.samples
        return PARTS[self.part](surplus, rng) if surplus > 0 else 0

    def read_s(self) -> NDArray[np.float64]:
        """(S,) seconds that are read of each clip."""
        return np.minimum(self.seconds_S, self.seconds)


def clip_lengths(shards: ShardIndex, config: LengthConfig, rate: int, training_samples: int) -> ClipLengths:
    """Find the durations of all samples of `shards`.

    Args:
        rate: of the front end, in Hz.
        training_samples: length of the model's training clips, for `longest_s` = 0.
    """
    samples = round(config.longest_s * rate) if config.longest_s else training_samples
    return ClipLengths(durations(shards), samples, samples / rate, config.part, config.pool)


def durations(shards: ShardIndex) -> NDArray[np.float64]:
    """(S,) seconds of each sample: from the data set's manifest, otherwise from the header of each sound, or from
    decoding it where the header states none.

    A damaged sound has 0 s; reading it is reported when it is due.
    """
    known = _manifest_durations(shards)
    names = [(shards.tars[tar], key) for tar, key in zip(shards.tar_S, shards.keys, strict=True)]
    return np.array(
        [known[name] if name in known else _stated_s(shards, number) for number, name in enumerate(names)], np.float64
    )


def _manifest_durations(shards: ShardIndex) -> dict[tuple[str, str], float]:
    """Seconds by tar and key, from the manifest above the folder; empty where there is none, or a damaged one."""
    for levels, root in enumerate((shards.folder.parent, shards.folder.parent.parent), start=1):
        if not (root / MANIFEST).exists():
            continue
        try:
            table = read_table(root / MANIFEST)
        except DataError:  # the headers say it, too
            return {}
        # With `by_source` a split lies two levels down.
        shard_name = "/".join(shards.folder.parts[-levels:])
        if {"shards", "tar", "key", "seconds"} <= set(table.columns):
            rows = table.filter(table["shards"] == shard_name).select("tar", "key", "seconds")
            return {(f"{tar}.tar", key): seconds for tar, key, seconds in rows.iter_rows()}
    return {}


def _stated_s(shards: ShardIndex, number: int) -> float:
    try:
        with shards.open_audio(number) as file:
            stated_s = header_seconds(file)
        return stated_s or describe(shards.read_audio(number))[0]
    except (AudioError, DataError):
        return 0.0
