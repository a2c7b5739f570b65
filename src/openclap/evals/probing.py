"""Probes: classifiers trained on frozen embeddings. Linear and MLP probes, and MAEB's few-shot protocol.

A probe is a function from a `ProbeInput` to a function that scores clips. `openclap.evals.tasks.PROBES` names them all;
those of `openclap.evals.network_probes` train networks in torch, the audio tower among them.

The linear probe is one protocol with two rules for choosing its regularisation, of which the name says which one was
used: the held-out split of the data set where it has an official one, otherwise cross-validation over groups of the
training split (docs/decisions/0012-one-linear-probe.md).

P training clips, N clips, C classes, D embedding.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from openclap.arrays import Floats, Ints
from openclap.errors import DataError, require
from openclap.evals.cached_embedder import CachedEmbedder, EmbeddedClips, Embeddings
from openclap.evals.dataset import EvalClips, TaskClips
from openclap.evals.metrics import ACCURACY, Measure, classify, mean_of
from openclap.evals.ranks import TIE
from openclap.evals.results import TaskOutput
from openclap.evals.tagging import average_precisions, tag
from openclap.evals.zero_shot import (
    classification_output,
    fold_mean,
    labelled_clips,
    tagging_output,
    truth_table,
)

if TYPE_CHECKING:
    from openclap.evals.tasks import Task

STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)
"""Inverse regularisation C, strongest regularisation first: on a tie the simpler model wins."""
DEFAULT_STRENGTH = 1.0
"""C where the training clips allow no choice."""
ITERATIONS = 2000
"""The most iterations of logistic regression's solver."""
FOLDS = 5
CHOOSE_AMONG = 20_000
"""Training clips that settings are chosen with; the rest joins for the last fit."""
HIDDEN, BATCH, EPOCHS = 1024, 160, 100
DECAYS = (1e-1, 1e-2, 1e-4)
"""Weight decay of the MLP, strongest first: on a tie the simpler model wins."""
SHOTS, DRAWS, FEW_SHOT_ITERATIONS = 8, 10, 100
"""MAEB's few-shot protocol: 8 clips per label, drawn 10 times, logistic regression with scikit-learn's C = 1."""


@dataclass(frozen=True, slots=True)
class LabelledClips:
    """Clips with their embeddings (P, D) and labels (P, C)."""

    clips: EvalClips
    embedding_PD: Embeddings
    truth_PC: NDArray[np.bool_]

    def at(self, rows: Any) -> LabelledClips:
        """The clips at these positions, or where a mask is true."""
        positions = np.arange(len(self.clips))[rows]
        return LabelledClips(
            self.clips.select(positions.tolist()), self.embedding_PD[positions], self.truth_PC[positions]
        )


@dataclass(frozen=True, slots=True)
class ProbeInput:
    """The data and settings of a probe.

    Attributes:
        valid: the official validation split, to choose settings with; None where the data set has none.
        multilabel: whether a clip has any number of labels.
        model: the model of the embeddings, for probes that read sounds.
        epochs: the most epochs of a network.
        seed: of networks, orders and folds.
    """

    train: LabelledClips
    valid: LabelledClips | None = None
    multilabel: bool = False
    model: CachedEmbedder | None = None
    epochs: int = EPOCHS
    seed: int = 0

    def with_validation(self) -> tuple[LabelledClips, LabelledClips]:
        """(training clips, validation clips): the official split, or whole groups held out of the training clips.

        Where the groups allow no split, the training clips are both.
        """
        if self.valid is not None:
            return self.train, self.valid
        folds = folds_over_groups(self.train, self.seed)
        return (self.train.at(folds[0][0]), self.train.at(folds[0][1])) if folds else (self.train, self.train)


Scorer = Callable[[EvalClips, Embeddings], Floats]
"""Clips and their embeddings (N, D) to scores (N, C)."""
FitProbe = Callable[[ProbeInput], tuple[Scorer, str]]
"""Train a probe; returns its scorer, and a sentence on the settings that were chosen."""
MakeClassifier = Callable[[float, NDArray[Any]], Any]
"""A setting and the training targets to a classifier of scikit-learn."""


# The tasks of kind "probe" and "few_shot" -----------------------------------------------------------------------------


