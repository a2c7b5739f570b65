"""The answers of one model to one task, as measures.

N clips, T captions, C classes, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from openclap.errors import DataError, require
from openclap.evals.answers import Answers
from openclap.evals.calibration import Reliability, sure_of
from openclap.evals.clips import EvalClips, embed_sentences
from openclap.evals.collected import Collected, labels_of_clip
from openclap.evals.hearing import Heard, Listener
from openclap.evals.learners import LEARNERS, learnt
from openclap.evals.lesson import Lesson, Part, lesson
from openclap.evals.metrics import (
    Classified,
    Measure,
    balanced_of,
    classification_measures,
    classify,
    mean_of,
    reciprocal_measures,
)
from openclap.evals.ranks import TIE, Floats, Ints
from openclap.evals.raw import RAW, RawEmbedder
from openclap.evals.retrieval import Retrieval, retrieve, too_few, trivial
from openclap.evals.tagging import Tagged, tag, tagging_measures
from openclap.evals.tasks import READS_RAW, Task
from openclap.text.prompts import prompts

SHOTS, DRAWS = 8, 10
READS_TEXT = ("retrieval", "zero_shot", "tagging")
"""Kinds of task that embed captions or prompts."""
FEW_SHOT_ITERATIONS = 100
"""MAEB's protocol of few examples: 8 clips a label, drawn 10 times, logistic regression with scikit-learn's C = 1."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of a task.

    Attributes:
        clips: those that were asked about.
        measures: by metric; items are clips, as `clips` numbers them.
        lost: clips that could not be heard, and why.
    """

    clips: EvalClips
    measures: dict[str, Measure]
    notes: tuple[str, ...] = ()
    lost: tuple[tuple[str, str], ...] = ()
    retrieval: Retrieval | None = None
    answers: Answers | None = None
    tagged: Tagged | None = None
    classes: tuple[str, ...] = ()
    sureness: Reliability | None = None


def ask(task: Task, collected: Collected, listener: Listener, *, seed: int = 0) -> Asked:
    """One model's answers to one task. Raises DataError where nothing can be asked."""
    if task.kind == "probe" and task.learner in READS_RAW:
        listener = listener.changed(RawEmbedder, RAW)
    if task.kind in READS_TEXT:
        listener.check_tokenizer()
    heard = listener.hear(collected.test)
    asked = ASK[task.kind](task, collected, heard, listener, seed)
    return replace(asked, lost=(*heard.lost, *asked.lost))


def _retrieval(task: Task, collected: Collected, heard: Heard, listener: Listener, seed: int) -> Asked:
    found = retrieve(listener, heard.clips, heard.vectors_ND)
    if found is None:
        raise DataError(f"{task.name}: {too_few(heard.clips)}")
    notes = []
    if silent := len(heard.clips) - len(found.clip_A):
        notes.append(f"{silent} clips have no caption and took no part.")
    if cut := listener.cut_off(found.captions):
        notes.append(f"{cut} of {len(found.captions)} captions are longer than the model reads, and were cut.")
    if told := trivial(found.ranks):
        notes.append(told)
    measures = found.measures() | {
        name: Measure(measure.statistic, found.clip_A[measure.clip_N])
        for name, measure in reciprocal_measures(found.ranks).items()
    }
    return Asked(heard.clips, measures, tuple(notes), retrieval=found)


def _zero_shot(task: Task, collected: Collected, heard: Heard, listener: Listener, seed: int) -> Asked:
    clip_N, label_N = _labelled(task, heard.clips, collected.classes)
    text_CD = class_vectors(listener, collected.words, task.templates)
    score_NC = heard.vectors_ND[clip_N].astype(np.float64) @ text_CD.T
    classified, scale = classify(score_NC, label_N, tie=TIE), listener.scale
    asked = _answered(task, heard.clips, collected.classes, clip_N, classified)
    return replace(asked, sureness=sure_of(classified, scale) if scale else None)


