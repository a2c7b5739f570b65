"""What a file or a folder holds is found out from what is in it, not from its name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openclap.checkpoints import audioset, folder, huggingface, laion
from openclap.checkpoints.audioset import AudioTower
from openclap.checkpoints.checkpoint import Checkpoint
from openclap.checkpoints.names import few
from openclap.checkpoints.shapes import tower_name
from openclap.checkpoints.tensors import in_one_sentence, read_tensors
from openclap.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

    from openclap.presets import Preset


def read(path: Path, preset: Preset | None = None) -> Checkpoint:
    """A checkpoint in any format that openclap knows: its own folder, transformers' ClapModel folder, LAION-CLAP's
    files, and safetensors files with either's names.

    `preset` takes the place of what is found out. Raises CheckpointError saying what was found.
    """
    with in_one_sentence(path):
        found = _found(path, preset)
    if isinstance(found, AudioTower):
        raise CheckpointError(
            f"{path.name}: holds an audio tower alone ({found.name}), expected a model with text. In Python, "
            "openclap.checkpoints.audioset reads it."
        )
    return replace(found, source=path)


def describe(path: Path) -> dict[str, Any]:
    """What `openclap inspect` prints. Raises CheckpointError for what is no checkpoint."""
    with in_one_sentence(path):
        found = _found(path, None)
        return _tower_facts(found) if isinstance(found, AudioTower) else _facts(found, path.name)


def _found(path: Path, preset: Preset | None) -> Checkpoint | AudioTower:
    if path.is_dir():
        return _read_folder(path, preset)
    if not path.is_file():
        what = "is neither a file nor a folder" if path.exists() else "no such file or folder"
        raise CheckpointError(f"{path}: {what}.")
    state = read_tensors(path)
    if laion.is_laion(state):
        return laion.read(state, path.name, preset)
    if huggingface.is_huggingface(state):
        if preset is None:
            raise CheckpointError(
                f"{path.name}: holds a ClapModel's weights without its config.json. Give the whole folder, or a preset."
            )
        return Checkpoint("huggingface", preset, huggingface.from_state(state, path.name))
    if audioset.holds_tower(state):
        return audioset.from_state(state, path.name)
    names = sorted(state)
    raise CheckpointError(
        f"{path.name}: holds {len(names)} tensors ({few(names)}), expected the names of a LAION-CLAP model "
        "(audio_branch.…) or of a ClapModel (audio_model.…)."
    )


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


def _tower_facts(tower: AudioTower) -> dict[str, Any]:
    return {
        "format": "audio tower",
        "audio tower": tower.name,
        "audio embedding": tower.config.embedding_size,
        "classes": tower.config.classes,
        "sample rate": tower.frontend.mel.rate,
        **_counts(tower.weights, tower.unused),
        **folder.misfits(tower.skeleton(), tower.weights),
    }


def _facts(checkpoint: Checkpoint, source: str) -> dict[str, Any]:
    preset, mel = checkpoint.preset, checkpoint.preset.frontend.mel
    network = folder.skeleton(preset, source)
    return {
        "format": checkpoint.format,
        "preset": preset.name,
        "audio tower": tower_name(preset.audio),
        "fusion": preset.audio.fusion or "none",
        "audio embedding": preset.audio.embedding_size,
        "classes": preset.audio.classes,
        "text tower": f"{preset.text.model_type}, {_layers(preset)} layers of {preset.text.hidden_size}",
        "pooling": preset.text.pooling,
        "embedding": preset.embedding_size,
        "temperatures": preset.temperatures,
        "MLP transforms": "yes" if preset.transforms else "no",
        "sample rate": mel.rate,
        "seconds": preset.frontend.samples / mel.rate,
        "mel": f"{mel.n_mels} bands, {mel.f_min:g}–{mel.f_max:g} Hz, {mel.scale}",
        "tokenizer": str(checkpoint.tokenizer or f"to be fetched: {preset.text.tokenizer}"),
        **_counts(checkpoint.weights, checkpoint.unused),
        **folder.misfits(network, checkpoint.weights),
    }


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