def run_probe(task: Task, data: TaskClips, test: EmbeddedClips, model: CachedEmbedder, seed: int) -> TaskOutput:
    """Train a probe on the training split and score the test split, or score each fold by a probe of the others."""
    if task.folds:
        return _probe_folds(task, data, test, model, seed)
    train, valid, lost = _training_clips(task, data, model)
    scorer, note = task.probe_protocol.fit(
        ProbeInput(train, valid, task.multilabel, model, task.epochs, seed),
    )
    score_NC = scorer(test.clips, test.embedding_ND)
    if task.multilabel:
        output = tagging_output(task, test.clips, data.classes, score_NC)
    else:
        clip_N, label_N = labelled_clips(task, test.clips, data.classes)
        classified = classify(score_NC[clip_N], label_N, tie=TIE)
        output = classification_output(task, test.clips, data.classes, clip_N, classified)
    return replace(output, notes=(note,), lost=lost)


def _probe_folds(task: Task, data: TaskClips, test: EmbeddedClips, model: CachedEmbedder, seed: int) -> TaskOutput:
    """Score the clips of each official fold by a probe that is trained on all other folds."""
    whole = label_clips(task, test, data.classes)
    clip_N, label_N = labelled_clips(task, test.clips, data.classes)
    score_NC = np.empty((len(test.clips), len(data.classes)))
    notes = []
    for fold_N in _official_folds(test.clips, task):
        rest = np.setdiff1d(clip_N, np.flatnonzero(fold_N))
        scorer, note = task.probe_protocol.fit(
            ProbeInput(whole.at(rest), None, False, model, task.epochs, seed),
        )
        notes.append(note)
        fold = whole.at(fold_N)
        score_NC[fold_N] = scorer(fold.clips, fold.embedding_PD)
    classified = classify(score_NC[clip_N], label_N, tie=TIE)
    output = classification_output(task, test.clips, data.classes, clip_N, classified)
    return replace(output, notes=tuple(dict.fromkeys(notes)))


def run_few_shot(task: Task, data: TaskClips, test: EmbeddedClips, model: CachedEmbedder, seed: int) -> TaskOutput:
    """Average the accuracy of classifiers that are each trained on 8 clips per label, as in MAEB."""
    clip_N, label_N = labelled_clips(task, test.clips, data.classes)
    rounds: list[tuple[LabelledClips, Ints]]  # training clips, and the items of `clip_N` to answer
    lost: tuple[tuple[str, str], ...] = ()
    if task.folds:
        whole = label_clips(task, test, data.classes)
        rounds = [
            (whole.at(np.setdiff1d(clip_N, np.flatnonzero(fold_N))), np.flatnonzero(fold_N[clip_N]))
            for fold_N in _official_folds(test.clips, task)
        ]
    else:
        train, _, lost = _training_clips(task, data, model)
        rounds = [(train, np.arange(len(clip_N)))]
    right_N = np.zeros(len(clip_N))
    for train, items in rounds:
        for draw in range(DRAWS):
            # Seeded by the draw alone, so that all models are trained on the same clips.
            few = train.at(draw_shots(train, SHOTS, np.random.default_rng([seed, draw])))
            score_NC = fit_classifier(few, _maeb_classifier, multilabel=False)(
                test.clips, test.embedding_ND[clip_N[items]]
            )
            # Each clip's share of right answers over the draws, so that the interval is over clips and not over draws.
            right_N[items] += (classify(score_NC, label_N[items], tie=TIE).rank_N == 1) / DRAWS
    mean = fold_mean(right_N, test.clips, clip_N) if task.folds else mean_of(right_N)
    return TaskOutput(test.clips, {ACCURACY: Measure(mean, clip_N)}, lost=lost, classes=data.classes)


def draw_shots(train: LabelledClips, count: int, rng: np.random.Generator) -> Ints:
    """Draw the positions of up to `count` clips of every label."""
    order = rng.permutation(len(train.clips))
    label = train.truth_PC[order].argmax(1)
    return np.sort(np.concatenate([order[label == value][:count] for value in np.unique(label)]))


def _maeb_classifier(target: NDArray[np.int64]) -> Any:
    return require("sklearn.linear_model", "eval").LogisticRegression(max_iter=FEW_SHOT_ITERATIONS)


def _training_clips(
    task: Task, data: TaskClips, model: CachedEmbedder
) -> tuple[LabelledClips, LabelledClips | None, tuple[tuple[str, str], ...]]:
    """(training clips, validation clips, clips that could not be embedded)."""
    assert data.train is not None
    train = model.embed_clips(data.train)
    valid = model.embed_clips(data.valid) if data.valid is not None else None
    lost = train.lost + (valid.lost if valid else ())
    return label_clips(task, train, data.classes), label_clips(task, valid, data.classes) if valid else None, lost


