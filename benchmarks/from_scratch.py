"""A NaFlex tower and HTSAT-tiny, both from scratch beside the same frozen text tower, with equal processor time.

    python benchmarks/from_scratch.py PAIRS --out DIR [--minutes 30] [--seeds 3] [--batch 32] [--threads 2]

PAIRS holds `pairs.csv` and the sounds of named packages (`python -m scripts.mini.build_pairs --out PAIRS`): every
recording whose caption was read against its file's name, split by group; rendered notes and spoken prompts are left
out. The text tower is the bundled model's, which was distilled from MiniLM; its outputs are computed before the clock
starts. Both models have the
same heads, objective, optimizer, batches and captions. The NaFlex tower (`naflexclap-nano`) reads clips at their own
length, HTSAT-tiny fills or cuts each to ten seconds, as LAION's. Both train until `--minutes` of processor time are
spent, decoding and log-mels included, under a warm-up and a cosine that follow this time. So the machine may be busy,
and a stopped run goes on: each finished training is a file in DIR.

Held-out retrieval asks each different first caption of the test groups, of one of its clips, among these clips. The
table has R@10 of each model (mean of the seeds) with its 95 % interval over groups, their paired difference, and
chance.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

import openclap
from openclap import presets
from openclap.arrays import Floats
from openclap.data.build import pack
from openclap.data.lengths import LengthConfig, clip_lengths
from openclap.data.loader import PairLoader
from openclap.data.shards import ShardIndex, index_shards
from openclap.embedder import Embedder
from openclap.evals.bootstrap import Estimate, bootstrap_interval
from openclap.evals.metrics import mean_of
from openclap.evals.ranks import rank_vectors
from openclap.malloc import retain_freed_memory
from openclap.models.build import build_clap
from openclap.models.config import ObjectiveConfig
from openclap.models.objectives import build_objective
from openclap.runtimes.torch import TorchRuntime
from openclap.sources.record import Record
from openclap.storage import write_bytes
from openclap.training.config import OptimConfig, TrainConfig
from openclap.training.feature_cache import CachedForward
from openclap.training.model_setup import prepare_model, set_training_modes
from openclap.training.optimizer import build_optimizer, set_learning_rate
from openclap.training.step import TrainingStep

NANO = replace(presets.NAFLEXCLAP["naflexclap-nano"], text=presets.MINI.text, embedding_size=512)
CONTESTANTS = {
    "naflex": NANO,
    "htsat": replace(
        NANO, name="htsat-minilm", frontend=presets.LAION_PLAIN, audio=replace(presets.HTSAT_TINY, classes=0)
    ),
}
OPTIM = OptimConfig(lr=1e-3, tower_lr=1e-3, weight_decay=0.05)
WARMUP = 0.05
"""Share of the time in which the learning rate rises."""
SPLITS = {"train": 0.8, "test": 0.2}


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    records = read_records(options.pairs / "pairs.csv")
    packed = pack(records, options.out / "shards", splits=SPLITS, processes=options.threads).packed
    print(f"{packed['train']} training pairs, {packed['test']} test pairs", flush=True)
    for seed in range(options.seeds):
        for name in CONTESTANTS:
            if not (options.out / f"{name}-{seed}.json").exists():
                contest(name, seed, options)
    report(options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def read_records(table: Path) -> list[Record]:
    with table.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["reviewed"] == "true"]
    return [
        Record(
            id=f"{row['package']}/{row['key']}",
            audio=Path(row["path"]),
            captions=(row["caption"], *filter(None, row["extra_captions"].split(" | "))),
            source=row["package"],
            group=row["group"],
            licence=row["licence"],
        )
        for row in rows
    ]


def contest(name: str, seed: int, options: argparse.Namespace) -> None:
    """Train one model from scratch, ask it, and write what came out."""
    torch.manual_seed(seed)
    model = fresh_model(CONTESTANTS[name])
    trained = train(model, index_shards(options.out / "shards" / "train"), seed, options)
    started = time.process_time()
    hits, groups, gallery = ask(model, index_shards(options.out / "shards" / "test"))
    found = {
        **trained,
        "hits": hits,
        "groups": groups,
        "gallery": gallery,
        "minutes": options.minutes,
        "asking_s": time.process_time() - started,
    }
    write_bytes(options.out / f"{name}-{seed}.json", json.dumps(found).encode())
    summary = {key: value for key, value in found.items() if key not in ("hits", "groups")}
    print(f"{name}, seed {seed}: R@10 {np.mean(hits):.3f}, {summary}", flush=True)


def fresh_model(preset: presets.Preset) -> Embedder:
    """Random weights from torch's generator, and the text tower of the bundled model."""
    mini = openclap.load("mini", device="cpu", runtime="torch")
    clap = build_clap(preset)
    clap.text_tower.load_state_dict(mini.clap.text_tower.state_dict())
    return Embedder(TorchRuntime(clap, preset, mini.tokenizer, device=torch.device("cpu")))


