"""Zero-shot classification and tagging: compare each sound with one prompt per class, without training on labels.

Also the calibration of the answers: how often the model is right at each level of confidence.

Protocol: LAION-CLAP (Wu et al. 2023, arXiv:2211.06687), section 4. Calibration: expected calibration error in equal
bins of confidence (Guo et al. 2017, arXiv:1706.04599).

N clips, C classes, B bins, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from openclap.arrays import Floats, Ints
from openclap.errors import DataError
from openclap.evals.cached_embedder import CachedEmbedder, EmbeddedClips, SoundEmbedder, embed_sentences
from openclap.evals.dataset import EvalClips, TaskClips
from openclap.evals.metrics import (
    ACCURACY,
    Classified,
    Measure,
    Statistic,
    balanced_of,
    classification_measures,
    classify,
)
from openclap.evals.ranks import TIE, as_numpy
from openclap.evals.results import TaskOutput
from openclap.evals.tagging import tag, tagging_measures
from openclap.text.prompts import alternatives, prompts

if TYPE_CHECKING:
    from openclap.evals.tasks import Task

BINS = 15
"""As in Guo et al."""


def run_zero_shot(task: Task, data: TaskClips, test: EmbeddedClips, model: CachedEmbedder, seed: int) -> TaskOutput:
    """Run the task of kind "zero_shot": one label per clip."""
    clip_N, label_N = labelled_clips(task, test.clips, data.classes)
    score_NC = class_scores(test.embedding_ND[clip_N], model, data.class_names, task)
    output = classification_output(task, test.clips, data.classes, clip_N, classify(score_NC, label_N, tie=TIE))
    assert output.classified is not None
    # A loaded object that is no CLAP has no scale, so its similarities give no confidence.
    scale = model.logit_scale
    return replace(output, reliability=zero_shot_reliability(output.classified, scale) if scale else None)


def run_tagging(task: Task, data: TaskClips, test: EmbeddedClips, model: CachedEmbedder, seed: int) -> TaskOutput:
    """Run the task of kind "tagging": any number of labels per clip."""
    return tagging_output(
        task, test.clips, data.classes, class_scores(test.embedding_ND, model, data.class_names, task)
    )


def class_scores(sound_ND: NDArray[np.float32], embedder: SoundEmbedder, names: Sequence[str], task: Task) -> Floats:
    """Score classes, (N, C): the cosine of each sound and class; with the task's `alternatives`, that of the best one
    of those that the class's name lists."""
    parts = [alternatives(name) if task.alternatives else [name] for name in names]
    text_AD = class_embeddings(embedder, [part for listed in parts for part in listed], task.templates)
    # float64, so that ties within TIE do not depend on the order of summation in float32
    score_NA = sound_ND.astype(np.float64) @ text_AD.T
    first_C = np.cumsum([0, *(len(listed) for listed in parts[:-1])])
    return np.asarray(np.maximum.reduceat(score_NA, first_C, axis=1))


def class_embeddings(embedder: SoundEmbedder, names: Sequence[str], templates: Sequence[str]) -> Floats:
    """Embed classes, (C, D): the mean of the embeddings of a class's prompts, one per template, normalised again."""
    # Template by template, which the reshape below relies on.
    sentences = [sentence for template in templates for sentence in prompts(names, template)]
    unique_UD, unique_N = embed_sentences(embedder, sentences)
    # Normalised again: the mean of unit vectors is shorter the more they differ, and a class with varied prompts would
    # score lower than others at the same angle.
    mean_CD = unique_UD[unique_N].reshape(len(templates), len(names), -1).astype(np.float64).mean(0)
    return np.asarray(mean_CD / np.maximum(np.linalg.norm(mean_CD, axis=1, keepdims=True), 1e-12))


def labelled_clips(task: Task, clips: EvalClips, classes: Sequence[str]) -> tuple[Ints, Ints]:
    """(positions of the clips whose label is a class, the number of that class). Raises DataError when there are none,
    or fewer than two classes."""
    number = {label: index for index, label in enumerate(classes)}
    pairs = [(i, number[clip.label]) for i, clip in enumerate(clips.clips) if clip.label in number]
    if len(classes) < 2 or not pairs:
        raise DataError(
            f"{task.name}: {len(pairs)} clips have one of {len(classes)} labels; classification needs at least two."
        )
    table = np.array(pairs, np.int64)
    return table[:, 0], table[:, 1]


