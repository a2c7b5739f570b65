"""The first step: every record with its captions, and what already speaks against it.

Nothing is fetched or decoded yet, so this takes what sources say of themselves: licence, length, rate, ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openclap.captions.check import CaptionCheck
from openclap.captions.rules import captions_of
from openclap.data.config import ANY_SOURCE, DataConfig
from openclap.data.held import Held, load_held, save_held
from openclap.data.layout import FORMAT, IDENTITY, check_claim, claim, work, write_table
from openclap.data.overlap import overlapping
from openclap.data.records import FIELDS, Captioned, frames
from openclap.errors import DataError, require
from openclap.sources.licence import licence_family
from openclap.sources.record import Record
from openclap.storage import Place, move_files, remove_folder

if TYPE_CHECKING:
    import polars

HELD = "held.parquet"
RESERVED = ("work", "card")
"""Folders of a data set that are no shards."""


def plan(
    records: Iterable[Record],
    folder: Place,
    config: DataConfig,
    *,
    held: Callable[[], Sequence[Held]] = tuple,
    check: CaptionCheck | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> int:
    """Write every record down and return how many there are. A second run over the same records changes nothing.

    `held` gives the sets to stay apart from, and is asked once; what they hold is kept for the steps that follow.
    `check` sees all captions, and may stop before anything but a draft is written.

    Raises DataError when `folder` holds anything but the same data set.
    """
    check_claim(folder)
    if not work(folder, HELD).exists() and (apart := held()):
        if (folder / IDENTITY).exists():
            raise DataError(f"{folder}: was begun without sets to stay apart from. Choose a new folder.")
        work(folder).mkdir(parents=True, exist_ok=True)
        save_held(apart, work(folder, HELD))
    apart, digest, count = held_apart(folder), hashlib.sha256(), 0
    draft, place = work(folder, "planning"), work(folder, "records")
    remove_folder(draft)
    for number, frame in enumerate(frames(_told(records, digest, check))):
        write_table(draft / f"{number}.parquet", judge(frame, config, apart))
        count += len(frame)
        progress(count)
    try:
        if check:
            check.finish()
        claim(folder, {"format": FORMAT, "records": count, "digest": digest.hexdigest(), "config": config.to_dict()})
        if not _same(draft, place):  # sounds that have moved, a table that is damaged, or a move that was stopped
            remove_folder(place)
            move_files(draft, place)
    finally:
        remove_folder(draft)
    return count


def _same(one: Place, other: Place) -> bool:
    """Do two folders hold the same tables?"""
    names = sorted(path.name for path in one.iterdir())
    if not other.is_dir() or names != sorted(path.name for path in other.iterdir()):
        return False
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def held_apart(folder: Place) -> list[Held]:
    """The sets to stay apart from."""
    return load_held(work(folder, HELD)) if work(folder, HELD).exists() else []


def _told(records: Iterable[Record], digest: Any, check: CaptionCheck | None) -> Iterator[Captioned]:
    """Each record with its captions, while `digest` takes in what it is made of, and `check` sees them."""
    for record in records:
        captions = captions_of(record)
        if check:
            check.add(captions)
        audio = record.audio if isinstance(record.audio, str) else _name_and_size(record.audio)
        facts = [getattr(record, name) for name in FIELDS]
        digest.update(repr((audio, captions, facts)).encode("utf-8", "replace"))
        yield Captioned(record, captions)


def _name_and_size(path: Path) -> tuple[str, int | None]:
    """A sound is known by its name and size: folders may move between a stop and the next run."""
    try:
        return path.name, path.stat().st_size
    except (OSError, ValueError):  # ValueError: a name with a null byte
        return path.name, None


def judge(frame: polars.DataFrame, config: DataConfig, held: Sequence[Held] = ()) -> polars.DataFrame:
    """The table with columns `kind` and `reason`: why a record is left out, one word to count by and one sentence;
    null for those that may stay."""
    pl = require("polars", "data")
    families = {name: licence_family(name) for name in frame["licence"].unique()}
    licence = pl.col("licence").replace_strict(families, default=None, return_dtype=pl.String)
    said = pl.col("licence").fill_null("unknown")
    rules = [
        ("no caption", pl.col("captions").list.len() == 0, pl.lit("has no caption")),
        ("not text", ~pl.col("valid"), pl.lit("has a caption or a name that is not valid text (UTF-8)")),
        ("bad split", ~is_name("split"), pl.format("its split {} is no name of a folder", "split")),
    ]
    if config.by_source:
        rules.append(("bad source", ~is_name("source"), pl.format("its source {} is no name of a folder", "source")))
    if config.licences:
        allowed = licence.is_in(list(config.licences)).fill_null(value=False)
        rules.append(("licence", ~allowed, pl.lit("its licence is ") + said))
    if config.longest_s:
        rules.append(("too long", pl.col("length_s") > limit_of(config.longest_s), seconds("length_s")))
    rules.append(("too short", pl.col("length_s") < config.shortest_s, seconds("length_s")))
    rules.append(("low rate", pl.col("rate") < config.lowest_rate, hertz("rate")))
    rules.append(("overlap", pl.col("overlap").is_not_null(), pl.format("is in {}", "overlap")))
    frame = frame.with_columns(overlap=overlapping(frame.select("freesound_id", "youtube_id"), held))
    return frame.with_columns(**first_that_holds(rules)).drop("overlap")


def first_that_holds(rules: Sequence[tuple[str, Any, Any]]) -> dict[str, Any]:
    """Expressions for `kind` and `reason`, from (kind, condition, reason) in order of rank."""
    pl = require("polars", "data")
    kind, reason = pl.lit(None, pl.String), pl.lit(None, pl.String)
    for name, condition, sentence in reversed(rules):
        kind = pl.when(condition).then(pl.lit(name)).otherwise(kind)
        reason = pl.when(condition).then(sentence).otherwise(reason)
    return {"kind": kind, "reason": reason}


def is_name(column: str) -> Any:
    """Can it be the name of a folder of shards? Null can."""
    pl = require("polars", "data")
    plain = pl.col(column).str.contains(r"^[\p{L}\p{N}_][^/\\\\:*?\"<>|\x00]*$") & ~pl.col(column).is_in(RESERVED)
    return plain.fill_null(value=True)


def seconds(column: str) -> Any:
    """A sentence about a length."""
    pl = require("polars", "data")
    return pl.format("lasts {} s", pl.col(column).round(2))


def hertz(column: str) -> Any:
    """A sentence about a rate."""
    pl = require("polars", "data")
    return pl.format("was recorded at {} Hz", pl.col(column))


def limit_of(longest_s: Mapping[str, float]) -> Any:
    """The longest length of each row, by its source."""
    pl = require("polars", "data")
    other = longest_s.get(ANY_SOURCE)
    return pl.col("source").replace_strict(dict(longest_s), default=other, return_dtype=pl.Float64)
