"""Our own folder: `config.json` (the preset), `model.safetensors`, `tokenizer.json`, and, where the weights came from
a file that held more than the networks read, `unused.safetensors`.

A folder is complete or absent: it is written beside its place and moved there.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from openclap import presets
from openclap.audio.frontend import FrontEnd
from openclap.checkpoints.checkpoint import Checkpoint
from openclap.checkpoints.huggingface import read_safetensors
from openclap.checkpoints.names import few
from openclap.errors import CheckpointError
from openclap.text.tokenizer import FILE as TOKENIZER
from openclap.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from openclap.models.clap import CLAP
    from openclap.presets import Preset

FORMAT_VERSION = 1
CONFIG, WEIGHTS, UNUSED = "config.json", "model.safetensors", "unused.safetensors"


def is_folder(path: Path) -> bool:
    """Does `path` look like a model folder of ours?"""
    try:
        return "format_version" in json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def save(
    folder: Path,
    clap: CLAP,
    preset: Preset,
    tokenizer: Tokenizer | None,
    unused: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the folder whole; one that stands there is replaced only when the new one is complete.

    Raises CheckpointError when `folder` is something else (a file, or a folder without our config.json).
    """
    write(Checkpoint("openclap", preset, clap.state_dict(), dict(unused or {})), folder, tokenizer)


def write(checkpoint: Checkpoint, folder: Path, tokenizer: Tokenizer | None) -> list[str]:
    """A checkpoint as our folder, which drops nothing; see `save`."""
    from safetensors.torch import save_file

    if folder.exists() and not is_folder(folder) and (folder.is_file() or any(folder.iterdir())):
        raise CheckpointError(f"{folder}: is there already and is no openclap model. Choose another place.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        config = {"format_version": FORMAT_VERSION, "preset": presets.to_dict(checkpoint.preset)}
        (draft / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        for file, tensors in ((WEIGHTS, checkpoint.weights), (UNUSED, checkpoint.unused)):
            if tensors:
                save_file({name: tensor.contiguous().cpu().clone() for name, tensor in tensors.items()}, draft / file)
                (draft / file).chmod(0o666 & ~_umask())  # safetensors and mkdtemp write for the owner alone
        if tokenizer is not None:
            (draft / TOKENIZER).write_text(tokenizer.definition, encoding="utf-8")
        draft.chmod(0o777 & ~_umask())
        _put(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return []


def read(folder: Path, preset: Preset | None = None) -> Checkpoint:
    """What a folder holds. `preset` takes the stored one's place.

    Raises CheckpointError for a missing, damaged or newer folder.
    """
    preset = preset or _preset(folder)
    unused = read_safetensors(folder / UNUSED) if (folder / UNUSED).is_file() else {}
    tokenizer = folder / TOKENIZER
    weights = read_safetensors(folder / WEIGHTS)
    return Checkpoint("openclap", preset, weights, unused, tokenizer if tokenizer.is_file() else None)


def network(checkpoint: Checkpoint, source: str) -> CLAP:
    """The networks of a checkpoint with its weights, in evaluation mode.

    Raises CheckpointError for weights that do not fit, naming what was found and what was missing.
    """
    clap = skeleton(checkpoint.preset, source)
    fill(clap, checkpoint.weights, source)
    return clap.eval()


def skeleton(preset: Preset, source: str) -> CLAP:
    """The networks of a preset, their weights not set. Raises CheckpointError where none can be built."""
    try:
        FrontEnd(preset.frontend)
        with WithoutRandomWeights():
            return presets.build(preset)
    except Exception as error:  # sizes that no network can have fail in as many ways as there are sizes
        raise CheckpointError(
            f"{source}: describes no model that can be built ({type(error).__name__}: {error})."
        ) from None


class WithoutRandomWeights(TorchFunctionMode):
    """Makes new parameters zero: whoever fills them next need not wait for random numbers."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") in RANDOM_FILLS:
            with torch.no_grad():
                return (args[0] if args else (kwargs or {})["tensor"]).zero_()
        return func(*args, **kwargs or {})


RANDOM_FILLS = frozenset({"normal_", "uniform_", "trunc_normal_", "kaiming_uniform_"})


def fill(network: nn.Module, weights: dict[str, Tensor], name: str) -> None:
    """Load `weights` into `network`, every name and shape accounted for. Raises CheckpointError naming the rest."""
    wanted = network.state_dict()
    weights = {key: tensor for key, tensor in wanted.items() if key.endswith(COUNTER)} | weights
    missing = sorted(wanted.keys() - weights.keys())
    unknown = sorted(weights.keys() - wanted.keys())
    other = [
        f"{key} is {tuple(weights[key].shape)}, expected {tuple(wanted[key].shape)}"
        for key in sorted(wanted.keys() & weights.keys())
        if weights[key].shape != wanted[key].shape
    ]
    if missing or unknown or other:
        facts = [*_few("missing", missing), *_few("not known", unknown), *_few("of another shape", other)]
        raise CheckpointError(f"{name}: the weights do not fit the model: {'; '.join(facts)}.")
    network.load_state_dict(weights)


COUNTER = ".num_batches_tracked"
"""How often a batch norm has learned: no weight, and not in every file."""


def _few(what: str, names: list[str]) -> list[str]:
    return [f"{len(names)} {what} ({few(names)})"] if names else []


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
