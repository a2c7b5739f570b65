"""Hundreds of kills of writers, and searches beside them: every file is there once, and no file that is gone."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from openclap.data.parallel import Share
from openclap.search.index import Index
from openclap.search.scan import add
from openclap.search.verify import verify
from openclap.types import Window
from support.search_helpers import (
    DIM,
    IDENTITY,
    RATE,
    SpectrumEmbedder,
    axis,
    describe,
    fill,
    paths_in,
    row,
    spectrum,
    start_scan,
)

TESTS = Path(__file__).parents[1]
OPTIMIZER = """
import sys
from openclap.search.index import Index
index = Index.open(sys.argv[1])
index.count()
print("ready", flush=True)
index.optimize()
"""
WRITER = """
import sys
from openclap.errors import LockedError
from openclap.search.index import Index
from support.search_helpers import axis, row
from openclap.types import Window
index, name = Index.open(sys.argv[1]), sys.argv[2]
for step in range(int(sys.argv[3])):
    paths = [f"/s/{name}-{step}-{i}.wav" for i in range(4)]
    rows = [row(path, f"{step:030x}{i:02x}{ord(name):032x}") for i, path in enumerate(paths)]
    changes = [lambda: index.add(rows, {file.hash: [Window(0, 1, axis(step % 64))] for file in rows}),
               lambda: index.remove(paths[:2])]
    for change in changes:
        while True:
            try:
                change()
                break
            except LockedError:
                pass
    print(*paths[:2], flush=True)
"""


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(TESTS)!r})\n{program}", *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
    )


def kill_after(process: subprocess.Popen[str], seconds: float) -> None:
    """Kill a process some time after its first line, unless it has finished."""
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(seconds)
        process.kill()


class Sounds:
    """A folder of noises that changes.

    Attributes:
        seeds: of the noise in each file.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder, self._random, self._written = folder, random.Random(seed), 0
        self.seeds: dict[Path, int] = {}

    def change(self) -> None:
        """Write new files; move, rewrite and delete others."""
        for _ in range(8):
            self._write(self._folder / f"{self._random.randrange(4)}" / f"{self._written}.wav")
        old = self._random.sample(sorted(self.seeds), 4)
        target = self._folder / "moved" / f"{self._written}.wav"
        target.parent.mkdir(exist_ok=True)
        self.seeds[old[0].rename(target)] = self.seeds.pop(old[0])
        self._write(old[1])
        for path in old[2:]:
            path.unlink()
            del self.seeds[path]

    def _write(self, path: Path) -> None:
        self._written += 1
        self.seeds[path] = self._written
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, noise(self._written), RATE)


