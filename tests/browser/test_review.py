"""Collections, and the review of duplicates."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from openclap.library import Library
from openclap.server.security import Access
from openclap.server.store import Store
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


def test_a_collection_is_exported_as_a_folder_of_links(
    open_page: Open, served: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENCLAP_HOME", str(tmp_path / "home"))
    change, waits = Store.change, iter([0.5])

    def change_the_first_slowly(*arguments: Any) -> None:
        time.sleep(next(waits, 0))
        change(*arguments)

    monkeypatch.setattr(Store, "change", change_the_first_slowly)
    server = served({"a.ogg": "dog1", "sub/a.ogg": "cat"}, access=Access(is_local=True))
    reader = open_page(server.url)
    reader.wait_for_hits()
    for row in (0, 1):
        reader.page.locator(f".row[data-row='{row}']").get_by_label("Add to Starred").click()
    until(lambda: reader.page.get_by_label("Remove from Starred").count() == 2, reader)
    reader.page.get_by_role("button", name="Collections", exact=True).click()
    reader.page.get_by_role("button", name="Export as folder of links").click()
    folder = tmp_path / "home" / "collections" / "Starred"
    reader.page.get_by_text(f"2 links in {folder}.").wait_for()
    reader.page.get_by_role("button", name="Open the folder").wait_for()
    links = {link.name: link.readlink() for link in folder.iterdir()}
    assert links == {"a.ogg": tmp_path / "sounds" / "a.ogg", "a (2).ogg": tmp_path / "sounds" / "sub" / "a.ogg"}


def test_a_hit_and_a_part_are_dragged_out(open_page: Open, served: Serve, tmp_path: Path) -> None:
    server = served({"a: take “1”.ogg": "crickets"})
    reader = open_page(server.url)
    reader.wait_for_hits()
    reader.page.evaluate(
        "addEventListener('dragstart', event => { window.dragged = event.dataTransfer.getData('DownloadURL') })"
    )

    def drag_out(selector: str) -> tuple[str, str, httpx.Response]:
        """The type, the name and the file of what Chromium would write where the pointer is let go."""
        reader.page.evaluate("delete window.dragged")
        box = reader.page.locator(selector).bounding_box()
        reader.page.mouse.move(box["x"] + 12, box["y"] + box["height"] / 2)
        reader.page.mouse.down()
        reader.page.mouse.move(box["x"] + 60, box["y"] - 80, steps=8)
        reader.wait_for("() => window.dragged")
        kind, name, url = reader.page.evaluate("window.dragged").split(":", 2)
        reader.page.mouse.up()
        return kind, name, httpx.get(url)

    kind, name, file = drag_out(".row[data-row='0'] .name")
    assert (kind, name) == ("application/octet-stream", "a_ take “1”.ogg")
    assert file.content == (tmp_path / "sounds" / "a: take “1”.ogg").read_bytes()
    reader.drag(".row[data-row='0'] .waveform", 0.25, 0.5)
    reader.page.wait_for_selector(".part-time")
    kind, name, file = drag_out(".part-time")
    assert (kind, name) == ("audio/wav", "a_ take “1”.wav")
    part_N, rate = soundfile.read(io.BytesIO(file.content))
    whole_N, _ = soundfile.read(tmp_path / "sounds" / "a: take “1”.ogg")
    first = int(0.25 * len(whole_N))
    assert len(part_N) == pytest.approx(0.25 * len(whole_N), abs=0.05 * rate)
    # Where the part lies in the whole, by their correlation.
    lags = np.correlate(whole_N[: first + len(part_N) + rate], part_N[: rate // 2], mode="valid")
    assert np.argmax(lags) == pytest.approx(first, abs=0.03 * rate)


@pytest.mark.long
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
    reader.page.locator(".foot button[aria-label=Pause]").click()
    until(lambda: not reader.playing()["is_playing"], reader)
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


def test_details_of_duplicates_are_those_of_hits(open_page: Open, served: Serve, tmp_path: Path) -> None:
    server = served({"a.ogg": "crickets", "copy.ogg": "crickets"})
    Library.open(tmp_path / "index").label("Low: a low tone; a deep hum\nNoise")
    path = str(tmp_path / "sounds" / "a.ogg")
    labels = httpx.get(f"{server.url}/v1/sounds", params={"path": path}).json()["labels"]
    assert labels
    reader = open_page(server.url)
    reader.wait_for_hits()
    reader.page.locator(f".row[data-path='{path}']").get_by_label("Open").click()
    chips = reader.page.locator(".details button.label")
    chips.first.wait_for()
    of_hit = reader.page.locator(".details dl").inner_text()
    assert chips.all_inner_texts() == labels
    reader.page.goto(f"{server.url}/?view=duplicates")
    reader.page.get_by_role("button", name="Compare all sounds").click()
    reader.page.get_by_label("Play a.ogg").click()
    reader.page.get_by_label("Open details").click()
    chips.first.wait_for()
    assert reader.page.locator(".details dl").inner_text() == of_hit
    reader.page.locator(".details").get_by_label("Add to Starred").click()
    reader.page.locator(".details").get_by_label("Remove from Starred").wait_for()


@pytest.mark.long
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


@pytest.mark.long
def test_the_map_plays_the_last_sound_pointed_at(open_page: Open, demo_url: str) -> None:
    reader = open_page(f"{demo_url}/?view=map")
    canvas = reader.page.locator(".map canvas")
    canvas.wait_for()
    paths = httpx.get(f"{demo_url}/v1/map").json()["paths"]

    def delay(route: Any) -> None:
        if Path(paths[0]).name in route.request.url:
            reader.page.wait_for_timeout(600)
        route.continue_()

    reader.page.route("**/v1/sounds?*", delay)
    canvas.focus()
    reader.page.keyboard.press("ArrowRight")
    reader.page.keyboard.press("ArrowRight")
    name = reader.page.locator(".map-name")
    until(lambda: name.inner_text() != Path(paths[0]).name, reader)
    reader.page.locator(".foot").wait_for()
    reader.page.wait_for_timeout(1000)
    assert reader.playing()["name"] == name.inner_text()
