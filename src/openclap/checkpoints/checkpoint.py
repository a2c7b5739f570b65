"""A checkpoint in memory, whatever format it was read from, and the network that it builds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from openclap.audio.frontend import FrontEnd
from openclap.errors import CheckpointError
from openclap.formatting import describe_error, join_first
from openclap.models.build import build_clap

if TYPE_CHECKING:
    from torch import Tensor

    from openclap.models.clap import CLAP
    from openclap.presets import Preset

BATCH_COUNTER = ".num_batches_tracked"
"""Ends the names of batch norms' step counters. They are no weights, and many files lack them."""
RANDOM_FILLS = frozenset({"normal_", "uniform_", "trunc_normal_", "kaiming_uniform_"})


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights under openclap's names, with the preset that builds their network.

    Attributes:
        format: the format that it was read from: "openclap", "huggingface", "laion", "msclap" or "open_clip".
        weights: every tensor of the network's state dict, by name.
        unused: trained tensors of the source that no network here reads (LAION's second global branch of iAFF, BART's
            decoder), under LAION's names. They are stored so that converting back loses nothing.
        tokenizer: a `tokenizer.json`, or a `vocab.json` with merges beside it; None where the tokenizer must be
            fetched by the name in the preset's `text.tokenizer`.
        source: the file or folder that it was read from.
        objective: trained parameters of the training objective (SigLIP's bias). Only openclap's own folder stores them.
    """

    format: str
    preset: Preset
    weights: dict[str, Tensor]
    unused: dict[str, Tensor] = field(default_factory=dict)
    tokenizer: Path | None = None
    source: Path | None = None
    objective: dict[str, Tensor] = field(default_factory=dict)


def build_network(checkpoint: Checkpoint, source: str) -> CLAP:
    """Build a checkpoint's network with its weights, in evaluation mode.

    Raises CheckpointError for weights that do not fit, naming missing, unknown and misshapen ones.
    """
    clap = empty_network(checkpoint.preset, source)
    load_weights(clap, checkpoint.weights, source)
    return clap.eval()


def empty_network(preset: Preset, source: str) -> CLAP:
    """Build a preset's network with weights of zero. Raises CheckpointError where its sizes fit no network."""
    try:
        _check_sizes(preset)
        FrontEnd(preset.frontend)  # built only to find out whether it can be
        with ZeroInit():
            return build_clap(preset)
    except Exception as error:  # impossible sizes fail anywhere in torch, numpy and transformers
        raise CheckpointError(f"{source}: describes no model that can be built ({describe_error(error)}).") from None


def _check_sizes(preset: Preset) -> None:
    """Raise ValueError for sizes that a network accepts and that fail only on the first clip or caption."""
    mel = preset.frontend.mel
    sizes = {"rate": mel.rate, "n_fft": mel.n_fft, "hop": mel.hop, "n_mels": mel.n_mels}
    sizes |= {"samples": preset.frontend.samples, "context": preset.text.context}
    if wrong := [f"{name} {size!r}" for name, size in sizes.items() if not isinstance(size, int) or size < 1]:
        raise ValueError(f"{join_first(wrong)}, expected whole numbers from 1")


class ZeroInit(TorchFunctionMode):
    """Initialise new parameters with zeros in place of random numbers.

    Drawing random weights takes longer than reading a checkpoint, and loading overwrites them at once.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") in RANDOM_FILLS:
            with torch.no_grad():
                return (args[0] if args else (kwargs or {})["tensor"]).zero_()
        return func(*args, **kwargs or {})


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load `weights` into `network`. Raises CheckpointError unless every name and shape fits."""
    misfits = compare_weights(network, weights)
    if any(misfits.values()):
        facts = [f"{len(names)} {kind} ({join_first(names)})" for kind, names in misfits.items() if names]
        raise CheckpointError(f"{source}: the weights do not fit the model: {'; '.join(facts)}.")
    # The network's own counters stand in for those that a file lacks, so that the load below can be strict.
    counters = {key: tensor for key, tensor in network.state_dict().items() if key.endswith(BATCH_COUNTER)}
    network.load_state_dict(counters | dict(weights))


def compare_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """List the weights that are missing, unknown to the network, or of another shape."""
    wanted = network.state_dict()
    return {
        "missing": sorted(name for name in wanted.keys() - weights.keys() if not name.endswith(BATCH_COUNTER)),
        "not known": sorted(weights.keys() - wanted.keys()),
        "of another shape": [
            f"{name} is {tuple(weights[name].shape)}, expected {tuple(wanted[name].shape)}"
            for name in sorted(wanted.keys() & weights.keys())
            if weights[name].shape != wanted[name].shape
        ],
    }


def weights_digest(clap: CLAP, preset: Preset) -> str:
    """A SHA-256 of weights and preset. `runtimes.graph_cache` computes the same from a model folder, without torch."""
    sha = hashlib.sha256(repr(preset).encode())
    for name, tensor in sorted(clap.state_dict().items()):
        sha.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()
