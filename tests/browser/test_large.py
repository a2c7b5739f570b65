"""The page over 100,000 made rows: scrolling, the end of the list, and the time to the first hits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from openclap.library import Library
from openclap.search.index import FileRow
from openclap.types import Window
from support.browsing import LAST_KEY, Reader, until
from support.serving import LiveServer

ROWS = 100_000


@pytest.mark.long
def test_a_hundred_thousand_hits_scroll_without_a_stall(
    open_page: Callable[..., Reader], tiny_model: Path, tmp_path: Path, servers: list[LiveServer]
) -> None:
    library = Library.open(tmp_path / "index", tiny_model)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((ROWS, library.index.identity.dim)).astype(np.float32)
    rows = [
        FileRow(f"/made/{n % 100:02}/{n:06}.wav", f"{n:064x}", 1, 1, 2.0, 48000, 1, caption=f"sound {n}")
        for n in range(ROWS)
    ]
    windows = {row.hash: [Window(0.0, 2.0, vector)] for row, vector in zip(rows, vectors, strict=True)}
    for first in range(0, ROWS, 20_000):
        part = rows[first : first + 20_000]
        library.index.add(part, {row.hash: windows[row.hash] for row in part})
    library.index.optimize()
    library.label()  # as `add` does
    server = LiveServer(library)
    server.__enter__()
    servers.append(server)
    reader = open_page(f"{server.url}/?q=a+tone", quiet=True)  # waveforms of made files are not there
    reader.wait_for_hits()
    assert reader.total == ROWS
    longest_ms = reader.page.evaluate(
        """async () => {
            const box = document.querySelector(".hits");
            let longest = 0, last = performance.now(), at = 0;
            while (at < box.scrollHeight) {
                box.scrollTop = at += 40_000;
                await new Promise(requestAnimationFrame);
                const now = performance.now();
                longest = Math.max(longest, now - last);
                last = now;
            }
            return longest;
        }"""
    )
    print(f"longest frame {longest_ms:.0f} ms")
    assert longest_ms < 250
    assert reader.page.locator(".row").count() < 60
    until(lambda: reader.page.locator(f".row[data-row='{ROWS - 1}']").count() == 1, reader, 60)
    reader.page.keyboard.press("Home")
    until(lambda: reader.page.evaluate("document.activeElement.dataset.row") == "0", reader)
    # Until the list is no longer busy: two of the made queries may have the same first hit.
    texts = ("an entirely different noise", "wind", "a door", "a long, low hum", "glass")
    ms = min(reader.page.evaluate(LAST_KEY, text) for text in texts)
    print(f"first hits after {ms:.0f} ms")
    assert ms < 2000
