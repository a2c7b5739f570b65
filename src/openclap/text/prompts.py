"""Make prompts of class labels."""

from __future__ import annotations

import re
from collections.abc import Sequence

from openclap.errors import ConfigError

SOUND = "This is a sound of {}."
"""The template of LAION-CLAP's zero-shot evaluation."""

LABEL = "{}"
"""The label alone, as a query of a search."""


def prompts(labels: Sequence[str], template: str = SOUND) -> list[str]:
    """Put each label into the template; `_` in labels becomes a space.

    Raises ConfigError when there are no labels, or the template does not contain `{}` exactly once.
    """
    if not labels:
        raise ConfigError("No labels were given, expected at least one.")
    if template.count("{}") != 1:
        raise ConfigError(f"The template {template!r} must contain {{}} exactly once, in place of the label.")
    # Not str.format: other braces of a template are literal.
    return [template.replace("{}", label.replace("_", " ")) for label in labels]


def alternatives(label: str) -> list[str]:
    """Split a label at commas and "or": "cat, dog or other mammal" names a cat, a dog and a mammal."""
    parts = re.split(r",\s*(?:or\s+)?|\s+or\s+", label.replace("_", " "))
    return [part.removeprefix("other ") for part in map(str.strip, parts) if part] or [label]
