"""`openclap convert`: write a checkpoint in another format."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from openclap.cli.console import note
from openclap.cli.model_options import TokenizerFile

if TYPE_CHECKING:
    from openclap.checkpoints.conversion_report import ConversionLosses


def convert(
    source: str,
    destination: Path | None = None,
    *,
    to: Literal["openclap", "hf", "laion", "open-clip", "onnx", "sentence-transformers"],
    tokenizer: TokenizerFile = None,
    patch_order: Literal["canonical", "legacy"] = "canonical",
    revision: str | None = None,
    offline: bool = False,
) -> None:
    """Write a checkpoint in another format, with every weight unchanged.

    Lists the tensors that the format cannot hold, and the parts that its own library requires but the model lacks (they
    get initial values). The result is read back before it is moved to its place, and refused if it is not the same
    model. An existing destination is replaced only if it is a model of that format and holds nothing else; it must not
    lie inside the source.

    Parameters
    ----------
    source
        A file or folder in any format that openclap reads, or the name of a model.
    destination
        The folder to write, or the `.pt` file with --to laion. With --to onnx it may be left out: then the graphs go to
        ~/.cache/openclap/graphs, and commands that only use this model start without torch.
    to
        "openclap", "hf" (transformers' ClapModel), "laion" (LAION-CLAP's `.pt`), "open-clip" (a folder for open_clip),
        "onnx" (graphs for onnxruntime, written only if it computes the same embeddings) or "sentence-transformers" (a
        folder that this library loads).
    tokenizer
        A `tokenizer.json` to write beside the weights, for a source without one.
    patch_order
        The order within patches of a NaFlex model's weights: legacy for those of open_clip from before 24 June 2026,
        whose files do not say which order they have.
    revision
        The branch, tag or commit of a model on the hub.
    offline
        Use only the hub's cache, without network access.
    """
    from openclap.interop import conversion

    result = conversion.convert(
        source,
        destination,
        to,
        tokenizer=tokenizer,
        patch_order=patch_order,
        revision=revision,
        offline=offline,
    )
    checkpoint = result.checkpoint
    note(f"Wrote {result.place}: {checkpoint.preset.name}, {len(checkpoint.weights)} tensors")
    _print_losses(result.losses)
    if checkpoint.tokenizer is None and to not in ("laion", "open-clip"):
        name = checkpoint.preset.text.tokenizer or "one"
        note(f"It has no tokenizer: {name} is fetched when text is first embedded.")


def _print_losses(losses: ConversionLosses) -> None:
    if losses.left_out:
        note(f"Left out {len(losses.left_out)} tensors that this format cannot hold:")
        # By module, the first two parts of a name: "audio_tower.tagger (2)".
        modules = Counter(".".join(name.split(".")[:2]) for name in losses.left_out)
        for module, number in modules.items():
            note(f"  {module} ({number})")
    if losses.untrained:
        note("The format's own loader requires parts that this model lacks and embeddings do not depend on. They have")
        note("untrained values, and openclap leaves them out when it reads the result:")
        for part in losses.untrained:
            note(f"  {part}")
    for change in losses.changed:
        note(f"This format cannot hold {change}.")
    for line in losses.notes:
        note(line)
