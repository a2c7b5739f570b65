"""Decode every sound of a data set, once: facts about it, and the 48 kHz mono 16-bit FLAC that its tar will hold.

The FLACs wait in `work/sounds/` for the step that writes tars, which knows duplicates and splits only after all facts
are there (docs/decisions/0010).

N samples, C channels.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclap.arrays import Wave
from openclap.audio.io import AudioSource, decoded, name_of, to_mono
from openclap.audio.mono import Cancellation, Channels, Levels, mixed
from openclap.audio.resample import resample
from openclap.data.download import FailedRow, failures, path_of_sound, sound_of
from openclap.data.layout import CHUNK, identity, numbered, read_table, records, work, write_table
from openclap.data.parallel import ALL, Share
from openclap.errors import AudioError, AudioWarning, require
from openclap.storage import Place, new_file, place_of

Pcm = NDArray[np.int16]
RATE = 48_000
"""Hz; the rate of LAION-CLAP's shards."""
# Below 1, because the largest 16-bit sample is 32767 / 32768.
FULL_SCALE = 0.9999
"""A sample at or beyond this value counts as clipped."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Properties of a decoded sound.

    Attributes:
        seconds, rate, channels: of the recording.
        peak: the largest absolute value of a sample; 1 is full scale.
        clipped: the share of samples at full scale.
        cancelled: whether the channels cancel in their mean: stereo with one side inverted.
        pcm_sha256: see `PcmHash`.
    """

    seconds: float
    rate: int
    channels: int
    peak: float
    clipped: float
    cancelled: bool
    pcm_sha256: str


def facts_of(source: AudioSource, start_s: float | None = None, length_s: float | None = None) -> Facts:
    """Decode a sound piece by piece and measure it. Raises AudioError where it cannot be decoded."""
    meter = _Meter()
    for wave_NC, rate in segment(source, start_s, length_s):
        meter.add(wave_NC, rate)
    return meter.facts()


def facts_and_flac(
    source: AudioSource,
    start_s: float | None = None,
    length_s: float | None = None,
    channels: Channels = "mean",
    longest_s: float | None = None,
) -> tuple[Facts, bytes | None]:
    """Decode a sound once, and return its facts and its FLAC; no FLAC where it is longer than `longest_s` seconds.

    Warns with AudioWarning where channels cancel in their mean. Raises AudioError where the sound cannot be decoded or
    its FLAC does not decode to the same samples.
    """
    meter = _Meter(with_levels=channels == "loudest")
    pieces = _metered(segment(source, start_s, length_s), meter)
    channel: Channels | int = channels
    try:
        if channels == "loudest":  # known only at the end, so all channels are in memory until then
            whole = list(pieces)
            pieces, channel = iter(whole), meter.levels.loudest
        mono: list[Wave] = []
        for wave_N, _ in mixed(pieces, channel, name_of(source)):
            # By what was decoded so far: the length is known only at the end.
            if longest_s is None or meter.seconds <= longest_s:
                mono.append(wave_N)
            else:  # will be left out: only measured to its end, so that memory stays bounded
                mono.clear()
        facts = meter.facts()
        if longest_s is not None and facts.seconds > longest_s:
            return facts, None
        return facts, _checked_flac(np.concatenate(mono), facts.rate)
    except MemoryError:
        raise AudioError(f"{name_of(source)}: is too long for this machine's memory.") from None


def flac_of(
    source: AudioSource,
    start_s: float | None = None,
    length_s: float | None = None,
    pcm_sha256: str | None = None,
    channels: Channels = "mean",
) -> bytes:
    """Decode a sound to 48 kHz mono 16-bit FLAC.

    Raises AudioError where it cannot be decoded, does not match `pcm_sha256`, or its FLAC does not decode to the same
    samples.
    """
    facts, flac = facts_and_flac(source, start_s, length_s, channels)
    if pcm_sha256 not in (None, facts.pcm_sha256):
        raise AudioError(
            f"{name_of(source)}: has changed since it was first decoded. Run 'openclap dataset fetch --retry-failed'."
        )
    assert flac is not None
    return flac


def segment(
    source: AudioSource, start_s: float | None = None, length_s: float | None = None
) -> Iterator[tuple[Wave, int]]:
    """Decode a sound piece by piece, each (N, C) with its rate; with `start_s`, only `length_s` from there.

    Raises AudioError where it cannot be decoded, and where it ends before `start_s`.
    """
    if start_s is None:
        yield from decoded(source)
        return
    position, yielded = 0, 0
    for wave_NC, rate in decoded(source):
        # Decoded from the beginning and not by seeking, which is not exact to the sample in compressed files.
        first, last = round(start_s * rate), len(wave_NC) + position
        end = last if length_s is None else min(last, round((start_s + length_s) * rate))
        piece_NC = wave_NC[max(0, first - position) : max(0, end - position)]
        position, yielded = last, yielded + len(piece_NC)
        if len(piece_NC):
            yield piece_NC, rate
    if not yielded:
        raise AudioError(f"{name_of(source)}: ends before {start_s:g} s, where its sound should begin.")


