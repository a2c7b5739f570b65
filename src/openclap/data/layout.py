"""The layout of a data set's folder, finished or unfinished, and reading and writing its tables.

    <split>/0.tar, 1.tar …, sizes.json    the shards; with `by_source` in <source>/<split>
    manifest.parquet                      every packed sample: where it is, its captions, licence, group and source
    skipped.jsonl                         every record that was left out, and the reason
    skipped_segments.jsonl                segments of phrases that were left out, and the reason; only if there are any
    README.md                             the data card
    dataset.json                          the configuration, and a digest of all records
    work/                                 intermediate results; may be deleted once the set is finished
        records/0.parquet …               every record with its captions and reasons for leaving it out
        excluded.parquet                  ids and hashes of the evaluation sets to decontaminate from
        audio/                            fetched files, by URL
        fetched/*.jsonl                   failed fetches
        examined/0.parquet …              facts from decoding, CHUNK records in each
        sounds/0.flacs …                  decoded sounds as they will be packed, until the set is finished
        near/, near.parquet               embeddings of clips, and near-duplicates among them
        captioned/, captions.jsonl        sentences that a model wrote from keywords
        selection.parquet                 the place of each record, or the reason for leaving it out
        written/<shards>/0.parquet …      positions of the samples in each tar

Every file appears complete or not at all and is derived from those above it, so a stopped step resumes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openclap.data.records import with_phrases
from openclap.errors import DataError, require
from openclap.locks import LOCK, only_writer
from openclap.storage import Place, partial_of, write_bytes

if TYPE_CHECKING:
    import polars

FORMAT = 3
IDENTITY, MANIFEST, SKIPPED, SIZES, WORK = "dataset.json", "manifest.parquet", "skipped.jsonl", "sizes.json", "work"
SKIPPED_SEGMENTS = "skipped_segments.jsonl"
CHUNK = 256
"""Records that are decoded as one item of work."""


def lock(folder: Place) -> AbstractContextManager[None]:
    """Lock a folder for one writer (`only_writer`). Object stores have no locks."""
    return only_writer(folder) if isinstance(folder, Path) else nullcontext()


def work(folder: Place, *parts: str) -> Place:
    """A path under `work/`."""
    return folder.joinpath(WORK, *parts)


def write_table(path: Place, frame: polars.DataFrame) -> None:
    """Write a parquet file atomically; one with the same content is not touched."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    # In memory first: object stores take whole files, and local ones appear under their name when complete.
    frame.write_parquet(content)
    write_bytes(path, content.getvalue())


def read_table(path: Place) -> polars.DataFrame:
    """Read a parquet file. Raises DataError for a missing or damaged one."""
    pl = require("polars", "data")
    try:
        with path.open("rb") as file:
            frame: polars.DataFrame = pl.read_parquet(file.read())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. Run the step that makes it: openclap dataset build.") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        advice = (
            f"Run 'openclap dataset check {path.parent} --repair'."
            if path.name == MANIFEST
            else "Delete it and run the same again"
        )
        raise DataError(f"{path}: is damaged ({str(error).splitlines()[0]}). {advice}.") from None
    return frame


def read_all(folder: Place) -> polars.DataFrame | None:
    """Concatenate the tables 0.parquet, 1.parquet … of a folder; None where there are none."""
    pl = require("polars", "data")
    files = numbered(folder, ".parquet")
    return pl.concat([read_table(file) for file in files]) if files else None


def numbered(folder: Place, suffix: str) -> list[Place]:
    """List the files of a folder that are named by numbers, in numerical order."""
    files = [path for path in folder.iterdir() if path.name.endswith(suffix)] if folder.is_dir() else []
    return sorted(
        (path for path in files if path.name.removesuffix(suffix).isdecimal()),
        key=lambda path: int(path.name.removesuffix(suffix)),
    )


@lru_cache(maxsize=1)
def records(folder: Place, digest: str) -> polars.DataFrame:
    """Read every record, cached for the next call.

    `digest`, that of the data set, is part of the cache's key: a folder may be replaced by another data set.
    """
    frame = read_all(work(folder, "records"))
    if frame is None:
        raise DataError(f"{folder}: has no records yet. Run 'openclap dataset build'.")
    return with_phrases(frame)


def identity(folder: Place) -> dict[str, Any]:
    """Read dataset.json. Raises DataError for a folder that is not a data set."""
    try:
        content = json.loads((folder / IDENTITY).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{folder}: holds no {IDENTITY}, expected a folder that `openclap dataset` made.") from None
    except ValueError:
        raise DataError(f"{folder / IDENTITY}: is damaged. Delete the folder and build it again.") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{folder}: was made by another version of openclap. Build it in a new folder.")
    return content


def check_identity(folder: Place) -> None:
    """Raise DataError for a folder that is neither empty nor an unfinished or complete data set."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file, expected a folder to pack into. Choose a new folder.")
    # Without `work/` nothing shows which records a set was made from, so it cannot be continued.
    if (folder / MANIFEST).exists() and not (folder / WORK).exists():
        raise DataError(f"{folder}: is a finished data set without its {WORK}/. Build in a new folder.")
    # A kill during the first seconds leaves only these.
    ours = {LOCK, WORK, partial_of(folder / IDENTITY).name}
    foreign = folder.is_dir() and any(path.name not in ours for path in folder.iterdir())
    if foreign and not (folder / IDENTITY).exists():
        raise DataError(f"{folder}: is not empty and holds no data set to go on with. Choose a new folder.")


def write_identity(folder: Place, wanted: Mapping[str, Any]) -> None:
    """Write dataset.json for `wanted`. Raises DataError when the folder belongs to another data set."""
    # Through JSON, so that tuples compare equal to the lists read from the file.
    wanted = json.loads(json.dumps(wanted))
    if not (folder / IDENTITY).exists():
        write_bytes(folder / IDENTITY, json.dumps(wanted, indent=1).encode())
    # A folder belongs to one input for good: intermediate files say nothing about what they were made from.
    elif (before := identity(folder)) != wanted:
        changed = ", ".join(NAMES.get(key, key.replace("_", " ")) for key in _differing(before, wanted))
        raise DataError(
            f"{folder}: was packed from another input (changed: {changed}). Choose a new folder, or delete this one."
        )


NAMES = {"digest": "rows", "records": "number of rows"}


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    flat = [{**side, **side.get("config", {})} for side in (before, now)]
    return [key for key in flat[1] if key != "config" and flat[0].get(key) != flat[1][key]]
