"""Run a function over many items: shares, processes, and the end of workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from openclap.data.parallel import Share, run
from openclap.errors import ConfigError
from support.errors import raises_naming
from support.fetching import environment


def test_shares_partition_the_items() -> None:
    things = list(range(23))
    shares = [Share(number, 5).of_items(things) for number in range(1, 6)]
    assert sorted(thing for share in shares for thing in share) == things
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "a/b", "-1/2", "1/2/3", "1/" + "9" * 5000])
def test_invalid_parts(text: str) -> None:
    with raises_naming(ConfigError, "--part", repr(text)):
        Share.parse(text)


def test_each_item_is_processed_once_in_any_number_of_processes() -> None:
    assert sorted(run(abs, range(-7, 0), processes=1)) == sorted(run(abs, range(-7, 0), processes=2))
    with raises_naming(ConfigError, "processes", 0):
        list(run(abs, [1], processes=0))


WORK_FOR_A_MINUTE = """
import sys, time
from pathlib import Path
from openclap.data.parallel import run
from sleeper import sleep_and_tell
if __name__ == "__main__":
    list(run(sleep_and_tell, [sys.argv[1]] * 4, processes=2))
"""
SLEEPER = """
import os, time
from pathlib import Path
def sleep_and_tell(folder):
    Path(folder, str(os.getpid())).touch()
    time.sleep(60)
"""


def test_death_of_the_main_process_ends_workers(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    (tmp_path / "first.py").write_text(WORK_FOR_A_MINUTE)
    (tmp_path / "pids").mkdir()
    first = subprocess.Popen([sys.executable, tmp_path / "first.py", tmp_path / "pids"], env=environment())
    try:
        _until(lambda: len(list((tmp_path / "pids").iterdir())) == 2)
        others = [int(path.name) for path in (tmp_path / "pids").iterdir()]
        assert all(map(_runs, others))
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    _until(lambda: not any(map(_runs, others)))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"  # a zombie has ended


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)
