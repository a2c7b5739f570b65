"""The clips of sounds that nobody has packed: whatever `openclap.sources.recognise` reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from openclap.captions.rules import captions_of
from openclap.data.decode import flac_of
from openclap.errors import AudioError, DataError
from openclap.evals.clips import EvalClips, Progress, clips_from
from openclap.sources import Record
from openclap.sources.recognise import RecognisedCollection
from openclap.types import Sample

TRAIN = "train"


def unpacked(
    found: RecognisedCollection, split: str, *, progress: Progress | None = None
) -> tuple[EvalClips, EvalClips | None]:
    """The clips to measure on, and those to learn from: of the splits that the source itself has, or all and none.

    Raises DataError for a split that is not there, and where no clip can be used.
    """
    records = list(found.read())
    splits = {record.split for record in records}
    if splits <= {None}:
        return _clips(found.path.stem, records, progress), None
    if split not in splits:
        there = ", ".join(sorted(name for name in splits if name))
        raise DataError(f"{found.path}: no sound is in its split {split!r}. Found: {there}.")
    test = _clips(split, [record for record in records if record.split == split], progress)
    learnt = [record for record in records if record.split == TRAIN]
    return test, _clips(TRAIN, learnt, progress) if learnt and split != TRAIN else None


def _clips(name: str, records: Sequence[Record], progress: Progress | None) -> EvalClips:
    return clips_from(name, len(records), lambda number: _sample(records[number]), progress=progress)


def _sample(record: Record) -> Sample:
    """A record as the samples of shards are. Raises AudioError for a sound that cannot be had."""
    audio = record.audio
    if isinstance(audio, str):
        raise AudioError(f"{audio}: is an address. Pack it first: openclap dataset build")
    try:
        if record.start_s is not None:
            content = flac_of(audio, record.start_s, record.length_s)
        else:
            content = Path(audio).read_bytes()
    except OSError as error:
        raise AudioError(f"{audio}: cannot be read ({error.strerror}).") from error
    fields = ("label", "group", "title", "licence", "author", "link", "source")
    original = {name: getattr(record, name) for name in fields}
    captions = tuple(caption.text for caption in captions_of(record))
    return Sample(record.id, captions, record.tags, original, content)
