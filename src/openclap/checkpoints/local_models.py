"""List the models on this machine: the bundled one, and those under openclap's home, which are starting models for
training and models that were saved there by name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from openclap import paths
from openclap.checkpoints import bundled
from openclap.checkpoints.start_packages import AISFX, MINILM, START_PACKAGES

CONFIG = "config.json"
"""The file by which a model folder is recognised."""


@dataclass(frozen=True, slots=True)
class LocalModel:
    """The bundled model, a model under openclap's home, or one that can be made there.

    Attributes:
        kind: "bundled", "start" for a starting model, "local" for any other.
        is_present: whether its folder exists.
        is_default: whether commands use it without --model.
        made_of: the packages of a starting model, or the name of a preset.
        megabytes: size of the download (starts) or of the folder, in millions of bytes.
    """

    name: str
    kind: Literal["bundled", "start", "local"]
    is_present: bool
    made_of: str
    megabytes: int
    licence: str | None = None
    is_default: bool = False


def bundled_model() -> LocalModel:
    """The model in the package."""
    return LocalModel(
        name=bundled.MINI,
        kind="bundled",
        is_present=True,
        made_of=" + ".join(package.name for package in (AISFX, MINILM)),
        megabytes=_megabytes(bundled.FOLDER),
        licence="CC-BY-4.0",
        is_default=True,
    )


def starting_models() -> list[LocalModel]:
    """List the models with pretrained towers that training can start from."""
    return [
        LocalModel(
            name=name,
            kind="start",
            is_present=(paths.home() / "starts" / name / CONFIG).is_file(),
            made_of=" + ".join(package.name for package in packages),
            megabytes=sum(package.megabytes for package in packages),
            licence=", ".join(package.licence for package in packages),
        )
        for name, packages in START_PACKAGES.items()
    ]


def local_models() -> list[LocalModel]:
    """List the models saved under openclap's home, such as the demo's."""
    folder = paths.home() / "models"
    return [
        LocalModel(
            name=str(model),
            kind="local",
            is_present=True,
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
