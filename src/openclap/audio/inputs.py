"""Accept the objects that a caller may pass as sounds, and convert them to mono blocks at the model's rate.

S samples of a waveform.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclap.arrays import Wave
from openclap.audio.io import BLOCK, AudioBlock, AudioSource, check_rate, check_samples, decoded, name_of
from openclap.audio.mono import DEFAULT_MONO, MonoBlocks, MonoConfig
from openclap.errors import AudioError, ConfigError

Sound = AudioSource | tuple[NDArray[Any], int]
"""A file, its bytes, an open file, or (waveform (S,) or (S, channels), rate in Hz)."""

KINDS = "a path, bytes, an open file, or (waveform, rate in Hz)"


def named(sounds: Iterable[Sound]) -> Iterator[tuple[str, Sound]]:
    """Pair each sound with a name for messages. Raises ConfigError for a single sound, and for anything but a list."""
    if not isinstance(sounds, Iterable) or _is_one(sounds):
        raise ConfigError(f"sounds must be a list, each {KINDS}. Wrap a single sound in [ ].")
    return ((_name(sound, f"sounds[{place}]"), sound) for place, sound in enumerate(sounds))


def blocks(
    sound: Sound,
    rate: int,
    name: str = "the sound",
    mono: MonoConfig = DEFAULT_MONO,
    longest_s: float = math.inf,
    *,
    keep_truncated: bool = False,
) -> MonoBlocks:
    """Convert a sound to mono float32 blocks at `rate` Hz.

    Only this function decides which objects are sounds. Reading the first block raises AudioError for any other object,
    and for a sound that cannot be decoded. Reading on raises it where the sound is longer than `longest_s`.

    Args:
        keep_truncated: end without an error where a file lacks its end, which `MonoBlocks.ends_early` then says.
    """
    decode = _opener(sound, name, check_end=keep_truncated)
    limited = decode if longest_s == math.inf else partial(_limited, decode, longest_s, name)
    return MonoBlocks(limited, rate, mono, name, keep_truncated=keep_truncated)


def _limited(decode: Callable[[], Iterator[AudioBlock]], longest_s: float, name: str) -> Iterator[AudioBlock]:
    """Stop decoding at `longest_s`, whatever the header says: a small file of silence may decode to days."""
    seconds = 0.0
    for wave, rate in decode():
        seconds += len(wave) / rate
        if seconds > longest_s:
            raise AudioError(f"{name}: is longer than {longest_s:g} s, the limit here. Send a part of it.")
        yield wave, rate


def _opener(sound: Any, name: str, *, check_end: bool) -> Callable[[], Iterator[tuple[Wave, int]]]:
    """A function that starts decoding a sound each time it is called: measuring levels needs a pass of its own."""
    if isinstance(sound, (bytearray, memoryview)):
        sound = bytes(sound)
    if isinstance(sound, tuple) and len(sound) == 2:
        wave, from_rate = sound
        return lambda: _pieces(wave, from_rate, name)
    if isinstance(sound, (str, os.PathLike, bytes)):
        return lambda: decoded(sound, check_end=check_end)
    if hasattr(sound, "read") and hasattr(sound, "seekable"):
        # A path can be opened again, a pipe cannot.
        file = _rereadable(sound)
        return lambda: decoded(file, check_end=check_end)
    return lambda: _refuse(sound, name)


def _rereadable(file: Any) -> Any:
    """The bytes of a pipe, which could be read only once; any other file unchanged."""
    try:
        content = None if file.seekable() else file.read()
    except (ValueError, OSError):
        return file  # decoding raises the error with its reason
    return content if isinstance(content, bytes) else file


def _refuse(sound: Any, name: str) -> Iterator[tuple[Wave, int]]:
    if isinstance(sound, np.ndarray):
        raise AudioError(f"{name}: is a waveform without its rate, expected (waveform, rate in Hz).")
    size = f" of {len(sound)}" if isinstance(sound, (tuple, list)) else ""
    raise AudioError(f"{name}: is a {type(sound).__name__}{size}, expected {KINDS}.")


def _is_one(sounds: object) -> bool:
    """Whether an iterable is itself a single sound."""
    if isinstance(sounds, tuple) and len(sounds) == 2:
        return isinstance(sounds[1], (int, float, np.number))
    if isinstance(sounds, np.ndarray) and sounds.ndim == 1 and sounds.dtype.kind in "UO":
        return False  # a column of paths
    one = (str, os.PathLike, bytes, bytearray, memoryview, np.ndarray, Mapping)
    return isinstance(sounds, one) or hasattr(sounds, "read")


def _name(sound: Sound, otherwise: str) -> str:
    if isinstance(sound, (str, os.PathLike)) or isinstance(getattr(sound, "name", None), str):
        return name_of(sound) or otherwise  # type: ignore[arg-type]
    return otherwise


def _pieces(wave: Any, rate: Any, name: str) -> Iterator[tuple[Wave, int]]:
    """Yield a caller's waveform, (S,) or (S, channels), as float32 blocks; integers are scaled to -1..1 by their type.

    Raises AudioError for an invalid rate, shape, type or sample.
    """
    check_rate(rate, name)
    try:
        array = np.asarray(wave)
    except (TypeError, ValueError, RuntimeError) as error:
        raise AudioError(f"{name}: the waveform is not an array of numbers ({str(error).rstrip('.')}).") from None
    if array.ndim not in (1, 2) or array.size == 0:
        raise AudioError(
            f"{name}: is a waveform of shape {array.shape} at {rate} Hz, expected (samples,) or (samples, channels)."
        )
    if array.ndim == 2 and array.shape[1] > max(array.shape[0], 2):  # torchaudio's order, (channels, samples)
        raise AudioError(f"{name}: is a waveform of shape {array.shape}, expected (samples, channels): transpose it.")
    middle, half = _range(array, name)
    # BLOCK counts samples of all channels.
    step = max(1, BLOCK * len(array) // array.size)
    for start in range(0, len(array), step):
        piece = array[start : start + step]
        if half != 1.0:
            piece = (piece.astype(np.float64) - middle) / half
        check_samples(piece, name)
        yield piece.astype(np.float32, copy=False), int(rate)


def _range(array: NDArray[Any], name: str) -> tuple[float, float]:
    """The middle of a type's range and half its width; (0, 1) for floating point.

    Raises AudioError for types that are no sample format, and for 16- or 24-bit samples in a 32-bit type that were not
    shifted up: scaled by the type, they would be almost silent. A correctly converted quiet sound has zeros in its
    lowest byte, so it is accepted.
    """
    if np.issubdtype(array.dtype, np.floating):
        return 0.0, 1.0
    if not np.issubdtype(array.dtype, np.integer):
        raise AudioError(f"{name}: is a waveform of {array.dtype}, expected floating-point or integer samples.")
    if array.dtype.itemsize > 4:
        raise AudioError(f"{name}: is a waveform of {array.dtype}, expected int16, int32, uint8 or floating point.")
    info = np.iinfo(array.dtype)
    half = (int(info.max) - int(info.min) + 1) / 2
    middle = half if array.dtype.kind == "u" else 0.0
    loudest = max(abs(int(array.min()) - middle), abs(int(array.max()) - middle))
    if array.dtype.itemsize == 4 and 1 < loudest <= 1 << 23 and (array & 0xFF).any():
        bits = 16 if loudest <= 1 << 15 else 24
        raise AudioError(
            f"{name}: is a waveform of {array.dtype} with samples up to {loudest:.0f}: {bits}-bit samples in a 32-bit "
            f"type. Divide them by {1 << (bits - 1)} first; by {1 << 31} if it is as quiet as that."
        )
    return middle, half
