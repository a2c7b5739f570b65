"""Check that the tars and the manifest of a data set are as they were written, and write damaged ones again."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from openclap.audio.io import decode
from openclap.data.layout import (
    IDENTITY,
    MANIFEST,
    SIZES,
    SKIPPED,
    SKIPPED_SEGMENTS,
    WORK,
    read_table,
    work,
    write_table,
)
from openclap.data.manifest import finish, manifest_of, write_sizes
from openclap.data.parallel import run
from openclap.data.records import schema as schema_of_records
from openclap.data.records import with_phrases
from openclap.data.shards import index_shards
from openclap.data.write import SELECTION, Tar, TarPlan, columns, is_valid, plan_tars, rewrite_tar, sha256_of
from openclap.errors import AudioError, DataError, require
from openclap.formatting import join_first
from openclap.locks import LOCK
from openclap.sources.grouping import freesound_id
from openclap.sources.phrases import phrases_of_json, phrases_to_json
from openclap.storage import Place, place_of

if TYPE_CHECKING:
    import polars

Damage = tuple[str, str]
"""A file of a data set, and its damage."""
CARDS = ("README.md", "DATASET.md", "card", "LICENSE", "LICENSE.md", "LICENSE.txt")
"""Files that a data set may contain beside those that a build writes."""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The outcome of a check or repair.

    Attributes:
        tars, samples: number of those checked.
        damage: damaged files, with the reasons.
        foreign: files and folders that are not part of the data set.
        notes: sentences on how files were repaired.
    """

    tars: int
    samples: int
    damage: tuple[Damage, ...]
    foreign: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def check(
    folder: Place, *, processes: int = 1, progress: Callable[[int, int], None] = lambda done, total: None
) -> CheckReport:
    """Read every byte of every tar.

    Tars that openclap wrote are compared with the manifest: length, names, and the hash of every sound. Without a
    manifest, as in tars from elsewhere, every sound is decoded. Raises DataError when there is no tar.
    """
    manifest, damage = _usable_manifest(folder)
    jobs = _jobs(folder, manifest) if manifest is not None else _jobs_without_manifest(folder)
    if not jobs:
        raise DataError(f"{folder}: contains no tar, expected a data set or a folder of shards.")
    results = []
    for done, result in enumerate(run(_check_tar, jobs, processes), start=1):
        results.append(result)
        progress(done, len(jobs))
    # A foreign manifest would report every tar as damaged, and a repair would then write over good ones.
    if manifest is not None and not damage and _belongs_elsewhere(folder, results):
        damage = [(MANIFEST, "belongs to another data set: none of its sounds is in the tars")]
        manifest, results = None, list(run(_check_tar, _jobs_without_manifest(folder), processes))
    damage += [(result.name, reason) for result in results for reason in result.reasons]
    if manifest is not None:
        damage += _sizes(folder, manifest)
    if (folder / IDENTITY).exists() and (folder / WORK).is_dir() and not (folder / SKIPPED).exists():
        damage.append((SKIPPED, "is missing"))
    samples = sum(result.samples for result in results)
    return CheckReport(len(results), samples, tuple(sorted(damage)), tuple(_foreign(folder, manifest)))


def _usable_manifest(folder: Place) -> tuple[polars.DataFrame | None, list[Damage]]:
    """The manifest, or one rebuilt from `work/` where it is unusable; and the damage to it."""
    path, ours = folder / MANIFEST, (folder / IDENTITY).exists()
    # Tars from elsewhere need no manifest.
    if not path.exists() and not ours:
        return None, []
    rebuilt = manifest_from_work(folder)
    if not path.exists():
        return rebuilt, [(MANIFEST, "is missing")]
    try:
        manifest = with_phrases(read_table(path))
    except DataError as error:
        why = str(error).partition("is damaged (")[2].rpartition(")")[0]
        return rebuilt, [(MANIFEST, f"is damaged ({why})" if why else "is damaged")]
    expected = manifest_schema()
    if missing := [name for name in expected if manifest.schema.get(name) != expected[name]]:
        return rebuilt, [(MANIFEST, f"is another table: its column {missing[0]} is missing or of another type")]
    # The tars agree with `work/`, so it is the manifest that was changed.
    if rebuilt is not None and not rebuilt.equals(manifest) and _all_valid(folder, rebuilt):
        return rebuilt, [(MANIFEST, "contains other rows than were packed")]
    return manifest, []


