"""When does a model hear what: known sounds at known times, by timelines and by sliding windows.

    python benchmarks/timeline.py [MODEL ...] [--groups train test] [--no-windows] [--scenes 150] [--absent 4]
                                  [--json FILE] [--pairs PAIRS.csv]
    python benchmarks/timeline.py --train OUT [--start mini] [--epochs 20]

The bundled sounds are split by groups as the demo splits them. Scenes of 15 s are composed of up to four clips of
different labels over noise at -55 dBFS (`openclap.data.scenes`), once of clips of training groups and once of clips of
test groups, from which the bundled model and models of --train have not learned. Clips are few, so each is in several
scenes, at other places and beside others. With the table of `python -m scripts.mini.build_pairs` (--pairs), a third
part are sounds of packages that are not bundled and that the bundled model has not learned from, one for each caption.

Labels of a scene are the first captions of its clips and as many of the next scene's clips as --absent says, which are
not in it. A clip is *found by search* if its own sound alone, embedded as a clip, ranks its caption first among these
labels. Its label is then known to be there, so spans are those of `openclap.location.PRESENT`, and the best-scoring one
is a hit if its onset is at most 0.5 s from the clip's, or its intersection with the clip is at least half of their
union. Intersection F1 (`openclap.evals.locating`) is that of the spans that `openclap locate` prints, over all clips
and labels, absent ones included. Sliding windows of 1 s every 0.5 s, each embedded as a clip, have the same scores
against the background and the same rules of spans. Intervals of 95 % resample groups, as all scenes of one clip are
much alike; the differences to sliding windows and to the first model are paired.

With --train: short scenes (2.3 s, two clips) of the training groups teach a copy of the start's audio head, with the
frame loss; everything else stays frozen. Then the start and the taught model are measured on the test groups.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import openclap
from openclap.arrays import Floats
from openclap.data.build import pack
from openclap.data.scenes import Scene, SceneConfig, SceneMaker, ScenePiece, write_scenes
from openclap.data.split import split_by_group
from openclap.demo.run import SPLIT_SEED, SPLITS, TABLE
from openclap.evals.bootstrap import Estimate, bootstrap_interval
from openclap.evals.locating import count_intersections, intersection_measures
from openclap.location import PRESENT, UNTRAINED, Location, above_background, has_frame_loss, locate, spans_of
from openclap.models.config import ObjectiveConfig
from openclap.sources.record import Record
from openclap.sources.table import read_table
from openclap.training.config import OptimConfig, TrainConfig
from openclap.training.trainer import train
from openclap.types import Span, Timeline

ONSET_S, UNION = 0.5, 0.5
WINDOW_S, HOP_S = 1.0, 0.5
SEED = 1
BUNDLED = ("scratch", "openttd-opensfx", "supersonic-scsynth-samples")
"""Packages whose sounds are the bundled ones."""
SHORT = SceneConfig(length_s=2.29, pieces=2, shortest_s=0.25, longest_s=1.0, gap_s=0.1)
"""Scenes of the length of the bundled model's input."""


def parts(pairs: Path | None = None) -> dict[str, list[Record]]:
    """The bundled sounds of the demo's training and test groups, and those of other packages."""
    records = list(read_table(TABLE))
    split = split_by_group([str(record.group) for record in records], SPLITS, SPLIT_SEED)
    found = {name: [record for record in records if split[str(record.group)] == name] for name in ("train", "test")}
    return found | ({"packages": package_records(pairs)} if pairs else {})


def package_records(pairs: Path) -> list[Record]:
    """One sound for each caption that was read by a person, of groups that the bundled model has not learned from."""
    with pairs.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    learned = {row["group"] for row in rows if row["ship"] == "true"}
    chosen: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["package"] not in BUNDLED and row["reviewed"] == "true" and row["group"] not in learned:
            chosen.setdefault(row["caption"], row)
    return [
        Record(row["key"], Path(row["path"]), (caption,), row["package"], label=row["label"], group=row["group"])
        for caption, row in chosen.items()
        if row["demo_held_out"] == "false"
    ]


