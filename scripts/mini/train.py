"""Train mini's audio head and write the model that is part of the package.

    python -m scripts.mini.train DIR [--out src/openclap/checkpoints/mini]

DIR holds pairs.csv (`scripts.mini.build_pairs`) and text/ (`scripts.mini.text_tower`: the distilled text tower with its
head). Only sounds whose licence allows it are learned from, and none that the demo tests on, nor near-duplicates.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scripts.mini import recipe
from scripts.mini.evaluate import Data
from scripts.mini.features import Row, audio_weights
from scripts.mini.heads import Array, Pairs, Whitening, unit
from torch import Tensor

from openclap import presets
from openclap.checkpoints import openclap_folder
from openclap.checkpoints.checkpoint import BATCH_COUNTER, Checkpoint
from openclap.checkpoints.tensors import read_safetensors
from openclap.interop import onnx_shared
from openclap.models.text_tower import TextTower
from openclap.text.tokenizer import FILE, Tokenizer
from openclap.types import TextBatch

TEXT_STEPS, TEXT_BATCH = 3000, 256


def learned_from(rows: list[Row]) -> list[int]:
    """The rows that shipped weights learn from: licences that allow it, and nothing that the demo tests on."""
    tested = {row.group for row in rows if row.demo_held_out}
    return [number for number, row in enumerate(rows) if row.ship and row.group not in tested]


def train_text_head(text: Path, preset: presets.Preset, target: Whitening, data: Data) -> dict[str, Tensor]:
    """Fit the text head: the distilled tower's embeddings to MiniLM's whitened ones; returns tower and head."""
    torch.manual_seed(0)
    tower = TextTower(preset.text).eval()
    encoder = {f"encoder.{name}": tensor.float() for name, tensor in read_safetensors(text / "model.safetensors").items()}
    tower.load_state_dict(encoder)
    tokenizer = Tokenizer.read(text / FILE, preset.text.context)
    texts = sorted({line for line in (text / "texts.txt").read_text(encoding="utf-8").splitlines() if line})
    return {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("src/openclap/checkpoints/mini"))
    options = parser.parse_args()
