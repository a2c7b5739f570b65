"""Check that the options in documents, help texts and messages are options of a command."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cache
from typing import Any

from cyclopts import App

from openclap.cli import app
from openclap.recipes import recipe
from openclap.training.config import option_names
from support.documents import tracked

OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*(?:\.[a-z][\w-]*)*")
RUNS = ("train", "finetune")
"""Commands that take the values of a recipe as options, too."""
OTHER_PROGRAMS = {
    "our benchmarks": "seconds rounds files lengths clips steps batch small large largest only seeds threads train "
    "made-labels methods",
    "accelerate": "num_processes module",
    "any command": "help",
    "an unknown option, as an example": "note",
    "curl": "fail silent json get data-urlencode",
    "flac": "verify",
    "hear": "model-options",
    "http.server": "directory",
    "pip": "no-deps require-hashes only-binary quiet disable-pip-version-check hash",
    "ray": "head port address",
    "sbatch": "job-name array cpus-per-task mem time requeue parsable dependency wrap nodes ntasks-per-node "
    "gpus-per-node signal",
    "scripts/mini": "measure-on whiten minutes closed-form only-shipped fewest models sheet",
    "torchrun": "nproc-per-node nnodes rdzv-backend rdzv-endpoint rdzv-id module",
}
"""Options that documents and messages name and no single command of ours has."""


def commands(group: App, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], App]]:
    """Every command of the command line by its words, such as ("dataset", "build")."""
    for name in group:
        if not name.startswith("-"):
            if group[name].default_command is not None:
                yield (*path, name), group[name]
            yield from commands(group[name], (*path, name))


@cache
def options() -> Mapping[tuple[str, ...], frozenset[str]]:
    """The options of each command."""
    of_a_run = {f"--{name}" for name in option_names(recipe("demo"))}
    of_a_run |= {name.replace("_", "-") for name in of_a_run} | {f"--{group}" for group in asdict(recipe("demo"))}
    found = {}
    for words, command in commands(app):
        own = [name for argument in command.assemble_argument_collection() for name in argument.names]
        found[words] = frozenset(own) | (of_a_run if words[-1] in RUNS else frozenset()) | {"--help"}
    return found


def unknown(text: str, known: frozenset[str]) -> list[str]:
    return [name for name in OPTION.findall(text) if name not in known]


def test_every_option_in_a_document_or_message_exists() -> None:
    others = {f"--{name}" for names in OTHER_PROGRAMS.values() for name in names.split()}
    known = frozenset(others).union(*options().values())
    wrong = [(path, name) for path, text in tracked("*.md", "src/*.py") for name in unknown(text, known)]
    assert wrong == []


def command_lines(text: str) -> Iterator[str]:
    """The command lines in a document, from the word after `openclap`: spans between backticks, and lines of blocks."""
    text = text.replace("\\\n", " ")
    yield from re.findall(r"(?<!`)`openclap ([a-z][^`]*)`", text)
    for block in re.findall(r"^```\w+\n(.*?)^```$", text, re.M | re.S):
        # after the prompt, or behind torchrun and the like; up to a pipe or a comment
        yield from re.findall(r"^(?:.* )?openclap ([a-z][^|#\n]*)", block, re.M)


def test_every_command_line_in_a_document_has_options_of_its_command() -> None:
    lines = [(path, tuple(line.split())) for path, text in tracked("*.md") for line in command_lines(text)]
    wrong: list[Any] = []
    count = 0
    for path, words in lines:
        command = next((words[:n] for n in (2, 1) if words[:n] in options()), None)
        if command is not None:
            count += 1
            wrong += [(path, command, name) for name in unknown(" ".join(words), options()[command])]
    assert count > 100
    assert wrong == []
