"""Runtimes: software that computes embeddings, behind one protocol of numpy arrays.

`openclap.Embedder` decodes, cuts and averages; a runtime computes the embeddings of waveforms and texts. Modules that
use a runtime import neither torch nor transformers, so that a runtime without them is possible. N items, D embedding.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from openclap.checkpoints import hub
from openclap.errors import MissingTokenizerError
from openclap.text import merges
from openclap.types import Signature

if TYPE_CHECKING:
    import torch

    from openclap.presets import Preset
    from openclap.text.numpy_tokenizer import NumpyTokenizer


class Runtime(Protocol):
    """A loaded model. Implementations must be deterministic, and in fp32 independent of the batch (within 1e-5).

    Attributes:
        name: the software and the precision, for people and for keys of caches: "torch fp32".
        precision: "fp32", "bf16" or "int8".
        batches_waves: whether one forward pass embeds several waveforms. Where it does not, a server passes them on one
            by one, so that texts need not wait for all of them.
        signature: sample rate, input length, embedding size. Runtimes of openclap's own networks have a `preset`, too.
    """

    name: str
    precision: str
    batches_waves: bool

    @property
    def signature(self) -> Signature:
        """What the model reads and returns."""
        ...

    @property
    def logit_scale(self) -> float:
        """The factor of cosines before a softmax (the inverse of CLIP's temperature)."""
        ...

    @property
    def has_tokenizer(self) -> bool:
        """Whether a tokenizer file is on this machine; otherwise it is downloaded when text is first embedded."""
        ...

    @property
    def tokenizer(self) -> NumpyTokenizer:
        """The tokenizer, read or downloaded when first needed. Raises CheckpointError when it is missing."""
        ...

    def check_tokenizer(self) -> None:
        """Read the tokenizer. Raises CheckpointError if text could not be embedded later."""
        ...

    def embed_waves(self, waves: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """(N, D) unit vectors of mono waveforms at the model's rate, each no longer than the model's input, or of any
        length where the model fuses long clips."""
        ...

    def embed_texts(self, texts: Sequence[str], batch_size: int) -> NDArray[np.float32]:
        """(N, D) unit vectors, in the order of `texts`. Raises as `check_tokenizer`."""
        ...

    def weights_digest(self) -> str:
        """A SHA-256 of weights and preset."""
        ...

    def save(self, folder: Path) -> None:
        """Write a folder that `openclap.load` reads back."""
        ...


class Loader(Protocol):
    """Options of a runtime, checked before a model is downloaded or read."""

    def read(
        self, path: Path, *, preset: Preset | None, tokenizer: str | os.PathLike[str] | None, offline: bool
    ) -> Runtime:
        """Read the checkpoint at `path`; see `openclap.load` for the arguments and errors."""
        ...


RUNTIMES = {
    "torch": "openclap.runtimes.torch:TorchLoader",
    "onnx": "openclap.runtimes.onnx:OnnxLoader",
}
"""Loaders by runtime. Strings and not imports: import-linter also counts imports inside functions, and nothing above
this module may depend on torch."""
CONVERTER = "openclap.interop.onnx:prepare"
"""The function that converts a loaded model for the onnx runtime; a string for the same reason."""
MACHINE = "openclap.runtimes.torch:describe_machine"
"""The function that states torch's device, its fastest backend and its threads."""


def has(package: str) -> bool:
    """Whether a package is installed. It is not imported, which takes seconds for torch."""
    return importlib.util.find_spec(package) is not None


def loader(name: str, device: str | torch.device | None, precision: str, *, compile: bool) -> Loader:
    """Import a runtime and check its options.

    Raises ConfigError for a device or precision it does not have, MissingExtraError when it is not installed.
    """
    made: Loader = resolve(RUNTIMES[name])(device, precision, compile=compile)
    return made


def fetch_tokenizer(preset: Preset, offline: bool) -> Path:
    """The tokenizer named by a preset, from this package or from the hub.

    Raises MissingTokenizerError where the preset names none.
    """
    if preset.text.tokenizer is None:
        raise MissingTokenizerError(
            "No tokenizer.json lies beside this model, and text cannot be embedded without one."
        )
    if preset.text.tokenizer in merges.DEFINITIONS:
        return merges.tokenizer_file(preset.text)
    return hub.tokenizer_file(preset.text.tokenizer, offline=offline)


def resolve(target: str) -> Any:
    """The object of an entry "module:name"."""
    module, name = target.split(":")
    return getattr(importlib.import_module(module), name)
