"""Run command lines one after the other in a process with an environment of its own.

Libraries read variables such as HF_ENDPOINT when they are imported, which takes seconds: once for all command lines.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CommandResult:
    """The exit code and output of a command line, named as in `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


class CliSession:
    """The process; a context manager."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> CliSession:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)  # closes stdin, which ends the process

    def run(self, *words: object) -> CommandResult:
        """Run `openclap WORDS`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(word) for word in words]) + "\n")
        self._process.stdin.flush()
        return CommandResult(*json.loads(self._process.stdout.readline()))


def main() -> None:
    """Read a command line per line of stdin, and write its exit code and output as a line of stdout."""
    from openclap.cli import run

    answers = sys.stdout
    for line in sys.stdin:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            result: list[Any] = [run(json.loads(line))]
        answers.write(json.dumps([*result, out.getvalue(), err.getvalue()]) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
