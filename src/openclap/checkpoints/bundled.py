"""The model that is part of the package, so that the first search needs no network."""

from __future__ import annotations

from pathlib import Path

MINI = "mini"
"""Its name, for `openclap.load` and `--model`."""
FOLDER = Path(__file__).parent / "mini"
"""A model folder with ONNX graphs beside the weights: torch and onnxruntime read the same `model.safetensors`."""
