"""The step that writes: one tar from the records that were selected for it, always the same bytes.

A tar is known to be good by the table beside it (`work/written/<shards>/N.parquet`), which is written after it and
holds a digest of what it was made from. N samples of sound.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openclap.captions import with_generated
from openclap.data.captioning import sentences
from openclap.data.clean import flac_of, json_of
from openclap.data.fetched import sound_of
from openclap.data.layout import CHUNK, identity, numbered, read_table, records, work, write_table
from openclap.data.records import Captioned, captioned
from openclap.errors import AudioError, DataError, require
from openclap.storage import Place, new_file, place_of

if TYPE_CHECKING:
    import polars

SELECTION = "selection.parquet"


@dataclass(frozen=True, slots=True)
class Tar:
    """One tar of a data set: which folder of shards, and its number there."""

    folder: str
    shards: str
    number: int

    @property
    def path(self) -> Place:
        return place_of(self.folder).joinpath(*self.shards.split("/"), f"{self.number}.tar")

    @property
    def table(self) -> Place:
        return work(place_of(self.folder), "written", *self.shards.split("/"), f"{self.number}.parquet")


def tars(folder: Place, selection: polars.DataFrame) -> list[Tar]:
    """All of a selection, in order."""
    pl = require("polars", "data")
    found = selection.filter(pl.col("shards").is_not_null()).select("shards", "tar").unique().sort("shards", "tar")
    return [Tar(str(folder), shards, number) for shards, number in found.iter_rows()]


def write(tar: Tar) -> int:
    """Write a tar, unless it stands already as it should; how many records it was made from."""
    samples = samples_of(tar)
    if not stands(tar, made_of(tar, samples)):
        _write(tar, samples)
    return len(samples)


def write_again(tar: Tar) -> str | None:
    """Write a tar whatever stands there, with all that it held; where that cannot be, why, and it is left as it is."""
    try:
        _write(tar, samples_of(tar), losing_none=True)
    except (AudioError, OSError) as error:
        return " ".join(str(error).split())
    return None


def samples_of(tar: Tar) -> Samples:
    """What a tar is to hold."""
    pl = require("polars", "data")
    folder = place_of(tar.folder)
    chosen = read_table(work(folder, SELECTION)).filter(
        (pl.col("shards") == tar.shards) & (pl.col("tar") == tar.number)
    )
    rows = records(folder, identity(folder)["digest"])[chosen["n"]]
    made = sentences(folder, chosen["n"])
    return [
        (number, (n, Captioned(row.record, with_generated(row.record, made.get(n)))))
        for number, (n, row) in zip(chosen["number"], captioned(rows), strict=True)
    ]


def columns() -> dict[str, Any]:
    """Of the table beside a tar."""
    pl = require("polars", "data")
    places = dict.fromkeys(("audio_offset", "audio_size", "json_offset", "json_size"), pl.Int64)
    return {"n": pl.UInt32, "key": pl.String, **places, "flac_sha256": pl.String, "reason": pl.String}


def stands(tar: Tar, digest: str | None = None) -> bool:
    """Is the tar there, as long as it was made, and of what `digest` says?"""
    try:
        size, found = read_table(tar.table).select("tar_size", "made_of").row(0)
        return bool(size == tar.path.stat().st_size and digest in (None, found))
    except (DataError, OSError):
        return False


def sha256_of(path: Place) -> str:
    """Of a whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def packed_so_far(folder: Place) -> tuple[int, int]:
    """How many tars are complete, and the samples in them."""
    tables = [table for place in work(folder, "written").rglob("*") for table in numbered(place, ".parquet")]
    return len(tables), sum(int(read_table(table)["key"].count()) for table in tables)


Samples = list[tuple[int, tuple[int, Captioned]]]
"""(number, (n, row)) of each sample of a tar."""


def made_of(tar: Tar, samples: Samples) -> str:
    """A digest of what a tar is made from, but for the sounds themselves."""
    sha = hashlib.sha256(identity(place_of(tar.folder))["digest"].encode())
    for number, (n, row) in samples:
        sha.update(f"{number} {n} ".encode() + json_of(row))
    return sha.hexdigest()


def _write(tar: Tar, samples: Samples, *, losing_none: bool = False) -> None:
    """The tar, then the table beside it."""
    pl = require("polars", "data")
    tar.path.parent.mkdir(parents=True, exist_ok=True)
    rows = _write_members(tar.path, place_of(tar.folder), samples, losing_none)
    facts = {
        "tar_size": tar.path.stat().st_size,
        "tar_sha256": sha256_of(tar.path),
        "made_of": made_of(tar, samples),
    }
    frame = pl.DataFrame(rows, schema=columns()).with_columns(**{k: pl.lit(v) for k, v in facts.items()})
    write_table(tar.table, frame)


def _write_members(path: Place, folder: Place, samples: Samples, losing_none: bool) -> list[dict[str, Any]]:
    """The rows of the table beside the tar."""
    hashes, rows = hashes_of(folder, [n for _, (n, _) in samples]), []
    channels = identity(folder)["config"]["channels"]
    with new_file(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, (n, row) in samples:
            record = row.record
            try:
                sound = sound_of(folder, record.audio)
                flac = flac_of(sound, record.start_s, record.length_s, hashes[n], channels)
            except AudioError as error:  # it decoded when it was examined: it has changed since, or is gone
                if losing_none:
                    raise
                rows.append({"n": n, "reason": " ".join(str(error).split())})
                continue
            audio, text = _add(tar, f"{number}.flac", flac), _add(tar, f"{number}.json", json_of(row))
            rows.append(
                {
                    "n": n,
                    "key": str(number),
                    "audio_offset": audio[0],
                    "audio_size": audio[1],
                    "json_offset": text[0],
                    "json_size": text[1],
                    "flac_sha256": hashlib.sha256(flac).hexdigest(),
                }
            )
    return rows


def hashes_of(folder: Place, numbers: list[int]) -> dict[int, str]:
    """The hash of each sound as it was when it was examined."""
    pl = require("polars", "data")
    chunks = [work(folder, "examined", f"{chunk}.parquet") for chunk in sorted({n // CHUNK for n in numbers})]
    found = pl.concat([read_table(chunk).select("n", "pcm_sha256") for chunk in chunks])
    return dict(found.filter(pl.col("n").is_in(numbers)).iter_rows())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> tuple[int, int]:
    """Where the content stands in the tar: offset and size."""
    member = tarfile.TarInfo(name)  # mtime, uid, gid and names stay 0 and empty: equal input, equal bytes
    member.size = len(content)
    offset = tar.offset + tarfile.BLOCKSIZE
    tar.addfile(member, io.BytesIO(content))
    return offset, len(content)
