"""Render self-contained HTML pages: one file, without scripts and without network access."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from openclap.errors import ConfigError, require
from openclap.storage import write_bytes


def render(package: str, template: str, extra: str, **content: Any) -> str:
    """Render a template of a package, such as "openclap.evals", in the shared style.

    The template may extend `page.html` and use the macros of `macros.html`, both in this package. Text is escaped;
    drawings are passed through `markup`. Raises MissingExtraError without jinja2, naming `extra`.
    """
    jinja2 = require("jinja2", extra)
    pages = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        loader=jinja2.FunctionLoader(lambda name: _read_resource(package, name)),
    )
    return str(pages.get_template(template).render(style=markup(_read_resource(package, "style.css")), **content))


def _read_resource(package: str, name: str) -> str:
    """A file of `package`, or of this one."""
    ours, theirs = (resources.files(place).joinpath(name) for place in ("openclap.pages", package))
    return (theirs if theirs.is_file() else ours).read_text(encoding="utf-8")


def markup(drawing: str) -> Any:
    """Mark a drawing, whose text `charts` has escaped, as safe for a template."""
    from markupsafe import Markup

    return Markup(drawing)


def write(path: Path, text: str) -> Path:
    """Write a page or another text atomically and return its path.

    Links are followed; a path that is not a regular file, such as /dev/stdout, is written to in place. Raises
    ConfigError where nothing can be written.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
            return path
        place = path.resolve()
        place.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(place, text.encode())
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror}). Check the path, its permissions and the disk."
        ) from None
    return path
