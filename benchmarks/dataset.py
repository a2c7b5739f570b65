"""Measure the building and loading of data sets.

    python benchmarks/dataset.py metadata           plan 633,526 synthetic records in the forms of LAION-Audio-630K
    python benchmarks/dataset.py captions           plan a million made-up rows of AudioSetCaps
    python benchmarks/dataset.py pack [--clips N]    build from 5,000 clips of 10 s, beside `flac --verify`
    python benchmarks/dataset.py load [--clips N]    the loader beside bare webdataset, over the shards of `pack`

All data is synthetic, from a seed; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import soundfile

WORDS = [
    f"{a}{b}" for a in ("rain", "wind", "dog", "door", "water", "bell", "car", "bird") for b in ("", "s", "y", "ing")
]
EVALUATION_IDS = range(0, 515_581, 9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurement", choices=("metadata", "captions", "pack", "load"))
    parser.add_argument("--clips", type=int, default=5000)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder without it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        {"metadata": metadata, "captions": captions, "pack": pack, "load": load}[options.measurement](
            folder, options.clips
        )


def metadata(folder: Path, clips: int) -> None:
    """`openclap dataset plan laion-630k` as a process of its own, over metadata of full size."""
    root = folder / "root"
    made = sum(make(root / name) for name, make in SYNTHETIC_SOURCES.items())
    evaluation_sets(root)
    print(f"{made:,} synthetic records of {len(SYNTHETIC_SOURCES)} sources; Freesound ids of three evaluation sets")
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "openclap", "dataset", "plan", "laion-630k", str(out), "--root", str(root)]
    start = time.perf_counter()
    subprocess.run([*command, "--missing-ok", "--licences", "cc0,by,by-nc"], check=True)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    rows = pl.read_parquet(out / "work/records/*.parquet")
    captions = rows["captions"].list.len().sum()
    print(f"{len(rows):,} records in {seconds:.1f} s, at most {peak:,.0f} MB, {captions:,} captions")
    print(rows.group_by("source", pl.col("kind").fill_null("stays")).len().sort("source", "kind"))


def captions(folder: Path, clips: int) -> None:
    """`openclap dataset plan --source audiosetcaps` as a process of its own, decontaminated from 20,000 test clips."""
    count = 1_000_000
    ids = audiosetcaps(folder / "set", count)
    place = folder / "vggsound"
    place.mkdir(parents=True, exist_ok=True)
    (place / "vggsound.csv").write_text("".join(f"{video},30,dog,test\n" for video in ids[::50]))
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "openclap", "dataset", "plan", str(folder / "set"), str(out)]
    command += ["--source", "audiosetcaps", "--decontaminate", f"vggsound:test={place}"]
    start = time.perf_counter()
    subprocess.run(command, check=True)
    seconds, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    kinds = pl.read_parquet(out / "work/records/*.parquet", columns=["kind"])["kind"]
    print(
        f"{count:,} rows planned in {seconds:.1f} s, {used.ru_utime + used.ru_stime:.1f} s of processor time, at most "
        f"{used.ru_maxrss / 1024:,.0f} MB; {kinds.eq('overlap').sum():,} are in VGGSound's test set"
    )


def audiosetcaps(root: Path, count: int) -> list[str]:
    """AudioSetCaps' largest table with made-up ids and captions of 28 words; return the ids."""
    draw, letters = random.Random(0), "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    ids = ["".join(draw.choices(letters, k=11)) for _ in range(count)]
    (root / "Dataset").mkdir(parents=True, exist_ok=True)
    with (root / "Dataset" / "AudioSetCaps_caption.csv").open("w", encoding="utf-8") as file:
        file.write("id,caption\n")
        file.writelines(f'Y{video},"{" ".join(draw.choices(WORDS, k=28))}."\n' for video in ids)
    return ids


def text(draw: random.Random, least: int, most: int) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(least, most)))


