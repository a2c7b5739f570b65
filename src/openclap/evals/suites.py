"""Suites: tasks with the published rows that stand beside their figures, and suites in TOML files."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from openclap.errors import ConfigError
from openclap.evals.dataset import COLLECTION
from openclap.evals.metrics import (
    ACCURACY,
    AUDIO_TO_TEXT,
    BALANCED_ACCURACY,
    MAP_AT_10,
    MEAN_AVERAGE_PRECISION,
    RECALL_AT,
    TEXT_TO_AUDIO,
    Metric,
)
from openclap.evals.ranks import CUT
from openclap.evals.results import Published
from openclap.evals.tasks import SHOWN_RECALL, Task, both_directions

GENRE = "This is a {} song."
"""The template of LAION-CLAP for genres of music."""

QUICK: tuple[Task, ...] = (
    Task(
        name="retrieval",
        kind="retrieval",
        source=COLLECTION,
        chance=True,
        shown=both_directions("R@1", "R@5", "R@10", "mAP@10", "median_rank", "mean_rank"),
    ),
    Task(
        name="zero-shot",
        kind="zero_shot",
        source=COLLECTION,
        chance=True,
        shown=(ACCURACY, BALANCED_ACCURACY, MAP_AT_10),
    ),
    Task(
        name="probe",
        kind="probe",
        source=COLLECTION,
        train="train",
        chance=True,
        shown=(ACCURACY, BALANCED_ACCURACY, MAP_AT_10),
    ),
)
"""The three tasks that any collection of captioned or labelled sounds allows."""


def _recall(system: str, *, text_to_audio: Sequence[float], audio_to_text: Sequence[float]) -> tuple[Published, ...]:
    rows = ((TEXT_TO_AUDIO, text_to_audio), (AUDIO_TO_TEXT, audio_to_text))
    return tuple(
        Published(Metric(f"R@{k}", direction), value, system)
        for direction, values in rows
        for k, value in zip(RECALL_AT, values, strict=True)
    )


# Rows of Wu et al. 2023: trained on LAION-Audio-630K alone, and together with AudioSet under keyword-to-caption
# captions.
_630K, _KEYWORDS = "LAION-CLAP, LAION-Audio-630K, fusion", "LAION-CLAP, with keyword captions of AudioSet, fusion"


# R@1 from text to audio on AudioCaps and on Clotho, as their papers report them.
def _later_models(audiocaps: bool) -> tuple[Published, ...]:
    rows = {
        "WavCaps": (42.2, 19.7),
        "MGA-CLAP": (41.8, 20.4),
        "ONE-PEACE": (42.5, 22.4),
        "WavLink-L": (46.7, 22.4),
        "VAST": (52.0, 26.9),
    }
    return tuple(Published(Metric("R@1", TEXT_TO_AUDIO), row[not audiocaps], name) for name, row in rows.items())


# DCASE 2025, task 6, on the test split of Clotho ("development-testing"). The baseline (PaSST and RoBERTa-large) is
# from its README; mAP@16 from arXiv:2509.16649.
_DCASE_BASELINE = {
    "Clotho, AudioCaps and WavCaps": (38.01, 35.23, 23.29, 52.17, 64.78),
    "Clotho and AudioCaps": (32.85, 30.97, 19.56, 46.45, 59.48),
    "Clotho": (30.82, 27.83, 16.95, 42.46, 55.80),
}
_DCASE_SEVERAL = (
    Published(Metric("mAP@16", TEXT_TO_AUDIO), 46.62, "AISTAT, best single system of DCASE 2025, arXiv:2509.16649"),
    Published(Metric("mAP@16", TEXT_TO_AUDIO), 48.83, "AISTAT, ensemble of four, arXiv:2509.16649"),
    *(
        Published(Metric(MAP_AT_10.name, TEXT_TO_AUDIO), row[0], f"baseline of DCASE 2025, trained on {data}")
        for data, row in _DCASE_BASELINE.items()
    ),
)
_DCASE_ONE = tuple(
    Published(Metric(name, TEXT_TO_AUDIO), value, f"baseline of DCASE 2025, trained on {data}")
    for data, row in _DCASE_BASELINE.items()
    for name, value in zip((MAP_AT_10.name, "R@1", "R@5", "R@10"), row[1:], strict=True)
)


# test_clips are the sizes of the published splits: a figure on fewer clips is marked and not compared.
_FSD50K = partial(Task, source="fsd50k", folders=("fsd50k", "FSD50K"), split="test", test_clips=10_231)
_VGGSOUND = partial(Task, source="vggsound", folders=("vggsound", "VGGSound"), split="test", test_clips=15_446)


def _probes(probe: str, name: str) -> tuple[Task, Task]:
    """The two tasks that papers train classifiers for, with one probe."""
    # Fine-tuned, and so beside every probe for orientation only; the name says it.
    published = "LAION-CLAP, supervised, the tower fine-tuned"
    return (
        _FSD50K(
            name=f"FSD50K, {name}",
            kind="probe",
            train="train",
            valid="valid",
            multilabel=True,
            train_clips=40_966,
            probe=probe,
            published=(Published(MEAN_AVERAGE_PRECISION, 64.9, published),),
        ),
        _VGGSOUND(
            name=f"VGGSound, {name}",
            kind="probe",
            train="train",
            probe=probe,
            train_clips=183_730,
            published=(Published(ACCURACY, 75.4, published),),
        ),
    )


PAPER: tuple[Task, ...] = (
    Task(
        name="AudioCaps",
        kind="retrieval",
        source="audiocaps",
        folders=("audiocaps", "AudioCaps"),
        split="test",
        test_clips=975,
        published=(
            *_recall(_630K, text_to_audio=(36.2, 70.3, 82.5), audio_to_text=(45.0, 76.7, 88.0)),
            *_recall(_KEYWORDS, text_to_audio=(35.1, 71.5, 83.6), audio_to_text=(45.8, 80.9, 91.6)),
            *_later_models(True),
        ),
    ),
    Task(
        name="Clotho",
        kind="retrieval",
        source="clotho",
        folders=("clotho", "Clotho"),
        split="test",
        test_clips=1_045,
        published=(
            *_recall(_630K, text_to_audio=(17.2, 42.9, 55.4), audio_to_text=(24.2, 51.1, 66.9)),
            *_recall(_KEYWORDS, text_to_audio=(18.2, 42.5, 54.4), audio_to_text=(25.7, 51.5, 63.4)),
            *_later_models(False),
            *_DCASE_ONE,
        ),
    ),
    Task(
        name="Clotho, DCASE 2025",
        kind="retrieval",
        source="clotho",
        folders=("clotho", "Clotho"),
        split="test",
        test_clips=1_045,
        map_at=(16, CUT),
        relevance=("metadata_eval.csv",),
        relevance_page="https://dcase.community/challenge2025/task-language-based-audio-retrieval",
        # The challenge has one direction. Its recall is that of a caption's own clip, as in the task Clotho.
        shown=tuple(Metric(name, TEXT_TO_AUDIO) for name in ("mAP@16", MAP_AT_10.name, *SHOWN_RECALL)),
        published=_DCASE_SEVERAL,
    ),
    Task(
        name="ESC-50",
        kind="zero_shot",
        source="esc50",
        folders=("esc50", "ESC-50", "ESC-50-master"),
        folds=5,
        test_clips=2_000,
        published=(
            Published(ACCURACY, 89.1, _630K),
            Published(ACCURACY, 91.0, _KEYWORDS),
            # The same weights under two protocols, ten points apart: a figure without its protocol says little.
            Published(ACCURACY, 92.75, "LAION-CLAP's README, unfused weights"),
            Published(ACCURACY, 81.70, "MTEB's board, the same unfused weights"),
            Published(ACCURACY, 94.9, "MGA-CLAP"),
            Published(ACCURACY, 95.5, "SLAP"),
            Published(MAP_AT_10, 95.56, "LAION-CLAP's README, unfused weights"),
        ),
    ),
    Task(
        name="UrbanSound8K",
        kind="zero_shot",
        source="urbansound8k",
        folders=("urbansound8k", "UrbanSound8K"),
        folds=10,
        test_clips=8_732,
        published=(Published(ACCURACY, 73.2, _630K), Published(ACCURACY, 77.0, _KEYWORDS)),
    ),
    _VGGSOUND(
        name="VGGSound",
        kind="zero_shot",
        published=(Published(ACCURACY, 29.1, _630K), Published(ACCURACY, 46.2, _KEYWORDS)),
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
        # The other parts are two million clips, which the reader would list only to leave out.
        options={"parts": ("eval",)},
    ),
    *_probes("linear", "linear probe"),
    *_probes("mlp", "MLP probe"),
)
"""The evaluations of papers, except those that take days."""
SUPERVISED: tuple[Task, ...] = (
    *_probes("laion_linear", "LAION's linear probe"),
    *_probes("laion_mlp", "LAION's MLP probe"),
    *_probes("fine_tune", "fine-tuned"),
)
"""LAION-CLAP's supervised classification: its heads on frozen vectors, and with the audio tower trained."""
HARD_TEXT: tuple[Task, ...] = (Task(name="hard text", kind="hard_text", source=COLLECTION, chance=True),)
"""Right captions beside wrong ones made by rule, for any collection."""
SUITES: Mapping[str, tuple[Task, ...]] = {
    "quick": QUICK,
    "hard-text": HARD_TEXT,
    "paper": PAPER,
    "supervised": SUPERVISED,
}


