"""One table of a model's quality: retrieval both ways, zero-shot labels and a linear probe.

Sounds are embedded once a model and shared between the tasks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from openclap.errors import DataError
from openclap.evals.answers import Answers, LeftOut
from openclap.evals.bootstrap import (
    Estimate,
    chance_classification,
    chance_retrieval,
    measure_interval,
)
from openclap.evals.clips import EvalClips, Progress, SoundEmbedder, Vectors, check_text, embed_clips
from openclap.evals.evaluation import Evaluation, Figure
from openclap.evals.hearing import Listener
from openclap.evals.metrics import Measure
from openclap.evals.probe import impossible, probe
from openclap.evals.protocol import protocol
from openclap.evals.retrieval import Retrieval, retrieve, too_few, trivial
from openclap.evals.zero_shot import name_labels

FEW_GROUPS = 20


@dataclass(frozen=True, slots=True)
class _Results:
    """The three tasks of one model."""

    retrieval: Retrieval | None
    zero_shot: Answers | LeftOut
    probe: Answers | LeftOut

    def measures(self) -> dict[tuple[str, str], Measure]:
        """Every figure by (task, metric)."""
        found: dict[tuple[str, str], Measure] = {}
        for name, measure in (self.retrieval.measures() if self.retrieval else {}).items():
            found[_split_name(name)] = measure
        for task, answers in (("zero_shot", self.zero_shot), ("probe", self.probe)):
            if isinstance(answers, Answers):
                found |= {(task, metric): measure for metric, measure in answers.measures().items()}
        return found


@dataclass(frozen=True, slots=True)
class _Run:
    """What is the same for the model and its untrained twin."""

    test: EvalClips
    train: EvalClips | None
    seed: int
    batch_size: int
    progress: Progress | None

    def measure(self, embedder: SoundEmbedder) -> _Results:
        """Embed once, then the three tasks."""
        check_text(embedder)
        audio_ND = self._embed(embedder, self.test)
        return _Results(
            retrieval=retrieve(embedder, self.test, audio_ND),
            zero_shot=name_labels(embedder, self.test, audio_ND),
            probe=self._probe(embedder, audio_ND),
        )

    def _probe(self, embedder: SoundEmbedder, test_ND: Vectors) -> Answers | LeftOut:
        if self.train is None:
            return LeftOut("no training split was given to learn from.")
        train = self.train.select([i for i, clip in enumerate(self.train.clips) if clip.label])
        if reason := impossible(train, self.test):
            return LeftOut(reason)
        return probe(train, self._embed(embedder, train), self.test, test_ND, seed=self.seed)

    def _embed(self, embedder: SoundEmbedder, clips: EvalClips) -> Vectors:
        if not isinstance(embedder, Listener):
            return embed_clips(embedder, clips, batch_size=self.batch_size, progress=self.progress)
        heard = embedder.hear(clips)
        if heard.lost:
            raise DataError(f"{clips.name}: {len(heard.lost)} clips have no vector. First: {': '.join(heard.lost[0])}")
        return heard.vectors_ND


def evaluate(
    embedder: SoundEmbedder,
    test_clips: EvalClips,
    train_clips: EvalClips | None = None,
    *,
    untrained: SoundEmbedder | None = None,
    seed: int = 0,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a model on a held-out split.

    Args:
        embedder: an `openclap.Embedder`, or anything that acts like it; a Listener takes the vectors that it kept.
        train_clips: labelled clips the probe learns from; without them it is left out.
        untrained: the same model before training, measured beside it.
        seed: of resamples, chance draws and the probe's folds: the same seed, the same figures.

    Raises OpenClapError when the embedder gives unusable vectors, or none for some of the clips.
    """
    started = time.perf_counter()
    run = _Run(test_clips, train_clips, seed, batch_size, progress)
    results, before = run.measure(embedder), run.measure(untrained) if untrained else None
    return Evaluation(
        figures=tuple(_figures(results, before, test_clips, seed)),
        left_out=_left_out(results, test_clips),
        notes=tuple(_notes(results, test_clips, train_clips)),
        protocol=protocol(embedder, seed),
        split=test_clips.name,
        clips=len(test_clips),
        captions=len(results.retrieval.captions) if results.retrieval else 0,
        groups=len(set(test_clips.groups)),
        skipped=test_clips.skipped,
        seed=seed,
        data_hash=test_clips.digest,
        train_hash=train_clips.digest if train_clips else None,
        seconds=time.perf_counter() - started,
        retrieval=results.retrieval,
        zero_shot=results.zero_shot if isinstance(results.zero_shot, Answers) else None,
        probe=results.probe if isinstance(results.probe, Answers) else None,
    )