def freesound(root: Path) -> int:
    draw, count = random.Random(1), 515_581
    root.mkdir(parents=True, exist_ok=True)
    licences = draw.choices(
        [
            "http://creativecommons.org/publicdomain/zero/1.0/",
            "http://creativecommons.org/licenses/by/3.0/",
            "http://creativecommons.org/licenses/by-nc/3.0/",
            "http://creativecommons.org/licenses/sampling+/1.0/",
        ],
        [270_843, 196_884, 63_693, 11_556],
        k=count,
    )
    pl.DataFrame(
        {
            "id": range(count),
            "title": [f"{text(draw, 1, 4)}-{n}.wav" for n in range(count)],
            "tags:": [",".join(draw.choices(WORDS, k=6)) for _ in range(count)],
            "description": [f"{text(draw, 4, 20)}. {text(draw, 0, 15)}" for _ in range(count)],
            "username": [f"user{draw.randrange(20_000)}" for _ in range(count)],
            "download_url": [f"https://freesound.org/apiv2/sounds/{n}/download/" for n in range(count)],
            "license": licences,
        }
    ).write_parquet(root / "freesound.parquet")
    return count


def epidemic(root: Path) -> int:
    draw, count, classes = random.Random(2), 75_645, 45
    root.mkdir(parents=True, exist_ok=True)
    for part in range(classes):
        rows = range(part, count, classes)
        pl.DataFrame(
            {
                "title": [f"{text(draw, 1, 4)} {n % 30}" for n in rows],
                "id": list(rows),
                "added": ["2021-01-01"] * len(rows),
                "length": [draw.uniform(0.5, 60) for _ in rows],
                "bpm": [0] * len(rows),
                "isSfx": [True] * len(rows),
                "hasVocals": [False] * len(rows),
                "energyLevel": ["low"] * len(rows),
                "genres": [["sfx"]] * len(rows),
                "url": [f"https://audiocdn.epidemicsound.com/{n}.mp3" for n in rows],
                "metadataTags": [draw.choices(WORDS, k=5) for _ in rows],
            }
        ).write_parquet(root / f"class {part}.parquet")
    return count


def bbc(root: Path) -> int:
    draw, count = random.Random(3), 15_973
    root.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(
        {
            "location": [f"{n:08}.wav" for n in range(count)],
            "description": [f"Nature: {text(draw, 3, 12)}." for _ in range(count)],
            "secs": [str(draw.randint(2, 200)) for _ in range(count)],
            "category": ["Nature"] * count,
            "CDNumber": [f"EC{n // 60}" for n in range(count)],
            "CDName": ["Nature 1"] * count,
            "tracknum": [str(n % 60) for n in range(count)],
        }
    ).write_csv(root / "BBCSoundEffects.csv")
    return count


def audiostock(root: Path) -> int:
    draw, count = random.Random(4), 10_000
    root.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(
        {
            "": range(count),
            "title": [f"{n} {text(draw, 2, 6)}" for n in range(count)],
            "impression": ["calm"] * count,
            "scene": ["home"] * count,
            "purpose": ["film"] * count,
            "tags": [",".join(draw.choices(WORDS, k=10)) for _ in range(count)],
            "audio_url": [f"https://audiostock.net/audio/{n}/play" for n in range(count)],
            "audio_size": ["1 MB"] * count,
        }
    ).write_csv(root / "audiostock_meta.csv")
    return count


def library(count: int, seed: int) -> Callable[[Path], int]:
    def make(root: Path) -> int:
        draw = random.Random(seed)
        for number in range(count):
            pack = root / f"Author - Pack {number // 100}"
            pack.mkdir(parents=True, exist_ok=True)
            (pack / f"{text(draw, 2, 5)} {number}.wav").touch()
        return count

    return make


SYNTHETIC_SOURCES: dict[str, Callable[[Path], int]] = {
    "freesound": freesound,
    "epidemic_sound_effects": epidemic,
    "bbc_sound_effects": bbc,
    "audiostock": audiostock,
    "free_to_use_sounds": library(6_370, 5),
    "sonniss_game_effects": library(5_049, 6),
    "paramount_motion": library(4_420, 7),
    "we_sound_effects": library(488, 8),
}


def evaluation_sets(root: Path) -> None:
    """ESC-50 and UrbanSound8K by their names, with Freesound ids that the records have too."""
    meta = root / "esc50" / "meta"
    meta.mkdir(parents=True, exist_ok=True)
    ids = list(EVALUATION_IDS)
    rows = [f"1-{i}-A-0.wav,1,0,dog,True,{i},A" for i in ids[:2000]]
    (meta / "esc50.csv").write_text("\n".join(["filename,fold,target,category,esc10,src_file,take", *rows]) + "\n")
    (root / "esc50" / "audio").mkdir(exist_ok=True)
    meta = root / "urbansound8k" / "metadata"
    meta.mkdir(parents=True, exist_ok=True)
    rows = [f"{i}-3-0-0.wav,{i},0,4,1,1,3,dog_bark" for i in ids[2000:10_000]]
    head = "slice_file_name,fsID,start,end,salience,fold,classID,class"
    (meta / "UrbanSound8K.csv").write_text("\n".join([head, *rows]) + "\n")
    (root / "urbansound8k" / "audio").mkdir(exist_ok=True)


