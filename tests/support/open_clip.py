"""Models of open_clip with the made-up weights of tests/golden/openclip, as folders in its layout."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from support.reference import GOLDEN, rng

FOLDER = GOLDEN / "openclip"
CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"


@functools.cache
def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return dict(arrays)


@functools.cache
def captions() -> list[str]:
    texts: list[str] = json.loads((FOLDER / "captions.json").read_text(encoding="utf-8"))
    return texts


@functools.cache
def keys(model: str) -> list[tuple[str, tuple[int, ...], str]]:
    """Name, shape and kind of every tensor of open_clip's state dict."""
    rows = json.loads((FOLDER / "keys.json").read_text(encoding="utf-8"))[model]
    return [(name, tuple(shape), kind) for name, shape, kind in rows]


def config(model: str) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads((FOLDER / "configs.json").read_text(encoding="utf-8"))[model]
    return whole


def state(model: str) -> dict[str, torch.Tensor]:
    """The tensors that are not computed."""
    return {
        name: torch.tensor(_weight(name, shape, kind)).float() for name, shape, kind in keys(model) if kind != "keep"
    }


def _weight(name: str, shape: tuple[int, ...], kind: str) -> np.ndarray:
    g = rng(name)
    if kind == "var":
        return g.uniform(0.5, 1.5, shape)
    if kind in ("scale", "lbias"):
        return np.full(shape, np.log(1 / 0.07) if kind == "scale" else -10.0)
    noise = g.standard_normal(shape)
    scales = {"mean": 0.1, "gain": 0.1, "bias": 0.02, "token": 1.0, "matrix": 1 / np.sqrt(max(1, np.prod(shape[1:])))}
    return noise * scales[kind] + (1 if kind == "gain" else 0)


def write_folder(folder: Path, model: str, model_cfg: dict[str, Any] | None = None) -> Path:
    """Write a model as the hub has it."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model_cfg": model_cfg or config(model)["model_cfg"], "preprocess_cfg": {}}
    (folder / CONFIG).write_text(json.dumps(content), encoding="utf-8")
    save_file(state(model), folder / WEIGHTS)
    return folder
