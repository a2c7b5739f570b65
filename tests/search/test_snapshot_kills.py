"""A snapshot whose writer is killed, and readers beside a writer: results equal those of the tables at any moment."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from openclap.search.index import Index
from support.search_helpers import DIM, IDENTITY

WRITER = """
import sys, numpy as np
from openclap.search import snapshot_writer
from openclap.search.index import Index
from openclap.types import Window
from support.search_helpers import row
snapshot_writer.SKETCH_FROM = 512
index, seed = Index.open(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(seed)
for step in range(int(sys.argv[3])):
    files, windows = [], {}
    for _ in range(20):
        digest = f"{rng.integers(2**62):064x}"
        files.append(row(f"/s/{rng.integers(500)}.wav", digest))
        windows[digest] = [Window(at, at + 1, rng.standard_normal(64)) for at in range(4)]
    index.add(files, windows)
    if step % 5 == 4:
        index.remove([f"/s/{number}.wav" for number in rng.integers(0, 500, 60)])
    print(step, flush=True)
"""


def start(folder: Path, seed: int, steps: int) -> subprocess.Popen[str]:
    tests = str(Path(__file__).parents[1])
    program = f"import sys; sys.path.insert(0, {tests!r})\n{WRITER}"
    return subprocess.Popen(
        [sys.executable, "-c", program, str(folder), str(seed), str(steps)], stdout=subprocess.PIPE, text=True
    )


def assert_right(folder: Path, rng: np.random.Generator) -> None:
    """Compare with exact search, in an index that nobody writes to."""
    index = Index.open(folder)
    for query in rng.standard_normal((3, DIM)):
        ours, exact = index.search(query, 20), index.search(query, 20, exact=True)
        assert [(hit.path, hit.start_s) for hit in ours] == [(hit.path, hit.start_s) for hit in exact]


@pytest.mark.long
@pytest.mark.parametrize("half", range(2))
def test_fifty_kills(tmp_path: Path, half: int) -> None:
    """25 in each half: whatever a killed writer leaves, searches are right, and the next writer goes on from it."""
    Index.create(tmp_path / "index", IDENTITY)
    rng, moment = np.random.default_rng(half), random.Random(half)
    for kill in range(25):
        with start(tmp_path / "index", 1000 * half + kill, 50) as writer:
            assert writer.stdout is not None and writer.stdout.readline()
            time.sleep(moment.uniform(0, 0.3))
            writer.kill()
        assert_right(tmp_path / "index", rng)
    Index.open(tmp_path / "index").remove(["/nothing"])
    assert Index.open(tmp_path / "index").search(np.ones(DIM), 1).info.newer == 0
    assert_right(tmp_path / "index", rng)


def test_a_reader_beside_a_writer(tmp_path: Path) -> None:
    """Each search sees what was committed before it began, and nothing that was removed."""
    index = Index.create(tmp_path / "index", IDENTITY)
    reader, rng = Index.open(index.folder), np.random.default_rng(0)
    with start(index.folder, 0, 6) as writer:
        assert writer.stdout is not None and writer.stdout.readline()
        while writer.poll() is None:
            hits = reader.search(rng.standard_normal(DIM), 300)
            paths = [hit.path for hit in hits]
            assert len(paths) >= 15 and len(set(paths)) == len(paths)
    assert writer.returncode == 0
    assert_right(index.folder, rng)
