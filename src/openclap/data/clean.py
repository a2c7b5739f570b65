"""A record to a sample: 48 kHz mono 16-bit FLAC, and JSON in LAION's layout.

N samples of sound.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclap.audio.io import Source, Wave, decoded, name_of, resample
from openclap.audio.mono import Channels, Levels, mixed
from openclap.data.records import Captioned
from openclap.errors import AudioError

Pcm = NDArray[np.int16]
KEYWORDS = "keywords:"
RATE = 48_000
"""Hz; what LAION-CLAP's shards hold."""


def stretch(source: Source, start_s: float | None = None, length_s: float | None = None) -> Iterator[tuple[Wave, int]]:
    """A sound piece by piece, as (N, C) and its rate, or, where a start is given, `length_s` from there.

    Raises AudioError for what cannot be decoded, and for a stretch that lies behind the end.
    """
    if start_s is None:
        yield from decoded(source)
        return
    at, yielded = 0, 0
    for wave_NC, rate in decoded(source):
        first, last = round(start_s * rate), len(wave_NC) + at
        end = last if length_s is None else min(last, round((start_s + length_s) * rate))
        piece_NC = wave_NC[max(0, first - at) : max(0, end - at)]
        at, yielded = last, yielded + len(piece_NC)
        if len(piece_NC):
            yield piece_NC, rate
    if not yielded:
        raise AudioError(f"{name_of(source)}: ends before {start_s:g} s, where its sound should begin.")


def flac_of(
    source: Source,
    start_s: float | None = None,
    length_s: float | None = None,
    pcm_sha256: str | None = None,
    channels: Channels = "mean",
) -> bytes:
    """Decode a sound, make it one channel and encode it.

    Raises AudioError when it cannot be decoded, has other samples than `pcm_sha256` says, or does not come back as it
    went.
    """
    import soundfile

    try:
        channel = channels if channels != "loudest" else _loudest(stretch(source, start_s, length_s))
        sha = PcmHash()
        hashed = ((sha.update(wave_NC, rate), rate) for wave_NC, rate in stretch(source, start_s, length_s))
        pieces = list(mixed(hashed, channel, name_of(source)))
        if pcm_sha256 not in (None, sha.hexdigest()):
            raise AudioError(
                f"{name_of(source)}: has changed since it was decoded first. Run: openclap dataset fetch --again"
            )
        pcm_N = to_pcm(resample(np.concatenate([wave_N for wave_N, _ in pieces]), pieces[0][1], RATE))
        flac = to_flac(pcm_N)
        again_N, _ = soundfile.read(io.BytesIO(flac), dtype="int16")
    except MemoryError:
        raise AudioError(f"{name_of(source)}: is too long for this machine's memory.") from None
    if not np.array_equal(again_N, pcm_N):
        raise AudioError("the FLAC that was made of it decodes to other samples. Is the memory or the disk failing?")
    return flac


def _loudest(pieces: Iterator[tuple[Wave, int]]) -> int:
    levels = Levels()
    for wave_NC, rate in pieces:
        levels.add(wave_NC, rate)
    return levels.loudest


class PcmHash:
    """A SHA-256 of rate, channels and decoded samples (float32, little endian): equal for equal sounds in any lossless
    file."""

    def __init__(self) -> None:
        self._sha: Any = None

    def update(self, wave_NC: Wave, rate: int) -> Wave:
        """Take in a piece, and give it back."""
        if self._sha is None:
            self._sha = hashlib.sha256(f"{rate} {wave_NC.shape[1]}".encode())
        self._sha.update(np.ascontiguousarray(wave_NC, "<f4").data)
        return wave_NC

    def hexdigest(self) -> str:
        return str(self._sha.hexdigest())


def to_pcm(wave_N: Wave) -> Pcm:
    """(N,) in -1..1 to 16 bits. 16-bit originals come back bit for bit; what is louder is clipped."""
    pcm_N: Pcm = np.clip(np.rint(wave_N * 32768.0), -32768, 32767).astype(np.int16)
    return pcm_N


def to_flac(pcm_N: Pcm) -> bytes:
    """(N,) at 48 kHz to FLAC."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, pcm_N, RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def json_of(row: Captioned) -> bytes:
    """What stands beside a sound: all its captions, and how each was made. Sentences that a model made of keywords
    stand under LAION's names for them too."""
    record = row.record
    original = {
        "id": record.id,
        "title": record.title,
        "label": record.label,
        "group": record.group or _name(record.audio),
        "licence": record.licence,
        "author": record.author,
        "link": record.link,
        "source": record.source,
        "file": _name(record.audio),  # without its folder, which says more of a machine than of the sound
        "made": [caption.made for caption in row.captions],
    }
    texts = [caption.text for caption in row.captions]
    content: dict[str, Any] = {"text": texts, "tag": list(record.tags), "original_data": original}
    keywords = [caption.text for caption in row.captions if caption.made.startswith(KEYWORDS)]
    if keywords:
        content |= {"text_augment_t5": keywords[0], "text_augment_all": texts}
    return json.dumps(content).encode()


def _name(audio: Path | str) -> str:
    return PurePosixPath(audio).name if isinstance(audio, str) else audio.name
