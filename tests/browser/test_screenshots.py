"""The script that takes a screenshot of every state still reaches each of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.browsing import CHROMIUM, need

ROOT = Path(__file__).parents[2]
STATES = [
    "empty",
    "typing",
    "hits",
    "focus",
    "refine",
    "filters",
    "nothing-found",
    "nothing-filtered",
    "probably-nothing",
    "odd-names",
    "details",
    "help",
    "dropping",
    "note",
    "collections-empty",
    "collections",
    "duplicates-idle",
    "duplicates",
    "map",
    "map-selected",
    "index",
    "file-gone",
    "lost",
    "token",
    "indexing-first",
    "indexing",
    "indexed",
]


@pytest.mark.long
def test_every_state_has_a_screenshot(tmp_path: Path) -> None:
    need(CHROMIUM, "Chromium is not installed: apt-get install chromium.")
    command = [sys.executable, "-m", "scripts.page_screenshots", str(tmp_path), "--widths", "360", "--themes", "dark"]
    subprocess.run(command, cwd=ROOT, check=True)
    assert sorted(place.name for place in tmp_path.glob("*.png")) == sorted(f"{state}-360-dark.png" for state in STATES)
    for place in tmp_path.glob("*.png"):
        pixels = np.asarray(Image.open(place).convert("L"), np.float64)
        assert pixels.shape == (740, 360) and pixels.std() > 5, place.name
