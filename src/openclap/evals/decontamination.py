"""Which clips a model was not trained on: by the uploads they come from, and by their samples."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from openclap.data.decode import facts_of
from openclap.data.overlap import KEYS, SplitIds, ids_of_frame, ids_of_records, overlapping
from openclap.errors import AudioError, DataError, require
from openclap.evals.clips import EvalClip
from openclap.sources import Record

if TYPE_CHECKING:
    from polars import DataFrame

Found = tuple[EvalClip, str | None, Record]
"""A clip, the split it is in, and its record."""
Truth = NDArray[np.bool_]
IDS = ("freesound_id", "youtube_id")


def trained_on(manifest: Path) -> SplitIds:
    """What a `manifest.parquet` says of the clips that a model was trained on. Raises DataError for what is none, and
    for one that names no clip."""
    polars = require("polars", "data")
    try:
        with manifest.open("rb") as file:
            columns = [name for name in polars.read_parquet_schema(file) if name in KEYS]
            file.seek(0)
            trained = ids_of_frame(polars.read_parquet(file, columns=columns), str(manifest), "training")
    except (OSError, polars.exceptions.PolarsError) as error:
        why = getattr(error, "strerror", None) or str(error).splitlines()[0].rstrip(".")
        raise DataError(f"{manifest}: cannot be read as a manifest of training data ({why}).") from None
    if not sum(trained.clips[key].count() for key in KEYS):
        raise DataError(f"{manifest}: names no clip. Is it the manifest.parquet of a build that is done?")
    return trained


def untrained(found: Sequence[Found], trained: SplitIds, notes: list[str]) -> list[Found]:
    """The clips of which neither the upload nor the sound was trained on; `notes` is told of the others. Sounds are
    decoded to be compared where it is known what those were.

    Raises DataError when no clip is left.
    """
    ours = ids_of_records((record for _, _, record in found), "test").clips
    by_id = _in(ours.select(IDS), trained)
    by_sound = np.zeros(len(found), bool)
    told = ""
    if trained.clips["pcm_sha256"].count():
        others = [each for each, known in zip(found, by_id, strict=True) if not known]
        by_sound[~by_id], unread = _same_sound(others, trained)
        told = f", and {by_sound.sum()} more are sounds that it was trained on, sample for sample"
        told += f" ({unread} could not be decoded)" if unread else ""
    kept = [each for each, known in zip(found, by_id | by_sound, strict=True) if not known]
    notes.append(
        f"{by_id.sum()} of {len(found)} clips come from uploads that the model was trained on{told}; these were left "
        f"out. Of {_unknown(ours)} clips the upload is not known."
    )
    if not kept:
        raise DataError(f"All {len(found)} clips are in {trained.name}: nothing is left to ask.")
    return kept


def _in(clips: DataFrame, trained: SplitIds) -> Truth:
    return np.asarray(overlapping(clips, [trained]).is_not_null().to_numpy(), bool)


def _same_sound(found: Sequence[Found], trained: SplitIds) -> tuple[Truth, int]:
    """(which clips are among the trained sounds, how many could not be decoded)."""
    polars = require("polars", "data")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashes = list(pool.map(lambda each: _sound(each[2]), found))
    frame = polars.DataFrame({"pcm_sha256": polars.Series(hashes, dtype=polars.String)})
    return _in(frame, trained), hashes.count(None)


def _sound(record: Record) -> str | None:
    """The hash of a sound as a manifest has it; None for one that cannot be decoded."""
    try:
        return facts_of(record.audio, record.start_s, record.length_s).pcm_sha256
    except (AudioError, OSError):
        return None


def _unknown(clips: DataFrame) -> int:
    polars = require("polars", "data")
    return int(clips.select(polars.all_horizontal(polars.col(IDS).is_null())).sum().item())
