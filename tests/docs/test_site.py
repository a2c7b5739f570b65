"""Check the sources of the documentation site; `make docs` builds it and checks its links."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import openclap
from openclap.cli import app
from support.documents import ROOT

GENERATED = {"changelog.md", "reference/cli.md"}


def site_pages() -> Any:
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / "scripts" / "site_pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages(nav: list[Any]) -> Iterator[str]:
    for entry in nav:
        for page in entry.values():
            yield from [page] if isinstance(page, str) else pages(page)


def test_every_page_is_in_the_navigation_once() -> None:
    nav = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]["nav"]
    docs = ROOT / "docs"
    written = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    assert sorted(pages(nav)) == sorted(written | GENERATED)


def test_reference_documents_every_public_name() -> None:
    pages = "\n".join(path.read_text("utf-8") for path in sorted((ROOT / "docs" / "reference").glob("*.md")))
    documented = re.findall(r"^::: (\S+)$", pages, re.M)
    public = {place.replace(":", ".") for place in openclap._EXPORTS.values()}
    assert public - set(documented) == set()
    for room in ("types", "errors", "evals.metrics", "models.objectives"):
        assert f"openclap.{room}" in documented
    # It would also hide the descriptions of a module's members.
    assert "show_docstring_description: false" not in pages


def test_command_line_page_has_every_command() -> None:
    page = site_pages().command_line()
    for name in app:
        if not name.startswith("-"):
            assert f"\n## openclap {name}\n" in page
    assert "\n### openclap dataset build\n" in page and "`--licences STR`" in page
    assert "Table of Contents" not in page


def test_changelog_links_start_in_docs() -> None:
    assert site_pages().changelog("([d](docs/decoding.md)) [e](https://x)") == "([d](decoding.md)) [e](https://x)"


def test_site_asks_nothing_of_the_network() -> None:
    project = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]
    assert project["theme"]["font"] is False  # else: Google Fonts
    assert "offline" not in project.get("plugins", {})  # its search loads a script from a CDN