def truth_table(task: Task, clips: EvalClips, classes: Sequence[str]) -> NDArray[np.bool_]:
    """(N, C) which clips have which labels."""
    number = {label: index for index, label in enumerate(classes)}
    truth_NC = np.zeros((len(clips), len(classes)), bool)
    for row, clip in enumerate(clips.clips):
        # A label outside the classes, such as one that no training clip has, is left out.
        truth_NC[row, [number[label] for label in task.labels_of(clip) if label in number]] = True
    return truth_NC


def classification_output(
    task: Task, clips: EvalClips, classes: tuple[str, ...], clip_N: Ints, classified: Classified
) -> TaskOutput:
    """Compute the figures of one label per clip. With official folds, accuracy is the mean of the folds' accuracies."""
    measures = {
        metric: Measure(measure.statistic, clip_N) for metric, measure in classification_measures(classified).items()
    }
    if task.folds:
        measures[ACCURACY] = Measure(fold_mean(classified.rank_N == 1, clips, clip_N), clip_N)
    return TaskOutput(clips, measures, classified=classified, classified_N=clip_N.tolist(), classes=classes)


def tagging_output(task: Task, clips: EvalClips, classes: tuple[str, ...], score_NC: Floats) -> TaskOutput:
    """Compute the figures of any number of labels per clip."""
    tagged = tag(score_NC, truth_table(task, clips, classes), tie=TIE)
    return TaskOutput(clips, tagging_measures(tagged), tagged=tagged, classes=classes)


def fold_mean(right_N: ArrayLike, clips: EvalClips, clip_N: Ints) -> Statistic:
    """Average the share of right predictions over official folds, as a weighted statistic."""
    # The mean over folds is balanced accuracy with folds in the place of classes.
    fold_N = np.unique([str(clips.clips[i].fold) for i in clip_N], return_inverse=True)[1].astype(np.int64)
    return balanced_of(np.asarray(right_N, np.float64), fold_N)


@dataclass(frozen=True, slots=True)
class Reliability:
    """Predictions in bins of confidence: number, mean confidence and accuracy; the means of an empty bin are NaN."""

    count_B: Ints
    confidence_B: Floats
    accuracy_B: Floats

    @property
    def error(self) -> float:
        """The expected calibration error: the mean over predictions of |accuracy - confidence| of their bin."""
        filled = self.count_B > 0
        gap_B = np.abs(self.accuracy_B[filled] - self.confidence_B[filled])
        return float((self.count_B[filled] * gap_B).sum() / self.count_B.sum())


def reliability(confidence_N: ArrayLike, right_N: ArrayLike, *, bins: int = BINS) -> Reliability:
    """Bin predictions by confidence (0 to 1). Raises DataError for other shapes or values."""
    confidence, right = as_numpy(confidence_N).astype(np.float64), as_numpy(right_N).astype(np.float64)
    if confidence.ndim != 1 or confidence.shape != right.shape or not confidence.size:
        raise DataError(f"Confidences {confidence.shape} and answers {right.shape} do not fit: expected (N,) twice.")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise DataError("Confidences are outside 0 to 1: expected probabilities.")
    # A confidence of exactly 1 belongs to the last bin.
    bin_N = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    count_B = np.bincount(bin_N, minlength=bins)
    sums = [np.bincount(bin_N, weights=values, minlength=bins) for values in (confidence, right)]
    mean_confidence, mean_right = (
        np.divide(total, count_B, out=np.full(bins, np.nan), where=count_B > 0) for total in sums
    )
    return Reliability(count_B, mean_confidence, mean_right)


def zero_shot_reliability(answers: Classified, scale: float) -> Reliability:
    """Compute the reliability of zero-shot predictions: their confidence is the softmax of cosine × logit scale."""
    logit_NC = answers.score_NC.astype(np.float64) * scale
    # The largest logit is subtracted, or exp overflows at a high scale.
    odds_NC = np.exp(logit_NC - logit_NC.max(1, keepdims=True))
    return reliability(odds_NC.max(1) / odds_NC.sum(1), answers.rank_N == 1)
