"""Atomic writes: files are complete or absent, with any number of writers and after any stop."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from openclap.storage import append_line, new_file, partial_of


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"before")
    with pytest.raises(RuntimeError), new_file(tmp_path / "a") as file:
        file.write(b"half")
        raise RuntimeError
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"before"}


def test_second_writer_waits(tmp_path: Path) -> None:
    path, begun, seen = tmp_path / "a", threading.Event(), []

    def first() -> None:
        with new_file(path) as file:
            file.write(b"1" * 100_000)
            begun.set()
            time.sleep(0.3)
            seen.append(path.exists())
            file.write(b"1" * 100_000)

    thread = threading.Thread(target=first)
    thread.start()
    begun.wait()
    with new_file(path) as file:
        seen.append(path.read_bytes() == b"1" * 200_000)  # the first has done its part
        file.write(b"2")
    thread.join()
    assert seen == [False, True]
    assert path.read_bytes() == b"2"
    assert not partial_of(path).exists()


def test_partial_file_of_a_kill_is_overwritten(tmp_path: Path) -> None:
    partial_of(tmp_path / "a").write_bytes(b"x" * 50)
    with new_file(tmp_path / "a") as file:
        file.write(b"whole")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"whole"}


def test_line_does_not_continue_an_unterminated_one(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append_line(path, b"one")
    path.write_bytes(path.read_bytes() + b"tw")
    append_line(path, b"three")
    append_line(path, b"four")
    assert path.read_bytes() == b"one\ntw\nthree\nfour\n"