def class_vectors(listener: Listener, words: Sequence[str], templates: Sequence[str]) -> Floats:
    """(C, D) a unit vector a class: its sentences' vectors, averaged and normalised again where there are several."""
    sentences = [sentence for template in templates for sentence in prompts(words, template)]
    unique_UD, which = embed_sentences(listener, sentences)
    mean_CD = unique_UD[which].reshape(len(templates), len(words), -1).astype(np.float64).mean(0)
    return np.asarray(mean_CD / np.maximum(np.linalg.norm(mean_CD, axis=1, keepdims=True), 1e-12))


def _tagging(task: Task, collected: Collected, heard: Heard, listener: Listener, seed: int) -> Asked:
    text_CD = class_vectors(listener, collected.words, task.templates)
    score_NC = heard.vectors_ND.astype(np.float64) @ text_CD.T
    truth_NC = _truth(task, heard.clips, collected.classes)
    return _tags(heard.clips, tag(score_NC, truth_NC, tie=TIE), collected.classes)


def _probe(task: Task, collected: Collected, heard: Heard, listener: Listener, seed: int) -> Asked:
    return (_probe_of_folds if task.folds else _probe_of_splits)(task, collected, heard, listener, seed)


def _probe_of_splits(task: Task, collected: Collected, heard: Heard, listener: Listener, seed: int) -> Asked:
    assert collected.train is not None
    learning = listener.hear(collected.train)
    choosing = listener.hear(collected.valid) if collected.valid is not None else None
    valid = _part(task, choosing, collected.classes) if choosing else None
    scorer, chosen = LEARNERS[task.learner](
        _lesson(task, _part(task, learning, collected.classes), valid, listener, seed)
    )
    lost = learning.lost + (choosing.lost if choosing else ())
    score_NC = scorer(heard.clips, heard.vectors_ND)
    if task.many:
        asked = _tags(
            heard.clips, tag(score_NC, _truth(task, heard.clips, collected.classes), tie=TIE), collected.classes
        )
    else:
        clip_N, label_N = _labelled(task, heard.clips, collected.classes)
        asked = _answered(task, heard.clips, collected.classes, clip_N, classify(score_NC[clip_N], label_N, tie=TIE))
    return replace(asked, notes=(chosen,), lost=lost)


def _probe_of_folds(task: Task, collected: Collected, heard: Heard, listener: Listener, seed: int) -> Asked:
    """Every fold is answered by what the others teach."""
    whole = _part(task, heard, collected.classes)
    clip_N, label_N = _labelled(task, heard.clips, collected.classes)
    score_NC = np.empty((len(heard.clips), len(collected.classes)))
    chosen = []
    for held_N in _folds(heard.clips, task):
        rest = np.setdiff1d(clip_N, np.flatnonzero(held_N))
        scorer, told = LEARNERS[task.learner](_lesson(task, whole.at(rest), None, listener, seed))
        chosen.append(told)
        held = whole.at(held_N)
        score_NC[held_N] = scorer(held.clips, held.vectors_PD)
    asked = _answered(task, heard.clips, collected.classes, clip_N, classify(score_NC[clip_N], label_N, tie=TIE))
    return replace(asked, notes=tuple(dict.fromkeys(chosen)))


def _lesson(task: Task, train: Part, valid: Part | None, listener: Listener, seed: int) -> Lesson:
    many = task.many and not task.folds
    return lesson(train, valid, many=many, listener=listener, epochs=task.epochs, seed=seed)


def _few_shot(task: Task, collected: Collected, heard: Heard, listener: Listener, seed: int) -> Asked:
    """Mean accuracy of classifiers that each learn from 8 clips a label, as MAEB does it."""
    clip_N, label_N = _labelled(task, heard.clips, collected.classes)
    rounds: list[tuple[Part, Ints]]
    if task.folds:
        whole = _part(task, heard, collected.classes)
        rounds = [
            (whole.at(np.setdiff1d(clip_N, np.flatnonzero(held))), np.flatnonzero(held[clip_N]))
            for held in _folds(heard.clips, task)
        ]
    else:
        assert collected.train is not None
        rounds = [(_part(task, listener.hear(collected.train), collected.classes), np.arange(len(clip_N)))]
    right_N = np.zeros(len(clip_N))
    for part, held in rounds:
        for draw in range(DRAWS):
            few = part.at(shots(part, SHOTS, np.random.default_rng([seed, draw])))
            score_NC = learnt(few, _as_maeb, False)(heard.clips, heard.vectors_ND[clip_N[held]])
            right_N[held] += (classify(score_NC, label_N[held], tie=TIE).rank_N == 1) / DRAWS
    mean = balanced_of(right_N, _fold_numbers(heard.clips, clip_N)) if task.folds else mean_of(right_N)
    return Asked(heard.clips, {"accuracy": Measure(mean, clip_N)}, classes=collected.classes)


