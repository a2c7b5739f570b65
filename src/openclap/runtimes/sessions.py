"""Sessions of onnxruntime on the CPU."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def make_session(graph: Path | bytes, weights: Mapping[str, NDArray[Any]] | None = None) -> Any:
    """A session of a graph in a file or in memory. Raises what onnxruntime raises for a damaged one.

    Args:
        weights: the content of external initializers, by name. onnxruntime copies them.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _threads()
    options.log_severity_level = 3  # errors only: warnings are about its own optimisations
    # These values refer to the arrays' memory and must exist until the session does: the options do not keep them.
    values = {
        # Tensors follow each other in a file without gaps: one may begin at an address that numpy cannot hand on.
        name: onnxruntime.OrtValue.ortvalue_from_numpy(np.require(array, requirements=["C", "A"]))
        for name, array in (weights or {}).items()
    }
    if values:
        options.add_external_initializers(list(values), list(values.values()))
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _threads() -> int:
    """The number of threads that torch would take: OMP_NUM_THREADS, or 0, which means one for each core."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit():
        return int(wanted)
    # onnxruntime pins its threads to cores, which fails on cores that this process may not use.
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return usable if usable and usable < (os.cpu_count() or 1) else 0
