"""A record to a clean sample: 48 kHz mono 16-bit FLAC, and JSON in LAION's layout.

N samples of sound.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from openclap.audio.io import Wave, read_mono
from openclap.errors import AudioError
from openclap.sources.record import Record

RATE = 48_000
"""Hz; what LAION-CLAP's shards hold."""


@dataclass(frozen=True, slots=True)
class Clean:
    """The two members of a sample."""

    flac: bytes
    json: bytes


@dataclass(frozen=True, slots=True)
class Skipped:
    """A record that was left out, and why, in one line."""

    id: str
    file: str
    reason: str


def clean(record: Record) -> Clean | Skipped:
    """Decode and encode one record, or say why it cannot be used."""
    captions = [caption.strip() for caption in record.captions if caption.strip()]
    if not captions:
        return _skipped(record, "has no caption")
    if any(_surrogates(caption) for caption in captions):
        return _skipped(record, "has a caption that is not valid text (UTF-8)")
    try:
        wave_N = read_mono(record.audio, RATE)
    except AudioError as error:
        return _skipped(record, str(error))
    return Clean(to_flac(wave_N), _metadata(record, captions))


def _surrogates(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def to_flac(wave_N: Wave) -> bytes:
    """(N,) in -1..1 at 48 kHz to FLAC. 16-bit originals come back bit for bit; what is louder is clipped."""
    import soundfile

    pcm_N = np.clip(np.rint(wave_N * 32768.0), -32768, 32767).astype(np.int16)
    file = io.BytesIO()
    soundfile.write(file, pcm_N, RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def _metadata(record: Record, captions: list[str]) -> bytes:
    original = {
        "id": record.id,
        "title": record.title,
        "label": record.label,
        "group": record.group or Path(record.audio).name,
        "licence": record.licence,
        "author": record.author,
        "link": record.link,
        "source": record.source,
        "file": Path(record.audio).name,  # without its folder, which says more of a machine than of the sound
    }
    return json.dumps({"text": captions, "tag": list(record.tags), "original_data": original}).encode()


def _skipped(record: Record, reason: str) -> Skipped:
    return Skipped(record.id, str(record.audio), " ".join(reason.split()))
