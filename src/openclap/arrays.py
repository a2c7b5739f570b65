"""Array types that several rooms share. The dimensions are in the names of the variables (see `openclap.types`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Wave = NDArray[np.float32]
"""Samples of a sound in about -1..1: (N,) of one channel, or (N, channels)."""
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
