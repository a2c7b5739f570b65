"""Check that the names of Python objects and the paths of files in documents exist, and the links of the top level."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterator
from typing import Any

from support.documents import ROOT, tracked

EXAMPLES = {"src/openclap/sources/field_notes.py"}
"""Files that a how-to guide tells its reader to write."""


def resolve(name: str) -> Any:
    """Import the longest module that `name` begins with, and get the rest as attributes. Raises AttributeError."""
    parts = name.split(".")
    value: Any = importlib.import_module(parts[0])
    for number, part in enumerate(parts[1:], 2):
        try:
            value = getattr(value, part)
        except AttributeError:
            if importlib.util.find_spec(".".join(parts[:number])) is None:
                raise
            value = importlib.import_module(".".join(parts[:number]))
    return value


def missing_names(text: str) -> Iterator[str]:
    for name in sorted(set(re.findall(r"\bopenclap(?:\.[A-Za-z_]\w*)+", text))):
        try:
            resolve(name)
        except (AttributeError, ModuleNotFoundError):
            yield name


def test_python_names_in_documents_exist() -> None:
    assert list(missing_names("`openclap.load`, `openclap.data.fetch`")) == ["openclap.data.fetch"]
    assert [(path, name) for path, text in tracked("*.md") for name in missing_names(text)] == []


def test_files_in_documents_exist() -> None:
    wrong = []
    for path, text in tracked("*.md"):
        files = set(re.findall(r"\b(?:tests|benchmarks|scripts|src)/[\w./-]+\.\w+\b", text)) - EXAMPLES
        wrong += [(path, file) for file in sorted(files) if not (ROOT / file).exists()]
    assert wrong == []


def test_links_of_the_top_level_exist() -> None:
    """`make docs` checks the links within docs/."""
    wrong = []
    for path, text in tracked("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
            file, _, anchor = target.partition("#")
            document = ROOT / (file or path)
            titles = (
                re.findall(r"^#+ (.+)$", document.read_text("utf-8"), re.M)
                if document.suffix == ".md" and document.is_file()
                else []
            )
            slugs = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
            if not document.exists() or (anchor and anchor not in slugs):
                wrong.append((path, target))
    assert wrong == []