class PcmHash:
    """A SHA-256 of rate, channels and decoded samples (float32, little endian).

    It is the same for the same sound in any lossless file.
    """

    def __init__(self) -> None:
        self._sha: Any = None

    def update(self, wave_NC: Wave, rate: int) -> None:
        if self._sha is None:
            # The same samples at another rate are another sound.
            self._sha = hashlib.sha256(f"{rate} {wave_NC.shape[1]}".encode())
        self._sha.update(np.ascontiguousarray(wave_NC, "<f4").data)

    def hexdigest(self) -> str:
        return str(self._sha.hexdigest())


class _Meter:
    """Measures a sound piece by piece."""

    def __init__(self, *, with_levels: bool = False) -> None:
        self._with_levels = with_levels
        self._samples = self._values = self._over = self._rate = self._channels = 0
        self._peak = 0.0
        self._sha, self._cancellation, self.levels = PcmHash(), Cancellation(), Levels()

    @property
    def seconds(self) -> float:
        return self._samples / self._rate

    def add(self, wave_NC: Wave, rate: int) -> None:
        if not self._samples:
            self._rate, self._channels = rate, wave_NC.shape[1]
        # Extremes rather than the maximum of absolute values: no copy of the piece is made.
        loudest = max(float(wave_NC.max()), -float(wave_NC.min()))
        self._samples, self._values = self._samples + len(wave_NC), self._values + wave_NC.size
        # Counted only where the peak reaches full scale, which most pieces never do.
        self._over += int((np.abs(wave_NC) >= FULL_SCALE).sum()) if loudest >= FULL_SCALE else 0
        self._peak = max(self._peak, loudest)
        self._sha.update(wave_NC, rate)
        self._cancellation.add(wave_NC, to_mono(wave_NC))
        if self._with_levels:
            self.levels.add(wave_NC, rate)

    def facts(self) -> Facts:
        return Facts(
            self.seconds,
            self._rate,
            self._channels,
            self._peak,
            self._over / self._values,
            self._cancellation.found,
            self._sha.hexdigest(),
        )


def _metered(pieces: Iterator[tuple[Wave, int]], meter: _Meter) -> Iterator[tuple[Wave, int]]:
    for wave_NC, rate in pieces:
        meter.add(wave_NC, rate)
        yield wave_NC, rate


def to_pcm(wave_N: Wave) -> Pcm:
    """Convert (N,) in -1..1 to 16 bits. 16-bit originals come back bit for bit; louder samples are clipped."""
    # 32768, as libsndfile divides; LAION-CLAP's 32767 belongs to its front end alone (`audio.clips.quantise`).
    pcm_N: Pcm = np.clip(np.rint(wave_N * 32768.0), -32768, 32767).astype(np.int16)
    return pcm_N


