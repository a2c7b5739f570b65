"""Sounds as datasets, mteb and sentence-transformers hand them around, to what `Embedder.embed_audio` reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from openclap.sounds import Sound


def sound(given: Any) -> Sound:
    """{"array": …, "sampling_rate": …}, {"bytes": …, "path": …}, or what is a sound already; all else is told later.

    Those libraries put channels first, openclap samples; the longer side is taken for the samples.
    """
    if isinstance(given, Mapping) and {"array", "sampling_rate"} <= given.keys():
        array = np.asarray(given["array"])
        return (array.T if array.ndim == 2 and array.shape[0] < array.shape[1] else array), given["sampling_rate"]
    if isinstance(given, Mapping) and {"bytes", "path"} <= given.keys():
        found: Sound = given["bytes"] or given["path"]
        return found
    return given  # type: ignore[no-any-return]
