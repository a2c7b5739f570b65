"""Take screenshots of the page in every state: `python -m scripts.page_screenshots OUT`.

At three widths and in both themes. The sounds are the demo's, in folders, with copies and odd names. Needs Chromium,
and the packages of the tests. `--pictures` writes the three of docs/assets alone.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from openclap.library import Library
from openclap.sources.record import Record
from openclap.sources.table import read_table

ROOT = Path(__file__).parents[1]
SOUNDS = ROOT / "src" / "openclap" / "demo" / "sounds"
ASSETS = ROOT / "docs" / "assets"
SIZES = {1440: 900, 768: 1024, 360: 740}
THEMES = ("light", "dark")
PICTURE = (1280, 760)
TOKEN = "a-token-of-26-characters-xx"
ODD_NAMES = (
    "<img src=x onerror=alert(1)> & \"quotes\" 'more'.ogg",
    "שלום עולם — הקלטה ארוכה של רחוב סואן בצהריים עם מכוניות.ogg",
    "two\nlines\t🐕.ogg",
    "AMBForst_Early morning in a very large forest with distant thunder, take 12, MKH8040 ORTF pair_ABC_NatureVol3.ogg",
)
BROWSER = ["--headless", "--no-sandbox", "--disable-gpu", "--mute-audio", "--autoplay-policy=no-user-gesture-required"]

PAINTED = """() => [...document.querySelectorAll(".hits .waveform canvas")].every(canvas => {
    const box = canvas.getBoundingClientRect();
    return box.top > innerHeight || box.bottom < 0 || canvas.height !== 150;
})"""
"""Whether the waveforms in sight are drawn, which sets the height of their canvases."""

Page = Any


def make_library(folder: Path, *, plain: bool) -> None:
    """Sounds in folders, with facts, indexed by the bundled model; unless plain, with copies and odd names."""
    sounds = folder / "Sounds"
    records: list[Record] = []
    for record in read_table(SOUNDS / "sounds.csv"):
        source = Path(record.audio)
        family, kind, *_ = source.stem.split("-")
        names = {"opensfx": "OpenSFX", "scratch": "Scratch", "supersonic": f"Supersonic/{kind.title()}"}
        place = sounds / names[family] / source.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)
        records.append(replace(record, audio=place))
    if not plain:
        _add_copies(sounds)
        _add_odd_names(sounds / "Odd names")
    Library.open(folder / "index").add([sounds], records=records)


def _add_copies(sounds: Path) -> None:
    copies = sounds / "Copies"
    copies.mkdir()
    shutil.copyfile(SOUNDS / "scratch-bell-toll.ogg", copies / "bell again.ogg")
    wave_N, rate = soundfile.read(SOUNDS / "opensfx-applause.ogg")
    soundfile.write(copies / "applause 24 bit.wav", 0.5 * wave_N, rate, subtype="PCM_24")
    soundfile.write(copies / "applause cut.flac", wave_N[rate:], rate)
    wave_N, rate = soundfile.read(SOUNDS / "scratch-crickets.ogg")
    soundfile.write(copies / "crickets.wav", wave_N, rate)
    soundfile.write(copies / "a long evening of crickets.flac", np.tile(wave_N, 40), rate)


def _add_odd_names(folder: Path) -> None:
    folder.mkdir()
    for name, source in zip(
        ODD_NAMES, ("scratch-meow", "scratch-car-passing", "scratch-dog1", "scratch-wind"), strict=True
    ):
        place = SOUNDS / f"{source}.ogg"
        shutil.copyfile(place if place.is_file() else SOUNDS / "scratch-dog1.ogg", folder / name)


@contextmanager
def served(folder: Path, sounds: Path, *options: str, port: int = 0, **environment: str) -> Iterator[Any]:
    """`openclap serve` as a process; its address is `url`."""
    command = [sys.executable, "-m", "openclap", "serve", str(sounds), "--port", str(port), *options]
    own = {**os.environ, "OPENCLAP_HOME": str(folder / "home"), **environment}
    process: Any = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=own)
    for line in process.stderr:
        if match := re.search(r"at (http://\S+)", line):
            process.url = match[1]
            break
    # Nobody reads the rest, which is short.
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


class Shots:
    """Pages at one width and theme, and the files of their screenshots."""

    def __init__(self, browser: Any, out: Path, width: int, height: int, theme: str) -> None:
        self.browser, self.out, self.width, self.height, self.theme = browser, out, width, height, theme

    def take(self, name: str, url: str, do: Callable[[Page], None] = lambda page: None) -> None:
        """Open a page, do something there, and take a screenshot."""
        context = self.browser.new_context(
            viewport={"width": self.width, "height": self.height}, color_scheme=self.theme, reduced_motion="reduce"
        )
        page = context.new_page()
        page.set_default_timeout(120_000)
        try:
            page.goto(url)
            do(page)
            page.wait_for_timeout(500)
            self.out.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=self.out / f"{name}-{self.width}-{self.theme}.png")
        finally:
            context.close()


def hits(page: Page) -> None:
    """Wait for hits and their waveforms."""
    page.wait_for_selector("[role=grid][aria-busy=false] .row[data-path]")
    page.wait_for_selector(".status")
    page.wait_for_function(PAINTED)


def play(page: Page, row: int = 0) -> None:
    """Play a row for a moment, then pause."""
    hits(page)
    page.locator(f".row[data-row='{row}'] .play").click()
    page.wait_for_timeout(700)
    page.evaluate("document.querySelector('.foot button[aria-label=Pause]')?.click()")  # a short one has ended
    page.wait_for_timeout(300)


def drag(page: Page, selector: str, first: float, last: float) -> None:
    """Drag over an element."""
    box = page.locator(selector).first.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + first * box["width"], middle)
    page.mouse.down()
    page.mouse.move(box["x"] + last * box["width"], middle, steps=5)
    page.mouse.up()


def refine(page: Page) -> None:
    """More like one hit, less like another, and a part."""
    hits(page)
    for row, key in ((1, "s"), (3, "x")):
        page.locator(f".row[data-row='{row}']").focus()
        page.keyboard.press(key)
        page.wait_for_timeout(400)
        hits(page)
    drag(page, ".row[data-row='1'] .waveform", 0.35, 0.7)
    page.wait_for_timeout(500)


def details(page: Page, row: int) -> None:
    """The details of a hit, with its spectrogram."""
    play(page, row)
    page.locator(f".row[data-row='{row}']").focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Spectrogram").click()
    page.wait_for_timeout(900)


def type_slowly(page: Page) -> None:
    hits(page)
    page.locator("#search").press_sequentially("a dog", delay=30)
    page.get_by_role("button", name="a dog barking once").wait_for()
    hits(page)


def collections(page: Page) -> None:
    hits(page)
    page.evaluate(
        """async () => {
            const rows = [...document.querySelectorAll(".row[data-path]")].map(row => row.dataset.path).slice(0, 6);
            await fetch("/v1/collections/Starred", { method: "PUT", headers: { "Content-Type": "application/json" },
                body: JSON.stringify({ paths: rows }) });
            await fetch("/v1/collections/Film%20noir", { method: "PUT", headers: { "Content-Type": "application/json" },
                body: JSON.stringify({ paths: [] }) });
        }"""
    )
    page.reload()
    page.get_by_role("button", name="Collections", exact=True).click()
    page.wait_for_selector(".sound-row")
    page.wait_for_timeout(600)


def new_collection(page: Page) -> None:
    page.get_by_label("Name of a new collection").fill("Rainy night")
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_role("heading", name="No sounds in").wait_for()


def compare(page: Page) -> None:
    """Groups of duplicates."""
    button = page.get_by_role("button", name=re.compile("Compare (all sounds|again)"))
    button.wait_for()
    if page.locator(".card").count() == 0 and "again" not in button.inner_text():
        button.click()
    page.locator(".card").first.wait_for(timeout=120_000)
    page.wait_for_timeout(600)


def lasso(page: Page) -> None:
    page.locator(".map canvas").wait_for()
    page.wait_for_timeout(400)
    box = page.locator(".map canvas").bounding_box()
    corners = ((0.3, 0.25), (0.7, 0.25), (0.7, 0.7), (0.3, 0.7))
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=6)
    page.mouse.up()
    page.wait_for_selector(".chosen")
    page.wait_for_timeout(700)


def help_dialog(page: Page) -> None:
    hits(page)
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open]")


def show_filters(page: Page) -> None:
    hits(page)
    button = page.locator(".filter-button")
    if button.is_visible():
        button.click()


def focus_row(page: Page) -> None:
    """Focus rings: the second hit, by the keyboard alone."""
    hits(page)
    page.keyboard.press("/")
    for _ in range(2):
        page.keyboard.press("ArrowDown")
        page.wait_for_timeout(150)
    page.keyboard.press("Space")


def dropping(page: Page) -> None:
    hits(page)
    page.evaluate(
        """() => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([], "a.wav"));
            dispatchEvent(new DragEvent("dragover", { dataTransfer: transfer, bubbles: true, cancelable: true }));
        }"""
    )


def note_of_error(page: Page) -> None:
    hits(page)
    page.evaluate(
        """() => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(9)], "notes.txt"));
            dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
        }"""
    )
    page.wait_for_selector(".note.error")


def select(name: str) -> Callable[[Page], None]:
    return lambda page: page.wait_for_selector(name)


def whole_index(shots: Shots, url: str) -> None:
    """The states of a page with an index."""
    shots.take("empty", url, hits)
    shots.take("typing", url, type_slowly)
    shots.take("hits", f"{url}/?q=a+dog+barking", lambda page: play(page, 1))
    shots.take("focus", f"{url}/?q=church+bell", focus_row)
    shots.take("refine", f"{url}/?q=an+animal", refine)
    shots.take("filters", f"{url}/?q=a+drum&where=%7B%22tags%22%3A%5B%22percussion%22%5D%7D", show_filters)
    shots.take("nothing-found", f"{url}/?q=zebra&words=only", select(".empty"))
    shots.take("nothing-filtered", f"{url}/?where=%7B%22rate%22%3A%5B1%5D%7D", select(".empty"))
    shots.take("probably-nothing", f"{url}/?q=a+lecture+about+tax+law&words=off", hits)
    shots.take(
        "odd-names", f"{url}/?where=%7B%22folder%22%3A%5B%22Sounds%2FOdd%20names%22%5D%7D", lambda page: play(page, 0)
    )
    shots.take("details", f"{url}/?q=church+bell", lambda page: details(page, 4))  # of two labels
    shots.take("help", url, help_dialog)
    shots.take("dropping", url, dropping)
    shots.take("note", url, note_of_error)
    shots.take("collections-empty", f"{url}/?view=collections", new_collection)
    shots.take("duplicates-idle", f"{url}/?view=duplicates", select(".list-view"))
    shots.take("map", f"{url}/?view=map", lambda page: page.wait_for_timeout(900))
    shots.take("map-selected", f"{url}/?view=map", lasso)
    shots.take("index", f"{url}/?view=index", select(".index-view"))


def with_collections(shots: Shots, url: str) -> None:
    shots.take("collections", f"{url}/?q=thunder", collections)
    shots.take("duplicates", f"{url}/?view=duplicates", compare)


def failures(shots: Shots, folder: Path) -> None:
    """A file that is gone, a lost server, and a token."""
    index, gone = folder / "index", folder / "Sounds" / "Scratch" / "scratch-bell-toll.ogg"
    with served(folder, index) as server:
        moved = gone.with_suffix(".moved")
        if gone.is_file():
            gone.rename(moved)
        try:
            shots.take("file-gone", f"{server.url}/?q=bell-toll&words=only", lambda page: play(page, 0))
        finally:
            if moved.is_file():
                moved.rename(gone)

        def lose(page: Page) -> None:
            hits(page)
            server.kill()
            server.wait()
            page.wait_for_selector(".banner")

        shots.take("lost", f"{server.url}/?q=thunder", lose)
    with served(folder, index, OPENCLAP_TOKEN=TOKEN) as server:

        def wrong(page: Page) -> None:
            page.get_by_label("Token").fill("a-token-that-is-wrong")
            page.get_by_role("button", name="Open", exact=True).click()
            page.wait_for_timeout(400)

        shots.take("token", server.url, wrong)


def indexing(shots: Shots, folder: Path) -> None:
    """A folder that is being indexed, with files that cannot be read; then the same when done."""
    home = folder / f"new-{shots.width}-{shots.theme}"
    sounds = home / "New sounds"
    shutil.copytree(folder / "Sounds" / "Scratch", sounds / "Scratch")
    (sounds / "broken.wav").write_bytes(b"RIFF no sound")
    (sounds / "Scratch" / "empty.flac").write_bytes(b"")
    with served(home, sounds) as server:
        shots.take("indexing-first", server.url, lambda page: page.wait_for_timeout(300))
        shots.take("indexing", f"{server.url}/?view=index", select(".progress"))

        def done(page: Page) -> None:
            page.locator(".skipped").wait_for(timeout=600_000)

        shots.take("indexed", f"{server.url}/?view=index", done)
    shutil.rmtree(home)


def pictures(browser: Any, url: str) -> None:
    """The three pictures of README and docs."""
    shots = Shots(browser, ASSETS, *PICTURE, "light")
    shots.take("page-hits", f"{url}/?q=an+engine+starting", lambda page: play(page, 2))
    shots.take("page-refine", f"{url}/?q=an+animal", refine)
    shots.take("page-details", f"{url}/?q=birds+singing", lambda page: details(page, 0))
    for name in ("hits", "refine", "details"):
        (ASSETS / f"page-{name}-{PICTURE[0]}-light.png").rename(ASSETS / f"page-{name}.png")


def main() -> None:
    """Make a library, serve it, and take the screenshots."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the folder of the screenshots, and of the library that they show")
    parser.add_argument("--pictures", action="store_true", help="write the three of docs/assets")
    parser.add_argument("--widths", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--themes", nargs="*", default=list(THEMES))
    parser.add_argument("--only", nargs="*", default=["whole", "collections", "failures", "indexing"])
    chosen = parser.parse_args()
    folder = chosen.out.absolute() / ("plain" if chosen.pictures else "library")
    if not (folder / "index" / "index.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        make_library(folder, plain=chosen.pictures)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=BROWSER)
        if chosen.pictures:
            with served(folder, folder / "index") as server:
                pictures(browser, server.url)
            return
        every = [
            Shots(browser, chosen.out, width, SIZES[width], theme) for width in chosen.widths for theme in chosen.themes
        ]
        with served(folder, folder / "index") as server:
            for shots in every if "whole" in chosen.only else []:
                whole_index(shots, server.url)
            for shots in every if "collections" in chosen.only else []:
                with_collections(shots, server.url)
        for shots in every:
            if "failures" in chosen.only:
                failures(shots, folder)
            if "indexing" in chosen.only:
                indexing(shots, folder)


if __name__ == "__main__":
    main()
