"""A data set's manifest made again: from `work/`, where it is as it was, or from the tars alone."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from openclap.data.layout import WORK
from openclap.data.manifest import manifest_of
from openclap.data.records import schema as schema_of_records
from openclap.data.shards import index_shards
from openclap.data.work import each
from openclap.data.write import columns, sha256_of
from openclap.errors import DataError, require
from openclap.sources.grouping import freesound_id
from openclap.storage import Place, place_of

if TYPE_CHECKING:
    import polars

UNKNOWN = ("rate", "channels", "peak", "clipped", "pcm_sha256", "description", "split", "start_s", "length_s")
"""What tars do not hold of the original sounds; `audio` is a name without its folder there, and `n` only counts."""
_YOUTUBE = "youtube:"


def from_work(folder: Place) -> polars.DataFrame | None:
    """The manifest as it was written last; None where `work/` is gone, damaged or unfinished."""
    if not (folder / WORK).is_dir():
        return None
    try:
        return manifest_of(folder)
    except (DataError, OSError, require("polars", "data").exceptions.PolarsError):
        return None


def from_tars(folder: Place, *, processes: int = 1) -> polars.DataFrame:
    """The manifest as far as the tars tell, in its order; UNKNOWN columns are empty. Damaged samples are left out."""
    pl = require("polars", "data")
    jobs = [(str(folder), tar.relative_to(folder).as_posix()) for tar in tars_in(folder) if tar.stem.isdecimal()]
    rows = [row for part in each(_rows, jobs, processes) for row in part]
    frame: polars.DataFrame = pl.DataFrame(rows, schema=schema()).sort("shards", "tar", "audio_offset")
    return frame.with_columns(n=pl.int_range(pl.len(), dtype=pl.UInt32))


def tars_in(folder: Place) -> list[Place]:
    """The tars of a data set, or of any folder of shards."""
    found = sorted(path for path in folder.rglob("*.tar") if path.is_file())
    return [path for path in found if path.relative_to(folder).parts[0] != WORK]


def schema() -> dict[str, Any]:
    """The columns of a manifest."""
    pl = require("polars", "data")
    written = columns()
    places = {name: written[name] for name in written if name not in ("n", "key", "reason")}
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


def _rows(job: tuple[str, str]) -> list[dict[str, Any]]:
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
            said = _said(json.loads(text))
            seconds = _seconds(flac)
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError):
            continue  # `check` names it
        place = PurePosixPath(job[1])
        identity = {"shards": place.parent.as_posix(), "tar": int(place.stem), "key": index.keys[number]}
        hashes = {"flac_sha256": hashlib.sha256(flac).hexdigest(), "tar_sha256": sha}
        rows.append({**identity, **offsets, **hashes, "seconds": seconds, **said})
    return rows


def _reader(file: Any) -> Callable[[int, int], bytes]:
    def read(offset: int, size: int) -> bytes:
        file.seek(offset)
        return bytes(file.read(size))

    return read


def _said(content: dict[str, Any]) -> dict[str, Any]:
    """What the JSON beside a sound says of it."""
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
    }


def _seconds(flac: bytes) -> float:
    import soundfile

    about = soundfile.info(io.BytesIO(flac))
    return float(about.frames / about.samplerate)