def label_clips(task: Task, embedded: EmbeddedClips, classes: tuple[str, ...]) -> LabelledClips:
    """Clips with their labels. A clip without a label is a negative example of every class where clips have any number
    of labels, and is left out elsewhere."""
    labelled = LabelledClips(embedded.clips, embedded.embedding_ND, truth_table(task, embedded.clips, classes))
    return labelled if task.multilabel or task.folds else labelled.at(labelled.truth_PC.any(1))


def _official_folds(clips: EvalClips, task: Task) -> list[NDArray[np.bool_]]:
    """For each fold, the clips in it. Raises DataError with fewer than two."""
    fold_N = np.array([str(clip.fold) for clip in clips.clips])
    names = np.unique(fold_N)
    if len(names) < 2:
        raise DataError(f"{task.name}: {len(names)} of {task.folds} folds was found, so there is none to train on.")
    return [fold_N == name for name in names]


# The linear probe and the MLP -----------------------------------------------------------------------------------------


def linear(data: ProbeInput) -> tuple[Scorer, str]:
    """Fit scikit-learn's logistic regression, one-vs-rest for any number of labels.

    C is chosen on the official validation split, and the last fit is on both parts. Without that split C is chosen by
    cross-validation over groups of the training clips.
    """
    train, valid = data.train, data.valid
    # Choosing takes up to 25 fits, so large sets are sampled for it; the last fit is on everything.
    candidates = _at_most(train, CHOOSE_AMONG, data.seed)
    make = partial(_make_linear, multilabel=data.multilabel)
    if valid is not None:
        strength = _choose(STRENGTHS, make, [(candidates, valid)], data.multilabel)
        # Validation clips have served their purpose, so the last fit uses them, too.
        how, train = f"chosen on {valid.clips.name}", _join(train, valid)
    elif folds := folds_over_groups(candidates, data.seed):
        parts = [(candidates.at(seen), candidates.at(held_out)) for seen, held_out in folds]
        strength = _choose(STRENGTHS, make, parts, data.multilabel)
        how = f"chosen by {len(folds)}-fold cross-validation over groups of {train.clips.name}"
    else:
        strength = DEFAULT_STRENGTH
        how = f"not chosen: no fold can be made of the groups of {train.clips.name}"
    scorer = fit_classifier(train, partial(make, strength), multilabel=data.multilabel)
    return scorer, f"Logistic regression with C = {strength:g}, {how}."


def mlp(data: ProbeInput) -> tuple[Scorer, str]:
    """Fit one hidden layer of 1,024 (scikit-learn's MLPClassifier: Adam, batches of 160, at most `data.epochs`).

    Cross-entropy for one label, binary cross-entropy for any number. Weight decay is chosen on the validation split or
    on held-out groups of the training clips; the last fit is on both parts.
    """
    networks = require("sklearn.neural_network", "eval")

    def make(decay: float, target: NDArray[Any]) -> Any:
        batch = min(BATCH, len(target))
        return networks.MLPClassifier(
            (HIDDEN,), alpha=decay, batch_size=batch, max_iter=data.epochs, random_state=data.seed
        )

    train, valid = data.with_validation()
    decay = _choose(DECAYS, make, [(_at_most(train, CHOOSE_AMONG, data.seed), valid)], data.multilabel)
    everything = train if valid is train else _join(train, valid)
    scorer = fit_classifier(everything, partial(make, decay), multilabel=data.multilabel)
    return scorer, f"A network with a hidden layer of {HIDDEN}, decay {decay:g}, chosen on {valid.clips.name}."


def _make_linear(strength: float, target: NDArray[Any], *, multilabel: bool) -> Any:
    classifier = require("sklearn.linear_model", "eval").LogisticRegression(C=strength, max_iter=ITERATIONS)
    one_vs_rest = require("sklearn.multiclass", "eval").OneVsRestClassifier
    # One classifier for each label, since labels of a clip do not exclude each other.
    return one_vs_rest(classifier) if target.ndim == 2 else classifier


def _choose(
    choices: Sequence[float],
    make: MakeClassifier,
    parts: Sequence[tuple[LabelledClips, LabelledClips]],
    multilabel: bool,
) -> float:
    """Choose the first of the best settings. Each part is (clips to train on, clips to score)."""

    def total(choice: float) -> float:
        fitted = ((fit_classifier(seen, partial(make, choice), multilabel=multilabel), part) for seen, part in parts)
        # The number of right answers, not a mean over folds: folds differ in size, and whole numbers tie exactly.
        return sum(score(part, scorer, multilabel) * (1 if multilabel else len(part.clips)) for scorer, part in fitted)

    # Rounded, so that sums that differ only in their last digits tie, and the first choice wins.
    return choices[int(np.argmax(np.round([total(choice) for choice in choices], 9)))]


