"""Kills and interrupts of downloads, and several processes in one folder."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from openclap.download import FetchedFile, FileRequest, fetch
from openclap.locks import open_alone
from openclap.storage import partial_of
from support import fetching
from support.fetching import QUICK, environment, left_over, sha256
from support.misbehaving import Misbehaving


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    with Misbehaving() as server:
        yield server


def start(folder: Path, urls: list[str]) -> subprocess.Popen[str]:
    """A process that fetches, once it has begun."""
    process = subprocess.Popen(
        [sys.executable, fetching.__file__, str(folder), *urls],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    return process


def results(process: subprocess.Popen[str]) -> list[dict[str, object]]:
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()]


def test_killed_downloads_resume(server: Misbehaving, tmp_path: Path) -> None:
    names = [f"{size}.wav" for size in (1000, 200_000, 300_000, 400_000, 500_000)]
    urls = [server.url("steady", name) for name in names]
    rng = random.Random(0)
    for _ in range(5):
        before = _bytes_in(tmp_path)
        process = start(tmp_path, urls)
        grown = before + rng.randrange(20_000, 150_000)
        _wait_until(partial(_has_grown, tmp_path, grown))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        process.stderr.close()
        for path in tmp_path.glob("[!.]*"):
            assert path.read_bytes() == server.body(path.name)
    assert len(results(start(tmp_path, urls))) == len(urls)
    assert {path.name: sha256(path.read_bytes()) for path in tmp_path.iterdir()} == {
        name: sha256(server.body(name)) for name in names
    }
    assert sum(request.start > 0 for request in server.requests) >= 5  # one a kill, at least
    assert server.count("steady", "1000.wav") == 1


def test_interrupt_stops_soon_and_leaves_partial_files(server: Misbehaving, tmp_path: Path) -> None:
    process = start(tmp_path, [server.url("steady", "900000.wav"), server.url("silent")])
    _wait_for(partial_of(tmp_path / "900000.wav"), 50_000)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert err.rstrip().endswith("KeyboardInterrupt")
    kept = partial_of(tmp_path / "900000.wav").read_bytes()
    assert server.body("900000.wav").startswith(kept) and len(kept) >= 50_000
    assert left_over(tmp_path) == [".900000.wav.partial", ".900000.wav.partial.json"]


def test_interrupt_between_results_does_not_wait_for_downloads(server: Misbehaving, tmp_path: Path) -> None:
    server.files["pause.wav"] = b"RIFF"
    process = start(tmp_path, [server.url("ok", "pause.wav"), server.url("steady", "900000.wav")])
    assert process.stdout is not None and "pause.wav" in process.stdout.readline()
    _wait_for(partial_of(tmp_path / "900000.wav"), 50_000)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert partial_of(tmp_path / "900000.wav").stat().st_size < 900_000


def test_interrupt_does_not_wait_for_a_name_server(tmp_path: Path) -> None:
    program = (
        "import socket, sys, time\n"
        "from support import fetching\n"
        "def unresponsive(*arguments, **options):\n"
        "    print('looking up', flush=True)\n"
        "    time.sleep(30)\n"
        "socket.getaddrinfo = unresponsive\n"
        "fetching.main(*sys.argv[1:])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), "http://sounds.example/a.wav"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["begun\n", "looking up\n"]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)  # the answer takes 30 s
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert left_over(tmp_path) == []


def test_closing_the_iterator_stops_at_once(server: Misbehaving, tmp_path: Path) -> None:
    wanted = [
        FileRequest(server.url("ok"), tmp_path / "a.wav"),
        FileRequest(server.url("steady", "900000.wav"), tmp_path / "b"),
    ]
    iterator = fetch(wanted, limits=QUICK)
    assert isinstance(next(iterator), FetchedFile)
    _wait_for(partial_of(tmp_path / "b"), 10_000)
    iterator.close()  # type: ignore[attr-defined]
    assert 10_000 <= partial_of(tmp_path / "b").stat().st_size < 900_000


def test_error_of_the_callers_iterable_is_raised(server: Misbehaving, tmp_path: Path) -> None:
    def wanted() -> Iterator[FileRequest]:
        yield FileRequest(server.url("ok"), tmp_path / "a.wav")
        raise KeyError("row 2")

    with pytest.raises(KeyError, match="row 2"):
        list(fetch(wanted(), limits=QUICK))


def test_processes_in_one_folder_fetch_each_file_once(server: Misbehaving, tmp_path: Path) -> None:
    names = [f"{60_000 + 5000 * number}.wav" for number in range(24)]
    urls = [server.url("steady", name) for name in names]
    shuffled = [random.Random(seed).sample(urls, len(urls)) for seed in range(3)]
    found = [results(process) for process in [start(tmp_path, order) for order in shuffled]]
    for each in found:
        assert {str(result["sha256"]) for result in each} == {sha256(server.body(name)) for name in names}
    assert {path.name for path in tmp_path.iterdir()} == set(names)
    assert [server.count("steady", name) for name in names] == [1] * len(names)
    assert sum(not result["was_there"] for each in found for result in each) == len(names)


def test_open_alone_locks_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    first = open_alone(path)
    assert first is not None and open_alone(path) is None
    path.rename(tmp_path / "b")
    second = open_alone(path)
    assert second is not None  # a new file; the first still holds the renamed one
    assert open_alone(tmp_path / "b") is None
    first.close()
    second.close()
    third = open_alone(path)
    assert third is not None
    third.close()


def _has_grown(folder: Path, size: int) -> bool:
    return _bytes_in(folder) >= size


def _bytes_in(folder: Path) -> int:
    sizes = []
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # renamed meanwhile
            sizes.append(path.stat().st_size)
    return sum(sizes)


def _wait_for(path: Path, size: int) -> None:
    _wait_until(lambda: path.exists() and path.stat().st_size >= size)


def _wait_until(true: Callable[[], bool]) -> None:
    for _ in range(2000):
        if true():
            return
        time.sleep(0.005)
    raise AssertionError("it did not come to pass within ten seconds")
