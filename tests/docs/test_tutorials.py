"""Run every command and every Python block of the tutorials, and the Python of the start page and the concepts."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.documents import ROOT, run_commands, run_python

DOCS = ROOT / "docs"
TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))
SLOW = ("measure-a-model.md", "build-a-data-set.md")
"""Those with commands that take most of a minute."""
CONCEPTS = [path for path in sorted((DOCS / "concepts").glob("*.md")) if "```python" in path.read_text("utf-8")]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "document",
    [pytest.param(each, marks=[pytest.mark.long] if each.name in SLOW else [], id=each.name) for each in TUTORIALS],
)
def test_tutorial_commands_print_the_shown_output(document: Path, clone: Path) -> None:
    run_commands(document)


@pytest.mark.parametrize("document", [*TUTORIALS, *CONCEPTS, DOCS / "index.md"], ids=lambda path: path.name)
def test_python_blocks_print_the_shown_output(document: Path, clone: Path) -> None:
    run_python(document, clone)


def test_start_page_shows_the_session_of_the_readme() -> None:
    session = (ROOT / "README.md").read_text("utf-8").partition("```console\n")[2].partition("```")[0]
    assert session in (DOCS / "index.md").read_text("utf-8")
