"""The page of a server in a real browser, as someone who uses it: `Reader`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
]

LAST_KEY = """text => new Promise(resolve => {
    const grid = document.querySelector("[role=grid]"), box = document.querySelector("#search");
    const start = performance.now();
    box.value = text;
    box.dispatchEvent(new Event("input", { bubbles: true }));
    const timer = setInterval(() => {
        if (grid.ariaBusy !== "false") return;
        clearInterval(timer);
        resolve(performance.now() - start);
    }, 4);
})"""
"""Enters a query at once, and resolves to the milliseconds until its hits. The list is busy until it has them."""


def need(condition: object, reason: str) -> None:
    """Skip the test, or fail where all of the browser's parts are expected."""
    if condition:
        return
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


class Reader:
    """An open page. `errors` are those of its console, violations of the security policy among them."""

    def __init__(self, page: Any, url: str) -> None:
        self.page, self.errors = page, []
        self.requests: list[str] = []
        page.set_default_timeout(30_000)  # of a busy machine
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(url)

    def wait_for(self, script: str, argument: object = None) -> Any:
        """Wait until a JavaScript expression is true."""
        return self.page.wait_for_function(script, arg=argument)

    def search(self, text: str) -> None:
        """Type a query, and wait for its hits."""
        self.page.fill("#search", "")
        self.page.locator("#search").press_sequentially(text)
        self.wait_for_hits(text)

    def wait_for_hits(self, text: str | None = None) -> None:
        """Wait until the hits are those of the address, and the address has a text. The list is busy from the first
        key until the hits of the last one."""
        self.wait_for(
            """text => (text === null || new URLSearchParams(location.search).get("q") === text)
                && document.querySelector("[role=grid][aria-busy=false] .row[data-path]") !== null""",
            text,
        )

    @property
    def names(self) -> list[str]:
        """The names of the hits in sight, in order."""
        return self.page.eval_on_selector_all(  # type: ignore[no-any-return]
            ".row[data-row]",
            "rows => rows.sort((a, b) => a.dataset.row - b.dataset.row)"
            ".map(row => row.dataset.path.slice(row.dataset.path.lastIndexOf('/') + 1))",
        )

    @property
    def address(self) -> dict[str, list[str]]:
        """The parameters of the address."""
        return parse_qs(urlsplit(self.page.url).query)

    @property
    def total(self) -> int:
        """The number of hits, which the grid states."""
        return int(self.page.get_attribute("[role=grid]", "aria-rowcount"))

    def playing(self) -> dict[str, Any]:
        """The file, second and state of the player, by its slider and button."""
        return {
            "name": self.page.inner_text(".now .file"),
            "at_s": float(self.page.get_attribute(".foot [role=slider]", "aria-valuenow")),
            "is_playing": self.page.locator(".foot button[aria-label=Pause]").count() == 1,
        }

    def drag(self, selector: str, first: float, last: float) -> None:
        """Drag over an element, from one part of its width to another."""
        box = self.page.locator(selector).first.bounding_box()
        middle = box["y"] + box["height"] / 2
        self.page.mouse.move(box["x"] + first * box["width"], middle)
        self.page.mouse.down()
        self.page.mouse.move(box["x"] + last * box["width"], middle, steps=5)
        self.page.mouse.up()

    def drop(self, name: str, content: bytes) -> None:
        """Drop a file on the page."""
        script = """([name, bytes]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name));
            dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
        }"""
        self.page.evaluate(script, [name, list(content)])


def until(condition: Callable[[], object], reader: Reader, seconds: float = 30.0) -> None:
    """Wait until a condition in Python holds. Raises AssertionError after `seconds`."""
    for _ in range(int(seconds / 0.05)):
        if condition():
            return
        reader.page.wait_for_timeout(50)
    raise AssertionError("The condition did not become true.")