@dataclass(frozen=True)
class Case:
    """A scene, the labels that are asked for, and its clips that search finds."""

    scene: Scene
    labels: list[str]
    found: list[ScenePiece]


def cases(model: openclap.Embedder, maker: SceneMaker, scenes: int, absent: int) -> Iterator[Case]:
    """Compose scenes, and see which of their clips the model finds as clips."""
    made = list(maker.scenes(scenes, SEED))
    used = sorted({piece.record for scene in made for piece in scene.pieces})
    audio = [(maker.clips[number], maker.config.rate) for number in used]
    vectors = dict(zip(used, model.embed_audio(audio), strict=True))
    for scene, other in zip(made, [*made[1:], made[0]], strict=True):
        present = [piece.phrase for piece in scene.pieces]
        labels = present + [piece.phrase for piece in other.pieces if piece.phrase not in present][:absent]
        audio_ND = np.stack([vectors[piece.record] for piece in scene.pieces])
        best = (audio_ND @ model.embed_text(labels).T).argmax(axis=1)
        yield Case(scene, labels, [piece for place, piece in enumerate(scene.pieces) if best[place] == place])


def slide(model: openclap.Embedder, scene: Scene, labels: Sequence[str]) -> Location:
    """Locate by sliding windows."""
    windows = model.windows((scene.wave, scene.rate), WINDOW_S, HOP_S)
    scores_TC = above_background(model, labels)(np.stack([window.vector for window in windows]))
    times_T = np.array([(window.start_s + window.end_s) / 2 for window in windows])
    timeline = Timeline(times_T, scores_TC, tuple(labels), HOP_S, len(scene.wave) / scene.rate)
    return Location(spans_of(timeline, UNTRAINED), timeline, is_trained=False)


def is_hit(piece: ScenePiece, spans: Sequence[Span]) -> bool:
    """Whether the best span of a clip's caption fits the clip."""
    own = [span for span in spans if span.label == piece.phrase]
    if not own:
        return False
    best = max(own, key=lambda span: span.score)
    common = max(0.0, min(best.end_s, piece.offset_s) - max(best.start_s, piece.onset_s))
    union = max(best.end_s, piece.offset_s) - min(best.start_s, piece.onset_s)
    return abs(best.start_s - piece.onset_s) <= ONSET_S or common >= UNION * union


def measure(name: str, options: argparse.Namespace, first: dict[str, list[Hit]]) -> list[dict[str, object]]:
    """The rows of one model. `first` keeps the hits of the first model by part, which later ones are compared with."""
    model = openclap.load(name, runtime="torch")
    rows = []
    for part in options.groups:
        maker = SceneMaker(parts(options.pairs)[part])
        results: dict[str, list[tuple[Case, Location]]] = {"timeline": []}
        if not options.no_windows:
            results["sliding windows"] = []
        seconds = dict.fromkeys(results, 0.0)
        for case in cases(model, maker, options.scenes, options.absent):
            for way, answers in results.items():
                started = time.process_time()
                sound = case.scene.wave, case.scene.rate
                is_timeline = way == "timeline"
                found = locate(model, sound, case.labels) if is_timeline else slide(model, case.scene, case.labels)
                seconds[way] += time.process_time() - started
                answers.append((case, found))
        hits = {way: [hit for answer in answers for hit in hits_of(*answer)] for way, answers in results.items()}
        for way, answers in results.items():
            about = {"model": Path(name).name, "frame_loss": has_frame_loss(model), "groups": part, "way": way}
            figures = row(maker, hits[way], answers) | {"cpu_s": round(seconds[way], 1)}
            if way != "timeline":
                figures["timeline_less_this"] = difference(maker, hits["timeline"], hits[way])
            elif part in first:
                figures["less_first_model"] = difference(maker, hits[way], first[part])
            rows.append(about | figures)
            print(json.dumps(rows[-1]), flush=True)
        first.setdefault(part, hits["timeline"])
    return rows


@dataclass(frozen=True)
class Hit:
    """Whether a clip of a scene was located, and whether search finds it."""

    record: int
    is_hit: bool
    is_found: bool


