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

import openclap
from openclap.data.shards import index_shards
from openclap.evals.validation import RetrievalValidation
from openclap.training.config import OptimConfig, TrainConfig
from openclap.training.trainer import train

START = "mini"
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
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--lr", type=float, default=3e-4)
    arguments = parser.parse_args()
    build_shards(arguments.pairs, arguments.out)
    learned, held_out = (index_shards(arguments.out / split) for split in ("train", "test"))
    print(f"{len(learned)} training pairs, {len(held_out)} held-out sounds", flush=True)
    validation = RetrievalValidation(held_out)
    runs: dict[str, list[Path]] = {}
    for name in ("plain", "taught by the start", "taught by the plain models"):
        teacher = {"plain": (), "taught by the start": (START,)}.get(name, tuple(map(str, runs.get("plain", ()))))
        runs[name] = [run(arguments, name, seed, teacher) for seed in range(arguments.seeds)]
    report(validation, runs)


def build_shards(pairs: Path, out: Path) -> None:
    """Pack the packages, unless they are packed."""
    rows = list(csv.DictReader(pairs.open(encoding="utf-8")))
    held_out = {row["caption"]: row for row in reversed(rows) if row["package"] in TEST}
    groups = {row["group"] for row in held_out.values()}
    learned = [row for row in rows if row["package"] in TRAIN and row["ship"] == "false" and row["group"] not in groups]
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


def report(validation: RetrievalValidation, runs: dict[str, list[Path]]) -> None:
    """Print the mean figures of each kind, and the paired change of each run against the plain one of its seed."""
    start = openclap.load(START)
    for name, models in runs.items():
        for seed, (model, plain) in enumerate(zip(models, runs["plain"], strict=True)):
            before = start if name == "plain" else openclap.load(plain)
            against = "the start" if name == "plain" else "plain"
            for change in validation.compare(before, openclap.load(model)):
                if change.metric.name in {"R@10", "mAP@10"}:
                    difference = change.difference
                    print(
                        f"{name}, seed {seed}: {change.metric.label} {change.after.value:.3f}, against {against} "
                        f"{difference.value:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
