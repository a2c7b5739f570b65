"""The last step: what all tars hold, in one table, and what was left out, in one list."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from openclap.captions import Caption, with_generated
from openclap.data.captioning import CAPTIONED
from openclap.data.config import DataConfig
from openclap.data.decode import columns as facts_columns
from openclap.data.layout import (
    MANIFEST,
    SIZES,
    SKIPPED,
    identity,
    numbered,
    read_all,
    read_table,
    records,
    work,
    write_table,
)
from openclap.data.records import captioned
from openclap.data.select import missed
from openclap.data.write import SELECTION, Tar, columns, made_of, samples_of, stands, tars
from openclap.errors import DataError, require
from openclap.storage import Place, write_bytes

if TYPE_CHECKING:
    import polars


@dataclass(frozen=True, slots=True)
class Skipped:
    """A record that was left out: `kind` is a word to count by, `reason` a sentence."""

    id: str
    source: str
    file: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class PackReport:
    """What came of packing: `packed` counts samples and `tars` files in each folder of shards."""

    out: Place
    packed: dict[str, int]
    tars: dict[str, int]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...] = ()
    """What did not come out as it was asked for."""


def finish(folder: Place) -> PackReport:
    """Write manifest, sizes and the list of what was left out; what packing came to.

    Raises DataError while tars are still to be written, and when no record at all could be packed.
    """
    whole, selection, wanted = _of_work(folder)
    lacking = [tar for tar in wanted if not stands(tar, made_of(tar, samples_of(tar)))]
    if lacking:
        raise DataError(
            f"{folder}: {len(lacking)} of {len(wanted)} tars are still to be written (the first is {lacking[0].path}). "
            "Run every part of: openclap dataset pack"
        )
    written = _written(wanted)
    manifest = _manifest(folder, whole, selection, written)
    sizes = write_sizes(folder, manifest, {tar.shards for tar in wanted})
    write_table(folder / MANIFEST, manifest)
    skipped = tuple(_skipped(whole, selection, written))
    write_bytes(folder / SKIPPED, b"".join(json.dumps(asdict(each)).encode() + b"\n" for each in skipped))
    _remove_others(folder, wanted)
    notes = tuple(each.sentence for each in missed(folder, selection, DataConfig(**identity(folder)["config"])))
    return replace(_report(folder, sizes, skipped), notes=notes)


def manifest_of(folder: Place) -> polars.DataFrame:
    """The manifest as `work/` has it, whether or not the tars are as they were written. Raises DataError."""
    whole, selection, wanted = _of_work(folder)
    return _manifest(folder, whole, selection, _written(wanted))


def _of_work(folder: Place) -> tuple[polars.DataFrame, polars.DataFrame, list[Tar]]:
    """Every record, where each goes, and the tars that there are to be."""
    whole = _with_sentences(folder, records(folder, identity(folder)["digest"]).drop("kind", "reason", "valid"))
    if not work(folder, SELECTION).exists():
        raise DataError(f"{folder}: no tar is written yet. Run every part of: openclap dataset pack")
    selection = read_table(work(folder, SELECTION))
    return whole, selection, tars(folder, selection)


def _written(wanted: Sequence[Tar]) -> polars.DataFrame:
    pl = require("polars", "data")
    return pl.concat([read_table(tar.table) for tar in wanted]) if wanted else _nothing_written()


def write_sizes(folder: Place, manifest: polars.DataFrame, shards: Iterable[str]) -> dict[str, dict[str, int]]:
    """Write how many samples each tar has, beside the tars of each folder of shards."""
    sizes: dict[str, dict[str, int]] = {name: {} for name in sorted(shards)}
    for name, number, count in manifest.group_by("shards", "tar", maintain_order=True).len().iter_rows():
        sizes[name][f"{number}.tar"] = count
    for name, of in sizes.items():
        write_bytes(folder.joinpath(*name.split("/"), SIZES), json.dumps(of, indent=1).encode())
    return sizes


def _remove_others(folder: Place, wanted: Sequence[Tar]) -> None:
    """Take away tars of an earlier selection, which this one has no more: whoever reads a folder reads all in it."""
    place, kept = work(folder, "written"), set(wanted)
    for parent in [path for path in place.rglob("*") if path.is_dir()]:
        shards = parent.relative_to(place).as_posix()
        for table in numbered(parent, ".parquet"):
            tar = Tar(str(folder), shards, int(table.stem))
            if tar not in kept:
                tar.path.unlink(missing_ok=True)
                table.unlink()
        if shards not in {tar.shards for tar in kept}:
            folder.joinpath(*shards.split("/"), SIZES).unlink(missing_ok=True)


def _with_sentences(folder: Place, whole: polars.DataFrame) -> polars.DataFrame:
    """The records with the captions that models made for them."""
    pl = require("polars", "data")
    made = read_all(work(folder, CAPTIONED))
    if made is None:
        return whole
    said = [
        with_generated(row.record, Caption(text, how))
        for (_, row), text, how in zip(captioned(whole[made["n"]]), made["text"], made["made"], strict=True)
    ]
    added = made.select("n").with_columns(
        captions=pl.Series([[each.text for each in captions] for captions in said], dtype=pl.List(pl.String)),
        made=pl.Series([[each.made for each in captions] for captions in said], dtype=pl.List(pl.String)),
    )
    return whole.update(added, on="n")


def _manifest(
    folder: Place, whole: polars.DataFrame, selection: polars.DataFrame, written: polars.DataFrame
) -> polars.DataFrame:
    """A row a sample: where it stands, what it is, what is said of it, and whose it is."""
    pl = require("polars", "data")
    examined = read_all(work(folder, "examined"))
    examined = pl.DataFrame(schema=facts_columns()) if examined is None else examined
    packed = written.filter(pl.col("key").is_not_null()).drop("reason", "tar_size", "made_of")
    places = selection.select("n", "shards", "tar")
    facts = examined.select("n", "seconds", "rate", "channels", "peak", "clipped", "pcm_sha256")
    rows = packed.join(places, on="n").join(facts, on="n").join(whole.drop("rate"), on="n")
    order = ["shards", "tar", "key", *(name for name in rows.columns if name not in ("shards", "tar", "key"))]
    manifest: polars.DataFrame = rows.select(order).sort("shards", "tar", "audio_offset")
    return manifest


def _skipped(whole: polars.DataFrame, selection: polars.DataFrame, written: polars.DataFrame) -> Iterator[Skipped]:
    """In the order of the records."""
    pl = require("polars", "data")
    left_out = selection.filter(pl.col("kind").is_not_null()).select("n", "kind", "reason")
    lost = written.filter(pl.col("reason").is_not_null()).select("n", pl.lit("not decoded").alias("kind"), "reason")
    rows = pl.concat([left_out, lost]).join(whole.select("n", "id", "source", "audio"), on="n").sort("n")
    return (Skipped(*row) for row in rows.select("id", "source", "audio", "kind", "reason").iter_rows())


def _nothing_written() -> polars.DataFrame:
    """The table of no tar."""
    pl = require("polars", "data")
    empty: polars.DataFrame = pl.DataFrame(
        schema=columns() | {"tar_size": pl.Int64, "tar_sha256": pl.String, "made_of": pl.String}
    )
    return empty


def _report(folder: Place, sizes: dict[str, dict[str, int]], skipped: tuple[Skipped, ...]) -> PackReport:
    report = PackReport(
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
            f"See {SKIPPED} there, mend the table or the sounds, and pack into a new folder."
        )
    return report
