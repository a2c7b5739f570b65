"""Run every command and every Python block of the how-to guides."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.documents import ROOT, run_commands, run_python

# A server, its page, and other libraries: test_serve.py, tests/browser, test_use_elsewhere.py.
TESTED_ELSEWHERE = ("serve.md", "page.md", "use-elsewhere.md")
SLOW = ("scale-data.md", "scale-out.md")
"""Those that take most of a minute."""
HOWTOS = [
    pytest.param(path, marks=[pytest.mark.long] if path.name in SLOW else [], id=path.name)
    for path in sorted((ROOT / "docs" / "howto").glob("*.md"))
    if path.name not in TESTED_ELSEWHERE
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("document", HOWTOS)
def test_commands_and_then_python_print_the_shown_output(document: Path, clone: Path) -> None:
    run_commands(document)
    run_python(document, clone)
