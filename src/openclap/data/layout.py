"""What the folder of a data set holds, finished or in the making.

    <split>/0.tar, 1.tar …, sizes.json    the shards; with `by_source` they stand in <source>/<split>
    manifest.parquet                      everything packed: where it stands, what is said of it, whose it is
    skipped.jsonl                         everything left out, and why
    README.md                             the data card
    dataset.json                          the choices, and a digest of all records
    work/                                 what the steps hand on; may be deleted once the set is finished
        records/0.parquet …               every record with its captions, and what already speaks against it
        held.parquet                      which clips the sets hold that this one stays apart from
        audio/                            what was fetched, by address
        fetched/*.jsonl                   what could not be fetched
        examined/0.parquet …              what decoding showed, CHUNK records in each
        near/, near.parquet               vectors of clips, and which are near an earlier one
        captioned/, captions.jsonl        what a model wrote of keywords
        selection.parquet                 where each record goes, or why it goes nowhere
        written/<shards>/0.parquet …      what stands where in each tar

Every file appears whole or not at all, and is made from those before it: a step that was stopped goes on.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openclap.errors import DataError, require
from openclap.locks import LOCK, only_writer
from openclap.storage import Place, partial_of, write_bytes

if TYPE_CHECKING:
    import polars

FORMAT = 3
IDENTITY, MANIFEST, SKIPPED, SIZES, WORK = "dataset.json", "manifest.parquet", "skipped.jsonl", "sizes.json", "work"
CHUNK = 256
"""Records that are examined as one piece of work."""


def alone(folder: Place) -> AbstractContextManager[None]:
    """The right to change what is in a folder, as `only_writer` has it. Other stores have no such thing."""
    return only_writer(folder) if isinstance(folder, Path) else nullcontext()


def work(folder: Place, *parts: str) -> Place:
    """A place under `work/`."""
    return folder.joinpath(WORK, *parts)


def write_table(path: Place, frame: polars.DataFrame) -> None:
    """A parquet file that appears whole or not at all; one that holds the same already is not touched."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    frame.write_parquet(content)
    write_bytes(path, content.getvalue())


def read_table(path: Place) -> polars.DataFrame:
    """Raises DataError for a missing or damaged one."""
    pl = require("polars", "data")
    try:
        with path.open("rb") as file:
            frame: polars.DataFrame = pl.read_parquet(file.read())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. Run the step that makes it: openclap dataset build.") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        advice = (
            f"Run: openclap dataset check {path.parent} --repair"
            if path.name == MANIFEST
            else "Delete it and run again"
        )
        raise DataError(f"{path}: is damaged ({str(error).splitlines()[0]}). {advice}.") from None
    return frame


def read_all(folder: Place) -> polars.DataFrame | None:
    """The tables of a folder, 0.parquet, 1.parquet …, one below the other; None where there are none."""
    pl = require("polars", "data")
    files = numbered(folder, ".parquet")
    return pl.concat([read_table(file) for file in files]) if files else None


def numbered(folder: Place, suffix: str) -> list[Place]:
    """The files of a folder that are named by numbers, in their order."""
    files = [path for path in folder.iterdir() if path.name.endswith(suffix)] if folder.is_dir() else []
    return sorted(
        (path for path in files if path.name.removesuffix(suffix).isdecimal()),
        key=lambda path: int(path.name.removesuffix(suffix)),
    )


@lru_cache(maxsize=1)
def records(folder: Place, digest: str) -> polars.DataFrame:
    """Every record, kept in memory for whoever asks next; `digest` is the data set's, so that another is not taken
    for it."""
    frame = read_all(work(folder, "records"))
    if frame is None:
        raise DataError(f"{folder}: has no records yet. Run: openclap dataset build")
    return frame


def identity(folder: Place) -> dict[str, Any]:
    """What a folder says it is. Raises DataError when it is no data set."""
    try:
        found = json.loads((folder / IDENTITY).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{folder}: holds no {IDENTITY}, expected a folder that `openclap dataset` made.") from None
    except ValueError:
        raise DataError(f"{folder / IDENTITY}: is damaged. Delete the folder and build it again.") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise DataError(f"{folder}: was made by another version of openclap. Build it in a new folder.")
    return found


def check_claim(folder: Place) -> None:
    """Raise DataError for a folder that holds anything but a data set, or nothing."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file, expected a folder to pack into. Choose a new folder.")
    if (folder / MANIFEST).exists() and not (folder / WORK).exists():
        raise DataError(f"{folder}: is a finished data set, whose {WORK}/ was deleted. Build in a new folder.")
    ours = {LOCK, WORK, partial_of(folder / IDENTITY).name}
    strange = folder.is_dir() and any(path.name not in ours for path in folder.iterdir())
    if strange and not (folder / IDENTITY).exists():
        raise DataError(f"{folder}: is not empty and holds no data set to go on with. Choose a new folder.")


def claim(folder: Place, wanted: Mapping[str, Any]) -> None:
    """Write down what a folder is going to be. Raises DataError when it is something else already."""
    wanted = json.loads(json.dumps(wanted))
    if not (folder / IDENTITY).exists():
        write_bytes(folder / IDENTITY, json.dumps(wanted, indent=1).encode())
    elif (before := identity(folder)) != wanted:
        changed = ", ".join(NAMES.get(key, key.replace("_", " ")) for key in _differing(before, wanted))
        raise DataError(
            f"{folder}: was packed from another input (changed: {changed}). Choose a new folder, or delete this one."
        )


NAMES = {"digest": "rows", "records": "number of rows"}


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    flat = [{**side, **side.get("config", {})} for side in (before, now)]
    return [key for key in flat[1] if key != "config" and flat[0].get(key) != flat[1][key]]