def _figures(results: _Results, before: _Results | None, clips: EvalClips, seed: int) -> Iterator[Figure]:
    chances = _chances(results, clips, seed)
    earlier = before.measures() if before else {}
    for (task, metric), measure in results.measures().items():
        past = earlier.get((task, metric))
        yield Figure(
            task=task,
            metric=metric,
            estimate=measure_interval(measure, clips.groups, seed=seed),
            chance=chances[task, metric],
            untrained=measure_interval(past, clips.groups, seed=seed) if past else None,
            n=len(measure.clip_N),
        )


def _chances(results: _Results, clips: EvalClips, seed: int) -> dict[tuple[str, str], Estimate]:
    chances: dict[tuple[str, str], Estimate] = {}
    if results.retrieval:
        ranks = results.retrieval.ranks
        by_name = chance_retrieval(ranks.owner_T, ranks.clips, seed=seed)
        chances |= {_split_name(name): estimate for name, estimate in by_name.items()}
    for task, answers in (("zero_shot", results.zero_shot), ("probe", results.probe)):
        if isinstance(answers, Answers):
            group_N = [clips.clips[i].group for i in answers.clip_N]
            by_metric = chance_classification(answers.classified, group_N, seed=seed)
            chances |= {(task, metric): estimate for metric, estimate in by_metric.items()}
    return chances


def _split_name(name: str) -> tuple[str, str]:
    """ "text_to_audio_R@1" to ("text_to_audio", "R@1")."""
    task = name[: len("text_to_audio")]
    return task, name[len(task) + 1 :]


def _left_out(results: _Results, clips: EvalClips) -> dict[str, str]:
    left = {"retrieval": too_few(clips)} if results.retrieval is None else {}
    tasks = {"zero_shot": results.zero_shot, "probe": results.probe}
    return left | {name: task.reason for name, task in tasks.items() if isinstance(task, LeftOut)}


def _notes(results: _Results, test: EvalClips, train: EvalClips | None) -> Iterator[str]:
    groups = len(set(test.groups))
    if groups == 1:
        yield "All clips are one group: no interval can be had, so nothing is shown to be above chance."
    elif groups < FEW_GROUPS:
        yield f"Only {groups} groups: the intervals are rough."
    if test.skipped:
        yield f"{test.name}: {len(test.skipped)} samples were unreadable. First: {test.skipped[0]}"
    if train is not None and train.skipped:
        yield f"{train.name}: {len(train.skipped)} samples were unreadable. First: {train.skipped[0]}"
    if train is not None and (shared := set(train.groups) & set(test.groups)):
        yield f"{len(shared)} groups stand in both splits, so every figure may be flattered. Split by group."
    if results.retrieval:
        yield from _caption_notes(results.retrieval, test)
    for task in (results.zero_shot, results.probe):
        yield from task.notes if isinstance(task, Answers) else ()


def _caption_notes(retrieval: Retrieval, test: EvalClips) -> Iterator[str]:
    if told := trivial(retrieval.ranks):
        yield f"Retrieval: {told}"
    if silent := len(test) - len(retrieval.clip_A):
        yield f"Retrieval: {silent} clips have no caption and took no part."
    owners: dict[str, set[int]] = {}
    for caption, owner in zip(retrieval.captions, retrieval.ranks.owner_T.tolist(), strict=True):
        owners.setdefault(caption, set()).add(owner)
    shared = sum(len(owners[caption]) > 1 for caption in retrieval.captions)
    if shared:
        yield (
            f"Retrieval: {shared} of {len(retrieval.captions)} captions are said of more than one clip. "
            "Only the clip that asks counts as right, so these figures are on the low side."
        )
