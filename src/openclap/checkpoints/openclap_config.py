"""The layout of openclap's own model folder, without torch: file names, and `config.json`.

`openclap_folder` reads and writes such folders with torch, `mapped` reads them without it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from openclap import presets
from openclap.checkpoints.destination import CheckpointKind
from openclap.errors import CheckpointError
from openclap.presets import Preset
from openclap.text.numpy_tokenizer import FILE as TOKENIZER

FORMAT_VERSION = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
UNUSED, OBJECTIVE = "unused.safetensors", "objective.safetensors"


def is_openclap_folder(path: Path) -> bool:
    """Return whether `path` has a config.json of openclap, damaged or not."""
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "format_version" in config  # transformers' config.json has no such key


def read_preset(folder: Path) -> Preset:
    """The preset of a folder. Raises CheckpointError where it is missing, damaged or of a newer format."""
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        version, stored = config["format_version"], config["preset"]
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: has no {CONFIG}, expected a folder written by openclap.") from None
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"{folder / CONFIG}: is damaged or was not written by openclap.") from None
    if version != FORMAT_VERSION:
        newer = isinstance(version, int) and version > FORMAT_VERSION
        action = "Upgrade openclap." if newer else f"Is {CONFIG} damaged?"
        raise CheckpointError(f"{folder}: has format {version!r}; this openclap reads {FORMAT_VERSION}. {action}")
    return presets.from_dict(stored)


def write_preset(folder: Path, preset: Preset) -> None:
    """Write the `config.json` of a folder."""
    config = {"format_version": FORMAT_VERSION, "preset": presets.to_dict(preset)}
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _is_replaceable(folder: Path) -> bool:
    """Return whether `folder` is a model of this format that a new one may replace."""
    try:
        return is_openclap_folder(folder) and bool(read_preset(folder))
    except CheckpointError:
        return False


KIND = CheckpointKind("openclap model", (CONFIG, WEIGHTS, UNUSED, OBJECTIVE, TOKENIZER), _is_replaceable)
