"""Run docs/howto/serve.md against the server that it starts, on a free port, and stop that server."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from support.documents import ROOT, first_missing, run_commands, run_python
from support.serving import ServerProcess

PAGE = ROOT / "docs" / "howto" / "serve.md"
START = re.compile(r"^```console\n\$ openclap serve --port 7007\n(.*?)^```$", re.M | re.S)
"""The block that starts the server, with the lines that it prints."""


@pytest.mark.timeout(900)
def test_the_page_and_the_end_of_the_server(clone: Path, tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    start = START.search(text)
    assert start is not None
    (clone / "build").mkdir()
    server = ServerProcess()
    try:
        assert server.url, server.log
        port = server.url.rpartition(":")[2]
        page = tmp_path / "serve.md"
        page.write_text(text.replace(start[0], "").replace("127.0.0.1:7007", f"127.0.0.1:{port}"), encoding="utf-8")
        run_commands(page)
        run_python(page, clone)
        assert server.stop(signal.SIGINT) == 0
    finally:
        server.process.kill()
    shown = [re.sub(r"demo-\w+", "demo-0", line) for line in start[1].splitlines()]
    printed = [re.sub(r"demo-\w+", "demo-0", line) for line in server.log.splitlines()]
    assert first_missing(shown, printed) is None, server.log
    assert printed[-1] == "Stopped."
