"""When does a model hear what: known sounds at known times, by timelines and by sliding windows.

    python benchmarks/timeline.py [MODEL ...] [--groups train test] [--no-windows] [--scenes 30] [--absent 4]
                                  [--json FILE]
    python benchmarks/timeline.py --train OUT [--start mini] [--epochs 20]

The bundled sounds are split by groups as the demo splits them. Scenes of 15 s are composed of up to four clips of
different labels over noise at -55 dBFS (`openclap.data.scenes`), once of clips of training groups and once of clips of
test groups, from which the bundled model and models of --train have not learned.

Labels of a scene are the first captions of its clips and as many of the next scene's clips as --absent says, which are
not in it. A clip is *found by search* if its own sound alone, embedded as a clip, ranks its caption first among these
labels. Its label is then known to be there, so spans are those of `openclap.location.PRESENT`, and the best-scoring one
is a hit if its onset is at most 0.5 s from the clip's, or its intersection with the clip is at least half of their
union. Intersection F1 (`openclap.evals.locating`) is that of the spans that `openclap locate` prints, over all clips
and labels, absent ones included. Sliding windows of 1 s every 0.5 s, each embedded as a clip, have the same scores
against the background and the same rules of spans.

With --train: short scenes (2.3 s, two clips) of the training groups teach a copy of the start's audio head, with the
frame loss; everything else stays frozen.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import openclap
from openclap.data.build import pack
from openclap.data.scenes import Scene, SceneConfig, SceneMaker, ScenePiece, write_scenes
from openclap.data.split import split_by_group
from openclap.demo.run import SPLIT_SEED, SPLITS, TABLE
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
SHORT = SceneConfig(length_s=2.29, pieces=2, shortest_s=0.25, longest_s=1.0, gap_s=0.1)
"""Scenes of the length of the bundled model's input."""


def parts() -> dict[str, list[Record]]:
    """The bundled sounds of the demo's training and test groups."""
    records = list(read_table(TABLE))
    split = split_by_group([str(record.group) for record in records], SPLITS, SPLIT_SEED)
    return {name: [record for record in records if split[str(record.group)] == name] for name in ("train", "test")}


@dataclass(frozen=True)
class Case:
    """A scene, the labels that are asked for, and its clips that search finds."""

    scene: Scene
    labels: list[str]
    found: list[ScenePiece]


def cases(model: openclap.Embedder, maker: SceneMaker, scenes: int, absent: int) -> Iterator[Case]:
    """Compose scenes, and see which of their clips the model finds as clips."""
    made = list(maker.scenes(scenes, SEED))
    for scene, other in zip(made, [*made[1:], made[0]], strict=True):
        present = [piece.phrase for piece in scene.pieces]
        labels = present + [piece.phrase for piece in other.pieces if piece.phrase not in present][:absent]
        audio_ND = model.embed_audio([(maker.clips[piece.record], scene.rate) for piece in scene.pieces])
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


def measure(name: str, options: argparse.Namespace) -> list[dict[str, object]]:
    """The rows of one model."""
    model = openclap.load(name, runtime="torch")
    rows = []
    for part in options.groups:
        results: dict[str, list[tuple[Case, Location]]] = {"timeline": []}
        if not options.no_windows:
            results["sliding windows"] = []
        seconds = dict.fromkeys(results, 0.0)
        for case in cases(model, SceneMaker(parts()[part]), options.scenes, options.absent):
            for way, answers in results.items():
                started = time.process_time()
                sound = case.scene.wave, case.scene.rate
                is_timeline = way == "timeline"
                found = locate(model, sound, case.labels) if is_timeline else slide(model, case.scene, case.labels)
                seconds[way] += time.process_time() - started
                answers.append((case, found))
        for way, answers in results.items():
            figures = row(name, part, way, answers, trained=has_frame_loss(model))
            rows.append(figures | {"cpu_s": round(seconds[way], 1)})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def row(
    name: str, part: str, way: str, answers: Sequence[tuple[Case, Location]], *, trained: bool
) -> dict[str, object]:
    """The figures of one way to locate."""
    pieces = sum(len(case.scene.pieces) for case, _ in answers)
    best = [(case, spans_of(found.timeline, PRESENT)) for case, found in answers]
    hits = [is_hit(piece, spans) for case, spans in best for piece in case.found]
    every = [is_hit(piece, spans) for case, spans in best for piece in case.scene.pieces]
    counts = [count_intersections(found.spans, case.scene.phrases) for case, found in answers]
    figures = {metric.name: round(each.value, 3) for metric, each in intersection_measures(counts).items()}
    return {
        "model": Path(name).name,
        "frame_loss": trained,
        "groups": part,
        "way": way,
        "clips": pieces,
        "found_by_search": len(hits),
        "located_of_found": round(float(np.mean(hits)), 3),
        "located_of_all": round(float(np.mean(every)), 3),
    } | figures


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
    parser.add_argument("--groups", nargs="+", choices=("train", "test"), default=["train", "test"])
    parser.add_argument("--no-windows", action="store_true")
    parser.add_argument("--scenes", type=int, default=30)
    parser.add_argument("--absent", type=int, default=4)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--train", type=Path)
    parser.add_argument("--start", default="mini")
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    if options.train:
        print(teach(options.train, options.start, options.epochs))
        return
    print(f"load average {os.getloadavg()[0]:.1f}")
    rows = [each for model in options.models for each in measure(model, options)]
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