def _all_valid(folder: Place, manifest: polars.DataFrame) -> bool:
    """Whether every tar has the length it was written with. Then the manifest is wrong, and not the tars."""
    places = manifest.select("shards", "tar").unique().iter_rows()
    return all(is_valid(Tar(str(folder), shards, number)) for shards, number in places)


def _belongs_elsewhere(folder: Place, results: Sequence[TarCheck]) -> bool:
    """Whether no tar matches the manifest although tars are there and undamaged."""
    tars = [path for path in tars_in(folder) if path.stem.isdecimal()]
    if any(result.matches for result in results) or not tars:
        return False
    indexes = [index_shards(path.parent, only=path.name) for path in tars]
    return all(len(index) and not index.damaged for index in indexes)


def _sizes(folder: Place, manifest: polars.DataFrame) -> Iterator[Damage]:
    """Damage to each `sizes.json`, and tars that are not in the manifest."""
    for (shards,), part in manifest.partition_by("shards", as_dict=True, maintain_order=True).items():
        place = folder.joinpath(*str(shards).split("/"))
        counts = {f"{tar}.tar": count for tar, count in part.group_by("tar").len().iter_rows()}
        try:
            sizes = json.loads((place / SIZES).read_bytes())
        except (OSError, ValueError):
            sizes = None
        if sizes != counts:
            yield f"{shards}/{SIZES}", "is missing, damaged, or states other numbers"
        yield from (
            (f"{shards}/{tar.name}", NOT_IN_MANIFEST)
            for tar in place.glob("*.tar")
            if tar.name not in counts and tar.is_file()
        )


NOT_IN_MANIFEST = "is not in the manifest, but would be read with the folder: move it out of the data set, or delete it"


def _foreign(folder: Place, manifest: polars.DataFrame | None) -> Iterator[str]:
    """Files and folders that are not part of the data set; for other tars, folders with names of tars."""
    if manifest is None or not (folder / IDENTITY).exists():
        yield from sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.tar") if path.is_dir())
        return
    shards = set(manifest["shards"])
    around = {name.rpartition("/")[0] for name in shards} - {""}
    own = {IDENTITY, MANIFEST, SKIPPED, SKIPPED_SEGMENTS, LOCK, WORK, *CARDS, *shards, *around}
    own |= {f"{name}/{SIZES}" for name in shards}
    own |= {f"{name}/{tar}.tar" for name, tar in manifest.select("shards", "tar").unique().iter_rows()}
    for place in ("", *sorted(around | shards)):
        parent = folder.joinpath(*place.split("/")) if place else folder
        for path in sorted(parent.iterdir()) if parent.is_dir() else []:
            name = path.relative_to(folder).as_posix()
            tar = path.suffix == ".tar" and path.is_file()
            if name not in own and not tar and not path.name.startswith("."):
                yield f"{name}/" if path.is_dir() else name


def repair(folder: Place, report: CheckReport, *, processes: int = 1) -> CheckReport:
    """Write damaged tars, manifest and sizes again, and only those; report the remaining damage.

    With `work/`, everything is written again as it was, except tars whose original sounds are gone. Without it, the
    manifest is rebuilt from the tars, without the columns `UNKNOWN`.

    Raises DataError where tars are damaged and `work/` is gone, and for a folder in place of the manifest.
    """
    if (folder / MANIFEST).is_dir():
        raise DataError(f"{folder / MANIFEST}: is a folder, expected a file. Move it away and run this again.")
    manifest, damaged = manifest_from_work(folder), {name for name, _ in report.damage}
    if manifest is None:
        return _repair_from_tars(folder, report, processes)
    # Only damaged tars: good ones keep their bytes and times, whatever has become of the sounds.
    jobs = [job for job in _jobs(folder, manifest) if job[1] in damaged]
    names = {name for _, name, _ in jobs}
    plans = [
        (f"{plan.tar.shards}/{plan.tar.number}.tar", plan)
        for plan in plan_tars(folder, read_table(work(folder, SELECTION)))
        if f"{plan.tar.shards}/{plan.tar.number}.tar" in names
    ]
    lost = {name: reason for name, reason in run(_rewrite, plans, processes) if reason}
    # Something else than a tar: the manifest, sizes or the list of records left out.
    if damaged - names:
        try:
            finish(folder)
        except DataError:  # a tar cannot be written again; the manifest lists its samples all the same
            write_table(folder / MANIFEST, manifest_of(folder))
    # Checked again, because a rewritten tar is only as good as its disk.
    results = [_check_tar(job) for job in jobs]
    damage = [
        (result.name, f"{reason}; cannot be written again: {lost.get(result.name)}")
        for result in results
        for reason in result.reasons
    ]
    damage += _sizes(folder, manifest)
    notes = (f"Wrote {MANIFEST} again, from {WORK}/.",) if MANIFEST in damaged else ()
    samples = sum(result.samples for result in results)
    return CheckReport(len(jobs), samples, tuple(sorted(damage)), report.foreign, notes)


