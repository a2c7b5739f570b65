"""The clips of a task: from packed shards, from loose sounds, or from a data set as it is published.

A *collection* is one set of clips with a split to measure on and, where there is one, a training split: shards that
`openclap dataset build` wrote, or any form of sounds that `openclap.sources.recognise` reads. All tasks of the suite
"quick" measure on one collection. Tasks of other suites each name a published data set, which a reader in
`openclap.sources.SOURCES` reads from its own folder.

N clips, C classes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from openclap.audio.io import decode
from openclap.captions.rules import captions_of
from openclap.data.decode import flac_of
from openclap.data.overlap import SplitIds
from openclap.errors import AudioError, ConfigError, DataError
from openclap.evals.decontamination import TaskRecord, remove_trained_clips
from openclap.evals.relevance import RelevantClips, check_names, read_relevance
from openclap.formatting import join_first
from openclap.sources import SOURCES, Record
from openclap.sources.phrases import phrases_to_json, usable_phrases
from openclap.sources.recognise import ReadOptions, RecognisedCollection, recognise
from openclap.sources.text_encoding import read_text
from openclap.types import Phrase, Sample

if TYPE_CHECKING:
    from openclap.evals.tasks import Task

StageProgress = Callable[[str, int, int], None]
"""Called with the name of the stage, the number of items done and the number of all items."""

TRAIN = "train"
COLLECTION, CLASS_FOLDERS = "collection", "classes"
"""Sources of a task beside the names in SOURCES: the collection that is evaluated, and a folder of sounds per class."""
CAPTIONED = ("retrieval", "hard_text")
"""Kinds of task that need captions, and no labels."""
NAMED = 5
"""Names of offending items in one sentence."""


@dataclass(frozen=True, slots=True)
class EvalClip:
    """One clip without its sound.

    Attributes:
        group: takes of one recording share a group. Bootstrap intervals resample groups, not clips.
        tags: the labels of a clip that has several.
        fold: the official fold, where the data set has folds.
        phrases: what is heard when, where the data set has it.
        path: the audio file; "" for a clip in a shard. The sound is the whole file, or begins at `start_s`.
    """

    key: str
    captions: tuple[str, ...]
    label: str | None
    group: str
    duration_s: float
    title: str = ""
    author: str = ""
    licence: str = ""
    link: str = ""
    source: str = ""
    tags: tuple[str, ...] = ()
    fold: str | None = None
    path: str = ""
    start_s: float | None = None
    phrases: tuple[Phrase, ...] = ()


@dataclass(frozen=True, slots=True)
class EvalClips:
    """The clips of one split.

    Attributes:
        digest: a SHA-256 of keys, captions, labels, groups and audio bytes; "" before the sounds were read.
        read: the encoded sound of the clip at a position.
        skipped: a sentence for each sample that was unreadable.
    """

    name: str
    clips: tuple[EvalClip, ...]
    digest: str
    read: Callable[[int], bytes]
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.clips)

    def audio(self, index: int) -> bytes:
        """The encoded sound of clip `index`. Raises DataError when its shard has become unreadable."""
        return self.read(index)

    @property
    def groups(self) -> list[str]:
        """The group of each clip."""
        return [clip.group for clip in self.clips]

    @property
    def labels(self) -> tuple[str, ...]:
        """The distinct labels, sorted."""
        return tuple(sorted({clip.label for clip in self.clips if clip.label}))

    def select(self, positions: Sequence[int]) -> EvalClips:
        """The clips at these positions, in this order, under the digest of the whole."""
        chosen, read = list(positions), self.read
        return replace(self, clips=tuple(self.clips[i] for i in chosen), read=lambda index: read(chosen[index]))


@dataclass(frozen=True, slots=True)
class Collection:
    """The clips to measure on, and the clips to train probes on, where there is a training split."""

    test: EvalClips
    train: EvalClips | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on unreadable samples and on groups that are in both splits."""
        return tuple(_notes_on_splits(self.test, self.train))