def read_suite(path: Path) -> tuple[Task, ...]:
    """Read the tasks of a TOML file: a table `[[task]]` each.

    A table has the attributes of `Task`, `folder` for one folder, and `template` for one template.

    Relative folders are looked for in the data folder, then in the folder of the file. Raises ConfigError for a missing
    file and for any other content.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such suite. Expected {', '.join(SUITES)} or a TOML file of tasks.") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML ({error}).") from None
    tables = content.get("task")
    if not isinstance(tables, list) or not tables or set(content) != {"task"}:
        raise ConfigError(f"{path}: describes no tasks. Expected a table [[task]] for each and nothing else.")
    tasks = tuple(_task(path, number, table) for number, table in enumerate(tables, start=1))
    names = [task.name for task in tasks]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{path}: two tasks are called {repeated!r}. Expected different names.")
    return tasks


def _task(path: Path, number: int, table: Mapping[str, Any]) -> Task:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{path}: task {number} is {table!r}, expected a table [[task]].")
    values = dict(table)
    for singular, plural in (("folder", "folders"), ("template", "templates")):
        if singular in values:
            if isinstance(values[singular], list):
                raise ConfigError(
                    f"{path}: task {number}: {singular} is a list; write {plural} = {_quoted(values[singular])}."
                )
            values[plural] = [values.pop(singular)]
    known = {attribute.name for attribute in fields(Task)} - {
        "published",
        "shown",
        "test_clips",
        "train_clips",
        "relevance_page",
    }
    missing = {"name", "kind", "source"} - set(values)
    if missing or not set(values) <= known:
        wrong = f"has no {', '.join(sorted(missing))}" if missing else f"has {', '.join(sorted(set(values) - known))}"
        raise ConfigError(f"{path}: task {number} {wrong}; a task may have: {', '.join(sorted(known))}.")
    for name, value in table.items():
        _check(value, name, f"{path}: task {number}")
    for plural in ("folders", "templates", "map_at"):
        if plural in values:
            values[plural] = tuple(values[plural])
    if "relevance" in values:
        # In the folder of the data set, or beside the suite.
        values["relevance"] = (values["relevance"], str(path.parent.resolve() / values["relevance"]))
    if "classes" in values:
        # A suite and its words for the classes are kept together, whatever folder holds the data.
        values["classes"] = path.parent / values["classes"]
    values["folders"] = (
        *values.get("folders", ()),
        *(str(path.parent.resolve() / name) for name in values.get("folders", ())),
    )
    try:
        return Task(**values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _quoted(texts: Sequence[Any]) -> str:
    """A list in TOML's notation."""
    return json.dumps(texts, ensure_ascii=False, default=str)


def _check(value: Any, name: str, where: str) -> None:
    """Raise ConfigError for a value of another type than TOML_TYPES has."""
    kind, expected = TOML_TYPES.get(name, (str, "text in quotes"))
    item_type = int if name == "map_at" else str
    texts = not isinstance(value, list) or all(type(item) is item_type for item in value)
    # Not isinstance: for Python `true` is an int, and `folds = true` is a mistake.
    if type(value) is not kind or not texts:
        hint = f" Write {name} = {_quoted([value])}." if kind is list and type(value) is item_type else ""
        raise ConfigError(f"{where}: {name} is {value!r}, expected {expected}.{hint}")


TOML_TYPES: dict[str, tuple[type, str]] = {
    "folders": (list, "a list of texts"),
    "templates": (list, "a list of texts"),
    "map_at": (list, "a list of whole numbers"),
    "share_captions": (bool, "true or false"),
    "folds": (int, "a whole number"),
    "epochs": (int, "a whole number"),
    "alternatives": (bool, "true or false"),
    "multilabel": (bool, "true or false"),
    "chance": (bool, "true or false"),
    "options": (dict, "a table of the reader's arguments"),
}
"""The types of values in a file; all others are text."""
