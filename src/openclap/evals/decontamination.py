"""Leave out test clips that a model was trained on: clips of the same upload, or with the same samples."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from openclap.data.decode import facts_of
from openclap.data.overlap import KEYS, SplitIds, ids_of_frame, ids_of_records, overlapping
from openclap.errors import AudioError, DataError, require
from openclap.sources import Record

if TYPE_CHECKING:
    from polars import DataFrame

    from openclap.evals.dataset import EvalClip

BoolMask = NDArray[np.bool_]
UPLOAD_IDS = ("freesound_id", "youtube_id")


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A clip of a published data set, its split, and the record that it was read from."""

    clip: EvalClip
    split: str | None
    record: Record


def read_trained_clips(manifest: Path) -> SplitIds:
    """Read the ids and sound hashes of the clips in a `manifest.parquet` of training data.

    Raises DataError for a file that is no manifest, and for one that names no clip.
    """
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
        raise DataError(f"{manifest}: names no clip. Is it the manifest.parquet of a finished build?")
    return trained


def remove_trained_clips(records: Sequence[TaskRecord], trained: SplitIds, notes: list[str]) -> list[TaskRecord]:
    """Keep the clips whose upload and whose sound are not in `trained`, and add a sentence on the others to `notes`.

    Sounds are decoded and compared only where the manifest holds hashes of sounds. Raises DataError when no clip is
    left.
    """
    ids = ids_of_records((item.record for item in records), "test").clips
    # Uploads and not file names: sets cut different stretches of one upload, and a model has heard their neighbours.
    by_id = _overlap(ids.select(UPLOAD_IDS), trained)
    by_sound = np.zeros(len(records), bool)
    sounds_note = ""
    if trained.clips["pcm_sha256"].count():
        # Decoding is the slow part, so clips that an id has already settled are not decoded.
        others = [each for each, known in zip(records, by_id, strict=True) if not known]
        by_sound[~by_id], unread = _overlap_by_sound(others, trained)
        sounds_note = f", and {by_sound.sum()} more have a sound that it was trained on, sample for sample"
        sounds_note += f" ({unread} could not be decoded)" if unread else ""
    untrained = [each for each, known in zip(records, by_id | by_sound, strict=True) if not known]
    notes.append(
        f"{by_id.sum()} of {len(records)} clips come from uploads that the model was trained on{sounds_note}; these "
        f"were left out. The upload of {_count_without_id(ids)} clips is unknown."
    )
    if not untrained:
        raise DataError(f"All {len(records)} clips are in {trained.name}, so nothing is left to measure on.")
    return untrained


def _overlap(clips: DataFrame, trained: SplitIds) -> BoolMask:
    return np.asarray(overlapping(clips, [trained]).is_not_null().to_numpy(), bool)


def _overlap_by_sound(records: Sequence[TaskRecord], trained: SplitIds) -> tuple[BoolMask, int]:
    """(which clips are among the trained sounds, how many could not be decoded)."""
    polars = require("polars", "data")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashes = list(pool.map(lambda each: _pcm_sha256(each.record), records))
    frame = polars.DataFrame({"pcm_sha256": polars.Series(hashes, dtype=polars.String)})
    return _overlap(frame, trained), hashes.count(None)


def _pcm_sha256(record: Record) -> str | None:
    """The hash of a sound as a manifest has it; None for a sound that cannot be decoded."""
    try:
        # Decoded as `openclap dataset build` does, or equal sounds would have other hashes.
        return facts_of(record.audio, record.start_s, record.length_s).pcm_sha256
    except (AudioError, OSError):
        return None


def _count_without_id(clips: DataFrame) -> int:
    polars = require("polars", "data")
    return int(clips.select(polars.all_horizontal(polars.col(UPLOAD_IDS).is_null())).sum().item())