def clips_in(folder: Path, count: int) -> Path:
    """10 s of coloured noise each, 48 kHz, 16 bits, one channel, and a table of them."""
    place = folder / f"clips-{count}"
    if (place / "clips.csv").exists():
        return place
    place.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    bases = [np.cumsum(draw.standard_normal(960_000)) for _ in range(8)]
    for number in range(count):
        start = int(draw.integers(0, 480_000))
        wave = np.diff(bases[number % 8][start : start + 480_001]) * 0.02 + 0.1 * np.sin(
            2 * np.pi * draw.uniform(80, 2000) * np.arange(480_000) / 48_000
        )
        soundfile.write(place / f"{number}.wav", wave.clip(-1, 1).astype(np.float32), 48_000, subtype="PCM_16")
    rows = [f"{number}.wav,Sound number {number}." for number in range(count)]
    (place / "clips.csv").write_text("\n".join(["file,caption", *rows]) + "\n")
    return place


def pack(folder: Path, count: int) -> None:
    """One process, two processes, and `flac --verify`, one after the other."""
    from openclap.data.build import pack as pack_records
    from openclap.sources import read_table

    place = clips_in(folder, count)
    megabytes = sum(path.stat().st_size for path in place.glob("*.wav")) / 1e6
    print(f"{count} clips of 10 s, {megabytes:,.0f} MB of WAV")
    seconds: dict[str, float] = {}
    for processes in (1, 2):
        out = folder / f"shards-{processes}"
        shutil.rmtree(out, ignore_errors=True)
        start = time.perf_counter()
        pack_records(read_table(place / "clips.csv"), out, splits={"train": 1.0}, processes=processes)
        seconds[f"openclap, {processes} process{'es' if processes > 1 else ''}"] = time.perf_counter() - start
    if shutil.which("flac"):
        files = [str(path) for path in place.glob("*.wav")]
        start = time.perf_counter()
        subprocess.run(["flac", "--verify", "--silent", "--force", *files], check=True)
        seconds["flac --verify"] = time.perf_counter() - start
        for path in place.glob("*.flac"):
            path.unlink()
    for name, value in seconds.items():
        print(f"{name:24} {value:7.1f} s  {megabytes / value:7.1f} MB/s")


def load(folder: Path, count: int) -> None:
    """Whole epochs: bytes alone, and decoded, as our loader and as webdataset read them."""
    import io

    import torch
    import webdataset

    from openclap.data.loader import PairLoader
    from openclap.data.shards import index_shards
    from openclap.types import AudioBatch, TextBatch

    if not (folder / "shards-2" / "train").exists():
        pack(folder, count)

    class NoFrontEnd:
        sample_rate = 48_000

        def __call__(self, waves: list[np.ndarray], *, rng: object = None) -> AudioBatch:
            return AudioBatch(torch.zeros(len(waves), 1, 1, 1), torch.zeros(len(waves), dtype=torch.bool))

    def tokenize(texts: list[str]) -> TextBatch:
        return TextBatch(torch.zeros(len(texts), 1).long(), torch.ones(len(texts), 1).long())

    train = folder / "shards-2" / "train"
    tars = [str(path) for path in sorted(train.glob("*.tar"))]
    start = time.perf_counter()
    read = sum(
        len(soundfile.read(io.BytesIO(sample["flac"]), dtype="float32")[0]) > 0
        for sample in webdataset.WebDataset(tars, shardshuffle=False)
    )
    theirs = read / (time.perf_counter() - start)
    for workers in (0, 2):
        loader = PairLoader(index_shards(train), NoFrontEnd(), tokenize, batch_size=16, seed=0, workers=workers)
        start = time.perf_counter()
        seen = sum(len(batch.keys) for batch in loader.batches(0))
        ours = seen / (time.perf_counter() - start)
        print(f"openclap, shuffled, {workers} workers: {ours:7.0f} samples/s  {ours / theirs:.2f} × webdataset")
    print(f"webdataset, in order, decoded in this process: {theirs:7.0f} samples/s")


if __name__ == "__main__":
    main()