@dataclass(frozen=True, slots=True)
class TaskClips:
    """A data set, as far as a task needs it.

    Attributes:
        test: the clips to measure on.
        train, valid: the clips to train a probe on and to choose its settings with; None where the task has none.
        classes: the labels that answers are chosen from, sorted, or those of the task's file in its order.
        class_names: the words for each class in prompts; the label itself without a file.
        notes: sentences on clips that were left out.
        relevant: the queries of a file of relevance, each with its right clips; None where captions are the queries.
    """

    test: EvalClips
    train: EvalClips | None
    valid: EvalClips | None
    classes: tuple[str, ...]
    class_names: tuple[str, ...]
    notes: tuple[str, ...]
    relevant: tuple[RelevantClips, ...] | None = None


def load_collection(
    data: str | os.PathLike[str] | Collection,
    split: str,
    *,
    reading: ReadOptions = ReadOptions(),
    recognised: Callable[[RecognisedCollection], None] = lambda found: None,
    progress: StageProgress | None = None,
) -> Collection:
    """Load packed shards, or any form of sounds that `openclap.sources.recognise` reads.

    Args:
        reading: how to read loose sounds, where that is not left to recognition.
        recognised: called with the form of loose sounds before they are read.

    Raises DataError for a missing split, and where no clip can be used.
    """
    if isinstance(data, Collection):
        return data
    folder = Path(data).expanduser()
    # A choice of columns or source is for loose sounds; shards have neither.
    if reading != ReadOptions() or not _is_packed(folder, split):
        source = recognise(folder.absolute(), reading)
        recognised(source)
        return _load_sounds(source, split, progress)
    test = load_clips(folder / split, progress=progress)
    # Not beside the training split itself: a probe would be scored on the clips that it was trained on.
    has_train = split != TRAIN and (folder / TRAIN).is_dir()
    return Collection(test, load_clips(folder / TRAIN, progress=progress) if has_train else None)


def _is_packed(folder: Path, split: str) -> bool:
    """Whether `folder` holds shards in a folder per split. A missing folder counts as packed: the shard reader has the
    more helpful error."""
    return any((folder / split).glob("*.tar")) or any(folder.glob("*/sizes.json")) or not folder.exists()


def load_clips(folder: str | os.PathLike[str], *, progress: StageProgress | None = None) -> EvalClips:
    """Load the clips of one split, given its folder of shards.

    Every sample is read and decoded once, so that damaged ones are listed in `skipped` before anything is embedded.
    Raises DataError when no clip is left.
    """
    from openclap.data.shards import index_shards

    index = index_shards(folder)
    clips = clips_from_samples(index.folder.name, len(index), index.read_sample, progress=progress)
    damaged_tars = tuple(f"{tar}: {reason}" for tar, reason in index.damaged)
    return replace(clips, skipped=damaged_tars + clips.skipped)


def clips_from_samples(
    name: str, count: int, read_sample: Callable[[int], Sample], *, progress: StageProgress | None = None
) -> EvalClips:
    """The clips of `count` numbered samples. Raises DataError when none can be used."""
    clips: list[EvalClip] = []
    numbers: list[int] = []
    skipped: list[str] = []
    digest = hashlib.sha256()
    for number in range(count):
        try:
            sample = read_sample(number)
            clip = _clip_of_sample(sample)
        except (DataError, AudioError) as error:
            skipped.append(str(error))
            continue
        clips.append(clip)
        numbers.append(number)
        # Of the readable clips alone, in order: the digest stands for exactly the data that is measured.
        digest.update(_clip_digest(clip, sample.audio))
        if progress:
            progress(f"Reading {name}", number + 1, count)
    if not clips:
        raise DataError(f"{name}: none of {count} samples can be evaluated. First reason: {(skipped or ['empty'])[0]}")
    return EvalClips(
        name, tuple(clips), digest.hexdigest(), lambda index: read_sample(numbers[index]).audio, tuple(skipped)
    )


def _clip_of_sample(sample: Sample) -> EvalClip:
    """A clip without a group is a group of its own. Raises AudioError."""
    try:
        # Decoded for the duration, and to find damaged sounds before minutes of embedding.
        wave_NC, rate = decode(sample.audio)
    except AudioError as error:
        raise AudioError(f"{sample.key}: {error}") from error
    # Shards of other writers may hold numbers here.
    facts = {name: str(value) for name, value in sample.original.items() if value is not None}
    return EvalClip(
        key=sample.key,
        captions=tuple(caption for caption in sample.captions if caption.strip()),
        label=facts.get("label") or None,
        group=facts.get("group") or sample.key,
        duration_s=len(wave_NC) / rate,
        title=facts.get("title", ""),
        author=facts.get("author", ""),
        licence=facts.get("licence", ""),
        link=facts.get("link", ""),
        source=facts.get("source", ""),
        tags=tuple(sample.tags),
        phrases=usable_phrases(sample.phrases, len(wave_NC) / rate)[0],
    )


