"""`openclap` in a process of its own that does not wait for its libraries: forked from one that has them already.

Importing torch and transformers takes seconds, and a document's commands are many. All else is as the console script
has it: arguments, environment, folder, output and exit code.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from multiprocessing import get_context
from pathlib import Path

LIBRARIES = ["torch", "transformers.models.bert.modeling_bert", "pandas", "pyarrow.dataset", "openclap.cli"]
"""Without those that start threads as they are imported, which a fork would lose."""


def openclap(words: list[str], said: Path) -> int:
    """Run `openclap WORDS` here and now, what it says into the file `said`; its exit code."""
    processes = get_context("forkserver")
    processes.set_forkserver_preload(LIBRARIES)
    process = processes.Process(target=_run, args=(words, said, dict(os.environ), Path.cwd()))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _run(words: list[str], said: Path, environment: Mapping[str, str], folder: Path) -> None:
    with said.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["openclap", *words]

    from openclap.__main__ import main

    main()
