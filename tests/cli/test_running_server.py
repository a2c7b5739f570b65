"""A running server answers searches of the command line: the same bytes, and the local way wherever it cannot."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from openclap.cli import run, running_server, search
from openclap.cli.running_server import RunningServer, registered, server_of
from openclap.library import Library
from support.serving import RATE, ServerProcess, write_sounds

TOKEN = "a-token-of-this-test"


@pytest.fixture(scope="module")
def library(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Six sounds in stereo and mono."""
    folder = tmp_path_factory.mktemp("running")
    library = Library.open(folder / "index", tiny_model)
    library.add([write_sounds(folder / "sounds")])
    return library


@pytest.fixture(scope="module")
def server(library: Library, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """`openclap serve` as a process: yields its home, with the file that it left."""
    home = tmp_path_factory.mktemp("home-of-server")
    process = ServerProcess(
        library.index.folder,
        environment={"OPENCLAP_HOME": str(home), "OPENCLAP_TOKEN": TOKEN, "CUDA_VISIBLE_DEVICES": ""},
    )
    while not list(home.glob("servers/*.json")):
        assert process.process.poll() is None, process.log
        time.sleep(0.01)
    try:
        yield home
    finally:
        assert process.stop(signal.SIGTERM) == 0
    assert list((home / "servers").iterdir()) == []


@pytest.fixture
def running(server: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The server in the home of this test: yields its file. A busy machine may take longer than HEALTH_S."""
    monkeypatch.setattr(running_server, "HEALTH_S", 30)
    monkeypatch.setenv("OPENCLAP_HOME", str(server))
    [path] = (server / "servers").iterdir()
    return path


Printed = tuple[int, str, str]
"""Exit code, stdout and stderr."""


def printed(capsys: pytest.CaptureFixture[str], *words: object) -> Printed:
    code = run([str(word) for word in words])
    out = capsys.readouterr()
    return code, out.out, out.err


def commands(library: Library, tmp_path: Path) -> list[list[object]]:
    """Searches with every option, and mistakes."""
    sound = library.index.folder.parent / "sounds" / "3.wav"
    outside = tmp_path / "outside.wav"
    soundfile.write(outside, 0.1 * np.random.default_rng(9).standard_normal((RATE, 2)), RATE)
    silent, cancelled = tmp_path / "silent.wav", tmp_path / "cancelled.wav"
    soundfile.write(silent, np.zeros(RATE), RATE)
    wave_N = 0.1 * np.random.default_rng(8).standard_normal(RATE)
    soundfile.write(cancelled, np.stack([wave_N, -wave_N], axis=1), RATE)
    (tmp_path / "text.wav").write_text("no sound")
    return [
        ["search", "a low tone"],
        ["search", "a low tone", "--json"],
        ["search", "noise", "-k", 2, "--offset", 1, "--json"],
        ["search", "noise", "--where", "channels=2", "--where", "duration_s<10", "--json"],
        ["search", "noise", "--also", "a tone:0.5", "--unlike", "rain", "--every-window", "--json"],
        ["search", "3", "--keywords", "fused", "--json"],
        ["search", "3", "--keywords", "only", "--also", "5", "--json"],
        ["search", "noise", "--exact", "--json"],
        ["search", "noise", "--where", "channels=7"],
        ["search", "noise", "-k", 2000, "--json"],
        ["search", "noise", "-k", 0],
        ["search", "noise", "--where", "nonsense"],
        ["search", "noise", "--also", "noise", "--unlike", "noise:1"],
        ["similar", sound, "--json"],
        ["similar", outside],
        ["similar", outside, "--from", 0.2, "--to", 0.7, "--where", "channels=1", "--exact", "--json"],
        ["similar", sound, "--from", 0.1, "-k", 3, "--offset", 1, "--every-window", "--json"],
        ["similar", sound, "--unlike", outside, "--json"],
        ["similar", sound, "--from", 99],
        ["similar", silent, "--json"],
        ["similar", cancelled, "--json"],
        ["similar", tmp_path / "text.wav"],
        ["similar", tmp_path / "missing.wav"],
    ]


def test_output_is_the_same_bytes_with_and_without_a_server(
    running: Path, library: Library, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    local: list[object] = []
    opened = search.open_for_query

    def open_for_query(*arguments: Any) -> Any:
        local.append(arguments)
        return opened(*arguments)

    monkeypatch.setattr(search, "open_for_query", open_for_query)
    link = tmp_path / "link"
    link.symlink_to(library.index.folder)
    by_server = 0
    for words in commands(library, tmp_path):
        local.clear()
        with_server = printed(capsys, *words, "--index", link)
        by_server += not local
        with monkeypatch.context() as patch:
            patch.setattr(running_server, "server_of", lambda folder: None)
            assert with_server == printed(capsys, *words, "--index", link), words
    assert by_server == 14  # ten searches by words, four by a sound; not the mistakes, nor what a server cannot do


def test_a_server_is_used_for_its_index_only(running: Path, library: Library, tmp_path: Path) -> None:
    assert server_of(library.index.folder) is not None
    assert server_of(library.index.folder.parent) is None and server_of(tmp_path) is None


def test_the_file_is_private_and_goes_with_the_server(library: Library, home: Path) -> None:
    indexes = {"sounds": library.index.folder}
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (home / "servers").mkdir()
    (home / "servers" / f"{dead.pid}.json").write_text("{}")
    with registered("0.0.0.0", 1, TOKEN, indexes):
        [path] = (home / "servers").iterdir()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        stored = json.loads(path.read_bytes())
        assert stored["host"] == "127.0.0.1" and stored["token"] == TOKEN and stored["pid"] == os.getpid()
        assert stored["indexes"] == {os.path.realpath(library.index.folder): "sounds"}
    assert list((home / "servers").iterdir()) == []
    with registered("192.0.2.1", 1, TOKEN, indexes), registered("127.0.0.1", 1, None, {}):
        assert list((home / "servers").iterdir()) == []


def test_stale_and_foreign_files_are_left_alone(
    running: Path, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with one fact that rules it out, and which a server that runs would otherwise answer."""
    content = running.read_bytes()
    right = json.loads(content)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with socket.create_server(("127.0.0.1", 0)) as closed, socket.create_server(("127.0.0.1", 0)) as mute:
        closed_port, mute_port = closed.getsockname()[1], mute.getsockname()[1]
        closed.close()
        refused = [{"pid": dead.pid}, {"version": "0.0.0"}, {"host": "192.0.2.1"}, {"host": "localhost.example"}]
        for change in (*refused, {"port": closed_port}, {"indexes": []}, {"more": 1}):
            running.write_text(json.dumps(right | change))
            assert server_of(library.index.folder) is None, change
        with monkeypatch.context() as patch:
            patch.setattr(running_server, "HEALTH_S", 0.2)
            running.write_text(json.dumps(right | {"port": mute_port}))
            assert server_of(library.index.folder) is None
    running.write_bytes(b'{"host": ')
    assert server_of(library.index.folder) is None
    running.write_text(json.dumps(right | {"host": "localhost"}))  # as `openclap serve --host localhost` leaves it
    assert server_of(library.index.folder) == RunningServer(**right | {"host": "localhost"})
    running.write_bytes(content)
    assert server_of(library.index.folder) == RunningServer(**right)


@pytest.mark.parametrize("answer", [b"no JSON", b"[]", b'{"hits": []}', None])
def test_a_server_that_fails_is_no_obstacle(
    answer: bytes | None, library: Library, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is healthy, and its answers are damaged, or never come."""
    monkeypatch.setattr(running_server, "HEALTH_S", 30)
    words = ["search", "a low tone", "--json", "--index", library.index.folder]
    expected = printed(capsys, *words)
    paths: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(b'{"status": "ok"}')

        def do_POST(self) -> None:
            paths.append(self.path)
            if answer is None:
                self.connection.close()
            else:
                self.reply(answer)

        def reply(self, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    class Quiet(http.server.ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    with Quiet(("127.0.0.1", 0), Handler) as broken:
        threading.Thread(target=broken.serve_forever, daemon=True).start()
        with registered("127.0.0.1", broken.server_address[1], None, {"sounds": library.index.folder}):
            assert printed(capsys, *words) == expected and paths == ["/v1/search"]
        broken.shutdown()


def test_a_search_with_a_server_imports_no_model(running: Path, library: Library) -> None:
    code = (
        "import sys; from openclap.cli import run, running_server; running_server.HEALTH_S = 30; run(sys.argv[1:]); "
        "print([name for name in ('torch', 'onnxruntime', 'pyarrow', 'lancedb') if name in sys.modules])"
    )
    words = [sys.executable, "-c", code, "search", "noise", "--json", "--index", str(library.index.folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    *hits, modules = done.stdout.splitlines()
    assert modules == "[]" and len(json.loads("\n".join(hits))) == 6
