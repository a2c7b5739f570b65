"""`openclap convert`: from one format of checkpoints to another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from openclap.cli.console import note
from openclap.cli.using import Offline


def convert(
    source: str,
    destination: Path,
    *,
    to: Literal["openclap", "hf", "laion"],
    tokenizer: Path | None = None,
    revision: str | None = None,
    offline: Offline = False,
) -> None:
    """Write a checkpoint in another format, every weight as it is.

    Parameters
    ----------
    source
        A file or folder in any format that openclap reads, or a published name.
    destination
        The folder (openclap, hf) or `.pt` file (laion) to write.
    to
        "openclap", "hf" (transformers' ClapModel) or "laion" (LAION-CLAP's `.pt`).
    tokenizer
        A `tokenizer.json` to put beside the weights, where the source has none.
    revision
        The branch, tag or commit of a source on the hub.
    offline
        Take what the hub's cache has, and ask the network for nothing.
    """
    from openclap.checkpoints import folder, huggingface, laion, recognise
    from openclap.embedder import located
    from openclap.errors import CheckpointError, ConfigError
    from openclap.text.tokenizer import Tokenizer

    path = located(source, revision=revision, offline=offline)
    if destination.exists() and destination.resolve() == path.resolve():
        raise ConfigError(f"{destination}: is the source itself. Choose another place.")
    checkpoint = recognise.read(path)
    folder.network(checkpoint, path.name)  # says what is missing before anything is written
    words = tokenizer or checkpoint.tokenizer or _fetched(checkpoint.preset.text.tokenizer, offline)
    text = checkpoint.preset.text
    read = None if words is None else Tokenizer.read(words, text.context, padded=text.padded)
    checkpoint = replace(checkpoint, tokenizer=words)
    if to == "laion":
        if destination.is_dir() or (destination.exists() and not _is_checkpoint(destination)):
            raise CheckpointError(f"{destination}: is there already and is no checkpoint. Choose another place.")
        dropped = laion.write(checkpoint, destination)
    elif to == "hf":
        dropped = huggingface.write(checkpoint, destination)
    else:
        dropped = folder.write(checkpoint, destination, read)
    note(f"Wrote {destination}: {checkpoint.preset.name}, {len(checkpoint.weights)} tensors")
    if dropped:
        note(f"Left out {len(dropped)} tensors that this format has no place for:")
        for part, number in _parts(dropped).items():
            note(f"  {part} ({number})")
    if words is None and to != "laion":
        note(f"No tokenizer lies beside it: {text.tokenizer or 'one'} is fetched when text is first embedded.")


def _fetched(name: str | None, offline: bool) -> Path | None:
    """The tokenizer of that name where the hub or its cache has it."""
    from openclap.checkpoints import hub
    from openclap.errors import CheckpointError

    try:
        return hub.tokenizer_file(name, offline=offline) if name else None
    except CheckpointError:
        return None


def _is_checkpoint(path: Path) -> bool:
    from openclap.checkpoints import recognise
    from openclap.errors import CheckpointError

    try:
        return bool(recognise.describe(path))
    except CheckpointError:
        return False


def _parts(names: list[str]) -> dict[str, int]:
    """How many tensors of each module: "audio_tower.tagger" 2."""
    parts = [".".join(name.split(".")[:2]) for name in names]
    return {part: parts.count(part) for part in dict.fromkeys(parts)}
