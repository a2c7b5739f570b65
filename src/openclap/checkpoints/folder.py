"""Our own folder: `config.json` (the preset), `model.safetensors`, `tokenizer.json`; where the weights came from a file
that held more than the networks read, `unused.safetensors`; and where training learned more, `objective.safetensors`.

A folder is complete or absent: it is written beside its place and moved there (`destination`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from openclap import presets
from openclap.audio.frontend import FrontEnd
from openclap.checkpoints.checkpoint import Checkpoint
from openclap.checkpoints.conversion_report import Losses
from openclap.checkpoints.destination import Kind, drafted, same
from openclap.checkpoints.names import few, why
from openclap.checkpoints.tensors import read_safetensors
from openclap.errors import CheckpointError
from openclap.models.build import build_clap
from openclap.text.tokenizer import FILE as TOKENIZER
from openclap.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from openclap.models.clap import CLAP
    from openclap.presets import Preset

FORMAT_VERSION = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
UNUSED, OBJECTIVE = "unused.safetensors", "objective.safetensors"


def is_folder(path: Path) -> bool:
    """Does `path` look like a model folder of ours?"""
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "format_version" in config


def save(
    folder: Path,
    clap: CLAP,
    preset: Preset,
    tokenizer: Tokenizer | None,
    unused: Mapping[str, Tensor] | None = None,
    *,
    objective: Mapping[str, Tensor] | None = None,
    inputs: Iterable[Path | None] = (),
) -> None:
    """Write the folder whole; one that stands there is replaced only when the new one is complete and reads back.

    Args:
        inputs: the files and folders that the model was made of, which the folder must not lie in or hold.

    Raises CheckpointError when `folder` is something else: a file, or a folder without our config.json or with files
    that are not ours.
    """
    learned = dict(objective or {})
    whole = Checkpoint("openclap", preset, clap.state_dict(), dict(unused or {}), objective=learned)
    write(whole, folder, tokenizer, inputs)


def write(
    checkpoint: Checkpoint, folder: Path, tokenizer: Tokenizer | None, inputs: Iterable[Path | None] = ()
) -> Losses:
    """A checkpoint as our folder, which has a place for everything; see `save`."""
    from safetensors.torch import save_file

    def check(draft: Path) -> None:
        again = read(draft)
        if again.preset != checkpoint.preset:
            raise CheckpointError("its preset came back as another one.")
        for found, written in (
            (again.weights, checkpoint.weights),
            (again.unused, checkpoint.unused),
            (again.objective, checkpoint.objective),
        ):
            same(found, written)
        if tokenizer is not None and (draft / TOKENIZER).read_text(encoding="utf-8") != tokenizer.definition:
            raise CheckpointError(f"{TOKENIZER} came back with another text. Is the disk damaged?")

    with drafted(folder, KIND, check, [checkpoint.source, *inputs]) as draft:
        draft.mkdir()
        config = {"format_version": FORMAT_VERSION, "preset": presets.to_dict(checkpoint.preset)}
        (draft / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        parts = {WEIGHTS: checkpoint.weights, UNUSED: checkpoint.unused, OBJECTIVE: checkpoint.objective}
        for file, tensors in parts.items():
            if tensors:
                save_file({name: tensor.contiguous().cpu().clone() for name, tensor in tensors.items()}, draft / file)
        if tokenizer is not None:
            (draft / TOKENIZER).write_text(tokenizer.definition, encoding="utf-8")
    return Losses()


def read(folder: Path, preset: Preset | None = None) -> Checkpoint:
    """What a folder holds. `preset` takes the stored one's place.

    Raises CheckpointError for a missing, damaged or newer folder.
    """
    preset = preset or _preset(folder)
    unused, objective = (
        read_safetensors(folder / file) if (folder / file).is_file() else {} for file in (UNUSED, OBJECTIVE)
    )
    tokenizer = folder / TOKENIZER
    weights = read_safetensors(folder / WEIGHTS)
    words = tokenizer if tokenizer.is_file() else None
    return Checkpoint("openclap", preset, weights, unused, words, objective=objective)


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
        _check_sizes(preset)
        FrontEnd(preset.frontend)
        with WithoutRandomWeights():
            return build_clap(preset)
    except Exception as error:  # sizes that no network can have fail in as many ways as there are sizes
        raise CheckpointError(f"{source}: describes no model that can be built ({why(error)}).") from None


def _check_sizes(preset: Preset) -> None:
    """Raises ValueError for sizes that would fail when the first sound or sentence comes."""
    mel = preset.frontend.mel
    sizes = {"rate": mel.rate, "n_fft": mel.n_fft, "hop": mel.hop, "n_mels": mel.n_mels}
    sizes |= {"samples": preset.frontend.samples, "context": preset.text.context}
    if wrong := [f"{name} {size!r}" for name, size in sizes.items() if not isinstance(size, int) or size < 1]:
        raise ValueError(f"{few(wrong)}, expected whole numbers from 1")


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


def fill(network: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    """Load `weights` into `network`, every name and shape accounted for. Raises CheckpointError naming the rest."""
    found = misfits(network, weights)
    if any(found.values()):
        facts = [f"{len(names)} {what} ({few(names)})" for what, names in found.items() if names]
        raise CheckpointError(f"{name}: the weights do not fit the model: {'; '.join(facts)}.")
    counters = {key: tensor for key, tensor in network.state_dict().items() if key.endswith(COUNTER)}
    network.load_state_dict(counters | dict(weights))


def misfits(network: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """What `network` asks for and `weights` lack, what they hold beside that, and what has another shape."""
    wanted = network.state_dict()
    return {
        "missing": sorted(name for name in wanted.keys() - weights.keys() if not name.endswith(COUNTER)),
        "not known": sorted(weights.keys() - wanted.keys()),
        "of another shape": [
            f"{name} is {tuple(weights[name].shape)}, expected {tuple(wanted[name].shape)}"
            for name in sorted(wanted.keys() & weights.keys())
            if weights[name].shape != wanted[name].shape
        ],
    }


COUNTER = ".num_batches_tracked"
"""How often a batch norm has learned: no weight, and not in every file."""


def check(folder: Path) -> None:
    """Raises CheckpointError for what is no whole model of ours, saying why."""
    if not is_folder(folder):
        raise CheckpointError(
            f"{folder}: is no model folder of openclap. Where it is another model, 'openclap convert {folder} OUT --to "
            "openclap' makes one of it."
        )
    network(read(folder), str(folder))


def _is_whole(folder: Path) -> bool:
    try:
        return is_folder(folder) and bool(_preset(folder))
    except CheckpointError:
        return False


KIND = Kind("openclap model", (CONFIG, WEIGHTS, UNUSED, OBJECTIVE, TOKENIZER), _is_whole)


def _preset(folder: Path) -> Preset:
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        version, stored = config["format_version"], config["preset"]
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: has no {CONFIG}, expected a folder written by openclap.") from None
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"{folder / CONFIG}: is damaged or was not written by openclap.") from None
    if version != FORMAT_VERSION:
        newer = isinstance(version, int) and version > FORMAT_VERSION
        way = "Upgrade openclap." if newer else f"Is {CONFIG} damaged?"
        raise CheckpointError(f"{folder}: has format {version!r}; this openclap reads {FORMAT_VERSION}. {way}")
    return presets.from_dict(stored)
