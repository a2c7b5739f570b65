"""Run the commands and Python blocks of a document, in order, and compare their output with the document.

Commands are the lines after "$ " in ```console blocks (the lines below each are its output) and the lines of ```bash
blocks. They run in a directory that looks like a clone after `make demo`: `src` is there, the virtual environment's
programs are on the PATH, and ~/.cache/openclap is the home of a finished demo. Each must exit with 0. bash runs them,
but `openclap` alone, without pipes and the like, runs in this process: importing its libraries takes seconds.

Each line of output in the document must be printed in the same *form*, in the same order: words and columns count;
numbers, paths, file names, verdicts and the captions of hits do not (`form`). A line "…" stands for any lines.
`FIRST_RUN_ONLY` matches lines that only a first run prints; here the demo is finished.

Python blocks run in a fresh namespace each, beside a few recordings (`RECORDINGS`). A print with "# …" at the end of
its line must print that text, in form.
"""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from openclap import cli

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

REPLACEMENTS: dict[str, str] = {
    r"git clone \S+ openclap": "true",  # there is no network: the clone is this repository
    r"cd openclap": "true",
    r"source \.venv/bin/activate": "true",  # its programs are on the PATH already
    # It would finish the demo that `openclap demo` finishes in the next block; the other would start itself.
    r"make (demo|test)": rf"make --directory {ROOT} --dry-run \1",
}
"""Commands that cannot run inside a test, and their replacements."""

FIRST_RUN_ONLY = re.compile(r"Fetching |Converting |step \d")

RECORDINGS = {
    "dog.wav": "scratch-dog1.ogg",
    "water.wav": "scratch-water-running.ogg",
    "garden.wav": "scratch-garden.ogg",
}
"""The recordings that Python blocks name, and the bundled sounds that replace them."""


def tracked(*patterns: str) -> Iterator[tuple[str, str]]:
    """(path, text) of the files under version control; of the changelog, without the list of former names."""
    listing = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    for path in listing.stdout.splitlines():
        text = (ROOT / path).read_text("utf-8")
        yield path, text.partition("### Changed")[0] if path == "CHANGELOG.md" else text


@dataclass(frozen=True)
class Command:
    """A command line, and the lines of output that the document shows for it."""

    line: str
    output: tuple[str, ...]


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
        starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            line = re.sub(r"\s+#.*$", "", lines[start].removeprefix("$ "))
            yield Command(line, tuple(lines[start + 1 : end]))


def form(line: str) -> str:
    """A line without the parts that differ between runs: signed numbers become 0, paths PATH; no caption of a hit."""
    line = re.sub(r"""[^\s"']*/[^\s"',]*|[^\s"'/]+\.(?:ogg|wav|flac)\b""", "PATH", line)
    line = re.sub(r"[-+]?\d+(?:[.,:]\d+)*", "0", line)
    line = re.sub(r"\s+", " ", line).strip()
    line = re.sub(r"^(0 0–0 s PATH) .*", r"\1", line)  # score, where, file; then the caption
    return re.sub(r" (?:yes|no|touching)$", " VERDICT", line)


def first_missing(shown: Iterable[str], printed: Iterable[str]) -> str | None:
    """The first line of the document that was not printed in its order; None when all were."""
    remaining = iter([form(line) for line in printed])
    expected = [line for line in shown if line.strip() not in ("", "…") and not FIRST_RUN_ONLY.match(line.strip())]
    # `in` consumes the iterator up to the match, so later lines must be printed later.
    return next((line for line in expected if form(line) not in remaining), None)


def run_commands(document: Path) -> None:
    """Run the document's commands in the current directory, and compare their output."""
    count = 0
    for command in commands(document):
        code, output = run(replaced(command.line))
        assert code == 0, f"$ {command.line}\n{output}"
        missing = first_missing(command.output, output.splitlines())
        assert missing is None, f"$ {command.line}\nshows {missing!r}, but printed:\n{output}"
        count += 1
    assert count, f"{document.name}: no commands were found"


def replaced(line: str) -> str:
    """A command line, or its replacement."""
    matches = ((re.fullmatch(pattern, line), other) for pattern, other in REPLACEMENTS.items())
    return next((match.expand(other) for match, other in matches if match), line)


def run(line: str) -> tuple[int, str]:
    """The exit code and output of a command line."""
    if line.startswith("openclap ") and not re.search(r"[|<>;&`]", line):
        words = _bash(rf"printf '%s\0' {line}").stdout.split("\0")  # bash expands ~, * and quotes
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            code = cli.run(words[1:-1])
        return code, output.getvalue()
    done = _bash(line)
    return done.returncode, done.stdout


def _bash(line: str) -> subprocess.CompletedProcess[str]:
    arguments, both = ["bash", "-euc", line], subprocess.STDOUT
    return subprocess.run(arguments, stdout=subprocess.PIPE, stderr=both, encoding="utf-8", check=False)


def run_python(document: Path, clone: Path) -> None:
    """Run the document's Python beside the recordings, and compare its output."""
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
