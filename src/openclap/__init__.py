"""openclap: contrastive language-audio pretraining, from raw sound collections to found sounds.

The public names load what they need when they are first used, so importing costs almost nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openclap.embedder import Embedder as Embedder
    from openclap.errors import OpenClapError as OpenClapError
    from openclap.loading import load as load
    from openclap.types import Hit as Hit
    from openclap.types import Window as Window

__version__ = "0.1.0"

_HOMES = {
    "Embedder": "openclap.embedder",
    "load": "openclap.loading",
    "OpenClapError": "openclap.errors",
    "Hit": "openclap.types",
    "Window": "openclap.types",
}

__all__ = ["Embedder", "Hit", "OpenClapError", "Window", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'openclap' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
