"""Our own folder: `config.json` (the preset), `model.safetensors`, `tokenizer.json`.

A folder is complete or absent: it is written beside its place and moved there.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openclap import presets
from openclap.audio.frontend import FrontEnd
from openclap.errors import CheckpointError
from openclap.text.tokenizer import FILE as TOKENIZER
from openclap.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from openclap.models.clap import CLAP
    from openclap.presets import Preset

FORMAT_VERSION = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"


def is_folder(path: Path) -> bool:
    """Does `path` look like a model folder of ours?"""
    return (path / CONFIG).is_file()


def save(folder: Path, clap: CLAP, preset: Preset, tokenizer: Tokenizer) -> None:
    """Write the folder whole; one that stands there is replaced only when the new one is complete.

    Raises CheckpointError when `folder` is something else (a file, or a folder without our config.json).
    """
    from safetensors.torch import save_file

    if folder.exists() and not is_folder(folder) and (folder.is_file() or any(folder.iterdir())):
        raise CheckpointError(f"{folder}: is there already and is no openclap model. Choose another place.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        config = {"format_version": FORMAT_VERSION, "preset": presets.to_dict(preset)}
        (draft / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        save_file({name: tensor.contiguous().cpu() for name, tensor in clap.state_dict().items()}, draft / WEIGHTS)
        (draft / TOKENIZER).write_text(tokenizer.definition, encoding="utf-8")
        (draft / WEIGHTS).chmod(0o666 & ~_umask())  # safetensors and mkdtemp write for the owner alone
        draft.chmod(0o777 & ~_umask())
        _put(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def read(folder: Path, preset: Preset | None = None) -> tuple[CLAP, Preset, Path]:
    """The networks with their weights, the preset, and where the tokenizer lies.

    `preset` takes the stored one's place. Raises CheckpointError for a missing, damaged or newer folder and for
    weights that do not fit, naming what was found and what was missing.
    """
    preset = preset or _preset(folder)
    try:
        clap = presets.build(preset)
        FrontEnd(preset.frontend)
    except Exception as error:  # sizes that no network can have fail in as many ways as there are sizes
        raise CheckpointError(
            f"{folder / CONFIG}: describes no model that can be built ({type(error).__name__}: {error})."
        ) from None
    fill(clap, _weights(folder / WEIGHTS), folder.name)
    return clap.eval(), preset, folder / TOKENIZER


def fill(clap: CLAP, weights: dict[str, Tensor], name: str) -> None:
    """Load `weights` into `clap`, every name and shape accounted for. Raises CheckpointError naming the rest."""
    wanted = clap.state_dict()
    missing = sorted(wanted.keys() - weights.keys())
    unknown = sorted(weights.keys() - wanted.keys())
    other = [
        f"{key} is {tuple(weights[key].shape)}, expected {tuple(wanted[key].shape)}"
        for key in sorted(wanted.keys() & weights.keys())
        if weights[key].shape != wanted[key].shape
    ]
    if missing or unknown or other:
        facts = [*_few("missing", missing), *_few("not known", unknown), *_few("of another shape", other)]
        raise CheckpointError(f"{name}: the weights do not fit the preset: {'; '.join(facts)}.")
    clap.load_state_dict(weights)


def _few(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"{len(names)} {what} ({', '.join(names[:3])}{more})"]


def _preset(folder: Path) -> Preset:
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        version, stored = config["format_version"], config["preset"]
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: has no {CONFIG}, expected a folder written by openclap.") from None
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"{folder / CONFIG}: is damaged or was not written by openclap.") from None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{folder}: has format {version}; this openclap reads {FORMAT_VERSION}. Upgrade openclap."
        )
    return presets.from_dict(stored)


def _weights(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; the folder is not complete.") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: is damaged ({error}).") from None


def _put(draft: Path, place: Path) -> None:
    if not place.exists():
        draft.rename(place)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{place.name}-old-", dir=place.parent))
    place.rename(old / "model")
    draft.rename(place)
    shutil.rmtree(old)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