def _repair_from_tars(folder: Place, report: CheckReport, processes: int) -> CheckReport:
    # Tars cannot be made from the manifest; the manifest and the sizes can be made from tars.
    lost = [(name, reason) for name, reason in report.damage if name != MANIFEST and not name.endswith(SIZES)]
    if len(lost) == len(report.damage) and any(reason != NOT_IN_MANIFEST for _, reason in lost):
        raise DataError(f"{folder}: cannot be repaired, since {WORK}/ was deleted. Build it again in a new folder.")
    notes: tuple[str, ...] = ()
    if any(name == MANIFEST for name, _ in report.damage):
        manifest = manifest_from_tars(folder, processes=processes)
        write_table(folder / MANIFEST, manifest)
        notes = (f"Wrote {MANIFEST} again, from the tars. They lack {', '.join(UNKNOWN)}: these columns are empty.",)
    manifest = read_table(folder / MANIFEST)
    write_sizes(folder, manifest, set(manifest["shards"]))
    damage = (*lost, *_sizes(folder, manifest))
    return CheckReport(report.tars, report.samples, tuple(sorted(set(damage))), report.foreign, notes)


def _rewrite(job: tuple[str, TarPlan]) -> tuple[str, str | None]:
    return job[0], rewrite_tar(job[1])


ExpectedSamples = Sequence[tuple[str, int, int, str, str]]
"""Of each sample: key, offset and size of its sound, the sound's hash, and the tar's."""
CheckJob = tuple[str, str, "ExpectedSamples | None"]
"""Folder, tar, and its samples as the manifest has them."""


def _jobs(folder: Place, manifest: polars.DataFrame) -> list[CheckJob]:
    rows = manifest.select("shards", "tar", "key", "audio_offset", "audio_size", "flac_sha256", "tar_sha256")
    parts = rows.partition_by("shards", "tar", as_dict=True, include_key=False, maintain_order=True)
    return [(str(folder), f"{shards}/{tar}.tar", part.rows()) for (shards, tar), part in parts.items()]


def _jobs_without_manifest(folder: Place) -> list[CheckJob]:
    return [(str(folder), path.relative_to(folder).as_posix(), None) for path in tars_in(folder)]


class TarCheck(NamedTuple):
    """A tar, the number of its samples, its damage, and whether any of its sounds matches the manifest."""

    name: str
    samples: int
    reasons: list[str]
    matches: bool = True


def _check_tar(job: CheckJob) -> TarCheck:
    folder, name, expected = place_of(job[0]), job[1], job[2]
    path = folder.joinpath(*name.split("/"))
    if path.is_dir():
        return TarCheck(name, 0, ["is a folder, expected a tar. Move it away"], matches=False)
    if not path.is_file():
        return TarCheck(name, 0, ["is missing"], matches=False)
    if expected is None:
        return TarCheck(*_decode_all(path, name))
    reasons, matches = _compare(path, expected)
    return TarCheck(name, len(expected), reasons, matches)


def _compare(path: Place, expected: ExpectedSamples) -> tuple[list[str], bool]:
    # One hash of the whole tar first; single sounds are hashed only to name the damaged ones.
    if sha256_of(path) == expected[0][-1]:
        return [], True
    wrong = [
        key for key, start, size, sha, _ in expected if hashlib.sha256(_read(path, start, size)).hexdigest() != sha
    ]
    reasons = [damage.reason for damage in index_shards(path.parent, only=path.name).damaged]
    place = f" in sample {join_first(wrong)}" if wrong else ""
    return [*reasons, f"other bytes than were written{place}"], len(wrong) < len(expected)


def _decode_all(path: Place, name: str) -> tuple[str, int, list[str]]:
    index = index_shards(path.parent, only=path.name)
    reasons = [damage.reason for damage in index.damaged]
    reasons += [f"{index.unpaired} members without their sound or JSON"] if index.unpaired else []
    for number in range(len(index)):
        try:
            decode(index.read_sample(number).audio)
        except (AudioError, DataError) as error:
            reasons.append(f"{index.where(number)}: {error}")
    return name, len(index), reasons


