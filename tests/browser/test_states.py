"""States of the page: missing files, tokens, a full or lost server, indexing, hostile names, narrow windows."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from openclap.library import Library
from openclap.server.security import Access
from openclap.server.service import Limits
from support.browsing import Reader, need, until
from support.serving import LiveServer, ServerProcess

Open = Callable[..., Reader]
Serve = Callable[..., LiveServer]
ROOT = Path(__file__).parents[2]
TOKEN = "a-token-of-26-characters-xx"


def test_a_file_that_is_gone_says_so_and_offers_an_update(open_page: Open, served: Serve, tmp_path: Path) -> None:
    server = served({"a.ogg": "dog1", "b.ogg": "cat"})
    (tmp_path / "sounds" / "a.ogg").unlink()
    reader = open_page(server.url, quiet=True)  # Chromium logs the 404
    reader.wait_for_hits()
    reader.page.locator(".row[data-path$='a.ogg'] .play").click()
    reader.page.wait_for_selector(".problem")
    assert "no longer there" in reader.page.inner_text(".problem")
    reader.page.get_by_role("button", name="Update the index").click()
    until(lambda: reader.names == ["b.ogg"], reader)


@pytest.mark.long
def test_a_damaged_file_has_its_sentence(open_page: Open, served: Serve, tmp_path: Path) -> None:
    server = served({"a.ogg": "dog1", "b.ogg": "cat"})
    index = Library.open(tmp_path / "index").index
    place = tmp_path / "sounds" / "a.ogg"
    row = index.files([str(place)])[str(place)]
    place.write_bytes(b"\0" * row.size)
    os.utime(place, ns=(row.mtime_ns, row.mtime_ns))  # the same size and time: it is taken for the indexed file
    reader = open_page(server.url, quiet=True)
    reader.wait_for_hits()
    reader.page.locator(".row[data-path$='a.ogg'] .play").click()
    reader.page.wait_for_selector(".problem")
    assert "a.ogg" in reader.page.inner_text(".problem")
    reader.page.locator(".row[data-path$='b.ogg'] .play").click()
    until(lambda: reader.playing()["name"] == "b.ogg" and reader.page.locator(".problem").count() == 0, reader)


def test_the_token_is_exchanged_for_a_cookie(open_page: Open, served: Serve) -> None:
    server = served({"a.ogg": "dog1"}, access=Access(TOKEN))
    reader = open_page(f"{server.url}/?q=dog", quiet=True)
    box = reader.page.get_by_label("Token")
    box.fill("another-token-that-is-wrong")
    reader.page.get_by_role("button", name="Open", exact=True).click()
    until(lambda: "wrong" in reader.page.inner_text("#token-error"), reader)
    box.fill(TOKEN)
    reader.page.get_by_role("button", name="Open", exact=True).click()
    reader.wait_for_hits()
    reader.page.locator(".row .play").first.click()
    until(lambda: reader.page.locator(".slider.waiting").count() == 0, reader)
    assert TOKEN not in json.dumps(reader.page.context.cookies())
    assert reader.page.evaluate("document.cookie") == ""
    reader.page.reload()
    reader.wait_for_hits()


@pytest.mark.long
def test_a_full_server_is_asked_again(open_page: Open, served: Serve) -> None:
    server = served({"a.ogg": "dog1"}, limits=Limits(requests=1))
    reader = open_page(server.url, quiet=True)  # its requests come at once, and all but one get 429
    reader.wait_for_hits()
    reader.page.wait_for_selector(".choice")
    assert reader.page.locator(".empty, .note").count() == 0


def test_a_server_that_stays_full_has_its_sentence(open_page: Open, served: Serve) -> None:
    server = served({"a.ogg": "dog1"}, limits=Limits(requests=0))
    reader = open_page(server.url, quiet=True)
    reader.page.clock.install()  # the pauses between the tries
    reader.page.reload()
    for _ in range(8):
        reader.page.clock.run_for(10_000)
        reader.page.wait_for_timeout(100)
    reader.page.get_by_role("heading", name="The search failed").wait_for()
    assert "a little later" in reader.page.inner_text(".empty")
    server.service.limits = Limits()
    reader.page.get_by_role("button", name="Try again").click()
    reader.page.clock.run_for(1000)
    reader.wait_for_hits()


@pytest.mark.long
def test_a_token_of_an_earlier_server_is_asked_for_again(open_page: Open, served: Serve) -> None:
    access = Access(TOKEN)
    server = served({"a.ogg": "dog1", "b.ogg": "cat"}, access=access)
    reader = open_page(f"{server.url}/?q=dog", quiet=True)
    reader.page.get_by_label("Token").fill(TOKEN)
    reader.page.get_by_role("button", name="Open", exact=True).click()
    reader.wait_for_hits()
    reader.page.context.clear_cookies()  # as after a restart, which makes a new cookie
    reader.page.fill("#search", "cat")
    reader.page.get_by_label("Token").fill(TOKEN)
    reader.page.get_by_role("button", name="Open", exact=True).click()
    reader.wait_for_hits("cat")


@pytest.mark.long
def test_the_page_goes_on_when_the_server_is_back(open_page: Open, demo_home: Path) -> None:
    index, environment = demo_home / "demo" / "index", {"OPENCLAP_HOME": str(demo_home)}
    server = ServerProcess(index, environment=environment)
    reader = open_page(server.url, quiet=True)
    try:
        reader.search("a cow")
        found = reader.names
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        reader.page.wait_for_selector(".banner")
        assert reader.names[:5] == found[:5], "the hits stay in sight"
        reader.page.fill("#search", "a dog barking")
    finally:
        server.process.kill()
    again = ServerProcess(index, port=int(server.url.rpartition(":")[2]), environment=environment)
    try:
        until(lambda: reader.page.locator(".banner").count() == 0, reader, 20)
        until(lambda: reader.names[:1] == ["scratch-dog1.ogg"], reader)
    finally:
        again.process.kill()
        again.process.wait()


def test_indexing_shows_progress_and_failures(open_page: Open, served: Serve, tmp_path: Path) -> None:
    server = served({"a.ogg": "dog1", "b.ogg": "cat"}, indexed=False)
    (tmp_path / "sounds" / "broken.wav").write_bytes(b"RIFF no sound")
    reader = open_page(server.url)
    reader.page.wait_for_selector(".empty")
    reader.page.locator(".status").click()
    reader.page.get_by_role("button", name="Update the index").click()
    reader.page.wait_for_selector(".skipped")
    assert "broken.wav" in reader.page.inner_text(".skipped td")
    assert "2 added" in reader.page.inner_text(".progress")
    until(lambda: reader.page.inner_text(".status") == "2 sounds", reader)
    reader.page.get_by_role("button", name="Back to the search").click()
    reader.wait_for_hits()
    assert reader.names == ["a.ogg", "b.ogg"]


HOSTILE = [
    "<img src=x onerror=document.title='owned'>.ogg",
    "\"quotes\" & 'more' <b>bold<.ogg",
    "two\nlines\t🐕.ogg",
    "שלום עולם.ogg",
    "x" * 200 + ".ogg",
]


def test_hostile_names_and_metadata_show_as_themselves(
    open_page: Open, tiny_model: Path, served: Serve, tmp_path: Path
) -> None:
    folder = tmp_path / "sounds" / "<script>document.title='owned'<"
    folder.mkdir(parents=True)
    tone = 0.1 * np.sin(np.arange(8000))
    for name in HOSTILE:
        place = folder / name
        with soundfile.SoundFile(place, "w", 16000, 1, format="OGG") as file:
            file.title = "<svg onload=document.title='owned'>"
            file.artist = "</bdi><script>document.title='owned'</script>"
            file.comment = "javascript:alert(1) 🎉"
            file.write(tone)
    server = served({"a.ogg": "dog1"})
    reader = open_page(server.url, width=360)
    reader.wait_for_hits()
    shown = reader.page.locator(".row .file").all_inner_texts()
    for name in HOSTILE:
        assert name.replace("\n", "↵").replace("\t", "⇥") in shown
    for row in range(len(HOSTILE)):
        reader.page.locator(f".row[data-row='{row}'] .play").click()
        if row == 0:
            reader.page.keyboard.press("Enter")
        until(lambda: reader.playing()["at_s"] > 0.1, reader)
    assert "</bdi><script>" in reader.page.inner_text(".details")
    reader.page.locator(".row[data-row='0']").focus()
    reader.page.keyboard.press("s")
    reader.page.wait_for_selector(".chip")
    assert reader.page.title() == "openclap"
    assert reader.page.evaluate("document.querySelectorAll('script, svg[onload], img[onerror]').length") == 1
    assert reader.page.evaluate("document.documentElement.scrollWidth") == 360
    assert (
        reader.page.evaluate("getComputedStyle(document.querySelector('[data-path*=\"עולם\"] .file')).direction")
        == "rtl"
    )


@pytest.mark.parametrize(
    "width", [360, pytest.param(768, marks=pytest.mark.long), pytest.param(3840, marks=pytest.mark.long)]
)
def test_no_width_scrolls_sideways(open_page: Open, demo_url: str, width: int) -> None:
    reader = open_page(f"{demo_url}/?q=a+train", width=width, height=740)
    reader.wait_for_hits()
    reader.page.locator(".row[data-row='1'] .play").click()
    reader.page.keyboard.press("Enter")
    reader.page.wait_for_selector(".details")
    assert reader.page.evaluate("document.documentElement.scrollWidth") == width
    outside = reader.page.evaluate(
        "[...document.querySelectorAll('button, input, a')].filter(each => each.checkVisibility() &&"
        " !each.closest('.suggestions, .hidden') && each.id !== 'file'"
        " && each.getBoundingClientRect().right > innerWidth + 1).map(each => each.outerHTML)"
    )
    assert outside == []


def axe() -> str:
    place = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
    need(place.is_file(), "axe-core is not installed: npm ci --prefix web.")
    return place.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (360, "dark"),
        (1280, "light"),
        pytest.param(360, "light", marks=pytest.mark.long),
        pytest.param(1280, "dark", marks=pytest.mark.long),
    ],
)
def test_axe_finds_nothing(open_page: Open, demo_url: str, scheme: str, width: int) -> None:
    script = axe()
    reader = open_page(demo_url, width=width, color_scheme=scheme, bypass_csp=True)

    def violations() -> list[Any]:
        found = reader.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
        return [(each["id"], [node["html"][:160] for node in each["nodes"]][:3]) for each in found]

    reader.wait_for_hits()
    reader.page.evaluate(script)
    assert violations() == []
    reader.search("a train")
    reader.page.locator(".row[data-row='1'] .play").click()
    reader.page.locator(".row[data-row='1']").focus()
    reader.page.keyboard.press("x")
    reader.page.wait_for_selector(".chip")
    reader.wait_for_hits()
    reader.page.locator(".row[data-row='2']").focus()
    reader.page.keyboard.press("Enter")
    reader.page.get_by_role("button", name="Spectrogram").click()
    reader.drag(".slider", 0.3, 0.6)
    reader.page.wait_for_selector(".part-bar")
    assert violations() == []
    for view in ("Collections", "Duplicates", "Map"):
        reader.page.get_by_role("button", name=view, exact=True).click()
        reader.page.wait_for_selector(".list-view, .map")
        assert violations() == []
    reader.page.keyboard.press("?")
    reader.page.wait_for_selector("dialog[open]")
    assert violations() == []
    reader.page.keyboard.press("Escape")
    reader.page.locator(".status").click()
    reader.page.wait_for_selector(".index-view")
    assert violations() == []
