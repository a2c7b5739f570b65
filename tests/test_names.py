"""Names that a reader meets: one type for each name, and the field's terms."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import openclap

PACKAGE = Path(openclap.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
METAPHORS = re.compile(r"(^|_)(asked|heard|hear|listener|lesson|taught|teach|learnt|alike|told|nouns|panels|whose)(_|$)")
"""Words that stood for embedding, evaluation and training before; see docs/glossary.md for the field's terms."""


def test_no_two_public_types_share_a_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in SOURCES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(PACKAGE)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_identifiers_use_the_terms_of_the_field() -> None:
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [getattr(node, "name", None), getattr(node, "id", None), getattr(node, "arg", None)]
            for name in names:
                if isinstance(name, str) and METAPHORS.search(name.lower()):
                    found.add(f"{path.relative_to(PACKAGE)}: {name}")
    assert sorted(found) == []