def noise(seed: int) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(RATE // 5)


def assert_sound(folder: Path) -> Index:
    """Open an index after a kill. Assert that it verifies, and that no path and no window is there twice."""
    index = Index.open(folder)
    verify(index)
    rows = index._rows(["true"])
    assert max(Counter(row.path for row in rows).values(), default=1) == 1
    table = index._windows.search().select(["hash", "start_s"]).to_arrow()
    windows = Counter(zip(table["hash"].to_pylist(), table["start_s"].to_pylist(), strict=True))
    assert max(windows.values(), default=1) == 1
    assert {row.hash for row in rows} <= {digest for digest, _ in windows}
    query = np.random.default_rng(len(rows)).random(DIM)
    found, exact = index.search(query, 30), index.search(query, 30, exact=True)
    assert [(hit.path, hit.start_s) for hit in found] == [(hit.path, hit.start_s) for hit in exact]
    return index


@pytest.mark.long
@pytest.mark.parametrize("part", range(4))
def test_a_hundred_kills_of_scans_of_a_changing_folder(tmp_path: Path, part: int) -> None:
    """25 in each part. The next scan that is not killed holds exactly the files of the folder."""
    sounds, moment = Sounds(tmp_path / "sounds", part), random.Random(part)
    for kill in range(25):
        sounds.change()
        kill_after(start_scan(tmp_path / "index", tmp_path / "sounds", batch=2), moment.uniform(0, 0.4))
        index = assert_sound(tmp_path / "index")
        if kill % 5 == 4:
            report = add(index, tmp_path / "sounds", SpectrumEmbedder(), describe)
            assert report.skipped == []
            assert paths_in(index) == {str(path) for path in sounds.seeds}
            assert {row.hash for row in index._rows(["true"])} == set(
                index._windows.search().select(["hash"]).to_arrow()["hash"].to_pylist()
            )
            for path, seed in random.Random(kill).sample(sorted(sounds.seeds.items()), 8):
                [best] = index.search(spectrum(noise(seed)), 1)
                assert best.path == str(path) and best.score > 0.9999


@pytest.mark.long
def test_kills_of_two_processes_that_add_parts(tmp_path: Path) -> None:
    """48 kills. Parts that are not killed hold exactly the files of the folder."""
    sounds, moment = Sounds(tmp_path / "sounds", 9), random.Random(9)
    for kill in range(24):
        sounds.change()
        parts = [start_scan(tmp_path / "index", tmp_path / "sounds", batch=2, part=f"{part}/2") for part in (1, 2)]
        for process in parts:
            kill_after(process, moment.uniform(0, 0.4))
        index = assert_sound(tmp_path / "index")
        if kill % 8 == 7:
            for part in (1, 2):
                assert add(index, tmp_path / "sounds", SpectrumEmbedder(), describe, part=Share(part, 2)).skipped == []
            assert paths_in(index) == {str(path) for path in sounds.seeds}
            index.optimize()
            assert {row.hash for row in index._rows(["true"])} == set(
                index._windows.search().select(["hash"]).to_arrow()["hash"].to_pylist()
            )


@pytest.mark.long
@pytest.mark.parametrize("part", range(2))
def test_fifty_kills_of_optimize(tmp_path: Path, part: int) -> None:
    """25 in each part; each follows changes that leave fragments to merge."""
    index, rng, moment = Index.create(tmp_path / "index", IDENTITY), np.random.default_rng(part), random.Random(part)
    fill(index, list(rng.standard_normal((2000, 4, DIM))))
    for kill in range(25):
        for file in range(12):
            index.remove([f"/s/{12 * kill + file}.wav"])
        before = paths_in(index)
        kill_after(start(OPTIMIZER, index.folder), moment.uniform(0, 0.5))
        assert paths_in(assert_sound(index.folder)) == before
    index.optimize()
    assert assert_sound(index.folder).count() == (1700, 6800)


@pytest.mark.long
def test_searches_beside_two_writers_and_kills(tmp_path: Path) -> None:
    """No search fails, and none shows a file that was removed before it began."""
    index, removed, moment = Index.create(tmp_path / "index", IDENTITY), set[str](), random.Random(0)
    own = row("/s/own.wav", "f" * 64)
    index.add([own], {own.hash: [Window(0, 1, np.ones(DIM))]})
    reader = Index.open(index.folder)
    searches = 0
    for round_ in range(6):
        writers = [start(WRITER, index.folder, name, 12) for name in (chr(97 + 2 * round_), chr(98 + 2 * round_))]
        threads = [threading.Thread(target=_collect, args=(writer, removed)) for writer in writers]
        for thread in threads:
            thread.start()
        killed_at = time.monotonic() + moment.uniform(1, 4)
        while any(writer.poll() is None for writer in writers):
            gone = set(removed)
            opened = reader if searches % 2 else Index.open(index.folder)
            paths = [hit.path for hit in opened.search(axis(searches % 64), 500)]
            assert len(paths) == len(set(paths)) and "/s/own.wav" in paths and not gone & set(paths)
            searches += 1
            if time.monotonic() > killed_at:
                writers[0].kill()
        for thread in threads:
            thread.join()
        assert writers[1].wait() == 0
        assert_sound(index.folder)
    assert searches > 50 and len(removed) >= 6 * 12 * 2


def _collect(writer: subprocess.Popen[str], removed: set[str]) -> None:
    """Add the paths that a writer prints, line by line: they are removed."""
    assert writer.stdout is not None
    for line in writer.stdout:
        removed.update(line.split())
