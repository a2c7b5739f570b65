"""Time from the last key to the first hits on the page of `openclap serve`, in Chromium.

    python benchmarks/page.py INDEX [--runs 1] [--made-labels]

Serves an index, types queries one after the other, and prints the median, the lowest and the highest time: the pause
after a key (110 ms), the request, the search, and the list. The first query, which loads the text tower, is left out.
With --made-labels every file first gets one to three labels at random: made windows (see search.py) are like no label.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from openclap.search.index import Index
from openclap.search.labels import NONE, read_labels, write_labels

sys.path.insert(0, str(Path(__file__).parents[1]))

from scripts.page_screenshots import served
from tests.support.browsing import ARGUMENTS, CHROMIUM, LAST_KEY

TEXTS = (
    "rain on a tin roof",
    "church bell",
    "a wolf howling",
    "applause",
    "a cow",
    "glass breaking",
    "a car engine starting",
    "footsteps on gravel",
    "a door creaking",
    "waves on a beach",
)


def make_labels(index: Index) -> None:
    """Give every content one to three labels."""
    stored = read_labels(index)
    if stored is None:
        sys.exit("The index has no labels. Run first: openclap index label --index INDEX")
    rng = np.random.default_rng(0)
    labels_CM = rng.integers(0, len(stored.labels), stored.labels_CM.shape, np.int16)
    labels_CM[:, 1:][rng.random(labels_CM[:, 1:].shape) < 0.5] = NONE
    write_labels(index, replace(stored, labels_CM=labels_CM))


def main() -> None:
    """Serve, type, and print."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("--runs", type=int, default=1, help="how often the ten queries are typed")
    parser.add_argument("--made-labels", action="store_true")
    options = parser.parse_args()
    if options.made_labels:
        make_labels(Index.open(options.index))
    with TemporaryDirectory() as home, served(Path(home), options.index) as server, sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS).new_page()
        page.goto(f"{server.url}/?q=a+sound")
        page.wait_for_selector("[role=grid][aria-busy=false] .row[data-path]", timeout=120_000)
        page.wait_for_selector(".choice", timeout=120_000)
        print(f"{page.locator('.status').inner_text()}, load {os.getloadavg()[0]:.1f}")
        times = []
        for _ in range(options.runs):
            for text in TEXTS:
                page.locator("#search").fill("")
                page.locator("#search").press_sequentially(text[:-1], delay=40)
                times.append(page.evaluate(LAST_KEY, text))
                page.wait_for_timeout(500)
        print(f"median {statistics.median(times):.0f} ms, lowest {min(times):.0f}, highest {max(times):.0f}")


if __name__ == "__main__":
    main()
