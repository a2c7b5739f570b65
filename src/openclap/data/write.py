"""Write one tar from the records that were selected for it: always the same bytes.

A tar is valid if the table beside it (`work/written/<shards>/N.parquet`), which is written after it, states its length
and a digest of what it was made from.
"""

from __future__ import annotations

import hashlib
import json
import math
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from openclap.captions import Caption, with_generated
from openclap.data.captioning import sentences
from openclap.data.decode import DecodedSounds, add_member, flac_of
from openclap.data.download import sound_of
from openclap.data.layout import CHUNK, identity, numbered, read_table, records, work, write_table
from openclap.data.records import captioned
from openclap.errors import AudioError, DataError, require
from openclap.sources.phrases import phrases_to_json, usable_phrases
from openclap.sources.record import Record
from openclap.storage import Place, new_file, place_of
from openclap.types import Phrase

if TYPE_CHECKING:
    import polars

SELECTION = "selection.parquet"
KEYWORDS = "keywords:"


@dataclass(frozen=True, slots=True)
class Tar:
    """One tar of a data set: the folder of its shards, and its number there."""

    folder: str
    shards: str
    number: int

    @property
    def path(self) -> Place:
        return place_of(self.folder).joinpath(*self.shards.split("/"), f"{self.number}.tar")

    @property
    def table(self) -> Place:
        return work(place_of(self.folder), "written", *self.shards.split("/"), f"{self.number}.parquet")


class PlannedSample(NamedTuple):
    """A sample of a tar: its number in the folder, `n` of its record, the record, and the JSON beside the sound."""

    number: int
    n: int
    record: Record
    json: bytes


@dataclass(frozen=True, slots=True)
class TarPlan:
    """A tar and its content: (number in its folder, `n` of the record) of each sample."""

    tar: Tar
    samples: tuple[tuple[int, int], ...]


def plan_tars(folder: Place, selection: polars.DataFrame) -> list[TarPlan]:
    """Partition a selection into its tars, in order; once, since it has a row for each record of the data set."""
    pl = require("polars", "data")
    chosen = selection.filter(pl.col("shards").is_not_null()).select("shards", "tar", "number", "n")
    parts = chosen.partition_by("shards", "tar", as_dict=True, include_key=False, maintain_order=True)
    return [
        TarPlan(Tar(str(folder), shards, number), tuple(rows.iter_rows()))
        for (shards, number), rows in sorted(parts.items())
    ]


def write_tar(plan: TarPlan) -> int:
    """Write a tar unless a valid one is there; return the number of its records."""
    samples = _samples(plan)
    if not is_valid(plan.tar, _digest(plan.tar, samples)):
        _write(plan.tar, samples)
    return len(plan.samples)


def rewrite_tar(plan: TarPlan) -> str | None:
    """Write a tar, whatever is there, with every sample that it had; else leave it and return the reason."""
    try:
        _write(plan.tar, _samples(plan), require_all=True)
    except (AudioError, OSError) as error:
        return " ".join(str(error).split())
    return None


def digest_of(plan: TarPlan) -> str:
    """Hash all that a tar is made from, except the sounds themselves."""
    return _digest(plan.tar, _samples(plan))


def is_valid(tar: Tar, digest: str | None = None) -> bool:
    """Whether a tar is there, has the length it was written with, and, with `digest`, was made from that."""
    try:
        # The length is a cheap check; `dataset check` reads every byte.
        size, made_of = read_table(tar.table).select("tar_size", "made_of").row(0)
        return bool(size == tar.path.stat().st_size and digest in (None, made_of))
    except (DataError, OSError):
        return False


def columns() -> dict[str, Any]:
    """Columns of the table beside a tar."""
    pl = require("polars", "data")
    places = dict.fromkeys(("audio_offset", "audio_size", "json_offset", "json_size"), pl.Int64)
    return {"n": pl.UInt32, "key": pl.String, **places, "flac_sha256": pl.String, "reason": pl.String}


