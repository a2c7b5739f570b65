"""Listening on the page: playing from the match, loops, keys, formats that browsers cannot play."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile

from openclap.library import Library
from support.browsing import Reader, until
from support.serving import LiveServer

Open = Callable[..., Reader]


def test_a_hit_plays_from_its_match_by_ranges(open_page: Open, demo_url: str) -> None:
    body = {"terms": [{"text": "a xylophone"}], "k": 50}
    hits = httpx.post(f"{demo_url}/v1/search/combined", json=body, timeout=30).json()["hits"]
    row, hit = next((row, hit) for row, hit in enumerate(hits) if 2 < hit["start_s"] < hit["duration_s"] - 2)
    reader = open_page(f"{demo_url}/?q=a+xylophone&words=off")
    reader.wait_for_hits()
    ranges: list[str | None] = []
    reader.page.on(
        "request", lambda each: ranges.append(each.headers.get("range")) if "/sounds/file" in each.url else None
    )
    reader.page.evaluate("row => document.querySelector('.hits').scrollTop = row * 60", row)
    reader.page.locator(f".row[data-row='{row}'] .play").click()
    until(lambda: reader.playing()["at_s"] > hit["start_s"] + 0.5, reader)
    state = reader.playing()
    assert state["name"] == Path(hit["path"]).name and state["is_playing"]
    assert hit["start_s"] < state["at_s"] < hit["start_s"] + 5 and ranges and all(ranges)
    reader.page.locator(".foot button[aria-label=Pause]").click()
    stopped = reader.playing()
    reader.page.wait_for_timeout(400)
    assert reader.playing() == stopped and not stopped["is_playing"]


def test_keys_alone_play_the_third_hit_of_a_filtered_search(open_page: Open, demo_url: str) -> None:
    reader = open_page(demo_url)
    reader.wait_for_hits()
    keyboard = reader.page.keyboard
    keyboard.press("/")
    keyboard.type("a drum")
    reader.wait_for_hits("a drum")
    while reader.page.evaluate("document.activeElement.closest('.choice')?.innerText.split('\\n')[0]") != "1–5 s":
        keyboard.press("Tab")
    keyboard.press("Space")
    until(lambda: reader.total == 180, reader)
    keyboard.press("/")
    for _ in range(3):
        keyboard.press("ArrowDown")
        reader.page.wait_for_timeout(100)
    third = reader.page.get_attribute(".row[data-row='2']", "data-path")
    until(lambda: reader.playing()["name"] == Path(third).name and reader.playing()["at_s"] > 0.2, reader)
    assert reader.page.evaluate("document.activeElement.dataset.path") == third

    keyboard.press("Space")
    until(lambda: not reader.playing()["is_playing"], reader)
    keyboard.press("Shift+ArrowLeft")
    until(lambda: reader.playing()["at_s"] == 0, reader)
    keyboard.press("ArrowRight")
    until(lambda: reader.playing()["at_s"] == pytest.approx(1.0, abs=0.06), reader)
    keyboard.press("Enter")
    reader.page.wait_for_selector(".details")
    keyboard.press("Escape")
    until(lambda: reader.page.locator(".details").count() == 0, reader)
    keyboard.press("?")
    reader.page.wait_for_selector("dialog[open]")
    keyboard.press("Escape")
    keyboard.press("x")
    until(lambda: "sound" in reader.address, reader)
    # While someone types, keys are letters.
    keyboard.press("/")
    keyboard.press("End")
    keyboard.type("sx?")
    assert reader.page.input_value("#search").endswith("sx?") and len(reader.address["sound"]) == 1


def test_the_slider_is_one_for_keyboards_and_readers(open_page: Open, demo_url: str) -> None:
    reader = open_page(f"{demo_url}/?q=crickets&words=only")
    reader.wait_for_hits()
    reader.page.locator(".row[data-row='0'] .play").click()
    reader.page.locator(".foot button[aria-label=Pause]").click()
    slider = reader.page.get_by_role("slider", name="Position in scratch-crickets.ogg")
    slider.focus()
    reader.page.keyboard.press("End")
    assert float(slider.get_attribute("aria-valuenow")) == float(slider.get_attribute("aria-valuemax")) == 4.2
    assert slider.get_attribute("aria-valuetext") == "4.2 seconds of 4.2 seconds"
    for key, expected in (("ArrowLeft", 3.15), ("Home", 0.0), ("ArrowRight", 1.0), ("Shift+ArrowRight", 4.15)):
        reader.page.keyboard.press(key)
        assert float(slider.get_attribute("aria-valuenow")) == pytest.approx(expected, abs=0.06), key


@pytest.mark.long
def test_a_part_loops(open_page: Open, demo_url: str) -> None:
    reader = open_page(f"{demo_url}/?q=crickets&words=only")
    reader.wait_for_hits()
    reader.drag(".row[data-row='0'] .waveform", 0.4, 0.5)
    reader.page.keyboard.press("l")
    reader.page.get_by_role("button", name="Play it").click()
    places = []
    for _ in range(20):
        reader.page.wait_for_timeout(80)
        places.append(reader.playing()["at_s"])
    assert min(places) >= 1.5 and max(places) < 2.4, places
    assert any(later < earlier for earlier, later in pairwise(places)), places
    link = reader.page.get_by_role("link", name="Download WAV").get_attribute("href")
    clip = httpx.get(f"{demo_url}{link}")
    assert clip.content[:4] == b"RIFF" and len(clip.content) == pytest.approx(0.41 * 44100 * 2, rel=0.1)


def test_one_sound_plays_at_a_time(open_page: Open, demo_url: str) -> None:
    reader = open_page(f"{demo_url}/?q=music")
    reader.wait_for_hits()
    for row in (0, 1):
        reader.page.locator(f".row[data-row='{row}'] .play").click()
    until(lambda: reader.playing()["is_playing"], reader)
    assert reader.page.locator(".row button[aria-label^=Pause]").count() == 1
    assert reader.playing()["name"] == reader.names[1]


@pytest.mark.long
def test_a_format_that_browsers_cannot_play_is_decoded_by_the_server(
    open_page: Open, served: Callable[..., LiveServer], tmp_path: Path
) -> None:
    server = served({"a.ogg": "crickets"})
    wave_N, rate = soundfile.read(tmp_path / "sounds" / "a.ogg")
    soundfile.write(tmp_path / "sounds" / "b.aiff", np.stack([wave_N, wave_N], axis=1), rate, subtype="PCM_24")
    Library.open(tmp_path / "index", None).add([tmp_path / "sounds"])
    reader = open_page(server.url)
    reader.wait_for_hits()
    reader.page.locator(".row[data-path$='b.aiff'] .play").click()
    until(lambda: reader.playing()["at_s"] > 0.3, reader)
    assert "decoded by the server" in reader.page.inner_text(".now-time")
    reader.page.keyboard.press("ArrowRight")
    reader.page.keyboard.press("ArrowRight")
    until(lambda: reader.playing()["at_s"] > 2.4 and reader.playing()["is_playing"], reader)
    assert reader.page.locator(".problem").count() == 0
