"""What can be asked of a model, as data: the suite of the papers, and suites that a file describes."""

from __future__ import annotations

import inspect
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from openclap.errors import ConfigError
from openclap.limits import check_count
from openclap.text.prompts import SOUND

GENRE = "This is a {} song."
"""The template of LAION-CLAP for genres of music."""
KINDS = ("retrieval", "zero_shot", "tagging", "probe", "few_shot")
_RAW = "frozen vectors before L2 normalisation, of long clips the mean over windows"
LEARNERS: Mapping[str, str] = {
    "linear": "frozen unit vectors; logistic regression",
    "mlp": "frozen unit vectors; one hidden layer of 1,024",
    "laion_linear": f"{_RAW}; one linear layer; AdamW, 1e-4, decay 0.1",
    "laion_mlp": f"{_RAW}; one hidden layer of twice as many numbers; AdamW, 1e-4, decay 0.1",
    "fine_tune": "the audio tower is trained with a head of one hidden layer; AdamW, decay 0.1; sounds are varied; of "
    "long clips a random stretch is learnt from, and the mean over windows answers",
}
"""What learns from labels, and what a protocol says of it."""
READS_RAW = ("laion_linear", "laion_mlp")
"""Learners that read a model's vectors before L2 normalisation."""


@dataclass(frozen=True, slots=True)
class Published:
    """What a paper reports, in percent."""

    metric: str
    value: float
    system: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One question to a model.

    Attributes:
        kind: one of KINDS. "retrieval" needs captions, "zero_shot" one label a clip, "tagging" any number of them;
            "probe" learns from other splits or folds, "few_shot" from 8 clips a label.
        source: what reads the set: a name in `openclap.sources.SOURCES`, or "classes": a folder of sounds a class.
        folders: where it may lie under the data folder; the first one there is taken.
        split: of the set that is asked about; all of it without one.
        train, valid: splits that a probe learns from and chooses with.
        folds: how many official folds there are, which figures are averaged over; 0 for none.
        many: whether a probe's clips have any number of labels.
        learner: one of LEARNERS.
        epochs: the most that a learner's network gets.
        templates: sentences for labels; the vectors of several are averaged.
        classes: a file of what to say of each class, a line each: the label, then after a tab the words for it.
        options: handed on to the source.
        clips: how many are asked about where `published` was measured; 0 for a number that is not known.
        learns: how many are learnt from there, validation included; 0 where nothing is.
    """

    name: str
    kind: str
    source: str
    folders: tuple[str, ...] = ()
    split: str | None = None
    train: str | None = None
    valid: str | None = None
    folds: int = 0
    many: bool = False
    learner: str = "linear"
    epochs: int = 100
    templates: tuple[str, ...] = (SOUND,)
    classes: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    published: tuple[Published, ...] = ()
    clips: int = 0
    learns: int = 0

    def __post_init__(self) -> None:
        from openclap.sources import SOURCES

        for what, value, allowed in (
            ("kind", self.kind, KINDS),
            ("learner", self.learner, LEARNERS),
            ("source", self.source, (*SOURCES, "classes")),
        ):
            if value not in allowed:
                raise ConfigError(f"{self.name}: {what} is {value!r}, expected one of: {', '.join(allowed)}.")
        reader = SOURCES[self.source].read if self.source in SOURCES else lambda root: root
        try:
            inspect.signature(reader).bind(None, **self.options)
        except TypeError as error:
            raise ConfigError(f"{self.name}: options do not fit the source {self.source} ({error}).") from None
        check_count(f"{self.name}: epochs", self.epochs)
        check_count(f"{self.name}: folds", self.folds, least=0)
        if not self.templates or any(template.count("{}") != 1 for template in self.templates):
            raise ConfigError(f"{self.name}: each of its templates must hold {{}} once, where the label goes.")
        if self.kind in ("probe", "few_shot") and not (self.train or self.folds):
            raise ConfigError(f"{self.name}: names no split `train` to learn from, and no number of `folds`.")


def _retrieval(system: str, *rows: tuple[str, tuple[float, ...]]) -> tuple[Published, ...]:
    return tuple(
        Published(f"{task}_R@{k}", value, system)
        for task, values in rows
        for k, value in zip((1, 5, 10), values, strict=False)
    )


_630K, _KEYWORDS = "LAION-CLAP, LAION-Audio-630K, fusion", "LAION-CLAP, with keyword captions of AudioSet, fusion"


def _later(audiocaps: bool) -> tuple[Published, ...]:
    rows = {
        "WavCaps": (42.2, 19.7),
        "MGA-CLAP": (41.8, 20.4),
        "ONE-PEACE": (42.5, 22.4),
        "WavLink-L": (46.7, 22.4),
        "VAST": (52.0, 26.9),
    }
    return tuple(Published("text_to_audio_R@1", row[not audiocaps], name) for name, row in rows.items())


_FSD50K = partial(Task, source="fsd50k", folders=("fsd50k", "FSD50K"), split="test", clips=10_231)
_VGGSOUND = partial(Task, source="vggsound", folders=("vggsound", "VGGSound"), split="test", clips=15_446)


def _learnt(learner: str, words: str) -> tuple[Task, Task]:
    """What the papers learn from labels, by one learner."""
    published = "LAION-CLAP, supervised, the tower fine-tuned"
    return (
        _FSD50K(
            name=f"FSD50K, {words}",
            kind="probe",
            train="train",
            valid="valid",
            many=True,
            learns=40_966,
            learner=learner,
            published=(Published("mAP", 64.9, published),),
        ),
        _VGGSOUND(
            name=f"VGGSound, {words}",
            kind="probe",
            train="train",
            learner=learner,
            learns=183_730,
            published=(Published("accuracy", 75.4, published),),
        ),
    )


PAPER: tuple[Task, ...] = (
    Task(
        name="AudioCaps",
        kind="retrieval",
        source="audiocaps",
        folders=("audiocaps", "AudioCaps"),
        split="test",
        clips=975,
        published=(
            *_retrieval(_630K, ("text_to_audio", (36.2, 70.3, 82.5)), ("audio_to_text", (45.0, 76.7, 88.0))),
            *_retrieval(_KEYWORDS, ("text_to_audio", (35.1, 71.5, 83.6)), ("audio_to_text", (45.8, 80.9, 91.6))),
            *_later(True),
        ),
    ),
    Task(
        name="Clotho",
        kind="retrieval",
        source="clotho",
        folders=("clotho", "Clotho"),
        split="test",
        clips=1_045,
        published=(
            *_retrieval(_630K, ("text_to_audio", (17.2, 42.9, 55.4)), ("audio_to_text", (24.2, 51.1, 66.9))),
            *_retrieval(_KEYWORDS, ("text_to_audio", (18.2, 42.5, 54.4)), ("audio_to_text", (25.7, 51.5, 63.4))),
            *_later(False),
        ),
    ),
    Task(
        name="ESC-50",
        kind="zero_shot",
        source="esc50",
        folders=("esc50", "ESC-50", "ESC-50-master"),
        folds=5,
        clips=2_000,
        published=(
            Published("accuracy", 89.1, _630K),
            Published("accuracy", 91.0, _KEYWORDS),
            Published("accuracy", 92.75, "LAION-CLAP's README, unfused weights"),
            Published("accuracy", 81.70, "MTEB's board, the same unfused weights"),
            Published("accuracy", 94.9, "MGA-CLAP"),
            Published("accuracy", 95.5, "SLAP"),
            Published("mAP@10", 95.56, "LAION-CLAP's README, unfused weights"),
        ),
    ),
    Task(
        name="UrbanSound8K",
        kind="zero_shot",
        source="urbansound8k",
        folders=("urbansound8k", "UrbanSound8K"),
        folds=10,
        clips=8_732,
        published=(Published("accuracy", 73.2, _630K), Published("accuracy", 77.0, _KEYWORDS)),
    ),
    _VGGSOUND(
        name="VGGSound",
        kind="zero_shot",
        published=(Published("accuracy", 29.1, _630K), Published("accuracy", 46.2, _KEYWORDS)),
    ),
    _FSD50K(name="FSD50K", kind="tagging"),
    Task(
        name="GTZAN",
        kind="zero_shot",
        source="gtzan",
        folders=("gtzan", "GTZAN"),
        templates=(GENRE,),
    ),
    Task(
        name="AudioSet",
        kind="tagging",
        source="audioset",
        folders=("audioset", "AudioSet"),
        split="test",
        options={"parts": ("eval",)},
    ),
    *_learnt("linear", "linear probe"),
    *_learnt("mlp", "MLP probe"),
)
"""What papers ask, but for what takes days."""
SUPERVISED: tuple[Task, ...] = (
    *_learnt("laion_linear", "LAION's linear probe"),
    *_learnt("laion_mlp", "LAION's MLP probe"),
    *_learnt("fine_tune", "fine-tuned"),
)
"""LAION-CLAP's supervised classification: its heads on frozen vectors, and with the audio tower trained."""
SUITES: Mapping[str, tuple[Task, ...]] = {"paper": PAPER, "supervised": SUPERVISED}