def _clip_digest(clip: EvalClip, audio: bytes) -> bytes:
    facts: list[object] = [clip.key, clip.captions, clip.label, clip.group, hashlib.sha256(audio).hexdigest()]
    if clip.phrases:  # without them, digests are those of data sets from before there were phrases
        facts.append(phrases_to_json(clip.phrases))
    identity = json.dumps(facts)
    return hashlib.sha256(identity.encode()).digest()


def _load_sounds(source: RecognisedCollection, split: str, progress: StageProgress | None) -> Collection:
    """The splits of the source itself; a source without splits is measured on as a whole."""
    records = list(source.read())
    splits = {record.split for record in records}
    if splits <= {None}:
        return Collection(_clips_of_records(source.path.stem, records, progress))
    if split not in splits:
        names = ", ".join(sorted(name for name in splits if name))
        raise DataError(f"{source.path}: no sound is in its split {split!r}. Found: {names}.")
    test = _clips_of_records(split, [record for record in records if record.split == split], progress)
    train = [record for record in records if record.split == TRAIN]
    return Collection(test, _clips_of_records(TRAIN, train, progress) if train and split != TRAIN else None)


def _clips_of_records(name: str, records: Sequence[Record], progress: StageProgress | None) -> EvalClips:
    return clips_from_samples(name, len(records), lambda number: _sample_of_record(records[number]), progress=progress)


def _sample_of_record(record: Record) -> Sample:
    """A record in the form that shards have. Raises AudioError for a sound that cannot be read."""
    audio = record.audio
    if isinstance(audio, str):
        raise AudioError(
            f"{audio}: is an address, expected a file. Run 'openclap dataset build' first, which downloads it."
        )
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


def _notes_on_splits(test: EvalClips, train: EvalClips | None) -> Iterator[str]:
    for clips in (test, train):
        if clips is not None and clips.skipped:
            yield f"{clips.name}: {len(clips.skipped)} samples were unreadable. First: {clips.skipped[0]}"
    if train is not None and (shared := set(train.groups) & set(test.groups)):
        yield f"{len(shared)} groups are in both splits, which can make every figure too high. Split by group."


# The clips of a task ------------------------------------------------------------------------------------------------


def clips_of_task(task: Task, data: Path | Collection, trained: SplitIds | None = None) -> TaskClips:
    """Load the clips of one task.

    Args:
        data: the collection, for a task on one; otherwise the folder that holds the published data sets.
        trained: the clips that the model was trained on; clips of the same uploads, and with the same sound, are left
            out of the test clips of a published data set.

    Raises DataError when the data set is missing or has nothing for the task, ConfigError when its file of classes
    does not fit.
    """
    if isinstance(data, Collection):
        return _clips_of_collection(task, data)
    root = _find_root(task, data)
    records = [_task_record(task, record) for record in _read_records(task, root)]
    # Of all splits: a label without test clips is an answer to choose from, too.
    classes, class_names = _classes(task, records)
    notes: list[str] = []
    chosen = [record for record in records if task.split is None or record.split == task.split]
    if not chosen:
        splits = sorted({str(record.split) for record in records})
        raise DataError(f"{root}: no clip is in its split {task.split!r}. Found: {', '.join(splits) or 'no clips'}.")
    # Before anything is counted: a clip that is listed twice would be weighed twice.
    chosen = _drop_repeated_ids(chosen, notes)
    relevant = _read_relevant(task, root, chosen, notes) if task.relevance else None
    if trained:
        chosen = remove_trained_clips(chosen, trained, notes)
    test = _clips_of_task_records(task.name, chosen)
    # Before the other splits are read, and before any sound is embedded.
    _check_test_clips(task, test)
    others = [
        _clips_of_task_records(f"{task.name} {split}", [record for record in records if record.split == split])
        if split
        else None
        for split in (task.train, task.valid)
    ]
    for split, clips in zip((task.train, task.valid), others, strict=True):
        if split and not clips:
            raise DataError(f"{root}: no clip is in its split {split!r}, which {task.name} trains on.")
    notes += _notes_on_clips(task, test, classes)
    return TaskClips(test, others[0], others[1], classes, class_names, tuple(notes), relevant)


