"""Throughput of indexing small files beside that of embedding them, in one process.

    python benchmarks/index.py [--files 500] [--seconds 2] [--model mini] [--rounds 3]

Each round embeds the files by `Embedder.embed_audio` and adds them to a new index by `Library.add`, one after the other
in changing order; printed are the medians and their ratio, by the clock and by processor time (of all threads), which
other processes on the machine disturb less. Both decode the same files. Indexing also hashes them and commits rows and
vectors to LanceDB.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

import openclap

RATE = 44100


def write_sounds(folder: Path, files: int, seconds: float) -> list[Path]:
    """Noise of different contents and lengths around `seconds`, as 16-bit WAV."""
    rng = np.random.default_rng(0)
    paths = [folder / f"{number:04}.wav" for number in range(files)]
    for path in paths:
        wave = 0.1 * rng.standard_normal(int(RATE * seconds * rng.uniform(0.5, 1.5)))
        soundfile.write(path, wave, RATE)
    return paths


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of processor time."""
    start, start_cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - start_cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        sounds, index = Path(scratch) / "sounds", Path(scratch) / "index"
        sounds.mkdir()
        paths = write_sounds(sounds, options.files, options.seconds)
        model = openclap.load(options.model)
        model.embed_audio(paths[:16])  # warm up
        times: dict[str, list[tuple[float, float]]] = {"embed_audio": [], "index add": []}

        def add() -> None:
            library = openclap.Library.open(index, options.model)
            times["index add"].append(timed(lambda: library.add([sounds])))
            shutil.rmtree(index)

        for round_ in range(options.rounds):
            works = [lambda: times["embed_audio"].append(timed(lambda: model.embed_audio(paths))), add]
            for work in works if round_ % 2 == 0 else works[::-1]:
                work()
    for column, clock in enumerate(("by the clock", "by processor time")):
        rates = {name: options.files / statistics.median(run[column] for run in runs) for name, runs in times.items()}
        print(clock)
        for name, rate in rates.items():
            print(f"  {name:12} {rate:7.1f} files/s")
        print(f"  {'ratio':12} {rates['index add'] / rates['embed_audio']:7.2f}")


if __name__ == "__main__":
    main()
