"""A template filled: one HTML page that needs nothing else, no script and no network."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from openclap.errors import require


def render(room: str, template: str, extra: str, **content: Any) -> str:
    """The page of a template that lies in a package, such as "openclap.evals", in our style.

    Text is escaped; drawings come through `markup`. Raises MissingExtraError without jinja2, naming `extra`.
    """
    jinja2 = require("jinja2", extra)
    source = resources.files(room).joinpath(template).read_text(encoding="utf-8")
    style = resources.files("openclap.pages").joinpath("style.css").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return str(page.from_string(source).render(style=markup(style), **content))


def markup(drawn: str) -> Any:
    """Mark what `charts` has escaped as safe for a template."""
    from markupsafe import Markup

    return Markup(drawn)


def write(path: Path, html: str) -> Path:
    """Put a page in its place, whole, and return where that is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(html, encoding="utf-8")
    return draft.replace(path)
