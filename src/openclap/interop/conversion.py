"""Convert a checkpoint from any format that openclap reads to any that it writes."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from openclap.checkpoints import detect, huggingface, laion, open_clip, openclap_folder
from openclap.checkpoints.checkpoint import Checkpoint, build_network, weights_digest
from openclap.checkpoints.conversion_report import ConversionLosses
from openclap.checkpoints.open_clip import PatchOrder
from openclap.errors import CheckpointError, ConfigError
from openclap.loading import locate
from openclap.presets import Preset
from openclap.runtimes import fetch_tokenizer, graph_cache
from openclap.text.tokenizer import Tokenizer

TargetFormat = Literal["openclap", "hf", "laion", "open-clip", "onnx", "sentence-transformers"]


@dataclass(frozen=True, slots=True)
class Conversion:
    """A finished conversion.

    Attributes:
        checkpoint: the checkpoint that was converted, with the tokenizer that was written.
        losses: tensors and settings that the target format could not hold.
        place: the file or folder that was written.
    """

    checkpoint: Checkpoint
    losses: ConversionLosses
    place: Path


def convert(
    source: str | os.PathLike[str],
    destination: Path | None,
    to: TargetFormat,
    *,
    tokenizer: Path | None = None,
    patch_order: PatchOrder = "canonical",
    revision: str | None = None,
    offline: bool = False,
) -> Conversion:
    """Write a checkpoint in another format, with every weight unchanged.

    Args:
        source: a file or folder in any format that openclap reads, a published name, or a repository on the hub.
        destination: the folder, or `.pt` file (laion), to write. Only a model of that format is replaced. None (onnx)
            stands for the place under openclap's home where `openclap.load` finds the graphs of this model.
        tokenizer: a `tokenizer.json`; the default is the source's, or the one that its preset names, if it can be had.
        patch_order: the order within patches of a NaFlex model: "legacy" for weights of open_clip from before 24 June
            2026, which are converted. Files that say so themselves are recognised.

    Raises ConfigError without a destination for another format than onnx, and for a patch order of another model or of
    one that says it has the other order; CheckpointError when the source cannot be read, the format cannot hold the
    model, or the result does not read back; MissingExtraError where a library for the format is not installed.
    """
    if destination is None and to != "onnx":
        raise ConfigError(f"Format {to!r} needs a destination: the name of a folder (laion: of a file) to write.")
    path = locate(os.fspath(source), revision=revision, offline=offline)
    checkpoint = detect.read(path)
    if patch_order == "legacy":
        open_clip.check_may_be_legacy(path)
        checkpoint = open_clip.from_legacy_order(checkpoint)
    network = build_network(checkpoint, path.name)  # reports missing weights before anything is written
    text = checkpoint.preset.text
    words = tokenizer or checkpoint.tokenizer or _find_tokenizer(checkpoint.preset, offline)
    read_words = None if words is None else Tokenizer.read(words, text.context, padded=text.padded)
    checkpoint = replace(checkpoint, tokenizer=words)
    if destination is None:
        digest = weights_digest(network, checkpoint.preset)
        place = graph_cache.place_of(digest)
        losses = _write(checkpoint, place, to, read_words)
        graph_cache.remember(path, digest)
        return Conversion(checkpoint, losses, place)
    return Conversion(checkpoint, _write(checkpoint, destination, to, read_words), destination)


def _write(
    checkpoint: Checkpoint, destination: Path, to: TargetFormat, tokenizer: Tokenizer | None
) -> ConversionLosses:
    if to == "laion":
        return laion.write(checkpoint, destination)
    if to == "hf":
        return huggingface.write(checkpoint, destination)
    if to == "open-clip":
        return open_clip.write(checkpoint, destination)
    if to == "openclap":
        return openclap_folder.write(checkpoint, destination, tokenizer)
    # Imported when needed: both require libraries that are not installed by default.
    if to == "onnx":
        from openclap.interop import onnx

        return onnx.write(checkpoint, destination, tokenizer)
    from openclap.interop import sentence_transformers

    return sentence_transformers.write(checkpoint, destination, tokenizer)


def _find_tokenizer(preset: Preset, offline: bool) -> Path | None:
    """The tokenizer that a preset names; None where it cannot be had, for a checkpoint can do without."""
    try:
        return fetch_tokenizer(preset, offline)
    except CheckpointError:
        return None
