"""A template filled: one HTML page that needs nothing else, no script and no network."""

from __future__ import annotations

from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

from openclap.errors import ConfigError, require


def render(room: str, template: str, extra: str, **content: Any) -> str:
    """The page of a template that lies in a package, such as "openclap.evals", in our style.

    It may extend `page.html` and use the macros of `drawn.html`, which lie here. Text is escaped; drawings come through
    `markup`. Raises MissingExtraError without jinja2, naming `extra`.
    """
    jinja2 = require("jinja2", extra)
    pages = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        loader=jinja2.FunctionLoader(lambda name: _text(room, name)),
    )
    return str(pages.get_template(template).render(style=markup(_text(room, "style.css")), **content))


def _text(room: str, name: str) -> str:
    """A file of a package, or of this one."""
    ours, theirs = (resources.files(package).joinpath(name) for package in ("openclap.pages", room))
    return (theirs if theirs.is_file() else ours).read_text(encoding="utf-8")


def markup(drawn: str) -> Any:
    """Mark what `charts` has escaped as safe for a template."""
    from markupsafe import Markup

    return Markup(drawn)


def write(path: Path, text: str) -> Path:
    """Put a page, or another text, in its place, whole, and return where that is. Links are followed; what is no file,
    such as /dev/stdout, is written to. Raises ConfigError where nothing can be written."""
    place = path.resolve()
    draft = place.with_name(f".{place.name}.draft")
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
            return path
        place.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, encoding="utf-8")
        draft.replace(place)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror}). Check the path, its permissions and the disk."
        ) from None
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    return path
