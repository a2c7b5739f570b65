"""`optimize` and `verify`, in Python and on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openclap.cli import run
from openclap.errors import DataError
from openclap.search import ranking, snapshot_writer
from openclap.search.index import Index
from openclap.search.verify import verify
from openclap.types import Window
from support.search_helpers import DIM, axis, fill, fingerprint, row


@pytest.fixture
def filled(index: Index, monkeypatch: pytest.MonkeyPatch) -> Index:
    """1,200 windows with a sketch."""
    monkeypatch.setattr(snapshot_writer, "SKETCH_FROM", 512)
    monkeypatch.setattr(ranking, "_FIRST_DEPTH", 64)
    rng = np.random.default_rng(0)
    fill(index, [rng.standard_normal((4, DIM)) + 0.5 for _ in range(300)])
    return index


def part(index: Index, name: str) -> Path:
    header = json.loads((index.folder / "snapshot" / "current.json").read_text())
    return index.folder / "snapshot" / header["generation"] / header["names"].get(name, name)


def test_a_sound_index(filled: Index) -> None:
    before = fingerprint(filled.folder)
    steps: list[tuple[int, int]] = []
    check = verify(filled, queries=20, progress=lambda done, total: steps.append((done, total)))
    assert (check.files, check.windows, check.snapshot) == (300, 1200, 1200)
    assert check.searched.startswith("sketch of 1,200 windows")
    assert check.recall_of_sounds is not None and check.recall_of_sounds >= 0.99
    assert check.recall_of_far_queries is not None and check.recall_of_far_queries >= 0.99
    assert steps[-1] == (1240, 1240) and steps == sorted(steps)
    assert verify(filled).recall_of_sounds is None
    assert fingerprint(filled.folder) == before


def test_recall_shows_a_sketch_that_misses(filled: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """With bounds far too low, the search stops too early."""
    monkeypatch.setattr(ranking, "DEVIATIONS", -20.0)
    monkeypatch.setattr(ranking, "_FIRST_SCORED", 4)
    check = verify(filled, queries=20)
    assert check.recall_of_far_queries is not None and check.recall_of_far_queries < 0.9


@pytest.mark.parametrize("column", ["vectors", "times", "hashes"])
def test_one_changed_number_is_found(filled: Index, column: str) -> None:
    path = part(filled, column)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="optimize"):
        verify(filled)
    filled.optimize()
    assert verify(filled).snapshot == 1200


@pytest.mark.parametrize("kind", ["facts", "newer"])
def test_one_changed_letter_of_a_file_name_is_found(filled: Index, kind: str) -> None:
    new = row("/s/new.wav", "f" * 64)
    filled.add([new], {new.hash: [Window(0.0, 1.0, axis(0))]})
    path = part(filled, kind)
    before = path.read_bytes()
    name = b"/s/new.wav" if kind == "newer" else b"/s/77.wav"
    path.write_bytes(before.replace(name, name.replace(b"/s", b"/t")))
    assert path.read_bytes() != before
    with pytest.raises(DataError, match="optimize"):
        verify(filled)
    filled.optimize()
    assert verify(filled).files == 301


def test_files_without_vectors_are_found(filled: Index) -> None:
    filled._windows.delete(f"hash = '{7:064x}'")
    with pytest.raises(DataError, match=r"/s/7\.wav"):
        verify(filled)


def test_optimize_makes_a_snapshot_and_merges_fragments(index: Index) -> None:
    for i in range(6):
        index.add(*one(i))
    old = part(index, "vectors").parent
    index.optimize()
    assert index._windows.stats()["fragment_stats"]["num_fragments"] == 1
    assert not old.exists()
    hits = index.search(axis(3), 1)
    assert (hits[0].path, hits.info.method, hits.info.newer) == ("/s/3.wav", "windows", 0)


def one(number: int) -> Any:
    from openclap.types import Window
    from support.search_helpers import row

    digest = f"{number:064x}"
    return [row(f"/s/{number}.wav", digest)], {digest: [Window(0, 1, axis(number))]}


def test_commands(filled: Index, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(filled.folder)
    assert run(["index", "verify", "--index", folder, "--recall", "--queries", "5", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["windows"] == report["snapshot"] == 1200 and report["recall_of_sounds"] >= 0.98
    assert run(["index", "optimize", "--index", folder]) == 0
    assert "1,200 windows" in capsys.readouterr().err
    assert run(["index", "verify", "--index", folder]) == 0
    assert "recall" not in capsys.readouterr().out
    part(filled, "vectors").write_bytes(b"")
    assert run(["index", "verify", "--index", folder]) == 2
    assert "openclap index optimize" in capsys.readouterr().err
    assert run(["index", "verify", "--index", folder, "--recall", "--queries", "0"]) == 2
    assert "queries is 0" in capsys.readouterr().err
