"""Run `openclap` in a forked process that has its libraries imported already.

Importing torch and transformers takes seconds, and a document has many commands. Everything else is as in the console
script: arguments, environment, working directory, output and exit code.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from multiprocessing import get_context
from pathlib import Path

PRELOADED = ["torch", "transformers.models.bert.modeling_bert", "pandas", "pyarrow.dataset", "openclap.cli"]
"""Modules imported before the fork; none of them starts threads on import, because a fork would lose those."""


def run_cli(arguments: list[str], output: Path) -> int:
    """Run `openclap ARGUMENTS` in the current directory and environment, with stdout and stderr written to `output`.

    Returns the exit code.
    """
    processes = get_context("forkserver")
    processes.set_forkserver_preload(PRELOADED)
    process = processes.Process(target=_main, args=(arguments, output, dict(os.environ), Path.cwd()))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _main(arguments: list[str], output: Path, environment: Mapping[str, str], folder: Path) -> None:
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    # The fork server was started in another directory and environment.
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["openclap", *arguments]

    from openclap.__main__ import main

    main()
