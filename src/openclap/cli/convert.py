"""`openclap convert`: from one format of checkpoints to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from openclap.cli.console import note
from openclap.cli.model_options import Offline
from openclap.cli.model_options import Tokenizer as TokenizerFile

if TYPE_CHECKING:
    from openclap.checkpoints.conversion_report import ConversionLosses


def convert(
    source: str,
    destination: Path,
    *,
    to: Literal["openclap", "hf", "laion", "onnx", "sentence-transformers"],
    tokenizer: TokenizerFile = None,
    revision: str | None = None,
    offline: Offline = False,
) -> None:
    """Write a checkpoint in another format, every weight as it is.

    What the format has no place for is named, and so are parts that its own library asks for and the model never had,
    which hold fresh values. A model that would read back as another one is refused, and what was written is read back
    before it takes its place. Where the destination stands already, it is replaced only if it is a model of that format
    and holds nothing else; it may not lie inside the source.

    Parameters
    ----------
    source
        A file or folder in any format that openclap reads, or a published name.
    destination
        The folder, or `.pt` file (laion), to write.
    to
        "openclap", "hf" (transformers' ClapModel), "laion" (LAION-CLAP's `.pt`), "onnx" (graphs for onnxruntime,
        written only where it gives the same vectors) or "sentence-transformers" (a folder that this library loads).
    tokenizer
        A `tokenizer.json` to put beside the weights, where the source has none.
    revision
        The branch, tag or commit of a source on the hub.
    offline
        Take what the hub's cache has, and ask the network for nothing.
    """
    from openclap.checkpoints import detect, huggingface, laion, openclap_folder
    from openclap.checkpoints.checkpoint import build_network
    from openclap.embedder import located
    from openclap.text.tokenizer import Tokenizer

    path = located(source, revision=revision, offline=offline, report=note)
    checkpoint = detect.read(path)
    build_network(checkpoint, path.name)  # says what is missing before anything is written
    text = checkpoint.preset.text
    words = tokenizer or checkpoint.tokenizer or _fetched(text.tokenizer, offline)
    read = None if words is None else Tokenizer.read(words, text.context, padded=text.padded)
    checkpoint = replace(checkpoint, tokenizer=words)
    if to == "onnx":
        from openclap.interop import onnx

        losses = onnx.write(checkpoint, destination, read)
    elif to == "sentence-transformers":
        from openclap.interop import sentence_transformers

        losses = sentence_transformers.write(checkpoint, destination, read)
    elif to == "laion":
        losses = laion.write(checkpoint, destination)
    elif to == "hf":
        losses = huggingface.write(checkpoint, destination)
    else:
        losses = openclap_folder.write(checkpoint, destination, read)
    note(f"Wrote {destination}: {checkpoint.preset.name}, {len(checkpoint.weights)} tensors")
    _tell(losses)
    if words is None and to != "laion":
        note(f"No tokenizer lies beside it: {text.tokenizer or 'one'} is fetched when text is first embedded.")


def _tell(losses: ConversionLosses) -> None:
    if losses.left_out:
        note(f"Left out {len(losses.left_out)} tensors that this format has no place for:")
        for part, number in _parts(losses.left_out).items():
            note(f"  {part} ({number})")
    if losses.untrained:
        note("The format's own loader asks for parts that this model never had and embedding does not read. They hold")
        note("fresh, untrained values, and openclap leaves them out again:")
        for part in losses.untrained:
            note(f"  {part}")
    for change in losses.changed:
        note(f"This format cannot say {change}.")
    for line in losses.notes:
        note(line)


def _fetched(name: str | None, offline: bool) -> Path | None:
    """The tokenizer of that name where the hub or its cache has it."""
    from openclap.checkpoints import hub
    from openclap.errors import CheckpointError

    try:
        return hub.tokenizer_file(name, offline=offline) if name else None
    except CheckpointError:
        return None


def _parts(names: Sequence[str]) -> dict[str, int]:
    """How many tensors of each module: "audio_tower.tagger" 2."""
    parts = [".".join(name.split(".")[:2]) for name in names]
    return {part: parts.count(part) for part in dict.fromkeys(parts)}
