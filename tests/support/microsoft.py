"""Narrow models of Microsoft's CLAP: sizes, made-up weights, sounds and texts, for tests and for the script that runs
msclap (tests/peers/msclap_script.py)."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openclap.text import merges
from support.reference import GOLDEN, rng, wave
from support.tiny_models import tiny_tokenizer

RATE = 44100
TEXT_SIZES: dict[str, dict[str, Any]] = {
    "2022": {
        "vocab_size": 64,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
        "intermediate_size": 96,
        "max_position_embeddings": 128,
    },
    "2023": {"n_embd": 64, "n_layer": 2, "n_head": 1},
}
NARROW: dict[str, dict[str, Any]] = {
    "2022": {"transformer_embed_dim": 64, "d_proj": 32, "out_emb": 128, "num_classes": 5},
    "2023": {"transformer_embed_dim": 64, "d_proj": 32, "out_emb": 32},
}
"""Settings of msclap's configuration that are overridden."""
TEXTS = [
    "rain on the roof",
    "Wolf howling",
    "a dog",
    "a big bell: low, low noise in the rain, high tone of the bell's 3 2 1",
    "Watch out! A dog! It's a DOG!!",
    "wow ! two  spaces, naïve café 🐕",
    "",
]


def waves(version: str) -> dict[str, np.ndarray]:
    """Sounds at 44.1 kHz: shorter than the model's input, as long as it, and longer."""
    whole = {"2022": 5, "2023": 7}[version] * RATE
    return {"short": wave("short", 30000), "whole": wave("whole", whole), "long": wave("long", whole + 12345)}


def kind(name: str, tensor: torch.Tensor) -> str:
    """The kind of a tensor, as in tests/golden/README.md."""
    fixed = ("stft.", "melW", "relative_position_index", "attn_mask", "num_batches", "position_ids", "token_type_ids")
    if any(part in name for part in fixed) or name.endswith((".attn.bias", ".attn.masked_bias")):
        return "keep"
    if name == "logit_scale":
        return "scale"
    if name.endswith("running_var"):
        return "var"
    if name.endswith("running_mean"):
        return "mean"
    if name.endswith("weight") and tensor.ndim == 1:
        return "gain"
    return "bias" if tensor.ndim == 1 else "matrix"


def state(rows: Iterable[tuple[str, list[int], str]]) -> dict[str, torch.Tensor]:
    """The made-up weights of all tensors but those of the kind "keep"."""
    return {name: torch.from_numpy(_weight(name, shape, what)) for name, shape, what in rows if what != "keep"}


def _weight(name: str, shape: list[int], what: str) -> np.ndarray:
    g = rng(name)
    if what == "var":
        return g.uniform(0.5, 1.5, shape).astype(np.float32)
    if what == "scale":
        return np.array(np.log(1 / 0.07), np.float32)
    scales = {"mean": 0.1, "gain": 0.1, "bias": 0.02, "matrix": 1 / np.sqrt(max(1, np.prod(shape[1:])))}
    return (g.standard_normal(shape) * scales[what] + (1 if what == "gain" else 0)).astype(np.float32)


@functools.cache
def golden(version: str) -> dict[str, np.ndarray]:
    """What msclap computes from the narrow model."""
    with np.load(GOLDEN / "msclap.npz") as arrays:
        return {name.partition("/")[2]: arrays[name] for name in arrays.files if name.startswith(version)}


@functools.cache
def rows(version: str) -> list[tuple[str, list[int], str]]:
    """Name, shape and kind of every tensor of msclap's narrow model."""
    listed: list[tuple[str, list[int], str]] = json.loads(str(golden(version)["keys"]))
    return listed


def write_file(place: Path, version: str, **more: torch.Tensor) -> Path:
    """Write a narrow model as Microsoft's files are, with its filterbank and any other tensors, and return its path."""
    bank = next(name for name, _, _ in rows(version) if name.endswith("melW"))
    tensors = state(rows(version)) | {bank: torch.from_numpy(golden(version)["bank"])} | more
    torch.save({"epoch": 1, "model": tensors}, place)
    return place


def bert_tokenizer(place: Path) -> Path:
    """Write the tokenizer of the narrow model of 2022."""
    place.write_text(tiny_tokenizer().definition, encoding="utf-8")
    return place


def gpt2_tokenizer() -> Any:
    """GPT-2's tokenizer of transformers, from its merges, with the padding that msclap gives it."""
    from transformers import GPT2TokenizerFast

    ordered = merges.read_merges(merges.R50K)
    vocabulary = [*merges.byte_characters(), *(merge.replace(" ", "") for merge in ordered), "<|endoftext|>"]
    ids = {token: number for number, token in enumerate(vocabulary)}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")
        (Path(folder) / "merges.txt").write_text("#version: 0.2\n" + "\n".join(ordered) + "\n", encoding="utf-8")
        return GPT2TokenizerFast.from_pretrained(folder)