def _read_relevant(task: Task, root: Path, chosen: Sequence[TaskRecord], notes: list[str]) -> tuple[RelevantClips, ...]:
    """The queries of the task's file of relevance. Raises DataError where it is missing or names no clip of the set."""
    folder = root if root.is_dir() else root.parent
    places = [folder / name for name in task.relevance]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        where = ", ".join(str(place) for place in places)
        raise DataError(
            f"{task.name}: the file of relevance was not found. Looked for: {where}. It needs the columns query and "
            f"audio_filenames.{f' Get it from {task.relevance_page}.' if task.relevance_page else ''}"
        )
    named, rows = read_relevance(file)
    queries, missing = check_names(named, [record.clip for record in chosen], file)
    notes += [*rows, *missing]
    return queries


def _clips_of_collection(task: Task, collection: Collection) -> TaskClips:
    """The clips of a collection. Labels to choose from are those of the test split, or, for a probe, those of the
    training split, the only ones that it can predict."""
    test, train = collection.test, collection.train
    _check_test_clips(task, test)
    if not task.trains:
        classes = tuple(sorted({label for clip in test.clips for label in task.labels_of(clip)}))
        return TaskClips(test, None, None, classes, classes, tuple(_notes_on_clips(task, test, classes)))
    if train is None:
        raise DataError("There is no training split to train a probe on.")
    # A clip without a label cannot be learned from.
    train = train.select([i for i, clip in enumerate(train.clips) if task.labels_of(clip)])
    classes = tuple(sorted({label for clip in train.clips for label in task.labels_of(clip)}))
    if len(classes) < 2:
        raise DataError(f"{train.name} has {len(classes)} labels; a classifier needs at least two.")
    wanted = {label for clip in test.clips for label in task.labels_of(clip)}
    # With one label in common, all clips that can be answered have the same one: a constant answer would be perfect.
    if len(wanted & set(classes)) < 2:
        raise DataError(f"{train.name} and {test.name} share fewer than two labels.")
    notes = list(_notes_on_clips(task, test, classes))
    if unknown := sorted(wanted - set(classes)):
        reason = f"{train.name} has no example of {', '.join(unknown)}."
        count = sum(clip.label in unknown for clip in test.clips)
        # A clip with several labels stays, and is measured on those that can be predicted.
        notes.append(
            f"{len(unknown) if task.multilabel else count} {'labels' if task.multilabel else 'clips'} were left "
            f"out: {reason}"
        )
    return TaskClips(test, train, None, classes, classes, tuple(notes))


def _find_root(task: Task, data: Path) -> Path:
    """The folder of the data set. Raises DataError that names the folders searched and where to get the set."""
    places = [data / name for name in task.folders] or [data]
    root = next((place for place in places if place.exists()), None)
    if root is not None:
        return root
    where = ", ".join(str(place) for place in places)
    if task.source == CLASS_FOLDERS:
        raise DataError(f"{task.name} was not found. Looked for: {where}. It needs a folder of sounds per class.")
    source = SOURCES[task.source]
    raise DataError(
        f"{task.name} was not found. Looked for: {where}. It needs {source.needs} Get it from {source.page}."
    )


def _read_records(task: Task, root: Path) -> Iterator[Record]:
    if task.source != CLASS_FOLDERS:
        return SOURCES[task.source].read(root, **task.options)
    records = SOURCES["folder"].read(root)
    return (replace(record, label=record.label or Path(record.audio).parent.name) for record in records)


def _task_record(task: Task, record: Record) -> TaskRecord:
    upload = f"freesound:{record.freesound_id}" if record.freesound_id else None
    # With official folds `record.group` is the fold, so the upload has to serve as the group of the bootstrap.
    group = upload if task.folds and upload else record.group or upload or record.id
    clip = EvalClip(
        key=record.id,
        captions=tuple(caption for caption in record.captions if caption.strip()),
        label=record.label,
        group=group,
        duration_s=record.length_s or 0.0,
        title=record.title or record.id,
        author=record.author or "",
        licence=record.licence or "",
        link=record.link or "",
        source=record.source,
        tags=record.tags,
        fold=record.group if task.folds else None,
        path=str(record.audio),
        start_s=record.start_s,
        # Segments count from the beginning of the file that is read.
        phrases=() if record.start_s else usable_phrases(record.phrases, record.length_s or math.inf)[0],
    )
    return TaskRecord(clip, record.split, record)


