"""Tasks as data, and the registries of everything that can be evaluated. To add:

- a data set: a `Task` in `openclap.evals.suites.PAPER` that names its reader in `openclap.sources.SOURCES`;
- a kind of task: a function (task, clips, embedded test clips, model, seed) to a `TaskOutput`, and a line in KINDS;
- a probe: a function from a `ProbeInput` to a scorer, and a line in PROBES;
- a metric: see `openclap.evals.metrics`; name it in `shown` of its kind here;
- a suite: a tuple of tasks in `openclap.evals.suites.SUITES`, or a TOML file.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openclap.errors import ConfigError
from openclap.evals import network_probes, probing
from openclap.evals.cached_embedder import CachedEmbedder, EmbeddedClips, SoundEmbedder
from openclap.evals.dataset import CLASS_FOLDERS, COLLECTION, TRAIN, EvalClip, EvalClips, TaskClips
from openclap.evals.hard_text import ALL_KINDS, KIND_METRICS, clips_with_pairs, run_hard_text
from openclap.evals.locating import INTERSECTION_F1, PRECISION, RECALL, clips_with_phrases, run_locating
from openclap.evals.metrics import (
    ACCURACY,
    AUDIO_TO_TEXT,
    MAP_AT_10,
    MEAN_AVERAGE_PRECISION,
    RECALL_AT,
    ROC_AUC,
    TEXT_TO_AUDIO,
    Metric,
    map_metric,
)
from openclap.evals.network_probes import UNNORMALISED, UnnormalisedEmbedder
from openclap.evals.probing import EPOCHS, FitProbe
from openclap.evals.ranks import CUT
from openclap.evals.results import UNKNOWN_POLICY, Published, TaskOutput
from openclap.evals.retrieval import run_retrieval
from openclap.evals.zero_shot import run_tagging, run_zero_shot
from openclap.limits import check_count
from openclap.text.prompts import SOUND

SelectClips = Callable[[EvalClips], EvalClips]
RunTask = Callable[["Task", TaskClips, EmbeddedClips, CachedEmbedder, int], TaskOutput]


@dataclass(frozen=True, slots=True)
class TaskKind:
    """A kind of task.

    Attributes:
        run: computes the figures of one model.
        shown: the metrics that tables have; a record as JSON has all.
        reads_text: whether captions or prompts are embedded, which needs a tokenizer.
        trains: whether labels are learned from training clips or from other folds.
        usable: selects the clips that the task can use; others are not embedded. Raises DataError where there is none.
    """

    run: RunTask
    shown: tuple[Metric, ...]
    reads_text: bool = False
    trains: bool = False
    usable: SelectClips = lambda clips: clips


def both_directions(*names: str) -> tuple[Metric, ...]:
    """Each metric from text to audio, then each from audio to text."""
    return tuple(Metric(name, direction) for direction in (TEXT_TO_AUDIO, AUDIO_TO_TEXT) for name in names)


SHOWN_RECALL = tuple(f"R@{k}" for k in RECALL_AT)
KINDS: Mapping[str, TaskKind] = {
    "retrieval": TaskKind(
        run_retrieval, both_directions(*SHOWN_RECALL, MAP_AT_10.name, "median_rank"), reads_text=True
    ),
    "zero_shot": TaskKind(run_zero_shot, (ACCURACY, MAP_AT_10), reads_text=True),
    "hard_text": TaskKind(run_hard_text, (ALL_KINDS, *KIND_METRICS.values()), reads_text=True, usable=clips_with_pairs),
    "tagging": TaskKind(run_tagging, (MEAN_AVERAGE_PRECISION, ROC_AUC), reads_text=True),
    "probe": TaskKind(probing.run_probe, (ACCURACY, MEAN_AVERAGE_PRECISION, ROC_AUC), trains=True),
    "locating": TaskKind(
        run_locating, (INTERSECTION_F1, PRECISION, RECALL), reads_text=True, usable=clips_with_phrases
    ),
    "few_shot": TaskKind(probing.run_few_shot, (ACCURACY,), trains=True),
}
"""The kinds of measurement on the clips of a task."""


@dataclass(frozen=True, slots=True)
class ProbeProtocol:
    """A probe.

    Attributes:
        fit: trains it.
        name, description: as the protocol states them.
        without_validation: how settings are chosen on a data set that has no validation split.
        embedder: wraps the embedder, for probes that read other embeddings than unit vectors.
        long_clips: whether the embedder's own policy for long clips applies.
    """

    fit: FitProbe
    name: str
    description: str
    without_validation: str = "held-out groups of the training clips"
    embedder: Callable[[SoundEmbedder], SoundEmbedder] | None = None
    long_clips: bool = True


_UNNORMALISED = f"frozen embeddings {UNNORMALISED}, of long clips the mean over windows"
PROBES: Mapping[str, ProbeProtocol] = {
    "linear": ProbeProtocol(
        probing.linear,
        "linear probe",
        "logistic regression on frozen unit vectors",
        without_validation=f"{probing.FOLDS}-fold cross-validation over groups",
    ),
    "mlp": ProbeProtocol(probing.mlp, "MLP probe", "one hidden layer of 1,024 on frozen unit vectors"),
    "laion_linear": ProbeProtocol(
        network_probes.laion_linear,
        "LAION's linear probe",
        f"one linear layer on {_UNNORMALISED}; AdamW, 1e-4, decay 0.1",
        embedder=UnnormalisedEmbedder,
        long_clips=False,
    ),
    "laion_mlp": ProbeProtocol(
        network_probes.laion_mlp,
        "LAION's MLP probe",
        f"one hidden layer of twice as many units on {_UNNORMALISED}; AdamW, 1e-4, decay 0.1",
        embedder=UnnormalisedEmbedder,
        long_clips=False,
    ),
    "fine_tune": ProbeProtocol(
        network_probes.fine_tune,
        "fine-tuning",
        "the audio tower is trained with a head of one hidden layer; AdamW, decay 0.1; sounds are augmented; training "
        "takes random crops of long clips, the answer is the mean over windows",
        long_clips=False,
    ),
}
"""The classifiers of tasks of the kind "probe"."""
OFFICIAL_SPLIT = "held-out split of the set"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One measurement of a model: a kind, a data set with its splits, and the settings.

    Attributes:
        name: "data set" or "data set, protocol".
        kind: a name in KINDS. "retrieval" and "hard_text" need captions, "zero_shot" one label per clip, "tagging" any
            number, "locating" phrases with segments; "probe" trains on other splits or folds, "few_shot" on 8 clips per
            label.
        source: the reader of the data set: a name in `openclap.sources.SOURCES`; "classes" for a folder of sounds per
            class; "collection" for the collection that is evaluated, as in the suite "quick".
        folders: where the data set may be under the data folder; the first one that exists is used.
        split: the split to measure on; all clips without one.
        train, valid: the splits that a probe trains on and chooses its settings with.
        folds: the number of official folds, over which figures are averaged; 0 for none.
        multilabel: whether a clip has any number of labels.
        probe: a name in PROBES.
        epochs: the most epochs of a probe's network.
        templates: prompts for labels; the embeddings of several are averaged.
        alternatives: whether a label that lists alternatives, such as "horn, trumpet or whistle", scores as the best
            of them; without, it is one text.
        classes: a file of the words for each class, a line each: the label, and after a tab the words.
        options: arguments for the reader.
        published: figures of papers on this data set.
        test_clips, train_clips: the numbers of clips in the published measurement, validation among the latter; 0
            where a number is unknown.
        chance: whether chance is computed for every figure.
        map_at: of retrieval, the k of every mAP@k.
        share_captions: of retrieval, whether equal captions are one query, right for all clips that have it. Papers
            count a caption's own clip alone.
        relevance: of retrieval, the file that names queries and all their right clips (`openclap.evals.relevance`), in
            the folder of the data set; the first place that exists is used. Its queries take the place of captions.
        relevance_page: where that file is published.
        shown: the metrics that tables have, in place of those of the kind.
    """

    name: str
    kind: str
    source: str
    folders: tuple[str, ...] = ()
    split: str | None = None
    train: str | None = None
    valid: str | None = None
    folds: int = 0
    multilabel: bool = False
    probe: str = "linear"
    epochs: int = EPOCHS
    templates: tuple[str, ...] = (SOUND,)
    alternatives: bool = False
    classes: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    published: tuple[Published, ...] = ()
    test_clips: int = 0
    train_clips: int = 0
    chance: bool = False
    map_at: tuple[int, ...] = (CUT,)
    share_captions: bool = False
    relevance: tuple[str, ...] = ()
    relevance_page: str = ""
    shown: tuple[Metric, ...] = ()

    def __post_init__(self) -> None:
        from openclap.sources import SOURCES

        for what, value, allowed in (
            ("kind", self.kind, KINDS),
            ("probe", self.probe, PROBES),
            ("source", self.source, (*SOURCES, CLASS_FOLDERS, COLLECTION)),
        ):
            if value not in allowed:
                raise ConfigError(f"{self.name}: {what} is {value!r}, expected one of: {', '.join(allowed)}.")
        reader = SOURCES[self.source].read if self.source in SOURCES else lambda root: root
        try:
            # Bound and not called, so that wrong options are found when the suite is read, without the data set.
            inspect.signature(reader).bind(None, **self.options)
        except TypeError as error:
            raise ConfigError(f"{self.name}: options do not fit the source {self.source} ({error}).") from None
        check_count(f"{self.name}: epochs", self.epochs)
        check_count(f"{self.name}: folds", self.folds, least=0)
        self._check_retrieval_options()
        if not self.templates or any(template.count("{}") != 1 for template in self.templates):
            raise ConfigError(f"{self.name}: each of its templates must hold {{}} once, where the label goes.")
        if self.trains and not (self.train or self.folds):
            raise ConfigError(f"{self.name}: names no split `train` to train on, and no number of `folds`.")
        if self.source == COLLECTION:
            self._check_collection_task()
        if self.kind == "tagging":
            object.__setattr__(self, "multilabel", True)  # the class is frozen

    def _check_retrieval_options(self) -> None:
        """Raise ConfigError for options of retrieval in another task, and for two rules on what is right."""
        for k in self.map_at:
            check_count(f"{self.name}: map_at", k)
        if not self.map_at or len(set(self.map_at)) < len(self.map_at):
            raise ConfigError(f"{self.name}: map_at is {list(self.map_at)}, expected one or more different numbers.")
        given = [name for name in ("share_captions", "relevance") if getattr(self, name)]
        given += ["map_at"] if self.map_at != (CUT,) else []
        if given and self.kind != "retrieval":
            raise ConfigError(f"{self.name}: {', '.join(given)} belongs to retrieval, and its kind is {self.kind}.")
        if self.share_captions and self.relevance:
            raise ConfigError(
                f"{self.name}: share_captions and relevance are two rules on which clips are right, expected one."
            )

    def _check_collection_task(self) -> None:
        """Raise ConfigError for an attribute that describes a published data set: a collection brings its own splits
        and labels, and a protocol must not state what was not done."""
        ignored = [
            name for name in ("folders", "split", "valid", "folds", "classes", "relevance") if getattr(self, name)
        ]
        if ignored or self.train not in (None, TRAIN):
            named = ", ".join(ignored or ["train"])
            raise ConfigError(
                f"{self.name}: {named} does not apply to the source collection, which is measured on the split of the "
                f"call and has {TRAIN!r} as its training split."
            )

    @property
    def trains(self) -> bool:
        """Whether labels are learned."""
        return KINDS[self.kind].trains

    @property
    def dataset(self) -> str:
        """The name without the protocol."""
        return self.name.partition(", ")[0]

    @property
    def probe_protocol(self) -> ProbeProtocol:
        """The probe, for the kind "probe"."""
        return PROBES[self.probe]

    @property
    def shown_metrics(self) -> tuple[Metric, ...]:
        """The metrics that tables have."""
        if self.shown or self.map_at == (CUT,):
            return self.shown or KINDS[self.kind].shown
        return both_directions(*SHOWN_RECALL, *(map_metric(k).name for k in self.map_at), "median_rank")

    def labels_of(self, clip: EvalClip) -> tuple[str, ...]:
        """The labels of a clip that this task is about."""
        if self.multilabel:
            return clip.tags
        return (clip.label,) if clip.label else ()


