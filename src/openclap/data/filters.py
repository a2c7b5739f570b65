"""Decide which records a data set includes, and where each goes.

`plan` writes every record down and applies the filters that need no sound: licence, ids, declared length and rate.
`select` applies the others once all sounds are decoded, and assigns each record its split, tar and number.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openclap.captions.check import CaptionCheck
from openclap.captions.rules import captions_of
from openclap.data.config import ANY_SOURCE, DataConfig
from openclap.data.layout import (
    FORMAT,
    IDENTITY,
    check_identity,
    identity,
    read_all,
    read_table,
    records,
    work,
    write_identity,
    write_table,
)
from openclap.data.overlap import SplitIds, load_ids, overlapping, save_ids
from openclap.data.records import FIELDS, Captioned, frames
from openclap.data.split import Shortfall, shortfalls, split_by_group
from openclap.errors import DataError, require
from openclap.malloc import without_garbage_collection
from openclap.sources.licence import licence_family
from openclap.sources.record import Record
from openclap.storage import Place, move_files, remove_folder

if TYPE_CHECKING:
    import polars

EXCLUDED = "excluded.parquet"
RESERVED = ("work", "card")
"""Folders of a data set that contain no shards."""
SELECTION_COLUMNS = ("n", "shards", "tar", "number", "kind", "reason")
CANCELLED = (
    "its channels cancel each other: one has inverted polarity, and their mean is next to silence. Choose one of them: "
    "channels left, right or loudest"
)
NEAR_DUPLICATES, EMBEDDINGS = "near.parquet", "near"
"""Near-duplicates found by `openclap.data.near_duplicates`, and the folder of embeddings it compares. Both are absent
where near-duplicates were not searched for."""


_FACTS = attrgetter(*FIELDS)


def plan(
    records: Iterable[Record],
    folder: Place,
    config: DataConfig,
    *,
    evaluation_sets: Callable[[], Sequence[SplitIds]] = tuple,
    check: CaptionCheck | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> int:
    """Write every record to `work/` and return their number. A second run over the same records changes nothing.

    Args:
        evaluation_sets: the sets to decontaminate from; called once, and stored for the steps that follow.
        check: gets all captions, and may stop before anything but a draft is written.

    Raises DataError when `folder` contains anything but the same data set.
    """
    check_identity(folder)
    if not work(folder, EXCLUDED).exists() and (excluded := evaluation_sets()):
        if (folder / IDENTITY).exists():
            # Sounds that a set has already selected could be in them.
            raise DataError(f"{folder}: was begun without evaluation sets to leave out. Choose a new folder.")
        work(folder).mkdir(parents=True, exist_ok=True)
        save_ids(excluded, work(folder, EXCLUDED))
    excluded, digest, count = excluded_ids(folder), hashlib.sha256(), 0
    draft, place = work(folder, "planning"), work(folder, "records")
    # A draft first: a caption check may stop, and records of an earlier run must stay until then.
    remove_folder(draft)
    try:
        with without_garbage_collection():
            for number, frame in enumerate(frames(_captioned(records, digest, check))):
                write_table(draft / f"{number}.parquet", judge_records(frame, config, excluded))
                count += len(frame)
                progress(count)
        if check:
            check.finish()
        write_identity(
            folder, {"format": FORMAT, "records": count, "digest": digest.hexdigest(), "config": config.to_dict()}
        )
        if not _same_tables(draft, place):  # sounds were moved, a table is damaged, or a move was stopped
            remove_folder(place)
            move_files(draft, place)
    finally:
        remove_folder(draft)
    return count


def _same_tables(folder: Place, other: Place) -> bool:
    names = sorted(path.name for path in folder.iterdir())
    if not other.is_dir() or names != sorted(path.name for path in other.iterdir()):
        return False
    return all((folder / name).read_bytes() == (other / name).read_bytes() for name in names)


def excluded_ids(folder: Place) -> list[SplitIds]:
    """The ids of the evaluation sets to decontaminate from."""
    return load_ids(work(folder, EXCLUDED)) if work(folder, EXCLUDED).exists() else []


def _captioned(records: Iterable[Record], digest: Any, check: CaptionCheck | None) -> Iterator[Captioned]:
    """Yield each record with its captions; add it to `digest` and its captions to `check`."""
    for record in records:
        captions = captions_of(record)
        if check:
            check.add(captions)
        audio = record.audio if isinstance(record.audio, str) else _name_and_size(record.audio)
        facts = list(_FACTS(record))
        if record.phrases:  # without them, the digest is that of data sets from before there were phrases
            facts.append(record.phrases)
        digest.update(repr((audio, captions, facts)).encode("utf-8", "replace"))
        yield Captioned(record, captions)


def _name_and_size(path: Path) -> tuple[str, int | None]:
    """Identify a sound by name and size: folders may move between a stop and the next run."""
    try:
        return path.name, os.stat(path).st_size  # noqa: PTH116  # Path.stat takes twice as long, for each of millions
    except (OSError, ValueError):  # ValueError: a name with a null byte
        return path.name, None


def judge_records(frame: polars.DataFrame, config: DataConfig, excluded: Sequence[SplitIds] = ()) -> polars.DataFrame:
    """Add the columns `kind` and `reason`: why a record is left out, as a word for counting and a sentence; null for
    records that may be included."""
    pl = require("polars", "data")
    # Each licence text is parsed once, not once per record: there are few different ones.
    families = {name: licence_family(name) for name in frame["licence"].unique()}
    licence = pl.col("licence").replace_strict(families, default=None, return_dtype=pl.String)
    declared = pl.col("licence").fill_null("unknown")
    # In order of rank: a record is counted under the first rule that it breaks.
    rules = [
        ("no caption", pl.col("captions").list.len() == 0, pl.lit("has no caption")),
        ("not text", ~pl.col("valid"), pl.lit("has a caption or a name that is not valid text (UTF-8)")),
        ("bad split", ~is_folder_name("split"), pl.format("its split {} is not a name for a folder", "split")),
    ]
    if config.by_source:
        rules.append(
            ("bad source", ~is_folder_name("source"), pl.format("its source {} is not a name for a folder", "source"))
        )
    if config.licences:
        allowed = licence.is_in(list(config.licences)).fill_null(value=False)
        rules.append(("licence", ~allowed, pl.lit("its licence is ") + declared))
    if config.longest_s:
        rules.append(("too long", pl.col("length_s") > longest_length(config.longest_s), length_sentence("length_s")))
    rules.append(("too short", pl.col("length_s") < config.shortest_s, length_sentence("length_s")))
    rules.append(("low rate", pl.col("rate") < config.lowest_rate, rate_sentence("rate")))
    rules.append(("overlap", pl.col("overlap").is_not_null(), pl.format("is in {}", "overlap")))
    frame = frame.with_columns(overlap=overlapping(frame.select("freesound_id", "youtube_id"), excluded))
    return frame.with_columns(**first_match(rules)).drop("overlap")


def first_match(rules: Sequence[tuple[str, Any, Any]]) -> dict[str, Any]:
    """Build the expressions of `kind` and `reason` from rules (kind, condition, reason); the first match counts."""
    pl = require("polars", "data")
    kind, reason = pl.lit(None, pl.String), pl.lit(None, pl.String)
    # Later expressions wrap earlier ones, so the first rule is applied last.
    for name, condition, sentence in reversed(rules):
        kind = pl.when(condition).then(pl.lit(name)).otherwise(kind)
        reason = pl.when(condition).then(sentence).otherwise(reason)
    return {"kind": kind, "reason": reason}


def is_folder_name(column: str) -> Any:
    """Whether a column is a valid name for a folder of shards. Null is valid."""
    pl = require("polars", "data")
    plain = pl.col(column).str.contains(r"^[\p{L}\p{N}_][^/\\\\:*?\"<>|\x00]*$") & ~pl.col(column).is_in(RESERVED)
    return plain.fill_null(value=True)


def length_sentence(column: str) -> Any:
    """The reason for a length."""
    pl = require("polars", "data")
    return pl.format("lasts {} s", pl.col(column).round(2))


def rate_sentence(column: str) -> Any:
    """The reason for a rate."""
    pl = require("polars", "data")
    return pl.format("was recorded at {} Hz", pl.col(column))


def longest_length(longest_s: Mapping[str, float]) -> Any:
    """The length limit of each row, by its source."""
    pl = require("polars", "data")
    other = longest_s.get(ANY_SOURCE)
    return pl.col("source").replace_strict(dict(longest_s), default=other, return_dtype=pl.Float64)


def select(folder: Place, config: DataConfig) -> polars.DataFrame:
    """Select records: for each, `shards` (folder), `tar` and `number` of its sample, or `kind` and `reason`.

    A pure function of the records, the facts from decoding and the configuration. Raises DataError while records are
    still to be decoded, or near-duplicates to be compared.
    """
    pl = require("polars", "data")
    facts = _without_near_duplicates(folder, judged(folder, config))
    placed = place(facts.filter(pl.col("kind").is_null()), config)
    return facts.join(placed, on="n", how="left", maintain_order="left").select(*SELECTION_COLUMNS)


def judged(folder: Place, config: DataConfig) -> polars.DataFrame:
    """Return every record with `kind` and `reason`, before near-duplicates are left out. Raises as `select`."""
    pl = require("polars", "data")
    whole = records(folder, identity(folder)["digest"])
    facts = read_all(work(folder, "examined"))
    usable = whole.filter(pl.col("kind").is_null())["n"]
    examined = 0 if facts is None else len(facts)
    if examined < len(usable):
        raise DataError(
            f"{folder}: {len(usable) - examined} of {len(usable)} records are still to be fetched and decoded. "
            "Run every part of 'openclap dataset fetch'."
        )
    if facts is None:
        return whole
    return judge_sounds(join_facts(whole, facts), config, excluded_ids(folder))


def join_facts(whole: polars.DataFrame, facts: polars.DataFrame) -> polars.DataFrame:
    """Join records with the facts from decoding."""
    pl = require("polars", "data")
    rows = whole.select("n", "source", "id", "group", "audio", "split", "kind", "reason")
    return rows.join(facts, on="n", how="left", suffix="_later", maintain_order="left").with_columns(
        kind=pl.coalesce("kind", "kind_later"), reason=pl.coalesce("reason", "reason_later")
    )


def judge_sounds(facts: polars.DataFrame, config: DataConfig, excluded: Sequence[SplitIds] = ()) -> polars.DataFrame:
    """Set `kind` and `reason` of decoded sounds that do not meet the configuration."""
    pl = require("polars", "data")
    # Earlier reasons rank first, so that a record keeps the kind it was left out for before.
    rules = [(kind, pl.col("kind") == kind, pl.col("reason")) for kind in facts["kind"].unique().drop_nulls().sort()]
    rules.append(("too short", pl.col("seconds") < config.shortest_s, length_sentence("seconds")))
    if config.longest_s:
        rules.append(("too long", pl.col("seconds") > longest_length(config.longest_s), length_sentence("seconds")))
    rules.append(("low rate", pl.col("rate") < config.lowest_rate, rate_sentence("rate")))
    if config.quietest_db is not None:
        # -180 dB for digital silence, which has no logarithm.
        level = 20 * pl.col("peak").clip(1e-9).log10()
        rules.append(
            ("silent", level < config.quietest_db, pl.format("its loudest sample is at {} dB", level.round(1)))
        )
    if config.channels == "mean":
        # Only where the mean is taken: a single channel of such a recording is as good as any.
        rules.append(("channels cancel", pl.col("cancelled"), pl.lit(CANCELLED)))
    clipped = (100 * pl.col("clipped")).round(1)
    rules.append(("clipped", pl.col("clipped") > config.most_clipped, pl.format("{} % of it is clipped", clipped)))
    # Ids were compared in `plan`; the hash of the samples is known only now.
    facts = facts.with_columns(overlap=overlapping(facts.select("pcm_sha256"), excluded))
    rules.append(("overlap", pl.col("overlap").is_not_null(), pl.format("is in {}", "overlap")))
    judged = facts.with_columns(**first_match(rules))
    return _without_duplicates(judged) if config.drop_duplicates else judged


def _without_duplicates(facts: polars.DataFrame) -> polars.DataFrame:
    """Leave out all but the first of sounds with the same samples, among those that may be included."""
    pl = require("polars", "data")
    included = pl.col("kind").is_null() & pl.col("pcm_sha256").is_not_null()
    # Hashes of records that are left out are hidden, or a good copy behind a bad one would count as the duplicate.
    duplicate = included & ~pl.when(included).then(pl.col("pcm_sha256")).is_first_distinct()
    first = pl.format("has the same samples as {} of {}", pl.col("id").first(), pl.col("source").first())
    named = first.over(pl.when(included).then(pl.col("pcm_sha256")), mapping_strategy="group_to_rows")
    return facts.with_columns(
        kind=pl.when(duplicate).then(pl.lit("duplicate")).otherwise(pl.col("kind")),
        reason=pl.when(duplicate).then(named).otherwise(pl.col("reason")),
    )


def _without_near_duplicates(folder: Place, facts: polars.DataFrame) -> polars.DataFrame:
    """Leave out all but the first of near-duplicates, where they were searched for."""
    pl = require("polars", "data")
    if not work(folder, EMBEDDINGS).is_dir():
        return facts
    if not work(folder, NEAR_DUPLICATES).exists():
        raise DataError(
            f"{folder}: near-duplicates are still to be compared. Run every part of 'openclap dataset fetch "
            "--near-duplicates'."
        )
    # A twin that was itself left out, for another reason, leaves nobody out.
    included = facts.filter(pl.col("kind").is_null()).select("n", "id", "source")
    near = read_table(work(folder, NEAR_DUPLICATES)).join(included, left_on="twin", right_on="n")
    sentence = pl.format("sounds like {} of {} (cosine {})", "id", "source", pl.col("cosine").round(3))
    reasons = near.select("n", near=sentence)
    leave_out = pl.col("kind").is_null() & pl.col("near").is_not_null()
    marked = facts.join(reasons, on="n", how="left", maintain_order="left").with_columns(
        kind=pl.when(leave_out).then(pl.lit("near duplicate")).otherwise(pl.col("kind")),
        reason=pl.when(leave_out).then(pl.col("near")).otherwise(pl.col("reason")),
    )
    return marked.drop("near")


def place(chosen: polars.DataFrame, config: DataConfig) -> polars.DataFrame:
    """Assign folder, tar and number: the split of a record's source, or else of its group; in the order of records."""
    pl = require("polars", "data")
    parts = []
    rows = _with_split(chosen, config)
    for name, part in sorted(rows.partition_by("set", as_dict=True).items()):
        free = part.filter(pl.col("split").is_null())["group"]
        # Only groups without a split of their own: a source's splits are never changed.
        split_of_group = split_by_group(free, config.splits, config.seed) if len(free) else {}
        split = pl.col("split").fill_null(
            pl.col("group").replace_strict(split_of_group, default=None, return_dtype=pl.String)
        )
        shards = pl.format("{}/{}", pl.lit(name[0]), split) if config.by_source else split
        parts.append(part.select("n", shards=shards))
    if not parts:
        return rows.select("n", shards=pl.lit(""), tar=pl.lit(0), number=pl.lit(0))
    # Numbers follow the order of records, so equal records give equal tars however the work was divided.
    number = pl.int_range(pl.len()).over("shards").cast(pl.Int64)
    placed: polars.DataFrame = pl.concat(parts).sort("n").with_columns(number=number)
    return placed.with_columns(tar=pl.col("number") // config.shard_size)


def _with_split(rows: polars.DataFrame, config: DataConfig) -> polars.DataFrame:
    """Add `group`, `set` (records that are split together) and `split`.

    The split is that of the record's source, or of other records of its group; null where neither has one.
    """
    pl = require("polars", "data")
    # A record without a group is a group of its own, named by its file.
    rows = rows.with_columns(
        group=pl.coalesce("group", "audio"), set=pl.col("source") if config.by_source else pl.lit("")
    )
    # A record without a split follows those of its group, since a group is never divided.
    return rows.with_columns(split=pl.coalesce("split", pl.col("split").drop_nulls().first().over("set", "group")))


def unmet_splits(folder: Place, selection: polars.DataFrame, config: DataConfig) -> list[Shortfall]:
    """List splits that are empty or far off their requested size."""
    pl = require("polars", "data")
    whole = records(folder, identity(folder)["digest"]).select("n", "source", "group", "audio", "split")
    chosen = selection.filter(pl.col("shards").is_not_null()).select("n", "shards").join(whole, on="n")
    rows = _with_split(chosen, config).with_columns(at=pl.col("shards").str.split("/").list.last())
    unmet: list[Shortfall] = []
    for (name,), part in sorted(rows.partition_by("set", as_dict=True).items()):
        sizes: dict[str, dict[str, int]] = {}
        for split, group, count in part.filter(pl.col("split").is_null()).group_by("at", "group").len().iter_rows():
            sizes.setdefault(split, {})[group] = count
        own = part.filter(pl.col("split").is_not_null())
        # A split that the source itself fills is not empty.
        there = set(own["at"])
        reports = [
            each for each in shortfalls(config.splits, sizes, len(own)) if not (each.empty and each.split in there)
        ]
        unmet += [replace(each, sentence=f"{name}: {each.sentence}") if name else each for each in reports]
    return unmet
