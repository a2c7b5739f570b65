"""Finish a data set: the manifest of all samples, the sizes of tars, and the list of records left out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from openclap.captions import Caption, with_generated
from openclap.data.captioning import CAPTIONED
from openclap.data.config import DataConfig
from openclap.data.decode import columns as facts_columns
from openclap.data.filters import unmet_splits
from openclap.data.layout import (
    MANIFEST,
    SIZES,
    SKIPPED,
    SKIPPED_SEGMENTS,
    identity,
    numbered,
    read_all,
    read_table,
    records,
    work,
    write_table,
)
from openclap.data.records import captioned
from openclap.data.write import SELECTION, Tar, TarPlan, columns, digest_of, is_valid, plan_tars, seconds_of
from openclap.errors import DataError, require
from openclap.sources.phrases import phrases_of_json, phrases_to_json, usable_phrases
from openclap.storage import Place, remove_folder, write_bytes

if TYPE_CHECKING:
    import polars


@dataclass(frozen=True, slots=True)
class SkippedRecord:
    """A record that was left out: `kind` is a word for counting, `reason` a sentence."""

    id: str
    source: str
    file: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class SkippedSegment:
    """A segment of a phrase that was left out of a packed sample; `reason` is a sentence with phrase and times."""

    id: str
    source: str
    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class BuildReport:
    """The outcome of a build.

    Attributes:
        out: the data set's folder.
        packed, tars: number of samples and of tars in each folder of shards.
        skipped: the records that were left out.
        notes: sentences about splits that are empty or far off their requested size, and about segments left out.
        segments: segments of phrases that were left out of samples.
    """

    out: Place
    packed: dict[str, int]
    tars: dict[str, int]
    skipped: tuple[SkippedRecord, ...]
    notes: tuple[str, ...] = ()
    segments: tuple[SkippedSegment, ...] = ()


def finish(folder: Place) -> BuildReport:
    """Write manifest, sizes and the list of records left out; remove the decoded sounds from `work/`.

    Raises DataError while tars are still to be written, and when no record at all could be packed.
    """
    whole, selection, plans = _read_work(folder)
    # By digest, so that tars of an earlier selection are not taken for these.
    lacking = [plan.tar for plan in plans if not is_valid(plan.tar, digest_of(plan))]
    if lacking:
        raise DataError(
            f"{folder}: {len(lacking)} of {len(plans)} tars are still to be written (the first is {lacking[0].path}). "
            "Run every part of 'openclap dataset pack'."
        )
    written = _written(plans)
    manifest = _manifest(folder, whole, selection, written)
    # Before the manifest, which marks the set as finished.
    sizes = write_sizes(folder, manifest, {plan.tar.shards for plan in plans})
    write_table(folder / MANIFEST, manifest)
    skipped = tuple(_skipped(whole, selection, written))
    write_bytes(folder / SKIPPED, _json_lines(skipped))
    segments = _skipped_segments(folder, whole, written)
    if segments:
        write_bytes(folder / SKIPPED_SEGMENTS, _json_lines(segments))
    else:
        (folder / SKIPPED_SEGMENTS).unlink(missing_ok=True)
    _remove_other_tars(folder, plans)
    remove_folder(work(folder, "sounds"))  # every tar is complete: these copies are of no more use
    notes = [each.sentence for each in unmet_splits(folder, selection, DataConfig(**identity(folder)["config"]))]
    if segments:
        notes.append(
            f"{len(segments)} segments of phrases were left out, such as {segments[0].reason} ({segments[0].file}). "
            f"{SKIPPED_SEGMENTS} lists them."
        )
    return replace(_report(folder, sizes, skipped), notes=tuple(notes), segments=segments)


def _json_lines(rows: Sequence[SkippedRecord] | Sequence[SkippedSegment]) -> bytes:
    return b"".join(json.dumps(asdict(each)).encode() + b"\n" for each in rows)


def manifest_of(folder: Place) -> polars.DataFrame:
    """Build the manifest from `work/`, whether or not the tars are valid. Raises DataError."""
    whole, selection, plans = _read_work(folder)
    return _manifest(folder, whole, selection, _written(plans))


def _read_work(folder: Place) -> tuple[polars.DataFrame, polars.DataFrame, list[TarPlan]]:
    """Every record, the selection, and the tars it defines."""
    whole = _with_sentences(folder, records(folder, identity(folder)["digest"]).drop("kind", "reason", "valid"))
    if not work(folder, SELECTION).exists():
        raise DataError(f"{folder}: no tar is written yet. Run every part of 'openclap dataset pack'.")
    selection = read_table(work(folder, SELECTION))
    return whole, selection, plan_tars(folder, selection)


def _written(plans: Sequence[TarPlan]) -> polars.DataFrame:
    pl = require("polars", "data")
    return pl.concat([read_table(plan.tar.table) for plan in plans]) if plans else _nothing_written()


def write_sizes(folder: Place, manifest: polars.DataFrame, shards: Iterable[str]) -> dict[str, dict[str, int]]:
    """Write the number of samples of each tar into sizes.json beside the tars."""
    sizes: dict[str, dict[str, int]] = {name: {} for name in sorted(shards)}
    for name, number, count in manifest.group_by("shards", "tar", maintain_order=True).len().iter_rows():
        sizes[name][f"{number}.tar"] = count
    for name, of in sizes.items():
        write_bytes(folder.joinpath(*name.split("/"), SIZES), json.dumps(of, indent=1).encode())
    return sizes


def _remove_other_tars(folder: Place, plans: Sequence[TarPlan]) -> None:
    """Remove tars of an earlier selection: a reader of the folder would read them as well."""
    place, current = work(folder, "written"), {plan.tar for plan in plans}
    for parent in [path for path in place.rglob("*") if path.is_dir()]:
        shards = parent.relative_to(place).as_posix()
        for table in numbered(parent, ".parquet"):
            tar = Tar(str(folder), shards, int(table.stem))
            if tar not in current:
                tar.path.unlink(missing_ok=True)
                table.unlink()
        if shards not in {tar.shards for tar in current}:
            folder.joinpath(*shards.split("/"), SIZES).unlink(missing_ok=True)


def _with_sentences(folder: Place, whole: polars.DataFrame) -> polars.DataFrame:
    """Add the captions that models wrote to the records."""
    pl = require("polars", "data")
    made = read_all(work(folder, CAPTIONED))
    if made is None:
        return whole
    # Rebuilt with the sentence in its place, since it may replace a caption that a rule made.
    rewritten = [
        with_generated(row.record, Caption(text, how))
        for (_, row), text, how in zip(captioned(whole[made["n"]]), made["text"], made["made"], strict=True)
    ]
    added = made.select("n").with_columns(
        captions=pl.Series([[each.text for each in captions] for captions in rewritten], dtype=pl.List(pl.String)),
        made=pl.Series([[each.made for each in captions] for captions in rewritten], dtype=pl.List(pl.String)),
    )
    return whole.update(added, on="n")


def _manifest(
    folder: Place, whole: polars.DataFrame, selection: polars.DataFrame, written: polars.DataFrame
) -> polars.DataFrame:
    """One row per sample: its place in a tar, the facts from decoding, and its record."""
    pl = require("polars", "data")
    examined = read_all(work(folder, "examined"))
    examined = pl.DataFrame(schema=facts_columns()) if examined is None else examined
    packed = written.filter(pl.col("key").is_not_null()).drop("reason", "tar_size", "made_of")
    places = selection.select("n", "shards", "tar")
    facts = examined.select("n", "seconds", "rate", "channels", "peak", "clipped", "pcm_sha256")
    # Inner joins: a sample that failed while its tar was written has no key and drops out.
    rows = packed.join(places, on="n").join(facts, on="n").join(whole.drop("rate"), on="n")
    rows = _with_usable_phrases(rows)
    order = ["shards", "tar", "key", *(name for name in rows.columns if name not in ("shards", "tar", "key"))]
    manifest: polars.DataFrame = rows.select(order).sort("shards", "tar", "audio_offset")
    return manifest


def _with_usable_phrases(rows: polars.DataFrame) -> polars.DataFrame:
    """Leave out the segments that were left out of the samples."""
    pl = require("polars", "data")
    timed = rows.filter(pl.col("phrases").list.len() > 0)
    if not len(timed):
        return rows
    usable = [
        phrases_to_json(usable_phrases(phrases_of_json(phrases), seconds)[0])
        for phrases, seconds in timed.select("phrases", "seconds").iter_rows()
    ]
    changed = timed.select("n").with_columns(phrases=pl.Series(usable, dtype=rows.schema["phrases"]))
    return rows.update(changed, on="n")


def _skipped_segments(folder: Place, whole: polars.DataFrame, written: polars.DataFrame) -> tuple[SkippedSegment, ...]:
    """List the segments that were left out of packed samples, in the order of records."""
    pl = require("polars", "data")
    packed = written.filter(pl.col("key").is_not_null()).select("n")
    timed = whole.filter(pl.col("phrases").list.len() > 0).join(packed, on="n").sort("n")
    if not len(timed):
        return ()
    seconds = seconds_of(folder, timed)
    return tuple(
        SkippedSegment(record.id, record.source, str(record.audio).rpartition("/")[2], reason)
        for n, record in ((n, row.record) for n, row in captioned(timed))
        for reason in usable_phrases(record.phrases, seconds[n])[1]
    )


def _skipped(
    whole: polars.DataFrame, selection: polars.DataFrame, written: polars.DataFrame
) -> Iterator[SkippedRecord]:
    """List the records left out, in their order."""
    pl = require("polars", "data")
    left_out = selection.filter(pl.col("kind").is_not_null()).select("n", "kind", "reason")
    lost = written.filter(pl.col("reason").is_not_null()).select("n", pl.lit("not decoded").alias("kind"), "reason")
    rows = pl.concat([left_out, lost]).join(whole.select("n", "id", "source", "audio"), on="n").sort("n")
    return (SkippedRecord(*row) for row in rows.select("id", "source", "audio", "kind", "reason").iter_rows())


def _nothing_written() -> polars.DataFrame:
    """An empty table, of no tar."""
    pl = require("polars", "data")
    empty: polars.DataFrame = pl.DataFrame(
        schema=columns() | {"tar_size": pl.Int64, "tar_sha256": pl.String, "made_of": pl.String}
    )
    return empty


def _report(folder: Place, sizes: dict[str, dict[str, int]], skipped: tuple[SkippedRecord, ...]) -> BuildReport:
    report = BuildReport(
        out=folder,
        packed={shards: sum(of.values()) for shards, of in sizes.items()},
        tars={shards: len(of) for shards, of in sizes.items()},
        skipped=skipped,
    )
    if not any(report.packed.values()):
        name = skipped[0].file.rpartition("/")[2] if skipped else ""
        example = f", such as {name} ({skipped[0].reason.rstrip('.')})" if skipped else ""
        raise DataError(
            f"{folder}: none of {len(skipped)} records could be packed{example}. "
            f"See {SKIPPED} there, correct the table or the sounds, and build into a new folder."
        )
    return report