def hits_of(case: Case, location: Location) -> list[Hit]:
    """Whether each clip of a scene was located."""
    spans = spans_of(location.timeline, PRESENT)
    return [Hit(piece.record, is_hit(piece, spans), piece in case.found) for piece in case.scene.pieces]


def row(maker: SceneMaker, hits: Sequence[Hit], answers: Sequence[tuple[Case, Location]]) -> dict[str, object]:
    """The figures of one way to locate."""
    found = [hit for hit in hits if hit.is_found]
    counts = [count_intersections(location.spans, case.scene.phrases) for case, location in answers]
    measures = intersection_measures(counts)
    return {
        "clips": len(hits),
        "found_by_search": len(found),
        "groups_found": len({maker.records[hit.record].group for hit in found}),
        "located_of_found": share(maker, found),
        "located_of_all": share(maker, hits),
    } | {metric.name: round(each.value, 3) for metric, each in measures.items()}


def share(maker: SceneMaker, hits: Sequence[Hit]) -> list[float]:
    """The share of located clips, and its interval."""
    return rounded(bootstrap_interval(mean_of([hit.is_hit for hit in hits]), groups_of(maker, hits)))


def difference(maker: SceneMaker, a: Sequence[Hit], b: Sequence[Hit]) -> list[float]:
    """The difference of two shares of the clips that both models' search finds, and its paired interval."""
    pairs = [(one, other) for one, other in zip(a, b, strict=True) if one.is_found and other.is_found]
    values = [float(one.is_hit) - float(other.is_hit) for one, other in pairs]
    return rounded(bootstrap_interval(mean_of(values), groups_of(maker, [one for one, _ in pairs])))


def mean_of(values: Sequence[float]) -> Callable[[Floats], Floats]:
    """The weighted mean of values, for each row of weights."""
    value_N = np.asarray(values, np.float64)
    return lambda weight_RN: np.asarray(weight_RN @ value_N / np.maximum(weight_RN.sum(axis=1), 1e-12))


def groups_of(maker: SceneMaker, hits: Sequence[Hit]) -> list[str]:
    """The group of each clip."""
    return [str(maker.records[hit.record].group) for hit in hits]


def rounded(estimate: Estimate) -> list[float]:
    """Value, low and high."""
    return [round(value, 3) for value in (estimate.value, estimate.low, estimate.high)]


def teach(out: Path, start: str, epochs: int, scenes: int = 640) -> Path:
    """Train the audio head with the frame loss, and return the model's folder."""
    if not (out / "shards" / "train").is_dir():
        made = write_scenes(SceneMaker(parts()["train"], SHORT), out / "scenes", scenes)
        pack(made, out / "shards", splits={"train": 1.0})
    config = TrainConfig(
        start=start,
        data=str(out / "shards" / "train"),
        epochs=epochs,
        batch_size=32,
        caption="first",
        objective=ObjectiveConfig(frames=1.0),
        frozen=("audio_tower", "text_tower", "text_head"),
        freeze_batch_norm=True,
        optim=OptimConfig(lr=1e-3, warmup_steps=10),
        trackers=(),
    )
    return train(config, out / "run", progress=lambda row: print(row["step"], f"{row['loss']:.3f}")).model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["mini"])
    parser.add_argument("--groups", nargs="+", choices=("train", "test", "packages"), default=["train", "test"])
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--no-windows", action="store_true")
    parser.add_argument("--scenes", type=int, default=150)
    parser.add_argument("--absent", type=int, default=4)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--train", type=Path)
    parser.add_argument("--start", default="mini")
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    if options.pairs and "packages" not in options.groups:
        options.groups.append("packages")
    if options.train:
        options.models = [options.start, str(teach(options.train, options.start, options.epochs))]
        options.groups = [part for part in options.groups if part != "train"]
    print(f"load average {os.getloadavg()[0]:.1f}")
    first: dict[str, list[Hit]] = {}
    rows = [each for model in options.models for each in measure(model, options, first)]
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
