"""The clips that a task asks about, found in the folder of a set as it is published.

C classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from openclap.data.overlap import SplitIds
from openclap.errors import ConfigError, DataError
from openclap.evals.clips import EvalClip, EvalClips
from openclap.evals.decontamination import Found, untrained
from openclap.evals.tasks import Task
from openclap.sources import SOURCES, Record
from openclap.sources.text_encoding import read_text

NAMED = 5
"""Of things that are wrong, how many a sentence names."""


@dataclass(frozen=True, slots=True)
class Collected:
    """A set, as far as a task needs it.

    Attributes:
        test: the clips that are asked about.
        train, valid: those to learn from and to choose with; None where the task has none.
        classes: all the labels of the set, sorted, or those of the task's file, in its order.
        words: what is said of each class; the label itself without a file.
        notes: what was left out, and why, in sentences.
    """

    test: EvalClips
    train: EvalClips | None
    valid: EvalClips | None
    classes: tuple[str, ...]
    words: tuple[str, ...]
    notes: tuple[str, ...]


def collect(task: Task, data: Path, trained: SplitIds | None = None) -> Collected:
    """Read a task's set from the folder `data`.

    Args:
        trained: what the model was trained on; clips of the same uploads, and of the same sound, are left out.

    Raises DataError when the set is not there or has nothing for the task, ConfigError when its file of classes does
    not fit.
    """
    root = _root(task, data)
    records = [_as_clip(task, record) for record in _read(task, root)]
    classes, words = _classes(task, records)
    notes: list[str] = []
    asked = [each for each in records if task.split is None or each[1] == task.split]
    if not asked:
        splits = sorted({str(split) for _, split, _ in records})
        raise DataError(f"{root}: no clip is in its split {task.split!r}. Found: {', '.join(splits) or 'no clips'}.")
    asked = _once(task, asked, notes)
    if trained:
        asked = untrained(asked, trained, notes)
    test = _clips(task.name, [clip for clip, _, _ in asked])
    _check(task, test)
    learnt = [
        _clips(f"{task.name} {split}", [clip for clip, its, _ in records if its == split]) if split else None
        for split in (task.train, task.valid)
    ]
    for split, clips in zip((task.train, task.valid), learnt, strict=True):
        if split and not clips:
            raise DataError(f"{root}: no clip is in its split {split!r}, which {task.name} learns from.")
    notes += _said_of(task, test, classes)
    return Collected(test, learnt[0], learnt[1], classes, words, tuple(notes))


def _root(task: Task, data: Path) -> Path:
    """The folder of the set. Raises DataError that says where it was looked for, and how to get it."""
    places = [data / name for name in task.folders] or [data]
    found = next((place for place in places if place.exists()), None)
    if found is not None:
        return found
    where = ", ".join(str(place) for place in places)
    if task.source == "classes":
        raise DataError(f"{task.name} is not there. Looked for: {where}. It needs a folder of sounds a class.")
    source = SOURCES[task.source]
    raise DataError(
        f"{task.name} is not there. Looked for: {where}. It needs {source.needs} Get it from {source.page}."
    )


def _read(task: Task, root: Path) -> Iterator[Record]:
    if task.source != "classes":
        return SOURCES[task.source].read(root, **task.options)
    found = SOURCES["folder"].read(root)
    return (replace(each, label=each.label or Path(each.audio).parent.name) for each in found)


def _as_clip(task: Task, record: Record) -> Found:
    upload = f"freesound:{record.freesound_id}" if record.freesound_id else None
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
    )
    return clip, record.split, record


def _clips(name: str, clips: Sequence[EvalClip]) -> EvalClips:
    return EvalClips(name, tuple(clips), "", lambda index: Path(clips[index].path).read_bytes())


def _once(task: Task, found: Sequence[Found], notes: list[str]) -> list[Found]:
    """Clips of different names; of equal ones the first."""
    first: dict[str, Found] = {}
    for each in found:
        first.setdefault(each[0].key, each)
    if more := len(found) - len(first):
        twice = [key for key, count in Counter(each[0].key for each in found).items() if count > 1]
        notes.append(f"{more} clips have the id of an earlier one and were left out: {_some(twice)}.")
    return list(first.values())


def _classes(task: Task, records: Sequence[Found]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(classes, what is said of each). Raises ConfigError when the file and the set name different ones."""
    found = {label for clip, _, _ in records for label in labels_of_clip(task, clip)}
    if task.classes is None:
        classes = tuple(sorted(found))
        return classes, classes
    said = read_classes(task.classes)
    if outside := sorted(found - set(said)):
        raise ConfigError(
            f"{task.classes}: {len(outside)} labels of {task.name} are not in it: {_some(outside)}. It names: "
            f"{_some(list(said))}. Expected a line for every label, written as the set writes it."
        )
    return tuple(said), tuple(said.values())


def read_classes(path: Path) -> dict[str, str]:
    """What to say of each label: lines of a label, a tab, and words; of a label alone, the label.

    Raises ConfigError when the file cannot be read, names a label twice, or none.
    """
    try:
        lines = read_text(path)[0].splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as text, a class a line ({error}).") from None
    said: dict[str, str] = {}
    for line in filter(str.strip, lines):
        label, _, words = (part.strip() for part in line.partition("\t"))
        if label in said:
            raise ConfigError(f"{path}: names the class {label!r} twice.")
        said[label] = words or label
    if not said:
        raise ConfigError(f"{path}: names no class. Expected one a line.")
    return said


def labels_of_clip(task: Task, clip: EvalClip) -> tuple[str, ...]:
    """The labels a task is about."""
    if task.kind == "tagging" or task.many:
        return clip.tags
    return (clip.label,) if clip.label else ()


def _said_of(task: Task, test: EvalClips, classes: Sequence[str]) -> Iterator[str]:
    """What a reader of the figures should know of the clips."""
    if task.folds:
        there = {clip.fold for clip in test.clips}
        if len(there) != task.folds:
            yield f"Only {len(there)} of {task.folds} folds are there: {', '.join(sorted(map(str, there)))}."
    if task.kind == "retrieval":
        return
    used = {label for clip in test.clips for label in labels_of_clip(task, clip)}
    if empty := [label for label in classes if label not in used]:
        yield f"{len(empty)} of {len(classes)} classes have no clip here: {_some(empty)}."
    if bare := [clip.key for clip in test.clips if not labels_of_clip(task, clip)]:
        yield f"{len(bare)} clips have no label: {_some(bare)}."


def _check(task: Task, test: EvalClips) -> None:
    """Raises DataError where nothing can be asked, before any sound is embedded."""
    wanted = "caption" if task.kind == "retrieval" else "tag" if task.kind == "tagging" or task.many else "label"
    if not any(clip.captions if wanted == "caption" else labels_of_clip(task, clip) for clip in test.clips):
        raise DataError(f"{task.name}: no clip has a {wanted}, and without one there is nothing to ask.")
    there = sorted({str(clip.fold) for clip in test.clips})
    if task.folds and len(there) > task.folds:
        raise DataError(f"{task.name}: expected {task.folds} folds, and {len(there)} are there: {_some(there)}.")
    if task.folds and len(there) < 2 and task.kind in ("probe", "few_shot"):
        raise DataError(f"{task.name}: {there[0]} is the only fold of {task.folds}: there is none to learn from.")


def _some(names: Iterable[str]) -> str:
    """The first few names, and how many more."""
    listed = list(names)
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(listed[:NAMED]) + more
