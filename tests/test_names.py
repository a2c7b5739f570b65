"""Names that a reader meets: one type for each name, and the field's terms."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import openclap
from openclap import errors

PACKAGE = Path(openclap.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
METAPHORS = re.compile(
    r"(^|_)(asked|heard|hear|listener|lesson|taught|teach|learnt|alike|told|nouns|panels|whose)(_|$)"
)
"""Words that stood for embedding, evaluation and training before; see docs/glossary.md for the field's terms."""
ALIAS = re.compile(r"[A-Z]+[a-z]\w*")
ERRORS = {
    name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.OpenClapError)
}
PLACEHOLDER = "…"
NAME = re.compile(r"[a-z_0-9]+([._][a-z_0-9…]+|…| …| '|(?= (is|are|names|must|does|works|counts) ))")
"""An option or argument (`batch_size is …`) or a file name (`config.json: …`)."""
PREDICATE = re.compile(r"(is|has|cannot be) ")
"""The beginning of a sentence that is raised without the name of the file, which a caller puts in front of it."""


def test_no_two_public_types_share_a_name() -> None:
    """Classes and aliases: a name of the package has one definition."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in SOURCES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if name := defined_type(node):
                places[name].append(str(path.relative_to(PACKAGE)))
    assert places["Wave"] == ["arrays.py"]
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def defined_type(node: ast.stmt) -> str | None:
    """The name of a public class, or of an alias: CamelCase on the left of an assignment."""
    if isinstance(node, ast.ClassDef):
        return None if node.name.startswith("_") else node.name
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        name = node.targets[0].id
        return name if ALIAS.fullmatch(name) else None
    return None


def test_error_messages_are_sentences() -> None:
    """A message begins with a capital, a path, a name or a value, and ends with a full stop or a question mark.

    A placeholder at either end counts as right: its value is a sentence of its own, or a path.
    """
    wrong, count = [], 0
    for path in SOURCES:
        for line, message in raised_messages(path):
            count += 1
            first, last = message[:1], message.rstrip()[-1:]
            starts_with_name = bool(NAME.match(message) or PREDICATE.match(message))
            if not (first == PLACEHOLDER or not first.isalpha() or first.isupper() or starts_with_name):
                wrong.append(f"{path.relative_to(PACKAGE)}:{line}: begins with {message[:40]!r}")
            if last not in (".", "?", PLACEHOLDER):
                wrong.append(f"{path.relative_to(PACKAGE)}:{line}: ends with {message[-40:]!r}")
    assert count > 300
    assert wrong == []


def raised_messages(path: Path) -> Iterator[tuple[int, str]]:
    """The line and text of each message of `errors` in a module; placeholders of f-strings are one character each."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and node.args:
            function = node.func
            name = getattr(function, "id", None) or getattr(function, "attr", None)
            if name in ERRORS:
                yield from ((node.lineno, text) for text in texts(node.args[0]))


def texts(node: ast.expr) -> Iterator[str]:
    """The literal texts that an expression may give."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else PLACEHOLDER for part in node.values)
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)


def test_identifiers_use_the_terms_of_the_field() -> None:
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [getattr(node, "name", None), getattr(node, "id", None), getattr(node, "arg", None)]
            for name in names:
                if isinstance(name, str) and METAPHORS.search(name.lower()):
                    found.add(f"{path.relative_to(PACKAGE)}: {name}")
    assert sorted(found) == []