def read_suite(path: Path) -> tuple[Task, ...]:
    """The tasks of a TOML file: a table `[[task]]` each, with the attributes of `Task`, `folder` for one folder, and
    `template` for one template. Relative folders and files are looked for from the data folder and the file's own.

    Raises ConfigError for a file that is not there, or says something else.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such suite. Expected quick, {', '.join(SUITES)} or a TOML file of tasks."
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML ({error}).") from None
    tables = content.get("task")
    if not isinstance(tables, list) or not tables or set(content) != {"task"}:
        raise ConfigError(f"{path}: describes no tasks. Expected a table [[task]] for each, and nothing else.")
    tasks = tuple(_task(path, number, table) for number, table in enumerate(tables, start=1))
    names = [task.name for task in tasks]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{path}: two tasks are called {twice!r}; tables tell them apart by their names.")
    return tasks


def _task(path: Path, number: int, table: Mapping[str, Any]) -> Task:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{path}: task {number} is {table!r}, expected a table [[task]].")
    said = dict(table)
    for one, several in (("folder", "folders"), ("template", "templates")):
        if one in said:
            if isinstance(said[one], list):
                raise ConfigError(f"{path}: task {number}: {one} is a list; write {several} = {_quoted(said[one])}.")
            said[several] = [said.pop(one)]
    known = {each.name for each in fields(Task)} - {"published", "clips", "learns"}
    missing = {"name", "kind", "source"} - set(said)
    if missing or not set(said) <= known:
        wrong = f"has no {', '.join(sorted(missing))}" if missing else f"has {', '.join(sorted(set(said) - known))}"
        raise ConfigError(f"{path}: task {number} {wrong}; a task may have: {', '.join(sorted(known))}.")
    for name, value in table.items():
        _check(value, name, f"{path}: task {number}")
    for several in ("folders", "templates"):
        if several in said:
            said[several] = tuple(said[several])
    if "classes" in said:
        said["classes"] = path.parent / said["classes"]
    said["folders"] = (
        *said.get("folders", ()),
        *(str(path.parent.resolve() / name) for name in said.get("folders", ())),
    )
    return Task(**said)


def _quoted(texts: Sequence[Any]) -> str:
    """A list as TOML has it."""
    return json.dumps(texts, ensure_ascii=False, default=str)


def _check(value: Any, name: str, where: str) -> None:
    """Raises ConfigError for a value of another kind than `name` has in a file."""
    kind, told = WRITTEN.get(name, (str, "text in quotes"))
    texts = not isinstance(value, list) or all(isinstance(each, str) for each in value)
    if type(value) is not kind or not texts:
        hint = f" Write {name} = {_quoted([value])}." if kind is list and isinstance(value, str) else ""
        raise ConfigError(f"{where}: {name} is {value!r}, expected {told}.{hint}")


WRITTEN: dict[str, tuple[type, str]] = {
    "folders": (list, "a list of texts"),
    "templates": (list, "a list of texts"),
    "folds": (int, "a whole number"),
    "epochs": (int, "a whole number"),
    "many": (bool, "true or false"),
    "options": (dict, "a table of what its source is told"),
}
"""How values are written in a file; all others are text."""