PROTOCOL_NOTES: Mapping[str, tuple[str, ...]] = {
    "locating": ("each clip's own phrases; intersection F1 with a tolerance of 0.5, over all clips and phrases",),
    "few_shot": ("up to 8 clips per label, 10 draws, logistic regression (MAEB)",),
}
"""What the protocol of a kind of task says beside its data."""


def protocol_of(task: Task, data: TaskClips, output: TaskOutput, clip_policy: str | None) -> str:
    """State in one line how a figure was measured: split or folds, prompts or probe, and the policy for long clips."""
    if task.source == COLLECTION:
        where = f"split {data.test.name}"
    elif task.split:
        where = f"split {task.split}"
    else:
        where = _folds_averaged(task, output) if task.folds else "all clips"
    lost = ", some clips missing" if output.lost else ""
    if task.kind == "probe":
        probe = task.probe_protocol
        rule = OFFICIAL_SPLIT if task.valid else probe.without_validation
        parts = [f"{probe.name}, {rule}; {where}{lost}; {probe.description}"]
    else:
        parts = [f"{task.kind.replace('_', '-')}, {where}{lost}"]
    if task.kind == "hard_text":
        parts.append("right captions beside wrong ones made by rule")
    if task.share_captions:
        parts.append("identical captions count for all their clips")
    if data.relevant is not None:
        pairs = sum(len(each.clips) for each in data.relevant)
        parts.append(
            f"{len(data.relevant):,} queries with {pairs / len(data.relevant):.1f} right clips each, by the file of "
            # The digest of the data is that of the clips alone.
            f"relevance (sha256 {hashlib.sha256(repr(data.relevant).encode()).hexdigest()[:12]})"
        )
    if task.kind in ("zero_shot", "tagging"):
        words = " and ".join(f"“{template}”" for template in task.templates)
        parts.append(f"{len(data.classes)} classes as {words}{', words from a file' if task.classes else ''}")
        if task.alternatives:
            parts.append("of alternatives in a label the best")
    parts += PROTOCOL_NOTES.get(task.kind, ())
    if task.kind != "locating" and (task.kind != "probe" or task.probe_protocol.long_clips):
        parts.append(f"long clips: {clip_policy or UNKNOWN_POLICY}")
    return "; ".join(parts).rstrip(".")


def _folds_averaged(task: Task, output: TaskOutput) -> str:
    """The folds that were found, which can be fewer than the task has."""
    count = len({clip.fold for clip in output.clips.clips})
    return f"{count if count == task.folds else f'{count} of {task.folds}'} folds averaged"


# Suites ---------------------------------------------------------------------------------------------------------------