def folds_over_groups(train: LabelledClips, seed: int) -> list[tuple[Ints, Ints]]:
    """(training rows, held-out rows) of up to 5 folds, with whole groups and classes spread over folds.

    A fold whose training rows have a single class is dropped; no fold is left where groups or classes are too few.
    """
    # Of several labels the first one counts, so folds are balanced by it alone.
    label_P, group_P = train.truth_PC.argmax(1), np.array(train.clips.groups)
    # A fold needs a group of its own, and scikit-learn refuses more folds than the largest class has clips.
    count = min(FOLDS, len(np.unique(group_P)), int(np.bincount(label_P).max()))
    if count < 2:
        return []
    selection = require("sklearn.model_selection", "eval")
    # Groups, because takes of one recording in both parts would favour the weakest regularisation.
    splitter = selection.StratifiedGroupKFold(n_splits=count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A rare class is missing in some folds; nothing can be done about it.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        pairs = list(splitter.split(np.zeros(len(label_P)), label_P, group_P))
    return [(seen, held_out) for seen, held_out in pairs if len(held_out) and len(np.unique(label_P[seen])) > 1]


def _at_most(train: LabelledClips, count: int, seed: int) -> LabelledClips:
    if len(train.clips) <= count:
        return train
    return train.at(np.sort(np.random.default_rng(seed).permutation(len(train.clips))[:count]))


def _join(a: LabelledClips, b: LabelledClips) -> LabelledClips:
    clips = replace(a.clips, clips=(*a.clips.clips, *b.clips.clips))
    return LabelledClips(
        clips, np.concatenate([a.embedding_PD, b.embedding_PD]), np.concatenate([a.truth_PC, b.truth_PC])
    )


def fit_classifier(train: LabelledClips, make: Callable[[NDArray[Any]], Any], *, multilabel: bool) -> Scorer:
    """Fit a classifier of scikit-learn to the classes that occur; the scores of all other classes are -inf."""
    truth_PC = train.truth_PC
    # A class that all clips have, or none, leaves a binary classifier nothing to separate.
    known = np.flatnonzero(truth_PC.any(0) & ~truth_PC.all(0)) if multilabel else np.unique(truth_PC.argmax(1))
    embedding_PD = train.embedding_PD.astype(np.float64)
    target = truth_PC[:, known].astype(np.int64) if multilabel and len(known) > 1 else truth_PC.argmax(1)
    if multilabel and len(known) == 1:
        target = truth_PC[:, known[0]].astype(np.int64)
    model = None
    if len(known) > (0 if multilabel else 1):
        with _ignore_convergence():
            model = make(target).fit(embedding_PD, target)

    def scorer(clips: EvalClips, embedding_ND: Embeddings) -> Floats:
        # A class without training clips can never be the answer.
        score_NC = np.full((len(embedding_ND), truth_PC.shape[1]), -np.inf)
        if model is not None:
            # A single known class of several labels has two columns, "without" and "with": the last one is taken.
            score_NC[:, known] = _classifier_scores(model, embedding_ND)[:, -len(known) :]
        return score_NC

    return scorer


def _classifier_scores(model: Any, embedding_ND: Embeddings) -> Floats:
    """(N, classes) decision values, or logarithms of probabilities. scikit-learn has one column for two classes."""
    if not hasattr(model, "decision_function"):
        with np.errstate(divide="ignore"):
            return np.asarray(model.predict_log_proba(embedding_ND.astype(np.float64)), np.float64)
    value: Floats = model.decision_function(embedding_ND.astype(np.float64))
    # The one column is that of the second class.
    return np.stack([-value, value], axis=1) if value.ndim == 1 else value


def score(part: LabelledClips, scorer: Scorer, multilabel: bool) -> float:
    """The accuracy on labelled clips, or their mAP where clips have any number of labels."""
    score_NC = scorer(part.clips, part.embedding_PD)
    if not multilabel:
        return float((classify(score_NC, part.truth_PC.argmax(1)).rank_N == 1).mean())
    varied = part.truth_PC.any(0) & ~part.truth_PC.all(0)
    return float(np.nanmean(average_precisions(tag(score_NC, part.truth_PC)))) if varied.any() else 0.0


@contextmanager
def _ignore_convergence() -> Iterator[None]:
    """A network that stops after its last epoch warns; the number of epochs is part of the protocol."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=require("sklearn.exceptions", "eval").ConvergenceWarning)
        yield
