"""The page in Firefox: hits while typing, playing from the match, keys, a narrow window."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.browsing import need
from support.firefox import FIREFOX, Firefox
from support.serving import LiveServer


@pytest.mark.long
def test_the_page_works_in_firefox(served: Callable[..., LiveServer], tmp_path: Path) -> None:
    need(FIREFOX, "Firefox is not installed: apt-get install firefox-esr.")
    server = served({"a.ogg": "dog1", "crickets.ogg": "crickets", "c.ogg": "cat"})
    with Firefox(tmp_path / "profile") as firefox:
        firefox.send("WebDriver:Navigate", url=server.url)
        firefox.until("document.querySelectorAll('.row[data-path]').length === 3")
        firefox.run("window.failures = []; addEventListener('error', event => failures.push(event.message));")
        firefox.type("#search", "crickets")
        firefox.until("new URLSearchParams(location.search).get('q') === 'crickets'")
        firefox.until("document.querySelector('[role=grid]')?.getAttribute('aria-busy') === 'false'")
        firefox.until("[...document.querySelectorAll('.waveform canvas')].every(each => each.height !== 150)")
        firefox.click(".row[data-path$='crickets.ogg'] .play")
        firefox.until("Number(document.querySelector('.foot [role=slider]')?.getAttribute('aria-valuenow')) > 0.5")
        assert firefox.run("return document.querySelector('.now .file').innerText") == "crickets.ogg"
        firefox.until("document.querySelector('.surfer > div')?.shadowRoot?.querySelector('canvas') !== null")
        row = ".row[data-path$='crickets.ogg']"
        firefox.type(row, " ")
        firefox.until("document.querySelector('.foot button[aria-label=Play]') !== null")
        firefox.type(row, "\ue007")  # Enter
        firefox.until("document.querySelector('.details') !== null")
        firefox.type(row, "s")
        firefox.until("document.querySelector('.chip') !== null")
        firefox.send("WebDriver:SetWindowRect", width=500, height=740)
        firefox.until("document.documentElement.scrollWidth <= innerWidth")
        assert firefox.run("return failures") == []
        firefox.screenshot(tmp_path / "firefox.png")
