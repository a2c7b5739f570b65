"""Detect a checkpoint's format from its content, never from its name, and read or describe it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from openclap import presets
from openclap.checkpoints import (
    audioset,
    clap_model,
    huggingface,
    laion,
    microsoft,
    open_clip,
    openclap_config,
    openclap_folder,
    transformers_model,
)
from openclap.checkpoints.audioset import AudioTower
from openclap.checkpoints.checkpoint import Checkpoint, compare_weights, empty_network
from openclap.checkpoints.damage import errors_as_checkpoint_errors
from openclap.checkpoints.tensors import read_tensors
from openclap.errors import CheckpointError
from openclap.formatting import join_first
from openclap.text import merges

if TYPE_CHECKING:
    from torch import Tensor

    from openclap.presets import Preset


def read(path: Path, preset: Preset | None = None) -> Checkpoint:
    """Read a checkpoint in any known format: the folders of openclap, open_clip and transformers' ClapModel,
    LAION-CLAP's and Microsoft's files, and files with the names of one of the former two.

    `preset` replaces the inferred one. Raises CheckpointError, saying what was found, for anything else.
    """
    with errors_as_checkpoint_errors(path):
        checkpoint = _read_any(path, preset)
    if isinstance(checkpoint, AudioTower):
        raise CheckpointError(
            f"{path.name}: holds an audio tower alone ({checkpoint.name}), expected a model with text. In Python, "
            "openclap.checkpoints.audioset reads it."
        )
    return replace(checkpoint, source=path)


def describe(path: Path) -> dict[str, Any]:
    """Return the facts that `openclap inspect` prints. Raises CheckpointError for anything but a checkpoint."""
    with errors_as_checkpoint_errors(path):
        if transformers_model.is_adaptable(path):
            return transformers_model.describe(path)
        checkpoint = _read_any(path, None)
        if isinstance(checkpoint, AudioTower):
            return _describe_tower(checkpoint)
        return _describe_checkpoint(checkpoint, path.name)


def _read_any(path: Path, preset: Preset | None) -> Checkpoint | AudioTower:
    if path.is_dir():
        return _read_folder(path, preset)
    if not path.is_file():
        reason = "is neither a file nor a folder" if path.exists() else "no such file or folder"
        raise CheckpointError(f"{path}: {reason}.")
    # By the names of tensors, from the most specific to the least: a whole LAION-CLAP model also has an audio tower.
    state = read_tensors(path)
    if laion.has_laion_names(state):
        return laion.read(state, path.name, preset)
    if microsoft.has_microsoft_names(state):
        return microsoft.read(state, path.name, preset)
    if open_clip.has_open_clip_names(state):
        return open_clip.read_file(path, state, preset)
    if clap_model.has_clap_model_names(state):
        if preset is None:
            raise CheckpointError(
                f"{path.name}: holds a ClapModel's weights without its config.json. Give the whole folder, or a preset."
            )
        return Checkpoint("huggingface", preset, clap_model.from_state(state, path.name, torch.cat))
    if audioset.has_tower_names(state):
        return audioset.from_state(state, path.name)
    names = sorted(state)
    raise CheckpointError(
        f"{path.name}: holds {len(names)} tensors ({join_first(names)}), expected the names of a LAION-CLAP model "
        "(audio_branch.…), of Microsoft's CLAP (audio_encoder.base.…), of a ClapModel (audio_model.…) or of open_clip "
        "(audio.encoder.…)."
    )


def _read_folder(path: Path, preset: Preset | None) -> Checkpoint:
    if openclap_config.is_openclap_folder(path):
        return openclap_folder.read(path, preset)
    # Before transformers' folders: published folders may hold the files of both.
    if open_clip.is_open_clip_folder(path):
        return open_clip.read(path, preset)
    if clap_model.is_clap_folder(path):
        return huggingface.read(path, preset)
    if transformers_model.is_adaptable(path):
        raise transformers_model.refusal(path)
    names = sorted(entry.name for entry in path.iterdir())
    contents = f"found {join_first(names)}" if names else "it is empty"
    raise CheckpointError(
        f"{path}: is no model folder; expected a config.json of openclap or of transformers' ClapModel, or an "
        f"{open_clip.CONFIG}; {contents}."
    )


def _describe_tower(tower: AudioTower) -> dict[str, Any]:
    return {
        "format": "audio tower",
        "audio tower": tower.name,
        "audio embedding": tower.config.embedding_size,
        "classes": tower.config.classes,
        "sample rate": tower.frontend.mel.rate,
        **_count_weights(tower.weights, tower.unused),
        **compare_weights(tower.empty_network(), tower.weights),
    }


def _describe_checkpoint(checkpoint: Checkpoint, source: str) -> dict[str, Any]:
    preset, mel = checkpoint.preset, checkpoint.preset.frontend.mel
    network = empty_network(preset, source)
    return {
        "format": checkpoint.format,
        "preset": preset.name,
        "audio tower": presets.tower_name(preset.audio),
        "fusion": preset.audio.fusion or "none",
        "audio embedding": preset.audio.embedding_size,
        "classes": preset.audio.classes,
        "text tower": f"{preset.text.model_type}, {_count_layers(preset)} layers of {preset.text.hidden_size}",
        "pooling": preset.text.pooling,
        "embedding": preset.embedding_size,
        "heads": f"{preset.audio_head}, {preset.text_head}",
        "temperatures": preset.temperatures,
        "MLP transforms": "yes" if preset.transforms else "no",
        "sample rate": mel.rate,
        "seconds": f"any, to {preset.frontend.longest / mel.rate:g} as a whole"
        if preset.frontend.is_any_length
        else preset.frontend.samples / mel.rate,
        "mel": f"{mel.n_mels} bands, {mel.f_min:g}–{mel.f_max:g} Hz, {mel.scale}",
        "tokenizer": str(checkpoint.tokenizer or _describe_tokenizer(preset.text.tokenizer)),
        **_count_weights(checkpoint.weights, checkpoint.unused),
        **compare_weights(network, checkpoint.weights),
    }


def _describe_tokenizer(name: str | None) -> str:
    return f"part of openclap: {name}" if name in merges.DEFINITIONS else f"to be fetched: {name}"


def _count_layers(preset: Preset) -> int:
    sizes = preset.text.sizes
    return int(sizes.get("num_hidden_layers", sizes.get("encoder_layers", 0)))  # BART's name is the second


def _count_weights(weights: dict[str, Tensor], unused: dict[str, Tensor]) -> dict[str, Any]:
    return {
        # Batch norms' running statistics are buffers, not parameters.
        "parameters": sum(tensor.numel() for name, tensor in weights.items() if ".running_" not in name),
        "types": sorted({str(tensor.dtype).removeprefix("torch.") for tensor in weights.values()}),
        "tensors": len(weights),
        "tensors unused": len(unused),
    }
