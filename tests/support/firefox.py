"""Firefox, driven by its Marionette protocol, as Playwright cannot drive Debian's, which has no geckodriver."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
PREFERENCES = {
    "marionette.port": 0,
    "media.autoplay.default": 0,
    "media.autoplay.blocking_policy": 0,
    "app.update.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "layers.acceleration.disabled": True,
}
STARTS_S = 120.0


class Firefox:
    """A browser with a profile of its own in `folder`."""

    def __init__(self, folder: Path, width: int = 1280, height: int = 800) -> None:
        assert FIREFOX is not None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        lines = [
            f"user_pref({json.dumps(k)}, {json.dumps(v)});"
            for k, v in (PREFERENCES | {"marionette.port": port}).items()
        ]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "user.js").write_text("\n".join(lines), encoding="utf-8")
        command = [FIREFOX, "--headless", "--marionette", "--no-remote", "--profile", str(folder)]
        self._process = subprocess.Popen(
            [*command, "--width", str(width), "--height", str(height)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._socket = self._connect(port)
        self._number = 0
        self._receive()
        self.send("WebDriver:NewSession", capabilities={})

    def _connect(self, port: int) -> socket.socket:
        end = time.monotonic() + STARTS_S
        while True:
            try:
                return socket.create_connection(("127.0.0.1", port), timeout=STARTS_S)
            except OSError:
                assert time.monotonic() < end and self._process.poll() is None, "Firefox does not start."
                time.sleep(0.2)

    def _receive(self) -> Any:
        size = b""
        while not size.endswith(b":"):
            size += self._socket.recv(1)
        content = b""
        while len(content) < int(size[:-1]):
            content += self._socket.recv(1 << 16)
        return json.loads(content)

    def send(self, command: str, **parameters: Any) -> Any:
        """A command of WebDriver, and its value."""
        self._number += 1
        content = json.dumps([0, self._number, command, parameters]).encode()
        self._socket.sendall(b"%d:%s" % (len(content), content))
        _, number, error, result = self._receive()
        assert number == self._number and error is None, error
        return result["value"] if isinstance(result, dict) and set(result) == {"value"} else result

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page; `return` gives its value."""
        return self.send("WebDriver:ExecuteScript", script=script, args=arguments)

    def until(self, expression: str, seconds: float = 60.0) -> Any:
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + seconds
        while not (value := self.run(f"return {expression}")):
            assert time.monotonic() < end, expression
            time.sleep(0.1)
        return value

    def element(self, selector: str) -> str:
        """The first element that fits a CSS selector."""
        found = self.send("WebDriver:FindElement", using="css selector", value=selector)
        return next(iter(found.values()))

    def click(self, selector: str) -> None:
        """Click on an element."""
        self.send("WebDriver:ElementClick", id=self.element(selector))

    def type(self, selector: str, text: str) -> None:
        """Type into an element."""
        self.send("WebDriver:ElementSendKeys", id=self.element(selector), text=text)

    def screenshot(self, place: Path) -> None:
        """Write a PNG of what is in sight."""
        place.write_bytes(base64.b64decode(self.send("WebDriver:TakeScreenshot", full=False)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._process.kill()
        self._process.wait()
