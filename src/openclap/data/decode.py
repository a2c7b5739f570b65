"""The step that decodes: what every sound is, or why it is none.

N samples, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from openclap.audio.io import Source, to_mono
from openclap.audio.mono import Cancellation
from openclap.data.clean import PcmHash, stretch
from openclap.data.fetched import Failure, failures, sound_of, where
from openclap.data.layout import CHUNK, identity, numbered, read_table, records, work, write_table
from openclap.data.work import ALL, Share
from openclap.errors import AudioError, require
from openclap.storage import Place, place_of

FULL_SCALE = 0.9999
"""What a sample at or beyond this is counted as: clipped."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What decoding shows.

    Attributes:
        seconds, rate, channels: of the sound as it was recorded.
        peak: the largest absolute value of a sample; 1 is full scale.
        clipped: the share of samples at full scale.
        cancelled: whether the channels cancel each other in their mean: stereo with one side inverted.
        pcm_sha256: see `PcmHash`.
    """

    seconds: float
    rate: int
    channels: int
    peak: float
    clipped: float
    cancelled: bool
    pcm_sha256: str


def facts_of(source: Source, start_s: float | None = None, length_s: float | None = None) -> Facts:
    """Decode a sound piece by piece. Raises AudioError for what cannot be decoded."""
    samples, values, over, peak, sha, rate, channels = 0, 0, 0, 0.0, PcmHash(), 0, 0
    cancellation = Cancellation()
    for wave_NC, rate_of_it in stretch(source, start_s, length_s):
        if not samples:
            rate, channels = rate_of_it, wave_NC.shape[1]
        loudest = max(float(wave_NC.max()), -float(wave_NC.min()))
        samples, values = samples + len(wave_NC), values + wave_NC.size
        over += int((np.abs(wave_NC) >= FULL_SCALE).sum()) if loudest >= FULL_SCALE else 0
        peak = max(peak, loudest)
        sha.update(wave_NC, rate_of_it)
        cancellation.add(wave_NC, to_mono(wave_NC))
    return Facts(samples / rate, rate, channels, peak, over / values, cancellation.found, sha.hexdigest())


def chunks(folder: Place, share: Share = ALL) -> Sequence[int]:
    """The pieces of work of a share."""
    return share(range(-(-identity(folder)["records"] // CHUNK)))


def waiting(folder: Place, share: Share = ALL) -> list[int]:
    """Those that are not done yet."""
    done = {int(path.stem) for path in numbered(work(folder, "examined"), ".parquet")}
    return [chunk for chunk in chunks(folder, share) if chunk not in done]


def examine(job: tuple[str, int]) -> int:
    """Decode the records of one chunk (folder, number) and write down what they are; how many there were.

    A damaged sound is a row with a reason, never an error.
    """
    pl = require("polars", "data")
    folder, number = place_of(job[0]), job[1]
    rows = records(folder, identity(folder)["digest"]).slice(number * CHUNK, CHUNK)
    missing = failures(folder)
    found = [
        {"n": n} | _row(folder, audio, start_s, length_s, missing.get(audio))
        for n, audio, start_s, length_s, kind in rows.select("n", "audio", "start_s", "length_s", "kind").iter_rows()
        if kind is None
    ]
    write_table(work(folder, "examined", f"{number}.parquet"), pl.DataFrame(found, schema=columns()))
    return len(rows)


def columns() -> dict[str, Any]:
    """Of what is written down."""
    pl = require("polars", "data")
    numbers = {"seconds": pl.Float64, "rate": pl.Int64, "channels": pl.Int64, "peak": pl.Float64, "clipped": pl.Float64}
    texts = dict.fromkeys(("pcm_sha256", "kind", "reason"), pl.String)
    return {"n": pl.UInt32, **numbers, "cancelled": pl.Boolean, **texts}


def _row(
    folder: Place, audio: str, start_s: float | None, length_s: float | None, failure: Failure | None
) -> dict[str, Any]:
    try:
        return asdict(facts_of(sound_of(folder, audio), start_s, length_s))
    except AudioError as error:
        lost = failure if failure and not where(folder, audio).exists() else None  # it may have come since
        kind, reason = lost[:2] if lost else ("not decoded", " ".join(str(error).split()))
        return {"kind": kind, "reason": reason}


def forget_failures(folder: Place, share: Share = ALL) -> None:
    """Let the chunks of a share that hold something which could not be fetched or decoded be done again."""
    work(folder, "fetched", f"{share}.jsonl").unlink(missing_ok=True)
    for chunk in chunks(folder, share):
        path = work(folder, "examined", f"{chunk}.parquet")
        if path.exists() and read_table(path)["kind"].count():
            path.unlink()
