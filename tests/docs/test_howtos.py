"""Every command and every Python block of docs/howto/*.md."""

from __future__ import annotations

from pathlib import Path

import pytest
from documents import ROOT, run_commands, run_python

ELSEWHERE = "use-elsewhere.md"  # needs other libraries: test_use_elsewhere.py
HOWTOS = [path for path in sorted((ROOT / "docs" / "howto").glob("*.md")) if path.name != ELSEWHERE]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("document", HOWTOS, ids=lambda path: path.name)
def test_the_commands_do_what_the_page_shows(document: Path, clone: Path) -> None:
    run_commands(document)


@pytest.mark.parametrize("document", HOWTOS, ids=lambda path: path.name)
def test_the_python_blocks_run(document: Path, clone: Path) -> None:
    run_python(document, clone)
