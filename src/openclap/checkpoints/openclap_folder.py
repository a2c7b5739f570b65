"""openclap's own model folder: `config.json` (the preset), `model.safetensors` and `tokenizer.json`.

`unused.safetensors` holds trained tensors of a converted checkpoint that the network does not read, and
`objective.safetensors` trained parameters of the training objective; each is there only where there are such tensors.

A folder is complete or absent: it is written under another name and moved into place (`destination`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from openclap.checkpoints.checkpoint import Checkpoint, build_network
from openclap.checkpoints.conversion_report import ConversionLosses
from openclap.checkpoints.destination import drafted
from openclap.checkpoints.openclap_config import (
    KIND,
    OBJECTIVE,
    UNUSED,
    WEIGHTS,
    is_openclap_folder,
    read_preset,
    write_preset,
)
from openclap.checkpoints.tensors import check_equal, read_safetensors
from openclap.errors import CheckpointError
from openclap.text.tokenizer import FILE as TOKENIZER
from openclap.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from openclap.models.clap import CLAP
    from openclap.presets import Preset


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
    """Write a network as a model folder; an older model there is replaced only when the new one reads back.

    Args:
        inputs: files and folders that the model was made from, which must neither contain the folder nor lie in it.

    Raises CheckpointError when `folder` is a file, has no config.json of openclap, or holds foreign files.
    """
    checkpoint = Checkpoint("openclap", preset, clap.state_dict(), dict(unused or {}), objective=dict(objective or {}))
    write(checkpoint, folder, tokenizer, inputs)


def write(
    checkpoint: Checkpoint, folder: Path, tokenizer: Tokenizer | None, inputs: Iterable[Path | None] = ()
) -> ConversionLosses:
    """Write a checkpoint as a model folder, which loses nothing; see `save`."""
    from safetensors.torch import save_file

    def check(draft: Path) -> None:
        again = read(draft)
        if again.preset != checkpoint.preset:
            raise CheckpointError("The preset reads back differently.")
        check_equal(again.weights, checkpoint.weights)
        check_equal(again.unused, checkpoint.unused)
        check_equal(again.objective, checkpoint.objective)
        if tokenizer is not None and (draft / TOKENIZER).read_text(encoding="utf-8") != tokenizer.definition:
            raise CheckpointError(f"{TOKENIZER} reads back differently. Is the disk damaged?")

    with drafted(folder, KIND, check, [checkpoint.source, *inputs]) as draft:
        draft.mkdir()
        write_preset(draft, checkpoint.preset)
        parts = {WEIGHTS: checkpoint.weights, UNUSED: checkpoint.unused, OBJECTIVE: checkpoint.objective}
        for file, tensors in parts.items():
            if tensors:
                # safetensors refuses tensors that share memory, as tied embeddings and views do: hence clone.
                save_file({name: tensor.contiguous().cpu().clone() for name, tensor in tensors.items()}, draft / file)
        if tokenizer is not None:
            (draft / TOKENIZER).write_text(tokenizer.definition, encoding="utf-8")
    return ConversionLosses()


def read(folder: Path, preset: Preset | None = None) -> Checkpoint:
    """Read a model folder. `preset` replaces the stored one.

    Raises CheckpointError for a missing or damaged folder, and for one of a newer format.
    """
    preset = preset or read_preset(folder)
    unused, objective = (
        read_safetensors(folder / file) if (folder / file).is_file() else {} for file in (UNUSED, OBJECTIVE)
    )
    weights = read_safetensors(folder / WEIGHTS)
    tokenizer = folder / TOKENIZER if (folder / TOKENIZER).is_file() else None
    return Checkpoint("openclap", preset, weights, unused, tokenizer, objective=objective)


def check_model(folder: Path) -> None:
    """Raise CheckpointError unless `folder` holds a complete model that can be built."""
    if not is_openclap_folder(folder):
        raise CheckpointError(
            f"{folder}: is no model folder of openclap. If it holds another model, 'openclap convert {folder} OUT --to "
            "openclap' converts it."
        )
    build_network(read(folder), str(folder))
