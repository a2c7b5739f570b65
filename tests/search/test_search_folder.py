"""What is and what is not an index folder, and what is said of one that is not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from openclap.errors import DataError, IndexMismatchError
from openclap.search.index import Index
from support.errors import raises_naming
from support.search_helpers import DIM, IDENTITY, axis, fill, fingerprint


def test_identity_is_kept_and_another_model_is_refused(index: Index) -> None:
    assert Index.open(index.folder).identity == IDENTITY
    assert Index.open(index.folder, IDENTITY).identity == IDENTITY
    other = replace(IDENTITY, digest="e" * 64, model="laion/clap-htsat-unfused", dim=512)
    for opening in (Index.open, Index.open_or_create):
        with raises_naming(IndexMismatchError, index.folder, "spectrum", "laion/clap-htsat-unfused"):
            opening(index.folder, other)


def test_open_or_create_does_either(tmp_path: Path) -> None:
    first = Index.open_or_create(tmp_path / "a" / "b", IDENTITY)
    fill(first, [axis(0)[None]])
    assert Index.open_or_create(tmp_path / "a" / "b", IDENTITY).count() == (1, 1)
    with raises_naming(DataError, tmp_path / "a" / "b"):
        Index.create(tmp_path / "a" / "b", IDENTITY)


def test_folders_that_are_no_index(tmp_path: Path) -> None:
    with raises_naming(DataError, tmp_path / "none"):
        Index.open(tmp_path / "none")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear reader")
    with raises_naming(DataError, tmp_path / "other"):
        Index.open(tmp_path / "other")
    with raises_naming(DataError, tmp_path / "other", "letter.txt"):
        Index.open_or_create(tmp_path / "other", IDENTITY)
    with raises_naming(DataError, tmp_path / "other" / "letter.txt"):
        Index.create(tmp_path / "other" / "letter.txt", IDENTITY)
    assert list(fingerprint(tmp_path / "other")) == [str(tmp_path / "other" / "letter.txt")]


def test_an_index_of_a_newer_format(index: Index) -> None:
    header = json.loads((index.folder / "index.json").read_text())
    (index.folder / "index.json").write_text(json.dumps({**header, "format_version": 4}))
    with raises_naming(DataError, index.folder, 4):
        Index.open(index.folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format_version": 1}', '{"format_version": "x"}', "\x00"])
def test_a_damaged_header(index: Index, text: str) -> None:
    (index.folder / "index.json").write_text(text)
    with raises_naming(DataError, index.folder, "index.json"):
        Index.open(index.folder)


def data_files(index: Index) -> Iterator[Path]:
    return (index.folder / "windows.lance" / "data").iterdir()


def test_damaged_tables(index: Index) -> None:
    fill(index, [axis(0)[None]])
    for path in data_files(index):
        path.write_bytes(path.read_bytes()[:40])
    for exact in (True, False):
        if not exact:
            shutil.rmtree(index.folder / "snapshot")  # with it, a search needs no table
        with raises_naming(DataError, index.folder):
            Index.open(index.folder).search(axis(0), 1, exact=exact)
    for path in list(data_files(index)):
        path.unlink()
    with raises_naming(DataError, index.folder):
        Index.open(index.folder).search(axis(0), 1)


def test_missing_tables_and_a_lost_header(index: Index) -> None:
    fill(index, [axis(0)[None]])
    (index.folder / "files.lance").rename(index.folder.parent / "files.lance")
    with raises_naming(DataError, index.folder):
        Index.open(index.folder)
    (index.folder / "index.json").unlink()
    with raises_naming(DataError, index.folder, "index.json"):
        Index.create(index.folder, IDENTITY)
    assert list(data_files(index))


def test_a_table_of_another_dimension_is_damage(index: Index) -> None:
    header = json.loads((index.folder / "index.json").read_text())
    header["identity"]["dim"] = DIM + 1
    (index.folder / "index.json").write_text(json.dumps(header))
    with raises_naming(DataError, index.folder, "'windows'"):
        Index.open(index.folder)


def test_a_creation_that_was_killed_is_taken_up(index: Index) -> None:
    (index.folder / "index.json").unlink()
    assert Index.open_or_create(index.folder, IDENTITY).count() == (0, 0)


def test_search_imports_neither_torch_nor_the_rooms_that_need_it(tmp_path: Path) -> None:
    program = """
import sys, numpy as np
from openclap.search.index import FileRow, Index, IndexIdentity
from openclap.types import Window
import openclap.search.scan, openclap.search.exact, openclap.search.walk, openclap.search.writer
assert "lancedb" not in sys.modules and "pyarrow" not in sys.modules, "importing does no work"
index = Index.create(sys.argv[1], IndexIdentity("d", "m", 4, 1.0, 1.0))
windows = [Window(i, i + 1, np.eye(4)[i % 4] + i / 999) for i in range(999)]
index.add([FileRow("/s/a.wav", "a", 1, 1, 999.0, 8000, 1)], {"a": windows})
assert len(index.search(np.ones(4), 2, one_per_file=False)) == 2
heavy = {"torch", "transformers", "openclap.audio", "openclap.models", "openclap.embedder"} & set(sys.modules)
assert not heavy, heavy
"""
    arguments = [sys.executable, "-c", program, str(tmp_path / "index")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), "and nothing is logged either"
