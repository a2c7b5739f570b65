"""Compare training with and without a teacher: three seeds, held-out packages, paired intervals.

    python benchmarks/teacher.py PAIRS.csv --out FOLDER

PAIRS.csv is the table of `python -m scripts.mini.build_pairs`. The heads of the bundled model are trained on packages
that it has not learned from, and tested on others, one sound for each caption. Compared are the plain objective, the
initial model as teacher, and the three plain models together as teacher (Primus et al. 2024).
"""

from __future__ import annotations

import argparse
import csv
import shutil
import time
from pathlib import Path

import soundfile

import openclap
from openclap.data.shards import ShardIndex, index_shards
from openclap.evals.bootstrap import paired_difference
from openclap.evals.metrics import AUDIO_TO_TEXT, TEXT_TO_AUDIO, Measure, Metric
from openclap.evals.validation import RetrievalValidation
from openclap.training.config import OptimConfig, TrainConfig
from openclap.training.trainer import train

START = "mini"
LONGEST_S = 2.3
"""Longer sounds are cropped anew in each epoch, so their towers' outputs could not be cached."""
METRICS = tuple(Metric(name, way) for way in (TEXT_TO_AUDIO, AUDIO_TO_TEXT) for name in ("R@10", "mAP@10"))
Measures = dict[Metric, Measure]
TRAIN = (
    *("wesnoth-1.16-data", "hedgewars-data", "lmms-common", "hydrogen-drumkits", "ardentryst", "ktuberling-data"),
    *("simutrans-pak64", "sound-icons", "freeorion-data", "enigma-data", "endless-sky-data"),
)
TEST = ("lincity-ng-data", "flare-game", "teeworlds-data", "fillets-ng-data", "supertux-data", "lugaru-data")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--lr", type=float, default=5e-5)
    arguments = parser.parse_args()
    build_shards(arguments.pairs, arguments.out)
    learned, held_out = (index_shards(arguments.out / split) for split in ("train", "test"))
    print(f"{len(learned)} training pairs, {len(held_out)} held-out sounds", flush=True)
    runs: dict[str, list[Path]] = {}
    for name in ("plain", "taught by the start", "taught by the plain models"):
        teacher = {"plain": (), "taught by the start": (START,)}.get(name, tuple(map(str, runs.get("plain", ()))))
        runs[name] = [run(arguments, name, seed, teacher) for seed in range(arguments.seeds)]
    report(held_out, runs)


def build_shards(pairs: Path, out: Path) -> None:
    """Pack the packages, unless they are packed."""
    rows = list(csv.DictReader(pairs.open(encoding="utf-8")))
    held_out = {row["caption"]: row for row in reversed(rows) if row["package"] in TEST}
    groups = {row["group"] for row in held_out.values()}
    learned = [
        row
        for row in rows
        if row["package"] in TRAIN
        and row["ship"] == "false"
        and row["group"] not in groups
        and soundfile.info(row["path"]).duration < LONGEST_S
    ]
    for name, chosen in {"train": learned, "test": list(held_out.values())}.items():
        if not (out / name).exists():
            table = out / f"{name}.csv"
            out.mkdir(parents=True, exist_ok=True)
            with table.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["file", "captions", "group"])
                writer.writerows([row["path"], row["caption"], row["group"]] for row in chosen)
            openclap.build_dataset(table, out / f"{name}-set", test_fraction=0)
            shutil.move(out / f"{name}-set" / "train", out / name)


def run(arguments: argparse.Namespace, name: str, seed: int, teacher: tuple[str, ...]) -> Path:
    out = arguments.out / f"{name.replace(' ', '-')}-{seed}"
    config = TrainConfig(
        start=START,
        data=str(arguments.out / "train"),
        epochs=arguments.epochs,
        batch_size=64,
        frozen=("audio_tower", "text_tower"),
        optim=OptimConfig(lr=arguments.lr, warmup_steps=10),
        teacher=teacher,
        seed=seed,
    )
    begun = time.process_time()
    result = train(config, out)
    print(f"{name}, seed {seed}: {time.process_time() - begun:.0f} s of processor time", flush=True)
    return result.model


def report(held_out: ShardIndex, runs: dict[str, list[Path]]) -> None:
    """Print the figures of each run, and their paired changes against the start and the plain run of the same seed."""
    validation = RetrievalValidation(held_out)
    groups = validation.clips.groups
    start = validation.measures(openclap.load(START))
    plain: list[Measures] = []
    for name, models in {"start": [], **runs}.items():
        for seed, model in enumerate(models):
            measures = validation.measures(openclap.load(model))
            plain += [measures] if name == "plain" else []
            for metric in METRICS:
                changes = {"start": start, "plain": plain[seed]} if name != "plain" else {"start": start}
                parts = [f"{name}, seed {seed}: {metric.label} {measures[metric].value:.3f}"]
                for other, before in changes.items():
                    change = paired_difference(measures[metric], before[metric], groups).estimate
                    parts.append(f"against {other} {change.value:+.3f} ({change.low:+.3f} to {change.high:+.3f})")
                print(", ".join(parts), flush=True)
        if name == "start":
            print(", ".join(f"start: {metric.label} {start[metric].value:.3f}" for metric in METRICS), flush=True)


if __name__ == "__main__":
    main()