def shots(part: Part, count: int, rng: np.random.Generator) -> Ints:
    """Places of up to `count` clips of every label, drawn at random."""
    order = rng.permutation(len(part.clips))
    label = part.truth_PC[order].argmax(1)
    return np.sort(np.concatenate([order[label == each][:count] for each in np.unique(label)]))


def _as_maeb(target: NDArray[np.int64]) -> object:
    return require("sklearn.linear_model", "eval").LogisticRegression(max_iter=FEW_SHOT_ITERATIONS)


ASK: dict[str, Callable[[Task, Collected, Heard, Listener, int], Asked]] = {
    "retrieval": _retrieval,
    "zero_shot": _zero_shot,
    "tagging": _tagging,
    "probe": _probe,
    "few_shot": _few_shot,
}


def _answered(task: Task, clips: EvalClips, classes: tuple[str, ...], clip_N: Ints, classified: Classified) -> Asked:
    """The figures of answers with one label each; with official folds, accuracy is the mean of theirs."""
    measures = {name: Measure(each.statistic, clip_N) for name, each in classification_measures(classified).items()}
    if task.folds:
        right_N = (classified.rank_N == 1).astype(np.float64)
        measures["accuracy"] = Measure(balanced_of(right_N, _fold_numbers(clips, clip_N)), clip_N)
    return Asked(clips, measures, answers=Answers(classes, clip_N, classified), classes=classes)


def _tags(clips: EvalClips, tagged: Tagged, classes: tuple[str, ...]) -> Asked:
    return Asked(clips, tagging_measures(tagged), tagged=tagged, classes=classes)


def _labelled(task: Task, clips: EvalClips, classes: tuple[str, ...]) -> tuple[Ints, Ints]:
    """(places of the clips with a label, its number). Raises DataError when there are none."""
    number = {label: index for index, label in enumerate(classes)}
    pairs = [(i, number[clip.label]) for i, clip in enumerate(clips.clips) if clip.label in number]
    if len(classes) < 2 or not pairs:
        raise DataError(f"{task.name}: {len(pairs)} clips have one of {len(classes)} labels; naming needs two or more.")
    table = np.array(pairs, np.int64)
    return table[:, 0], table[:, 1]


def _truth(task: Task, clips: EvalClips, classes: tuple[str, ...]) -> NDArray[np.bool_]:
    number = {label: index for index, label in enumerate(classes)}
    truth_NC = np.zeros((len(clips), len(classes)), bool)
    for row, clip in enumerate(clips.clips):
        truth_NC[row, [number[label] for label in labels_of_clip(task, clip) if label in number]] = True
    return truth_NC


def _part(task: Task, heard: Heard, classes: tuple[str, ...]) -> Part:
    """What can be learnt from: clips without a label only where any number of labels will do."""
    part = Part(heard.clips, heard.vectors_ND, _truth(task, heard.clips, classes))
    return part if task.many or task.folds else part.at(part.truth_PC.any(1))


def _folds(clips: EvalClips, task: Task) -> list[NDArray[np.bool_]]:
    """For each fold, which clips are in it. Raises DataError when fewer than two are there."""
    fold_N = np.array([str(clip.fold) for clip in clips.clips])
    names = np.unique(fold_N)
    if len(names) < 2:
        raise DataError(f"{task.name}: {len(names)} fold is there, expected {task.folds}: there is none to learn from.")
    return [fold_N == name for name in names]


def _fold_numbers(clips: EvalClips, clip_N: Ints) -> Ints:
    return np.unique([str(clips.clips[i].fold) for i in clip_N], return_inverse=True)[1].astype(np.int64)
