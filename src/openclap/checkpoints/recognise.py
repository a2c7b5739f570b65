"""What a file or a folder holds is found out from what is in it, not from its name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from openclap.checkpoints import audioset, folder, huggingface, laion
from openclap.checkpoints.checkpoint import Checkpoint
from openclap.checkpoints.names import few
from openclap.checkpoints.unpickle import read_pickled
from openclap.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

    from openclap.presets import Preset


def read(path: Path, preset: Preset | None = None) -> Checkpoint:
    """A checkpoint in any format that openclap knows: its own folder, transformers' ClapModel folder, LAION-CLAP's
    files, and safetensors files with either's names.

    `preset` takes the place of what is found out. Raises CheckpointError saying what was found.
    """
    if path.is_dir():
        return _read_folder(path, preset)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file or folder.")
    state = _state(path)
    if laion.is_laion(state):
        return laion.read(state, path.name, preset)
    if huggingface.is_huggingface(state):
        if preset is None:
            raise CheckpointError(
                f"{path.name}: holds a ClapModel's weights without its config.json. Give the whole folder, or a preset."
            )
        return Checkpoint("huggingface", preset, huggingface.from_state(state))
    if audioset.holds_tower(state):
        name = audioset.from_state(state, path.name).name
        raise CheckpointError(
            f"{path.name}: holds an audio tower alone ({name}), expected a model with text. Train one that starts from "
            "it, or read it with openclap.checkpoints.audioset."
        )
    names = sorted(state)
    found = f"{len(names)} tensors ({few(names)})" if names else "no tensors"
    raise CheckpointError(
        f"{path.name}: holds {found}, expected the names of a LAION-CLAP model (audio_branch.…) or of a ClapModel "
        "(audio_model.…)."
    )


def describe(path: Path) -> dict[str, Any]:
    """What `openclap inspect` prints. Raises CheckpointError for what is no checkpoint."""
    tower = _tower(path)
    if tower is not None:
        return {
            "format": "audio tower",
            "audio tower": tower.name,
            "audio embedding": tower.config.embedding_size,
            "classes": tower.config.classes,
            "sample rate": tower.frontend.mel.rate,
            **_counts(tower.weights, tower.unused),
        }
    checkpoint = read(path)
    preset = checkpoint.preset
    networks = set(folder.skeleton(preset, path.name).state_dict())
    return {
        "format": checkpoint.format,
        "preset": preset.name,
        "audio tower": laion.tower_name(preset.audio),
        "fusion": preset.audio.fusion or "none",
        "audio embedding": preset.audio.embedding_size,
        "classes": preset.audio.classes,
        "text tower": f"{preset.text.model_type}, {_layers(preset)} layers of {preset.text.hidden_size}",
        "pooling": preset.text.pooling,
        "embedding": preset.embedding_size,
        "temperatures": preset.temperatures,
        "MLP transforms": "yes" if preset.transforms else "no",
        "sample rate": preset.frontend.mel.rate,
        "seconds": preset.frontend.samples / preset.frontend.mel.rate,
        "mel": f"{preset.frontend.mel.n_mels} bands, {preset.frontend.mel.f_min:g}–{preset.frontend.mel.f_max:g} Hz, "
        f"{preset.frontend.mel.scale}",
        "tokenizer": str(checkpoint.tokenizer or f"to be fetched: {preset.text.tokenizer}"),
        **_counts(checkpoint.weights, checkpoint.unused),
        "missing": sorted(name for name in networks - checkpoint.weights.keys() if not name.endswith(folder.COUNTER)),
        "not known": sorted(checkpoint.weights.keys() - networks),
    }


def _read_folder(path: Path, preset: Preset | None) -> Checkpoint:
    if folder.is_folder(path):
        return folder.read(path, preset)
    if huggingface.is_folder(path):
        return huggingface.read(path, preset)
    found = sorted(entry.name for entry in path.iterdir())
    what = f"found {few(found)}" if found else "it is empty"
    raise CheckpointError(
        f"{path}: is no model folder; expected a config.json of openclap or of transformers' ClapModel, {what}."
    )


def _tower(path: Path) -> audioset.AudioTower | None:
    if not path.is_file():
        return None
    state = _state(path)
    if laion.is_laion(state) or huggingface.is_huggingface(state) or not audioset.holds_tower(state):
        return None
    return audioset.from_state(state, path.name)


def _state(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return huggingface.read_safetensors(path)
    return audioset.inner(read_pickled(path))


def _layers(preset: Preset) -> int:
    sizes = preset.text.sizes
    return int(sizes.get("num_hidden_layers", sizes.get("encoder_layers", 0)))


def _counts(weights: dict[str, Tensor], unused: dict[str, Tensor]) -> dict[str, Any]:
    return {
        "parameters": sum(tensor.numel() for name, tensor in weights.items() if ".running_" not in name),
        "types": sorted({str(tensor.dtype).removeprefix("torch.") for tensor in weights.values()}),
        "tensors": len(weights),
        "tensors unused": len(unused),
    }
