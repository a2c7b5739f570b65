"""Convert recordings to one channel, and trim silent ends.

N samples, C channels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from openclap.arrays import Wave
from openclap.audio.io import AudioBlock, to_mono
from openclap.audio.resample import resampled
from openclap.errors import AudioWarning, ConfigError, TruncatedAudioError

Channels = Literal["mean", "left", "right", "loudest"]
SILENCE = 1e-4
"""Peak below which sound counts as silence: -80 dBFS, three steps of 16-bit audio."""

CANCELLED = 0.01
"""Channels count as cancelling when the power of their mean is below this share of their own mean power: -20 dB, in
stereo a correlation of about -0.98."""


@dataclass(frozen=True, slots=True)
class MonoConfig:
    """How to convert a recording to the single channel that a model reads.

    Attributes:
        channels: "mean" averages all channels, as LAION-CLAP does; "left" and "right" take the first and the second;
            "loudest" takes the one with the most power over the whole recording. A mono recording is unchanged.
        trim_silence: cut everything before the first and after the last sample at or above -80 dBFS.

    Raises ConfigError for other values.
    """

    channels: Channels = "mean"
    trim_silence: bool = False

    def __post_init__(self) -> None:
        if self.channels not in get_args(Channels):
            raise ConfigError(f"channels is {self.channels!r}, expected one of: {', '.join(get_args(Channels))}.")
        if not isinstance(self.trim_silence, bool):
            raise ConfigError(f"trim_silence is {self.trim_silence!r}, expected True or False.")

    def __str__(self) -> str:
        """A sentence for protocols and cards; empty for the defaults."""
        parts = [] if self.channels == "mean" else [f"the {self.channels} channel"]
        parts += ["silent ends (below -80 dBFS) cut"] if self.trim_silence else []
        return f"Read of each recording: {', '.join(parts)}." if parts else ""


DEFAULT_MONO = MonoConfig()
"""The mean of all channels, untrimmed."""


def is_silent(wave: Any) -> bool:
    """Whether the peak of an array or tensor lies below -80 dBFS; of an empty one too."""
    # Two reductions, without the copy that abs() would make. A block is empty while the resampler holds samples back.
    return len(wave) == 0 or bool(wave.max() < SILENCE and wave.min() > -SILENCE)


class MonoBlocks:
    """Iterates once over a recording as mono blocks (N,) at `rate` Hz.

    Args:
        decode: opens the recording and yields its blocks. It is called twice if the whole recording must be measured
            first (for the loudest channel, or silent ends), so that never more than a block is in memory.
        keep_truncated: end without an error where a recording ends before its file says.

    Attributes:
        ends_early: whether it did; valid after the last block.
        start: number of samples at `rate` that were cut from the front as silence; valid after the first block.
        source_rate, source_channels, source_samples: of the recording before mixing, trimming and resampling; valid
            after the last block.
    """

    def __init__(
        self,
        decode: Callable[[], Iterator[AudioBlock]],
        rate: int,
        config: MonoConfig = DEFAULT_MONO,
        name: str = "sound",
        *,
        keep_truncated: bool = False,
    ) -> None:
        self.start, self.ends_early = 0, False
        self.source_rate = self.source_channels = self.source_samples = 0
        self._decode, self._rate, self._config, self._name = decode, rate, config, name
        self._keep_truncated = keep_truncated
        # Mixed before resampled: one channel is resampled instead of all, and both steps are linear.
        self._blocks = resampled(self._mono(), rate)

    def __iter__(self) -> Iterator[Wave]:
        return self

    def __next__(self) -> Wave:
        return next(self._blocks)

    @property
    def duration_s(self) -> float:
        """Duration of the recording in seconds; valid after the last block."""
        return self.source_samples / self.source_rate

    def _decoded(self) -> Iterator[AudioBlock]:
        """Yield the blocks of the recording, up to a missing end."""
        has_sound = False
        try:
            for wave, rate in self._decode():
                has_sound = has_sound or len(wave) > 0
                yield wave, rate
        except TruncatedAudioError:
            if not (self._keep_truncated and has_sound):
                raise
            self.ends_early = True

    def _measured(self) -> Iterator[AudioBlock]:
        """Yield the blocks of the recording unchanged, and record its rate, channels and number of samples."""
        for wave, rate in self._decoded():
            self.source_rate, self.source_channels = rate, 1 if wave.ndim == 1 else wave.shape[1]
            self.source_samples += len(wave)
            yield wave, rate

    def _mono(self) -> Iterator[AudioBlock]:
        channels = self._config.channels
        # The usual case needs a single pass.
        if channels != "loudest" and not self._config.trim_silence:
            yield from mixed(self._measured(), channels, self._name)
            return
        levels = Levels()
        for wave, rate in self._decoded():
            levels.add(wave, rate)
        channel = levels.loudest if channels == "loudest" else channels
        first, end = levels.sounding(channel) if self._config.trim_silence else (0, levels.samples)
        if first < end:
            # `first` counts samples of the recording, and callers count at the model's rate.
            self.start = round(first * self._rate / levels.rate)
        at = 0
        for mono_N, rate in mixed(self._measured(), channel, self._name):
            # A recording that is silent throughout is not cut.
            block_N = mono_N if first >= end else mono_N[max(0, first - at) : max(0, end - at)]
            at += len(mono_N)
            if len(block_N):
                yield block_N, rate


def mixed(blocks: Iterator[AudioBlock], channel: Channels | int, name: str) -> Iterator[AudioBlock]:
    """Mix each block to mono (N,): the mean of the channels, or a channel by name or number.

    "loudest" must be a number here, since it is known only after a whole pass (see `Levels`). Warns with AudioWarning
    when the channels cancel each other in their mean.
    """
    if channel != "mean":
        yield from ((_channel(wave, channel), rate) for wave, rate in blocks)
        return
    cancellation = Cancellation()
    for wave, rate in blocks:
        mono_N = to_mono(wave)
        cancellation.add(wave, mono_N)
        yield mono_N, rate
    # Only here: the power of the whole recording decides, not that of a block.
    if cancellation.found:
        warnings.warn(f"{name}: {cancellation.sentence}", AudioWarning, stacklevel=2)


class Cancellation:
    """Detects channels that cancel in their mean, such as stereo with the polarity of one side inverted."""

    def __init__(self) -> None:
        # Energy of the mean, times the number of channels, and of all channels: equal for equal channels.
        self._mean = self._each = 0.0
        self._peak = 0.0

    def add(self, wave: Wave, mono_N: Wave) -> None:
        """Measure a block (N, C) and its mean (N,)."""
        # vdot sums the squares without an array of them.
        if wave.ndim == 2 and wave.shape[1] > 1 and wave.size:
            self._mean += float(np.vdot(mono_N, mono_N)) * wave.shape[1]
            self._each += float(np.vdot(wave, wave))
            self._peak = max(self._peak, float(wave.max()), -float(wave.min()))

    @property
    def found(self) -> bool:
        # Digital silence and dither have no meaningful ratio.
        return self._peak >= SILENCE and self._mean < CANCELLED * self._each

    @property
    def sentence(self) -> str:
        """A description and the remedy."""
        level = f"{10 * np.log10(self._each / self._mean):.0f} dB quieter than they are" if self._mean else "silence"
        return (
            f"Its channels cancel each other: one has inverted polarity, and their mean is {level}. Choose one of them "
            "with channels left, right or loudest."
        )


class Levels:
    """Measurements of a whole recording, block by block: power and audible span of each channel."""

    def __init__(self) -> None:
        self.rate, self.samples = 1, 0
        self._power_C: NDArray[np.float64] | None = None
        self._spans: dict[int | str, tuple[int, int]] = {}

    def add(self, wave: Wave, rate: int) -> None:
        """Measure the next block."""
        wave_NC = wave if wave.ndim == 2 else wave[:, None]
        power_C = np.einsum("nc,nc->c", wave_NC, wave_NC, dtype=np.float64)
        self._power_C = power_C if self._power_C is None else self._power_C + power_C
        # All of them, since which one is the loudest is known only at the end.
        for channel in ("mean", *range(wave_NC.shape[1])):
            above = np.flatnonzero(np.abs(_channel(wave_NC, channel)) >= SILENCE)
            if len(above):
                first, _ = self._spans.get(channel, (self.samples + int(above[0]), 0))
                self._spans[channel] = first, self.samples + int(above[-1]) + 1
        self.rate, self.samples = rate, self.samples + len(wave_NC)

    @property
    def loudest(self) -> int:
        """The number of the channel with the most power; the first of equals."""
        return 0 if self._power_C is None else int(self._power_C.argmax())

    def sounding(self, channel: Channels | int) -> tuple[int, int]:
        """The first sample at or above -80 dBFS and the one after the last; (0, 0) for a silent recording."""
        number = {"left": 0, "right": 1}.get(channel, channel) if isinstance(channel, str) else channel
        if isinstance(number, int) and self._power_C is not None:
            number = min(number, len(self._power_C) - 1)
        return self._spans.get(number, (0, 0))


def _channel(wave: Wave, channel: str | int) -> Wave:
    """(N,) of (N, C): the mean, or a channel. A missing channel is replaced by the last, so "right" of mono works."""
    if channel == "mean" or wave.ndim == 1:
        return to_mono(wave)
    number = {"left": 0, "right": 1}[channel] if isinstance(channel, str) else channel
    return np.ascontiguousarray(wave[:, min(number, wave.shape[1] - 1)])
