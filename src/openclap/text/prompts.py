"""Class labels to sentences."""

from __future__ import annotations

from collections.abc import Sequence

from openclap.errors import ConfigError

SOUND = "This is a sound of {}."
"""The template of LAION-CLAP's zero-shot evaluation."""


def prompts(labels: Sequence[str], template: str = SOUND) -> list[str]:
    """One sentence a label, `_` in labels read as a space.

    Raises ConfigError when there are no labels or the template has no `{}`.
    """
    if not labels:
        raise ConfigError("No labels were given, expected at least one.")
    if template.count("{}") != 1:
        raise ConfigError(f"The template {template!r} must hold {{}} once, where the label goes.")
    return [template.replace("{}", label.replace("_", " ")) for label in labels]
