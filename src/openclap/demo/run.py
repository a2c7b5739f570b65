"""The steps of the demo. Each writes a folder, and is skipped while that folder is up to date.

shards/  the bundled sounds as shards; 30 % are the test split, by whole groups
run/     the run that fine-tunes the bundled model, with the result in run/model
report/  index.html and report.json of the evaluation, before and after
index/   the search index of all sounds

The bundled model has learned from no sound of the test split, nor from near-duplicates of one
(tests/checkpoints/test_mini.py, tests/scripts/test_mini_data.py).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import openclap
from openclap import paths
from openclap.checkpoints import bundled
from openclap.data.build import pack
from openclap.evals.result_tables import comparison_table, table_of
from openclap.evals.results import Comparison
from openclap.evals.runner import evaluate
from openclap.evals.suites import SUITES
from openclap.library import Library
from openclap.locks import only_writer
from openclap.recipes import demo as recipe
from openclap.search.scan import ScanReport
from openclap.sources.table import read_table
from openclap.storage import write_bytes
from openclap.training.config import TrainConfig
from openclap.training.logging import TrainingRow, read_log
from openclap.training.trainer import TrainingResult, train
from openclap.types import Progress

SOUNDS = Path(__file__).parent / "sounds"
TABLE = SOUNDS / "sounds.csv"
SPLITS = {"train": 0.7, "test": 0.3}
SPLIT_SEED = 0
Table = list[Sequence[str]]
"""Rows of cells, heading first."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The evaluation of the fine-tuned model.

    Attributes:
        figures: beside chance and the model before.
        changes: of each figure, from the model before, with intervals.
        verdict: a sentence on the figures that rose or fell by more than chance.
    """

    figures: Table
    changes: Table
    verdict: str


class Demo:
    """The demo in one folder. Its methods are the steps, in order.

    A folder from another version of openclap is deleted and made again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shards, self.run, self.report = (
            folder / "shards",
            folder / "run",
            folder / "report" / "index.html",
        )
        self.config: TrainConfig = replace(recipe.config(), data=str(self.shards / "train"))
        self.records = read_table(TABLE)

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Lock the folder for this process, and delete results of another version of openclap.

        Yields whether there were any. Raises DataError when another demo is running.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with only_writer(self.folder):
            yield self._delete_outdated()

    def _delete_outdated(self) -> bool:
        marker = self.folder / "made-by.json"
        wanted = json.dumps({"source": source_digest(), "config": asdict(self.config)}, indent=2)
        is_outdated = marker.is_file() and marker.read_text(encoding="utf-8") != wanted
        if is_outdated:
            for part in (self.shards, self.run, self.report.parent, self.folder / "index"):
                shutil.rmtree(part, ignore_errors=True)
        write_bytes(marker, wanted.encode())
        return is_outdated

    def pack(self, progress: Progress) -> dict[str, int]:
        """Pack the sounds and return the number of clips in each split."""
        return pack(self.records, self.shards, splits=SPLITS, seed=SPLIT_SEED, progress=progress).packed

    def train(self, progress: Callable[[TrainingRow], None]) -> TrainingResult:
        """Train, or resume training, and return the result of the finished or stopped run."""
        return train(self.config, self.run, progress=progress)

    def publish(self) -> Path:
        """Copy the trained model to a folder named by its digest.

        Indexes refer to the model by its folder; a later demo writes another one, so that they stay usable.
        """
        model = openclap.load(self.run / "model")
        place = paths.home() / "models" / f"demo-{model.digest()[:12]}"
        if not place.is_dir():  # the same weights give the same folder
            model.save(place)
        return place

    def measure(self, progress: Callable[[str, int, int], None]) -> Measured:
        """Compare the fine-tuned model with its start on the test split.

        The result is written once to report/, with the page and all ranks.
        """
        tables = self.report.with_name("tables.json")
        if tables.is_file():  # the last file to be written, so the others are complete
            return Measured(**json.loads(tables.read_text(encoding="utf-8")))
        # Without the probe, whose classifier would need embeddings of all training clips by both models.
        suite = [task for task in SUITES["quick"] if task.kind != "probe"]
        start = self.config.start
        results = evaluate(self.run / "model", self.shards, suite=suite, baseline=start, progress=progress)
        log = read_log(self.run / "log.jsonl")
        results.write_html(self.report, title="The openclap demo", training_log=log)
        write_bytes(self.report.with_name("report.json"), results.to_json().encode() + b"\n")
        measured = Measured([*table_of(results)], [*comparison_table(results)], verdict(results.comparisons))
        write_bytes(tables, json.dumps(asdict(measured)).encode())
        return measured

    def index(self, progress: Progress) -> ScanReport:
        """Index all bundled sounds with the trained model."""
        return self.library().add([SOUNDS], records=self.records, progress=progress)

    def library(self) -> Library:
        """The demo's index with the published model."""
        return Library.open(self.folder / "index", str(self.publish()))


def verdict(changes: Sequence[Comparison]) -> str:
    """Say which figures rose or fell by more than chance: those whose 95 % interval of the change excludes 0."""
    better, worse = [], []
    for change in changes:
        sign = -1 if change.metric.is_rank else 1  # a lower rank is better
        low, high = sorted((sign * change.difference.estimate.low, sign * change.difference.estimate.high))
        metric = change.metric
        name = metric.label if metric.direction else f"{change.task} {metric.label}"
        if low > 0:
            better.append(name)
        elif high < 0:
            worse.append(name)
    if not better and not worse:
        return "No figure is better or worse by more than chance."
    parts = [f"{word}: {', '.join(names)}." for word, names in (("Better", better), ("Worse", worse)) if names]
    rest = len(changes) - len(better) - len(worse)
    return " ".join([*parts, *([f"The other changes, {rest}, may be chance."] if rest else [])])


def source_digest() -> str:
    """Return the SHA-256 of openclap's code, its model and the demo's table: a change of any makes results outdated."""
    sha = hashlib.sha256()
    parts = {Path(openclap.__file__).parent: ("*.py", "*.html", "*.css"), bundled.FOLDER: ("*",), SOUNDS: (TABLE.name,)}
    for folder, patterns in parts.items():
        for path in sorted(path for pattern in patterns for path in folder.rglob(pattern)):
            sha.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return sha.hexdigest()
