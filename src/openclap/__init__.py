"""openclap: train, evaluate and use models of contrastive language-audio pretraining (CLAP).

Public names are imported when they are first used, so importing the package takes almost no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openclap import errors as errors
    from openclap.data.build import build_dataset as build_dataset
    from openclap.embedder import Embedder as Embedder
    from openclap.evals.runner import evaluate as evaluate
    from openclap.library import Library as Library
    from openclap.loading import load as load
    from openclap.location import locate as locate
    from openclap.runs import finetune as finetune
    from openclap.runs import train as train

__version__ = "0.1.0"

_EXPORTS = {
    "load": "openclap.loading:load",
    "Embedder": "openclap.embedder:Embedder",
    "Library": "openclap.library:Library",
    "locate": "openclap.location:locate",
    "train": "openclap.runs:train",
    "finetune": "openclap.runs:finetune",
    "evaluate": "openclap.evals.runner:evaluate",
    "build_dataset": "openclap.data.build:build_dataset",
    "errors": "openclap.errors",
}
"""Public names and their places, as "module:name" or "module". Type checkers read the imports above instead."""

__all__ = [  # noqa: RUF022 (the order of use; names are imported on demand)
    "load",
    "Embedder",
    "Library",
    "locate",
    "train",
    "finetune",
    "evaluate",
    "build_dataset",
    "errors",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Import a public name (PEP 562)."""
    if name not in _EXPORTS:
        raise AttributeError(f"module 'openclap' has no attribute {name!r}")
    from openclap.errors import reporting_missing_torch

    module, _, attribute = _EXPORTS[name].partition(":")
    with reporting_missing_torch():
        loaded = importlib.import_module(module)
    value = getattr(loaded, attribute) if attribute else loaded
    globals()[name] = value  # the next access finds it without this function
    return value


def __dir__() -> list[str]:
    return __all__