def _clips_of_task_records(name: str, records: Sequence[TaskRecord]) -> EvalClips:
    clips = tuple(record.clip for record in records)
    # No digest yet: a published set is hashed while it is embedded, and cached embeddings need no second reading.
    return EvalClips(name, clips, "", lambda index: Path(clips[index].path).read_bytes())


def _drop_repeated_ids(records: Sequence[TaskRecord], notes: list[str]) -> list[TaskRecord]:
    """The first record of each id."""
    first: dict[str, TaskRecord] = {}
    for record in records:
        first.setdefault(record.clip.key, record)
    if extra := len(records) - len(first):
        repeated = [key for key, count in Counter(record.clip.key for record in records).items() if count > 1]
        notes.append(f"{extra} clips have the id of an earlier one and were left out: {join_first(repeated, NAMED)}.")
    return list(first.values())


def _classes(task: Task, records: Sequence[TaskRecord]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(classes, the words for each). Raises ConfigError when the task's file and the data set name different ones."""
    labels = {label for record in records for label in task.labels_of(record.clip)}
    if task.classes is None:
        classes = tuple(sorted(labels))
        return classes, classes
    words = read_classes(task.classes)
    if outside := sorted(labels - set(words)):
        raise ConfigError(
            f"{task.classes}: {len(outside)} labels of {task.name} are not in it: {join_first(outside, NAMED)}. It "
            f"names: {join_first(words, NAMED)}. Expected a line for every label, written as the data set writes it."
        )
    return tuple(words), tuple(words.values())


def read_classes(path: Path) -> dict[str, str]:
    """Read the words for each label: lines of a label, a tab and words; a label alone stands for itself.

    Raises ConfigError when the file cannot be read, names a label twice, or names none.
    """
    try:
        lines = read_text(path)[0].splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as text with a class per line ({error}).") from None
    words: dict[str, str] = {}
    for line in filter(str.strip, lines):
        label, _, text = (part.strip() for part in line.partition("\t"))
        if label in words:
            raise ConfigError(f"{path}: names the class {label!r} twice.")
        words[label] = text or label
    if not words:
        raise ConfigError(f"{path}: names no class. Expected one per line.")
    return words


def _notes_on_clips(task: Task, test: EvalClips, classes: Sequence[str]) -> Iterator[str]:
    """Missing folds, classes without clips, and clips without labels."""
    if task.folds:
        folds = {clip.fold for clip in test.clips}
        if len(folds) != task.folds:
            yield f"Only {len(folds)} of {task.folds} folds were found: {', '.join(sorted(map(str, folds)))}."
    if task.kind in (*CAPTIONED, "locating"):
        return
    used = {label for clip in test.clips for label in task.labels_of(clip)}
    if empty := [label for label in classes if label not in used]:
        yield f"{len(empty)} of {len(classes)} classes have no clip here: {join_first(empty, NAMED)}."
    if unlabelled := [clip.key for clip in test.clips if not task.labels_of(clip)]:
        yield f"{len(unlabelled)} clips have no label: {join_first(unlabelled, NAMED)}."


def _check_test_clips(task: Task, test: EvalClips) -> None:
    """Raise DataError for an impossible task before any sound is embedded."""
    if task.kind == "locating":  # segments are known when the sounds are read
        return
    wanted = "caption" if task.kind in CAPTIONED else "tag" if task.multilabel else "label"
    if not any(clip.captions if wanted == "caption" else task.labels_of(clip) for clip in test.clips):
        raise DataError(f"{task.name}: no clip has a {wanted}, so there is nothing to measure.")
    folds = sorted({str(clip.fold) for clip in test.clips})
    if task.folds and len(folds) > task.folds:
        raise DataError(
            f"{task.name}: expected {task.folds} folds, but {len(folds)} were found: {join_first(folds, NAMED)}."
        )
    if task.folds and len(folds) < 2 and task.trains:
        raise DataError(f"{task.name}: {folds[0]} is the only fold of {task.folds}, so there is none to train on.")