def to_flac(pcm_N: Pcm) -> bytes:
    """Encode (N,) at 48 kHz."""
    import soundfile

    file = io.BytesIO()
    # FLAC and not a lossy format, as LAION's shards: nothing is lost beyond 16 bits.
    soundfile.write(file, pcm_N, RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def _checked_flac(wave_N: Wave, rate: int) -> bytes:
    """Resample, encode, and decode again as a check."""
    import soundfile

    # 16 bits before the comparison: FLAC is lossless only for the integers it stores.
    pcm_N = to_pcm(resample(wave_N, rate, RATE))
    flac = to_flac(pcm_N)
    again_N, _ = soundfile.read(io.BytesIO(flac), dtype="int16")
    if not np.array_equal(again_N, pcm_N):
        raise AudioError("Its FLAC decodes to other samples. Is the memory or the disk failing?")
    return flac


def chunk_numbers(folder: Place, share: Share = ALL) -> Sequence[int]:
    """The chunks of a share."""
    return share.of_items(range(-(-identity(folder)["records"] // CHUNK)))


def unfinished_chunks(folder: Place, share: Share = ALL) -> list[int]:
    """The chunks of a share that are still to be decoded."""
    done = {int(path.stem) for path in numbered(work(folder, "examined"), ".parquet")}
    return [chunk for chunk in chunk_numbers(folder, share) if chunk not in done]


def examine(job: tuple[str, int]) -> int:
    """Decode the records of one chunk (folder, number) and write their facts and FLACs; return their number.

    A damaged sound becomes a row with a reason, never an error.
    """
    pl = require("polars", "data")
    folder, number = place_of(job[0]), job[1]
    whole = identity(folder)
    rows = records(folder, whole["digest"]).slice(number * CHUNK, CHUNK)
    decoder = _Decoder(folder, failures(folder), whole["config"])
    sounds = sounds_of_chunk(folder, number)
    sounds.parent.mkdir(parents=True, exist_ok=True)
    # One tar for the FLACs of a chunk: millions of small files would slow down shared file systems.
    with new_file(sounds) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        # Records that ids or licences have ruled out are not decoded.
        facts = [{"n": row["n"]} | decoder.row(row, tar) for row in rows.iter_rows(named=True) if row["kind"] is None]
    # After the sounds: a chunk counts as done when its facts are there.
    write_table(work(folder, "examined", f"{number}.parquet"), pl.DataFrame(facts, schema=columns()))
    return len(rows)


class _Decoder:
    def __init__(self, folder: Place, failed: Mapping[str, FailedRow], config: Mapping[str, Any]) -> None:
        self._folder, self._failed, self._config = folder, failed, config

    def row(self, record: Mapping[str, Any], tar: tarfile.TarFile) -> dict[str, Any]:
        """Add the FLAC of a record to `tar` and return its facts; or return why it could not be decoded."""
        audio, longest_s = record["audio"], self._config["longest_s"]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", AudioWarning)  # cancelled channels are among the facts
                facts, flac = facts_and_flac(
                    sound_of(self._folder, audio),
                    record["start_s"],
                    record["length_s"],
                    self._config["channels"],
                    longest_s.get(record["source"], longest_s.get("*")),
                )
        except AudioError as error:
            # A failed fetch counts only while the file is missing: another job may have fetched it since.
            failed = self._failed.get(audio)
            lost = failed if failed and not path_of_sound(self._folder, audio).exists() else None
            kind, reason = lost[:2] if lost else ("not decoded", " ".join(str(error).split()))
            return {"kind": kind, "reason": reason}
        if flac is None:
            return asdict(facts)
        add_member(tar, f"{record['n']}.flac", flac)
        return asdict(facts) | {"flac_sha256": hashlib.sha256(flac).hexdigest()}


def columns() -> dict[str, Any]:
    """Columns of the tables of facts."""
    pl = require("polars", "data")
    numbers = {"seconds": pl.Float64, "rate": pl.Int64, "channels": pl.Int64, "peak": pl.Float64, "clipped": pl.Float64}
    texts = dict.fromkeys(("pcm_sha256", "flac_sha256", "kind", "reason"), pl.String)
    return {"n": pl.UInt32, **numbers, "cancelled": pl.Boolean, **texts}


def forget_failures(folder: Place, share: Share = ALL) -> None:
    """Mark the chunks of a share for decoding again that contain a failed fetch or decode."""
    work(folder, "fetched", f"{share}.jsonl").unlink(missing_ok=True)
    for chunk in chunk_numbers(folder, share):
        path = work(folder, "examined", f"{chunk}.parquet")
        if path.exists() and read_table(path)["kind"].count():
            path.unlink()


def sounds_of_chunk(folder: Place, chunk: int) -> Place:
    """The decoded sounds of a chunk: a tar under another suffix, so that no reader takes it for a shard."""
    return work(folder, "sounds", f"{chunk}.flacs")


class DecodedSounds:
    """The FLACs in `work/sounds/`, for records in ascending order; a context manager."""

    def __init__(self, folder: Place) -> None:
        self._folder, self._chunk = folder, -1
        self._file: Any = None
        self._members: dict[str, tarfile.TarInfo] = {}

    def __enter__(self) -> DecodedSounds:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def flac(self, n: int, sha256: str | None) -> bytes | None:
        """The FLAC of a record; None where it is missing or damaged, and the sound has to be decoded again."""
        if n // CHUNK != self._chunk:
            self._open(n // CHUNK)
        member = self._members.get(f"{n}.flac")
        if member is None:
            return None
        self._file.seek(member.offset_data)
        content: bytes = self._file.read(member.size)
        # Days may lie between the two steps: without the hash, a failing disk would end up in the data set.
        return content if hashlib.sha256(content).hexdigest() == sha256 else None

    def _open(self, chunk: int) -> None:
        self._close()
        self._chunk = chunk
        try:
            self._file = sounds_of_chunk(self._folder, chunk).open("rb")
            with tarfile.open(fileobj=self._file, mode="r:") as tar:
                self._members = {member.name: member for member in tar}
        except (OSError, tarfile.TarError):  # deleted, or damaged: decoding again gives the same bytes
            self._members = {}

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def add_member(tar: tarfile.TarFile, name: str, content: bytes) -> tuple[int, int]:
    """Append a file to a tar; return the offset and size of its content."""
    member = tarfile.TarInfo(name)  # time, owner and group stay 0 and empty: equal input, equal bytes
    member.size = len(content)
    # The header takes one block: names are shorter than USTAR's limit, so no longer header precedes it.
    offset = tar.offset + tarfile.BLOCKSIZE
    tar.addfile(member, io.BytesIO(content))
    return offset, len(content)