def train(model: Embedder, shards: ShardIndex, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train until the processor time is spent; return what it sufficed for."""
    config = TrainConfig(
        start="", data="", epochs=1000, batch_size=options.batch, frozen=("text_tower",), optim=OPTIM, seed=seed
    )
    accelerator = Accelerator(cpu=True)
    model.clap = prepare_model(model.clap, config, accelerator)
    objective = build_objective(ObjectiveConfig(spare_equal_captions=True), model.clap)
    wrapped, optimizer = accelerator.prepare(model.clap, build_optimizer(model.clap, config.optim))
    step = TrainingStep(accelerator, wrapped, objective, optimizer, clip_norm=config.optim.clip_norm)
    lengths = None
    if model.frontend.config.is_any_length:
        lengths = clip_lengths(shards, LengthConfig(), model.frontend.sample_rate, model.frontend.samples)
    loader = PairLoader(shards, model.frontend, model.tokenizer, batch_size=options.batch, seed=seed, lengths=lengths)
    share_text_outputs(model, shards)
    set_training_modes(model.clap, config, 0)
    steps, losses = 0, []
    with retain_freed_memory():
        started, budget = time.process_time(), 60 * options.minutes
        for batch in loader.batches(0, epochs=config.epochs):
            spent = (time.process_time() - started) / budget
            if spent >= 1:
                break
            set_learning_rate(optimizer, rate_factor(spent))
            losses.append(step([batch])["loss"])
            steps += 1
    return {
        "steps": steps,
        "clips": steps * options.batch,
        "epochs": steps * options.batch / len(shards),
        "loss": float(np.mean(losses[-5:])),
        "chance": math.log(options.batch),
    }


def rate_factor(spent: float) -> float:
    """Linear warm-up, then a cosine to 0, by the share of the time that is spent."""
    if spent < WARMUP:
        return max(spent, 1e-3) / WARMUP
    return 0.5 * (1 + math.cos(math.pi * (spent - WARMUP) / (1 - WARMUP)))


TEXT_OUTPUTS: dict[bytes, torch.Tensor] = {}
"""The frozen text tower's outputs of all captions, which every contestant takes from its cache."""


def share_text_outputs(model: Embedder, shards: ShardIndex) -> None:
    """Let the frozen text tower's cache be one that holds every caption already."""
    cached = model.clap.text_tower.forward
    assert isinstance(cached, CachedForward)
    if not TEXT_OUTPUTS:
        captions = {caption for number in range(len(shards)) for caption in shards.read_sample(number).captions}
        for caption in sorted(captions):
            cached(model.tokenizer([caption]))
        TEXT_OUTPUTS.update(cached.outputs)
    cached.outputs = TEXT_OUTPUTS


@torch.inference_mode()
def ask(model: Embedder, shards: ShardIndex) -> tuple[list[float], list[str], int]:
    """Whether each caption finds its clip among the ten nearest, the clips' groups, and how many clips there are."""
    model.clap.eval()
    asked = list(first_clips(shards))
    audio_ND = model.embed_audio([shards.read_sample(number).audio for number, _ in asked])
    samples = [shards.read_sample(number) for number, _ in asked]
    text_ND = model.embed_text([sample.captions[0] for sample in samples])
    ranks = rank_vectors(audio_ND, text_ND, np.arange(len(asked)))
    hits = (np.asarray(ranks.text_to_audio_P) <= 10).astype(float).tolist()
    return hits, [str(sample.original["group"]) for sample in samples], len(asked)


def first_clips(shards: ShardIndex) -> Iterator[tuple[int, str]]:
    """The first clip of each different first caption."""
    seen: set[str] = set()
    for number in range(len(shards)):
        caption = shards.read_sample(number).captions[0]
        if caption not in seen:
            seen.add(caption)
            yield number, caption


def report(options: argparse.Namespace) -> None:
    """Print R@10 of each model, their difference, and chance."""
    found = {
        name: [json.loads((options.out / f"{name}-{seed}.json").read_text()) for seed in range(options.seeds)]
        for name in CONTESTANTS
    }
    groups, gallery = found["naflex"][0]["groups"], found["naflex"][0]["gallery"]
    hits = {name: np.mean([run["hits"] for run in runs], axis=0) for name, runs in found.items()}
    print(f"\n{options.minutes:g} minutes of processor time each; seeds: {options.seeds}; {gallery} clips and captions")
    for name, runs in found.items():
        epochs = np.mean([run["epochs"] for run in runs])
        each = ", ".join(f"{np.mean(run['hits']):.3f}" for run in runs)
        print(f"{name:8} R@10 {interval(hits[name], groups)}; by seed {each}; {epochs:.2f} epochs")
    print(f"naflex less htsat: {interval(hits['naflex'] - hits['htsat'], groups, sign='+')}")
    print(f"chance   R@10 {10 / gallery:.3f}")


def interval(value_N: Floats, groups: list[str], *, sign: str = "") -> str:
    found: Estimate = bootstrap_interval(mean_of(value_N), groups)
    value, low, high = (format(number, f"{sign}.3f") for number in (found.value, found.low, found.high))
    return f"{value} ({low} to {high})"


if __name__ == "__main__":
    main()
