"""Add made files to one index by several processes, each of which has a part of them, and search it elsewhere.

    python benchmarks/scale_out.py build/parts.index --processes 4
    AWS_ENDPOINT_URL=http://127.0.0.1:5000 … python benchmarks/scale_out.py s3://bucket/index --processes 4

Embedding takes no time here, so processes do nothing but read small files and take turns: the worst case. Prints the
rate, the seconds of a commit and of the wait for its turn, and the seconds until another machine has a snapshot.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from openclap.data.parallel import Share
from openclap.search import writer as writing
from openclap.search.index import Index, IndexIdentity
from openclap.search.place import place_of
from openclap.search.scan import add
from openclap.types import FileContent, Recording, Window

DIM = 512
IDENTITY = IndexIdentity("0" * 64, "made", DIM, 10.0, 10.0)


def embed(windows: int, seconds: float) -> object:
    def of(sounds: Iterable[Path | FileContent]) -> Iterator[Recording]:
        rng = np.random.default_rng(os.getpid())
        for _ in sounds:
            time.sleep(seconds)
            vectors = rng.standard_normal((windows, DIM)).astype(np.float32)
            found = [Window(10.0 * at, 10.0 * (at + 1), vector) for at, vector in enumerate(vectors)]
            yield Recording(found, 10.0 * windows, 48000, 1)

    return of


def part(address: str, sounds: str, share: str, windows: int, seconds: float) -> None:
    """Add one part, and print the seconds of commits and turns."""
    puts, waits, put, turn = [], [], writing.IndexWriter.put, writing.IndexWriter.turn

    def timed_put(self: writing.IndexWriter, *arguments: object) -> None:
        before = time.perf_counter()
        put(self, *arguments)  # type: ignore[arg-type]
        puts.append(time.perf_counter() - before)

    @contextmanager
    def timed_turn(self: writing.IndexWriter) -> Iterator[None]:
        before = time.perf_counter()
        with turn(self):
            waits.append(time.perf_counter() - before)
            yield

    writing.IndexWriter.put, writing.IndexWriter.turn = timed_put, timed_turn  # type: ignore[method-assign]
    report = add(
        Index.open(address), [sounds], embed(windows, seconds), lambda _: (1.0, 48000, 1), part=Share.parse(share)
    )
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps([report.added, puts, waits, used.ru_utime + used.ru_stime, used.ru_maxrss]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--windows", type=int, default=4, help="of each file")
    parser.add_argument("--seconds", type=float, default=0.0, help="that embedding a file takes")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--sounds", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        part(options.address, options.sounds, options.part, options.windows, options.seconds)
        return
    with tempfile.TemporaryDirectory() as scratch:
        measure(options, Path(scratch))


def measure(options: argparse.Namespace, scratch: Path) -> None:
    for number in range(options.files):
        file = scratch / "sounds" / f"{number // 100}" / f"{number}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"RIFF%d" % number)
    Index.create(options.address, IDENTITY)
    before = time.perf_counter()
    words = [sys.executable, __file__, options.address, "--sounds", str(scratch / "sounds")]
    words += ["--windows", str(options.windows), "--seconds", str(options.seconds)]
    parts = [f"{number + 1}/{options.processes}" for number in range(options.processes)]
    processes = [subprocess.Popen([*words, "--part", each], stdout=subprocess.PIPE, text=True) for each in parts]
    results = [json.loads(process.communicate()[0].splitlines()[-1]) for process in processes]
    took = time.perf_counter() - before
    puts, waits = (np.concatenate([result[at] for result in results]) for at in (1, 2))
    added = sum(result[0] for result in results)
    print(f"{options.processes} processes: {added:,} files in {took:.1f} s, {added / took:,.0f} a second")
    print(f"processor time {sum(result[3] for result in results):.1f} s, memory {max(r[4] for r in results) >> 10} MB")
    print(f"{len(puts)} commits of {added / len(puts):.0f} files")
    print(f"a commit {np.median(puts):.3f} s (median), {puts.max():.2f} s (most)")
    print(f"wait for a turn {np.median(waits):.3f} s (median), {waits.max():.2f} s (most)")
    index = Index.open(options.address)
    assert index.count() == (options.files, options.files * options.windows)
    read(index, options)


def read(index: Index, options: argparse.Namespace) -> None:
    """Search from this machine: with a new snapshot, again, after a commit, and after a compaction."""
    query = np.ones(DIM)
    for label in ("the first search", "another search"):
        before = time.perf_counter()
        found = index.search(query, 10)
        print(f"{label}: {time.perf_counter() - before:.3f} s ({found.info})")
    before = time.perf_counter()
    index.optimize()
    print(f"optimize: {time.perf_counter() - before:.1f} s")
    with tempfile.TemporaryDirectory() as folder:
        new = Path(folder) / "new.wav"
        new.write_bytes(b"RIFFnew")
        add(index, [new], embed(options.windows, 0.0), lambda _: (1.0, 48000, 1))  # type: ignore[arg-type]
    for label in ("the search after an optimize and a commit", "another search"):
        before = time.perf_counter()
        index.search(query, 10)
        print(f"{label}: {time.perf_counter() - before:.3f} s")
    print(place_of(options.address).folder)


if __name__ == "__main__":
    main()
