"""The directory that documents run in."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.documents import BIN, ROOT


@pytest.fixture
def clone(demo_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory and environment like those of a clone after `make demo`."""
    folder = tmp_path / "openclap"
    folder.mkdir()
    (folder / "src").symlink_to(ROOT / "src")
    cache = tmp_path / "user" / ".cache"
    cache.mkdir(parents=True)
    (cache / "openclap").symlink_to(demo_home)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("OPENCLAP_HOME", str(demo_home))
    monkeypatch.setenv("PATH", f"{BIN}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(folder)
    yield folder
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()  # the cluster that a document's --ray has started