def sha256_of(path: Place) -> str:
    """Hash a whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def count_written(folder: Place) -> tuple[int, int]:
    """Number of complete tars, and of the samples in them."""
    tables = [table for place in work(folder, "written").rglob("*") for table in numbered(place, ".parquet")]
    return len(tables), sum(int(read_table(table)["key"].count()) for table in tables)


def _samples(plan: TarPlan) -> list[PlannedSample]:
    pl = require("polars", "data")
    folder = place_of(plan.tar.folder)
    numbers = pl.Series([n for _, n in plan.samples], dtype=pl.UInt32)
    frame = records(folder, identity(folder)["digest"])[numbers]
    # Lengths are read only for phrases: they tell which segments can be in the clip.
    seconds = seconds_of(folder, frame) if frame["phrases"].list.len().sum() else {}
    written = sentences(folder, numbers)
    samples = []
    for (number, _), (n, row) in zip(plan.samples, captioned(frame), strict=True):
        phrases, _ = usable_phrases(row.record.phrases, seconds.get(n, math.inf))
        content = json_of(row.record, with_generated(row.record, written.get(n)), phrases)
        samples.append(PlannedSample(number, n, row.record, content))
    return samples


def seconds_of(folder: Place, frame: polars.DataFrame) -> dict[int, float]:
    """The length of each decoded sound among the records of `frame` that have phrases, by `n`."""
    pl = require("polars", "data")
    numbers = frame.filter(pl.col("phrases").list.len() > 0)["n"]
    chunks = sorted({n // CHUNK for n in numbers})
    facts = [read_table(work(folder, "examined", f"{chunk}.parquet")).select("n", "seconds") for chunk in chunks]
    return dict(pl.concat(facts).drop_nulls().iter_rows()) if facts else {}


def _digest(tar: Tar, samples: Sequence[PlannedSample]) -> str:
    # The digest of all records includes the name and size of each sound.
    sha = hashlib.sha256(identity(place_of(tar.folder))["digest"].encode())
    for sample in samples:
        # Another caption, split or number makes the tar invalid, and only that tar.
        sha.update(f"{sample.number} {sample.n} ".encode() + sample.json)
    return sha.hexdigest()


def _write(tar: Tar, samples: Sequence[PlannedSample], *, require_all: bool = False) -> None:
    """Write the tar, then the table beside it: in this order, a table means that its tar is complete."""
    pl = require("polars", "data")
    tar.path.parent.mkdir(parents=True, exist_ok=True)
    rows = _write_members(tar.path, place_of(tar.folder), samples, require_all)
    facts = {
        "tar_size": tar.path.stat().st_size,
        "tar_sha256": sha256_of(tar.path),
        "made_of": _digest(tar, samples),
    }
    frame = pl.DataFrame(rows, schema=columns()).with_columns(**{k: pl.lit(v) for k, v in facts.items()})
    write_table(tar.table, frame)


def _write_members(
    path: Place, folder: Place, samples: Sequence[PlannedSample], require_all: bool
) -> list[dict[str, Any]]:
    """Write a tar; return the rows of the table beside it."""
    hashes, channels = _hashes(folder, [sample.n for sample in samples]), identity(folder)["config"]["channels"]
    rows = []
    with (
        DecodedSounds(folder) as sounds,
        new_file(path) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for number, n, record, text in samples:
            try:
                pcm_sha256, flac_sha256 = hashes[n]
                flac = sounds.flac(n, flac_sha256) or flac_of(
                    sound_of(folder, record.audio), record.start_s, record.length_s, pcm_sha256, channels
                )
            except AudioError as error:  # it was decoded before: the file was changed or removed since
                if require_all:
                    raise
                # The sample leaves a gap in the numbers: renumbering would change every tar behind it.
                rows.append({"n": n, "reason": " ".join(str(error).split())})
                continue
            # Names are numbers, as LAION renames its files; the original one is in the JSON.
            audio_place, text_place = add_member(tar, f"{number}.flac", flac), add_member(tar, f"{number}.json", text)
            rows.append(
                {
                    "n": n,
                    "key": str(number),
                    "audio_offset": audio_place[0],
                    "audio_size": audio_place[1],
                    "json_offset": text_place[0],
                    "json_size": text_place[1],
                    "flac_sha256": hashlib.sha256(flac).hexdigest(),
                }
            )
    return rows


def _hashes(folder: Place, numbers: Sequence[int]) -> dict[int, tuple[str, str | None]]:
    """The hashes of each sound's samples and of its FLAC, from when it was decoded."""
    pl = require("polars", "data")
    chunks = [work(folder, "examined", f"{chunk}.parquet") for chunk in sorted({n // CHUNK for n in numbers})]
    facts = pl.concat([read_table(chunk).select("n", "pcm_sha256", "flac_sha256") for chunk in chunks])
    return {n: (pcm, flac) for n, pcm, flac in facts.filter(pl.col("n").is_in(list(numbers))).iter_rows()}


def json_of(record: Record, captions: Sequence[Caption], phrases: Sequence[Phrase] = ()) -> bytes:
    """Build the JSON beside a sound, in LAION's layout: captions with their origins, and phrases.

    Sentences that a model wrote from keywords are also listed under LAION's names for them.
    """
    original = {
        "id": record.id,
        "title": record.title,
        "label": record.label,
        "group": record.group or _name(record.audio),
        "licence": record.licence,
        "author": record.author,
        "link": record.link,
        "source": record.source,
        "file": _name(record.audio),  # without its folder, which describes a machine rather than the sound
        "made": [caption.made for caption in captions],
    }
    texts = [caption.text for caption in captions]
    content: dict[str, Any] = {"text": texts, "tag": list(record.tags), "original_data": original}
    keywords = [caption.text for caption in captions if caption.made.startswith(KEYWORDS)]
    if keywords:
        # LAION's loader draws from these names when it trains with keyword captions.
        content |= {"text_augment_t5": keywords[0], "text_augment_all": texts}
    if phrases:
        content["phrases"] = phrases_to_json(phrases)
    return json.dumps(content).encode()


def _name(audio: Path | str) -> str:
    return PurePosixPath(audio).name if isinstance(audio, str) else audio.name
