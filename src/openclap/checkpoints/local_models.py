"""List the models on this machine: the bundled one, and those that were saved under openclap's home."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from openclap import paths
from openclap.checkpoints import bundled

CONFIG = "config.json"
"""The file by which a model folder is recognised."""


@dataclass(frozen=True, slots=True)
class LocalModel:
    """The bundled model, or one under openclap's home.

    Attributes:
        kind: "bundled", or "local" for any other.
        is_default: whether commands use it without --model.
        made_of: the models that it was made from, or the name of its preset.
        megabytes: size of the folder, in millions of bytes.
    """

    name: str
    kind: Literal["bundled", "local"]
    made_of: str
    megabytes: int
    licence: str | None = None
    is_default: bool = False


def bundled_model() -> LocalModel:
    """The model in the package."""
    return LocalModel(
        name=bundled.MINI,
        kind="bundled",
        made_of="aiSFX + MiniLM",
        megabytes=_megabytes(bundled.FOLDER),
        licence="CC-BY-4.0",
        is_default=True,
    )


def local_models() -> list[LocalModel]:
    """List the models saved under openclap's home, such as the demo's."""
    folder = paths.home() / "models"
    return [
        LocalModel(
            name=str(model),
            kind="local",
            made_of=_preset_name(model),
            megabytes=_megabytes(model),
        )
        for model in sorted(folder.glob("*"))
        if (model / CONFIG).is_file()
    ]


def _megabytes(folder: Path) -> int:
    return round(sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) / 1e6)


def _preset_name(folder: Path) -> str:
    """Return the name of a model's preset; "damaged" for a damaged model, which should not hide the others."""
    try:
        return str(json.loads((folder / CONFIG).read_text(encoding="utf-8"))["preset"]["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return "damaged"
