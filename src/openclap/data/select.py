"""The step that decides: where each record goes, or why it goes nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from openclap.data.config import DataConfig
from openclap.data.held import Held
from openclap.data.layout import identity, read_all, read_table, records, work
from openclap.data.overlap import overlapping
from openclap.data.plan import first_that_holds, held_apart, hertz, limit_of, seconds
from openclap.data.split import Shortfall, shortfalls, split_by_group
from openclap.errors import DataError, require
from openclap.storage import Place

if TYPE_CHECKING:
    import polars

KEPT = ("n", "shards", "tar", "number", "kind", "reason")
CANCELLED = (
    "its channels cancel each other: one has inverted polarity, and their mean is next to silence. Choose one of them: "
    "channels left, right or loudest"
)
NEAR, VECTORS = "near.parquet", "near"
"""The near duplicates found by `openclap.data.near_duplicates`, and the folder of the embeddings it compares. Both are
absent where near duplicates were not looked for."""


def select(folder: Place, config: DataConfig) -> polars.DataFrame:
    """A row a record: `shards` (folder), `tar` and `number` of its sample there, or `kind` and `reason`.

    It is a pure function of the records, what decoding showed and the choices. Raises DataError while records are
    still to be examined, or near duplicates to be looked for.
    """
    pl = require("polars", "data")
    facts = _without_near(folder, judged(folder, config))
    placed = place(facts.filter(pl.col("kind").is_null()), config)
    return facts.join(placed, on="n", how="left", maintain_order="left").select(*KEPT)


def judged(folder: Place, config: DataConfig) -> polars.DataFrame:
    """Every record with its `kind` and `reason`, before near duplicates are left out. Raises as `select`."""
    pl = require("polars", "data")
    whole = records(folder, identity(folder)["digest"])
    found = read_all(work(folder, "examined"))
    usable = whole.filter(pl.col("kind").is_null())["n"]
    examined = 0 if found is None else len(found)
    if examined < len(usable):
        raise DataError(
            f"{folder}: {len(usable) - examined} of {len(usable)} records are still to be fetched and decoded. "
            "Run every part of: openclap dataset fetch"
        )
    if found is None:
        return whole
    return judge_sounds(facts_of_each(whole, found), config, held_apart(folder))


def facts_of_each(rows: polars.DataFrame, found: polars.DataFrame) -> polars.DataFrame:
    """Records with what decoding showed of them."""
    pl = require("polars", "data")
    facts = rows.select("n", "source", "id", "group", "audio", "split", "kind", "reason")
    return facts.join(found, on="n", how="left", suffix="_later", maintain_order="left").with_columns(
        kind=pl.coalesce("kind", "kind_later"), reason=pl.coalesce("reason", "reason_later")
    )


def judge_sounds(facts: polars.DataFrame, config: DataConfig, held: Sequence[Held] = ()) -> polars.DataFrame:
    """`kind` and `reason` of sounds that decoded, and are not what the choices ask for."""
    pl = require("polars", "data")
    rules = [(kind, pl.col("kind") == kind, pl.col("reason")) for kind in facts["kind"].unique().drop_nulls().sort()]
    rules.append(("too short", pl.col("seconds") < config.shortest_s, seconds("seconds")))
    if config.longest_s:
        rules.append(("too long", pl.col("seconds") > limit_of(config.longest_s), seconds("seconds")))
    rules.append(("low rate", pl.col("rate") < config.lowest_rate, hertz("rate")))
    if config.quietest_db is not None:
        level = 20 * pl.col("peak").clip(1e-9).log10()
        rules.append(
            ("silent", level < config.quietest_db, pl.format("its loudest sample is at {} dB", level.round(1)))
        )
    if config.channels == "mean":
        rules.append(("channels cancel", pl.col("cancelled"), pl.lit(CANCELLED)))
    clipped = (100 * pl.col("clipped")).round(1)
    rules.append(("clipped", pl.col("clipped") > config.most_clipped, pl.format("{} % of it is clipped", clipped)))
    facts = facts.with_columns(overlap=overlapping(facts.select("pcm_sha256"), held))
    rules.append(("overlap", pl.col("overlap").is_not_null(), pl.format("is in {}", "overlap")))
    judged = facts.with_columns(**first_that_holds(rules))
    return _without_twins(judged) if config.drop_duplicates else judged


def _without_twins(facts: polars.DataFrame) -> polars.DataFrame:
    """Of sounds with the same samples the first one stays, among those that may stay at all."""
    pl = require("polars", "data")
    stays = pl.col("kind").is_null() & pl.col("pcm_sha256").is_not_null()
    twin = stays & ~pl.when(stays).then(pl.col("pcm_sha256")).is_first_distinct()
    first = pl.format("has the same samples as {} of {}", pl.col("id").first(), pl.col("source").first())
    named = first.over(pl.when(stays).then(pl.col("pcm_sha256")), mapping_strategy="group_to_rows")
    return facts.with_columns(
        kind=pl.when(twin).then(pl.lit("duplicate")).otherwise(pl.col("kind")),
        reason=pl.when(twin).then(named).otherwise(pl.col("reason")),
    )


def _without_near(folder: Place, facts: polars.DataFrame) -> polars.DataFrame:
    """Of clips that sound alike the first one stays, where near duplicates were looked for."""
    pl = require("polars", "data")
    if not work(folder, VECTORS).is_dir():
        return facts
    if not work(folder, NEAR).exists():
        raise DataError(
            f"{folder}: near duplicates are still to be compared. Run every part of: openclap dataset fetch --near"
        )
    free = facts.filter(pl.col("kind").is_null()).select("n", "id", "source")
    near = read_table(work(folder, NEAR)).join(free, left_on="twin", right_on="n")
    said = pl.format("sounds like {} of {} (cosine {})", "id", "source", pl.col("cosine").round(3))
    twin = near.select("n", near=said)
    goes = pl.col("kind").is_null() & pl.col("near").is_not_null()
    marked = facts.join(twin, on="n", how="left", maintain_order="left").with_columns(
        kind=pl.when(goes).then(pl.lit("near duplicate")).otherwise(pl.col("kind")),
        reason=pl.when(goes).then(pl.col("near")).otherwise(pl.col("reason")),
    )
    return marked.drop("near")


def place(chosen: polars.DataFrame, config: DataConfig) -> polars.DataFrame:
    """The folder, tar and number of each sample: its source's split, or its group's; in the order of the records."""
    pl = require("polars", "data")
    parts = []
    rows = _with_split(chosen, config)
    for name, part in sorted(rows.partition_by("set", as_dict=True).items()):
        free = part.filter(pl.col("split").is_null())["group"]
        home = split_by_group(free, config.splits, config.seed) if len(free) else {}
        split = pl.col("split").fill_null(pl.col("group").replace_strict(home, default=None, return_dtype=pl.String))
        where = pl.format("{}/{}", pl.lit(name[0]), split) if config.by_source else split
        parts.append(part.select("n", shards=where))
    if not parts:
        return rows.select("n", shards=pl.lit(""), tar=pl.lit(0), number=pl.lit(0))
    number = pl.int_range(pl.len()).over("shards").cast(pl.Int64)
    placed: polars.DataFrame = pl.concat(parts).sort("n").with_columns(number=number)
    return placed.with_columns(tar=pl.col("number") // config.shard_size)


def _with_split(rows: polars.DataFrame, config: DataConfig) -> polars.DataFrame:
    """Records with their `group`, the `set` that they are split in, and the split that their source or their group's
    other records say; null where nobody says."""
    pl = require("polars", "data")
    rows = rows.with_columns(
        group=pl.coalesce("group", "audio"), set=pl.col("source") if config.by_source else pl.lit("")
    )
    return rows.with_columns(split=pl.coalesce("split", pl.col("split").drop_nulls().first().over("set", "group")))


def missed(folder: Place, selection: polars.DataFrame, config: DataConfig) -> list[Shortfall]:
    """Splits that are empty, or far from what was asked for."""
    pl = require("polars", "data")
    whole = records(folder, identity(folder)["digest"]).select("n", "source", "group", "audio", "split")
    chosen = selection.filter(pl.col("shards").is_not_null()).select("n", "shards").join(whole, on="n")
    rows = _with_split(chosen, config).with_columns(at=pl.col("shards").str.split("/").list.last())
    found = []
    for (name,), part in sorted(rows.partition_by("set", as_dict=True).items()):
        sizes: dict[str, dict[str, int]] = {}
        for split, group, count in part.filter(pl.col("split").is_null()).group_by("at", "group").len().iter_rows():
            sizes.setdefault(split, {})[group] = count
        own = part.filter(pl.col("split").is_not_null())
        there = set(own["at"])
        said = [each for each in shortfalls(config.splits, sizes, len(own)) if not (each.empty and each.split in there)]
        found += [replace(each, sentence=f"{name}: {each.sentence}") if name else each for each in said]
    return found
