"""Collections, and the review of duplicates."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import httpx
import soundfile

from openclap.library import Library
from support.browsing import Reader, until
from support.serving import LiveServer

Open = Callable[..., Reader]
Serve = Callable[..., LiveServer]


def test_stars_make_a_collection_that_exports_as_csv(open_page: Open, served: Serve, tmp_path: Path) -> None:
    server = served({"a.ogg": "dog1", 'b, "two".ogg': "cat", "c.ogg": "bird"})
    reader = open_page(server.url)
    reader.wait_for_hits()
    for name in ("c.ogg", 'b, "two".ogg'):
        row = reader.page.locator(".row", has=reader.page.locator(f"text='{name}'"))
        row.get_by_label("Add to Starred").click()
        row.get_by_label("Remove from Starred").wait_for()
    places = [str(tmp_path / "sounds" / name) for name in ("c.ogg", 'b, "two".ogg')]
    until(lambda: httpx.get(f"{server.url}/v1/collections/Starred").json().get("paths") == places, reader)
    reader.page.reload()
    reader.wait_for_hits()
    until(lambda: reader.page.get_by_label("Remove from Starred").count() == 2, reader)
    reader.page.get_by_role("button", name="Collections", exact=True).click()
    rows = reader.page.locator(".sound-row .file")
    until(lambda: rows.all_inner_texts() == ["c.ogg", 'b, "two".ogg'], reader)
    with reader.page.expect_download() as download:
        reader.page.get_by_role("button", name="Export as CSV").click()
    text = Path(download.value.path()).read_text(encoding="utf-8")
    table = list(csv.DictReader(io.StringIO(text)))
    assert download.value.suggested_filename == "Starred.csv" and [row["path"] for row in table] == places
    assert table[0]["rate"] == "44100"
    reader.page.get_by_label("Play c.ogg").click()
    until(lambda: reader.playing()["name"] == "c.ogg", reader)
    reader.page.get_by_label("Remove c.ogg").click()
    until(lambda: rows.all_inner_texts() == ['b, "two".ogg'], reader)
    reader.page.get_by_role("button", name="Delete the collection").click()
    until(lambda: httpx.get(f"{server.url}/v1/collections").json()["names"] == [], reader)
    reader.page.get_by_role("button", name="Undo").click()
    until(lambda: httpx.get(f"{server.url}/v1/collections").json()["names"] == ["Starred"], reader)


def test_duplicates_are_played_side_by_side_and_judged(open_page: Open, served: Serve, tmp_path: Path) -> None:
    server = served({"a.ogg": "crickets", "sub/copy.ogg": "crickets", "b.ogg": "dog1"})
    wave_N, rate = soundfile.read(tmp_path / "sounds" / "a.ogg")
    soundfile.write(tmp_path / "sounds" / "later.wav", 0.5 * wave_N[rate:], rate)
    Library.open(tmp_path / "index").add([tmp_path / "sounds"])
    reader = open_page(f"{server.url}/?view=duplicates")
    reader.page.get_by_role("button", name="Compare all sounds").click()
    reader.page.wait_for_selector(".card")
    names = reader.page.locator(".card .file").all_inner_texts()
    assert sorted(names) == ["a.ogg", "copy.ogg", "later.wav"]
    reader.page.get_by_label("Play a.ogg").click()
    until(lambda: reader.playing()["at_s"] > 1.5, reader)
    before = reader.playing()["at_s"]
    # The same moment of the recording, in a file that begins a second later.
    reader.page.get_by_role("button", name="ABC"[names.index("later.wav")], exact=True).click()
    until(lambda: reader.playing()["name"] == "later.wav", reader)
    assert -0.1 < reader.playing()["at_s"] - (before - 1.0) < 1.5
    reader.page.get_by_role("button", name="Mark as judged").click()
    reader.page.get_by_text("All groups are judged").wait_for()
    reader.page.get_by_label("Show judged groups").check()
    reader.page.get_by_role("button", name="Review again").click()
    reader.page.get_by_role("button", name="Mark as judged").wait_for()


def test_the_map_plays_and_selects(open_page: Open, demo_url: str) -> None:
    reader = open_page(f"{demo_url}/?view=map")
    canvas = reader.page.locator(".map canvas")
    canvas.wait_for()
    answer = httpx.get(f"{demo_url}/v1/map").json()
    box = canvas.bounding_box()
    margin, number = 14, 100
    x = box["x"] + margin + answer["x"][number] / 10_000 * (box["width"] - 2 * margin)
    y = box["y"] + margin + (1 - answer["y"][number] / 10_000) * (box["height"] - 2 * margin)
    reader.page.mouse.move(x + 1, y)
    reader.page.wait_for_selector(".map-name")
    until(lambda: reader.page.locator(".foot").count() == 1, reader)
    assert reader.playing()["name"] == reader.page.inner_text(".map-name")
    # A loop around the left half.
    middle = box["x"] + box["width"] / 2
    corners = [(box["x"] + 2, box["y"] + 2), (middle, box["y"] + 2), (middle, box["y"] + box["height"] - 90)]
    corners.append((box["x"] + 2, box["y"] + box["height"] - 90))
    reader.page.mouse.move(*corners[0])
    reader.page.mouse.down()
    for corner in corners[1:]:
        reader.page.mouse.move(*corner, steps=6)
    reader.page.mouse.up()
    reader.page.wait_for_selector(".chosen")
    selected = int(reader.page.inner_text(".chosen h2").split()[0])
    assert 20 < selected < 379
    canvas.focus()
    before = reader.page.locator(".map-name").count() and reader.page.inner_text(".map-name")
    reader.page.keyboard.press("ArrowRight")
    until(lambda: reader.page.inner_text(".map-name") != before, reader)
