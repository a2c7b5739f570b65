"""The commands and Python blocks of a document, run for real and in order.

Commands stand in ```console blocks after "$ " (what follows is their output) and in ```bash blocks, one a line. They
run in a folder that looks like a clone after `make demo`: `src` is there, the virtual environment's programs are on the
PATH, and ~/.cache/openclap is the home of a finished demo. Each must exit with 0.

What a document shows of the output must have been printed in this *form*, each shown line in its turn among the real
ones: words and columns count; numbers, paths, file names, verdicts, and the captions of hits do not (`form`). A shown
line of "…" alone stands for any lines. `FIRST_TIME` are lines that only a first run prints; here the demo is done.

Python blocks run in one fresh namespace each, beside a few recordings (`RECORDINGS`); a print with "# …" at the end of
its line must print that, in form.
"""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ready import openclap

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

INSTEAD: dict[str, str] = {
    r"git clone \S+ openclap": "true",  # there is no network: the clone is this repository
    r"cd openclap": "true",
    r"source \.venv/bin/activate": "true",  # its programs are on the PATH already
    # with the programs beside this Python, and without making their environment again
    r"make demo": f"make --directory {ROOT} --old-file .venv/ready BIN={BIN} demo",
    r"make test": f"make --directory {ROOT} --dry-run test",  # it would start itself
}
"""What is run in place of a command that cannot run inside a test."""

FIRST_TIME = re.compile(r"Fetching |Converting |step \d")

RECORDINGS = {
    "dog.wav": "scratch-dog1.ogg",
    "water.wav": "scratch-water-running.ogg",
    "garden.wav": "scratch-garden.ogg",
}
"""The recordings that Python blocks name, and the bundled sounds that stand in for them."""


@dataclass(frozen=True)
class Command:
    """A line to run, and the lines of output that the document shows after it."""

    line: str
    shown: tuple[str, ...]


def blocks(document: Path, *languages: str) -> Iterator[tuple[str, str]]:
    """(language, text) of the fenced blocks in these languages."""
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", document.read_text(encoding="utf-8"), re.M | re.S):
        if language in languages:
            yield language, text


def commands(document: Path) -> Iterator[Command]:
    """All commands of a document, in order; a backslash at the end joins two lines."""
    for language, text in blocks(document, "console", "bash"):
        lines = text.replace("\\\n", " ").splitlines()
        if language == "bash":
            lines = [f"$ {line}" for line in lines if line.strip() and not line.startswith("#")]
        starts = [place for place, line in enumerate(lines) if line.startswith("$ ")]
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            line = re.sub(r"\s+#.*$", "", lines[start].removeprefix("$ "))
            yield Command(line, tuple(lines[start + 1 : end]))


def form(line: str) -> str:
    """A line without what differs from run to run: numbers 0, paths and files PATH, a hit's caption gone."""
    line = re.sub(r"""[^\s"']*/[^\s"',]*|[^\s"'/]+\.(?:ogg|wav|flac)\b""", "PATH", line)
    line = re.sub(r"-?\d+(?:[.,:]\d+)*", "0", line)
    line = re.sub(r"\s+", " ", line).strip()
    line = re.sub(r"^(0 0–0 s PATH) .*", r"\1", line)  # score, where, file; then the caption
    return re.sub(r" (?:yes|no|touching)$", " VERDICT", line)


def first_missing(shown: Iterable[str], printed: Iterable[str]) -> str | None:
    """The first shown line that was not printed in its turn; None when all were."""
    left = iter([form(line) for line in printed])
    expected = [line for line in shown if line.strip() not in ("", "…") and not FIRST_TIME.match(line.strip())]
    return next((line for line in expected if form(line) not in left), None)  # `in` consumes what it passes


def run_commands(document: Path) -> None:
    """Run the document's commands where we are, and compare what they print."""
    ran = 0
    for command in commands(document):
        instead = (other for pattern, other in INSTEAD.items() if re.fullmatch(pattern, command.line))
        code, said = run(next(instead, command.line))
        assert code == 0, f"$ {command.line}\n{said}"
        missing = first_missing(command.shown, said.splitlines())
        assert missing is None, f"$ {command.line}\nshows {missing!r}, but printed:\n{said}"
        ran += 1
    assert ran, f"{document.name}: no commands were found"


def run(line: str) -> tuple[int, str]:
    """What a line exits with, and says. `openclap` alone, without pipes and the like, starts with its libraries."""
    if line.startswith("openclap ") and not re.search(r"[|<>;&`]", line):
        words = _bash(rf"printf '%s\0' {line}").stdout.split("\0")
        with tempfile.NamedTemporaryFile("r", encoding="utf-8") as said:
            return openclap(words[1:-1], Path(said.name)), said.read()
    done = _bash(line)
    return done.returncode, done.stdout


def _bash(line: str) -> subprocess.CompletedProcess[str]:
    words, both = ["bash", "-euc", line], subprocess.STDOUT
    return subprocess.run(words, stdout=subprocess.PIPE, stderr=both, encoding="utf-8", check=False)


def run_python(document: Path, clone: Path) -> None:
    """Run the document's Python beside the recordings, and compare what it prints."""
    import soundfile

    for name, sound in RECORDINGS.items():
        wave, rate = soundfile.read(ROOT / "src" / "openclap" / "demo" / "sounds" / sound)
        soundfile.write(clone / name, wave, rate)
    for _, code in blocks(document, "python"):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, document.name, "exec"), {"__name__": "__main__"})
        shown = re.findall(r"^\s*print\(.*\)  # (.+)$", code, re.M)
        missing = first_missing(shown, printed.getvalue().splitlines())
        assert missing is None, f"{document.name} shows {missing!r}, but printed:\n{printed.getvalue()}"