def _read(path: Place, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


# -- the manifest, built again

UNKNOWN = ("rate", "channels", "peak", "clipped", "pcm_sha256", "description", "split", "start_s", "length_s")
"""Columns that cannot be rebuilt from tars; there, `audio` is a name without its folder, and `n` only counts."""
_YOUTUBE = "youtube:"


def manifest_from_work(folder: Place) -> polars.DataFrame | None:
    """Rebuild the manifest as it was last written; None where `work/` is missing, damaged or unfinished."""
    if not (folder / WORK).is_dir():
        return None
    try:
        return manifest_of(folder)
    except (DataError, OSError, require("polars", "data").exceptions.PolarsError):
        return None


def manifest_from_tars(folder: Place, *, processes: int = 1) -> polars.DataFrame:
    """Rebuild the manifest from the tars, in its order; UNKNOWN columns are empty, damaged samples left out."""
    pl = require("polars", "data")
    jobs = [(str(folder), tar.relative_to(folder).as_posix()) for tar in tars_in(folder) if tar.stem.isdecimal()]
    rows = [row for part in run(_rows_of_tar, jobs, processes) for row in part]
    frame: polars.DataFrame = pl.DataFrame(rows, schema=manifest_schema()).sort("shards", "tar", "audio_offset")
    return frame.with_columns(n=pl.int_range(pl.len(), dtype=pl.UInt32))


def tars_in(folder: Place) -> list[Place]:
    """List the tars of a data set, or of any folder of shards."""
    tars = sorted(path for path in folder.rglob("*.tar") if path.is_file())
    return [path for path in tars if path.relative_to(folder).parts[0] != WORK]


def manifest_schema() -> dict[str, Any]:
    """Columns of a manifest."""
    pl = require("polars", "data")
    beside_tar = columns()
    places = {name: beside_tar[name] for name in beside_tar if name not in ("n", "key", "reason")}
    facts = {"seconds": pl.Float64, "rate": pl.Int64, "channels": pl.Int64, "peak": pl.Float64, "clipped": pl.Float64}
    records = {name: kind for name, kind in schema_of_records().items() if name not in ("n", "rate")}
    return {
        "shards": pl.String,
        "tar": pl.Int64,
        "key": pl.String,
        "n": pl.UInt32,
        **places,
        "tar_sha256": pl.String,
        **facts,
        "pcm_sha256": pl.String,
        **records,
    }


def _rows_of_tar(job: tuple[str, str]) -> list[dict[str, Any]]:
    """The rows of one tar."""
    path = place_of(job[0]).joinpath(*job[1].split("/"))
    index, sha = index_shards(path.parent, only=path.name), sha256_of(path)
    rows = []
    for number in range(len(index)):
        offsets = dict(
            zip(
                ("audio_offset", "audio_size", "json_offset", "json_size"),
                map(int, index.spans_S4[number]),
                strict=True,
            )
        )
        with path.open("rb") as file:
            read = _reader(file)
            flac, text = read(offsets["audio_offset"], offsets["audio_size"]), read(*list(offsets.values())[2:])
        try:
            fields = _record_fields(json.loads(text))
            seconds = _seconds(flac)
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError):
            continue  # `check` reports it
        place = PurePosixPath(job[1])
        identity = {"shards": place.parent.as_posix(), "tar": int(place.stem), "key": index.keys[number]}
        hashes = {"flac_sha256": hashlib.sha256(flac).hexdigest(), "tar_sha256": sha}
        rows.append({**identity, **offsets, **hashes, "seconds": seconds, **fields})
    return rows


def _reader(file: Any) -> Callable[[int, int], bytes]:
    def read(offset: int, size: int) -> bytes:
        file.seek(offset)
        return bytes(file.read(size))

    return read


def _record_fields(content: dict[str, Any]) -> dict[str, Any]:
    """The columns that the JSON beside a sound contains."""
    original, captions = content.get("original_data") or {}, content.get("text") or []
    captions = [captions] if isinstance(captions, str) else captions
    fields = ("id", "source", "label", "group", "title", "licence", "author", "link")
    group = original.get("group") or ""
    return {
        **{name: original.get(name) for name in fields},
        "audio": original.get("file"),
        "captions": captions,
        "made": original.get("made") or ["given"] * len(captions),
        "tags": content.get("tag") or [],
        "freesound_id": freesound_id(original.get("link")),
        "youtube_id": group.removeprefix(_YOUTUBE) if group.startswith(_YOUTUBE) else None,
        "phrases": phrases_to_json(phrases_of_json(content.get("phrases"))),
    }


def _seconds(flac: bytes) -> float:
    import soundfile

    about = soundfile.info(io.BytesIO(flac))
    return float(about.frames / about.samplerate)
