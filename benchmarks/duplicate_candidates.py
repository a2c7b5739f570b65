"""Time and memory of finding the pairs that `openclap duplicates` compares, for random windows of size 512.

    python benchmarks/duplicate_candidates.py 20000 50000

Each file has five windows around a mean of its own, and files in groups of ten resemble each other. Each count is
measured in a process of its own. Memory is the peak of the process above its size before, with the pages of the mapped
snapshot; of these, the system takes back what it needs.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from openclap.search.duplicates import _files_by_hash, candidate_pairs
from openclap.search.index import FileRow, Index, IndexIdentity
from openclap.types import Window

DIM, PER_FILE, PER_GROUP = 512, 5, 10


def fill(index: Index, count: int) -> None:
    rng = np.random.default_rng(0)
    common_D = rng.standard_normal(DIM)
    for first in range(0, count // PER_FILE, 1000):
        rows, windows = [], {}
        for number in range(first, min(first + 1000, count // PER_FILE)):
            group_D = np.random.default_rng(number // PER_GROUP).standard_normal(DIM)
            own_D = common_D + 2 * group_D + rng.standard_normal(DIM)
            vector_WD = own_D + 0.5 * rng.standard_normal((PER_FILE, DIM))
            digest = f"{number:064x}"
            rows.append(FileRow(f"/{number:06}.wav", digest, 1, 1, 10.0 * PER_FILE, 48000, 1))
            windows[digest] = [
                Window(10.0 * at, 10.0 * at + 10, v / np.linalg.norm(v)) for at, v in enumerate(vector_WD)
            ]
        index.add(rows, windows)


def measure(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = f"{folder}/index"
        index = Index.create(place, IndexIdentity(digest="d" * 64, model="random", dim=DIM, length_s=10, hop_s=10))
        fill(index, count)
        subprocess.run([sys.executable, __file__, "--index", place], check=True)


def find(place: str) -> None:
    view = Index.open(place).view()
    files = _files_by_hash(view.live_facts)
    before, start = memory_mb("VmRSS"), time.perf_counter()
    pairs = candidate_pairs(view, files)
    took = time.perf_counter() - start
    print(f"{view.windows:,} windows: {took:.1f} s, {memory_mb('VmHWM') - before:.0f} MB, {len(pairs):,} pairs")


def memory_mb(name: str) -> float:
    match = re.search(rf"{name}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert match
    return int(match[1]) / 1024


if __name__ == "__main__":
    if sys.argv[1] == "--index":
        find(sys.argv[2])
    else:
        for argument in sys.argv[1:]:
            measure(int(argument))
