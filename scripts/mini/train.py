"""Train mini's heads and write the model that is part of the package.

    python -m scripts.mini.train DIR [--out src/openclap/checkpoints/mini]

DIR holds pairs.csv (`scripts.mini.build_pairs`) and text/ (`scripts.mini.distil_text`: the text tower). Only sounds
whose licence allows it are learned from, and none that the demo tests on, nor near-duplicates of them; they are listed
in sounds.csv, beside the weights.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scripts.mini import recipe
from scripts.mini.evaluate import Data
from scripts.mini.features import MiniLM, Row, audio_weights
from scripts.mini.heads import Array, Head, Map, unit

from openclap import presets
from openclap.checkpoints import openclap_folder
from openclap.checkpoints.checkpoint import BATCH_COUNTER, Checkpoint
from openclap.checkpoints.tensors import read_safetensors
from openclap.interop import onnx_shared
from openclap.models.text_tower import TextTower
from openclap.text.tokenizer import FILE as TOKENIZER
from openclap.text.tokenizer import Tokenizer
from openclap.types import TextBatch

TEXTS = 6_000
"""Texts of the text tower's training that its linear map to MiniLM's embeddings is fitted to."""
SOUNDS = "sounds.csv"


def learned_from(rows: Sequence[Row]) -> NDArray[np.int64]:
    """The rows that shipped weights learn from: licences that allow it, and nothing that the demo tests on."""
    tested = {row.group for row in rows if row.demo_held_out}
    return np.array([number for number, row in enumerate(rows) if row.ship and row.group not in tested])


class DistilledText:
    """The distilled text tower without head."""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        text = presets.MINI.text
        self.config = replace(text, sizes={name: config[name] for name in text.sizes})
        self.tower = TextTower(self.config).eval()
        self.weights = {
            f"encoder.{name}": tensor for name, tensor in read_safetensors(folder / "model.safetensors").items()
        }
        self.tower.load_state_dict({name: tensor.float() for name, tensor in self.weights.items()})
        self.tokenizer = Tokenizer.read(folder / TOKENIZER, text.context)

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> Array:
        """(T, C) pooled states."""
        pooled = np.zeros((len(texts), self.config.hidden_size), np.float32)
        for rows, tokens in self.tokenizer.batches(texts, 64):
            pooled[rows] = self.tower(
                TextBatch(torch.from_numpy(tokens.ids_BL), torch.from_numpy(tokens.mask_BL))
            ).numpy()
        return pooled


def fit_heads(
    data: Data, chosen: NDArray[np.int64], tower: DistilledText, texts: Sequence[str], minilm: MiniLM
) -> tuple[dict[str, Head], float, float]:
    """Both heads, the factor of similarities, and the mean cosine of the text tower to whitened MiniLM on texts that it
    was not fitted to.

    The text head reads the tower's outputs in the space of MiniLM, whitened by captions. The linear map to it becomes
    part of the head's first layer.
    """
    pairs = data.pairs.take(chosen)
    teachers = recipe.Teachers.train(pairs, data.phrase_PD, recipe.CHOSEN)
    names = sorted({data.rows[number].label for number in chosen} - {""})
    captions = [caption for number in chosen for caption in data.rows[number].captions]
    learned = [*captions, *recipe.PHRASES, *names * recipe.JOINT.copies]
    matrix_CD, bias_D, cosine = fit_space(tower, texts, minilm, teachers.closed.text)
    distinct = list(dict.fromkeys(learned))
    place_of = {text: place for place, text in enumerate(distinct)}
    place_T = [place_of[text] for text in learned]
    input_TD = (tower(distinct) @ matrix_CD + bias_D)[place_T]
    audio, text, scale = teachers.learned(pairs, minilm(distinct)[place_T], input_TD, recipe.JOINT, recipe.MINI)
    return {"audio_head": audio, "text_head": text.after(matrix_CD, bias_D)}, scale, cosine


def fit_space(tower: DistilledText, texts: Sequence[str], minilm: MiniLM, space: Map) -> tuple[Array, Array, float]:
    """The linear map from pooled states to a space of MiniLM's embeddings, and its mean cosine on texts that it was not
    fitted to."""
    order = np.random.default_rng(0).permutation(len(texts))[:TEXTS]
    chosen = [texts[number] for number in order]
    x_TC, y_TD = tower(chosen), space(minilm(chosen))
    held = len(chosen) // 10
    matrix_CD, bias_D = _regress(x_TC[held:], y_TD[held:])
    cosine = float((unit(x_TC[:held] @ matrix_CD + bias_D) * y_TD[:held]).sum(axis=1).mean())
    return *_regress(x_TC, y_TD), cosine


def _regress(x_NC: Array, y_ND: Array) -> tuple[Array, Array]:
    mean_C, mean_D = x_NC.mean(axis=0), y_ND.mean(axis=0)
    gram_CC = (x_NC - mean_C).T @ (x_NC - mean_C)
    penalty_CC = 1e-4 * np.trace(gram_CC) / len(gram_CC) * np.eye(len(gram_CC))
    matrix_CD = np.linalg.solve(gram_CC + penalty_CC, (x_NC - mean_C).T @ (y_ND - mean_D))
    return matrix_CD.astype(np.float32), (mean_D - mean_C @ matrix_CD).astype(np.float32)


def write_model(out: Path, sources: Path, tower: DistilledText, learned: Mapping[str, Head], scale: float) -> None:
    """Write config.json, model.safetensors (float16), tokenizer.json, and the graphs that read the same weights."""
    weights = {name: tensor for name, tensor in audio_weights(sources).items() if not name.endswith(BATCH_COUNTER)}
    weights |= {f"text_tower.{name}": tensor for name, tensor in tower.weights.items()}
    for part, head in learned.items():
        weights |= {f"{part}.{name}": torch.from_numpy(weight) for name, weight in head.weights.items()}
    weights["logit_scale"] = torch.tensor(np.log(scale))
    halves = {name: tensor.half() for name, tensor in weights.items()}
    checkpoint = Checkpoint("openclap", replace(presets.MINI, text=tower.config), halves)
    out.mkdir(parents=True, exist_ok=True)
    # Made elsewhere, since a model folder is not replaced while it holds other files, such as the card.
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        openclap_folder.write(checkpoint, Path(scratch) / "mini", tower.tokenizer)
        onnx_shared.write(Path(scratch) / "mini")
        for file in (Path(scratch) / "mini").iterdir():
            file.replace(out / file.name)


def write_sounds(place: Path, table: Path, learned: Sequence[Row]) -> None:
    """List the sounds that were learned from: the data card in full."""
    paths = {row.path for row in learned}
    columns = ("package", "key", "group", "caption", "licence", "attribution", "source")
    with table.open(encoding="utf-8", newline="") as stream, place.open("w", encoding="utf-8", newline="") as written:
        writer = csv.writer(written, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([row[name] for name in columns] for row in csv.DictReader(stream) if row["path"] in paths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("src/openclap/checkpoints/mini"))
    options = parser.parse_args()
    torch.set_num_threads(1)  # the order of sums, and so the last digits, depend on the number of threads
    data = Data.read(options.folder)
    chosen = learned_from(data.rows)
    tower = DistilledText(options.folder / "text")
    texts = sorted(set((options.folder / "text" / "texts.txt").read_text(encoding="utf-8").splitlines()))
    learned, scale, cosine = fit_heads(data, chosen, tower, texts, MiniLM(options.folder))
    write_model(options.out, options.folder, tower, learned, scale)
    write_sounds(options.out / SOUNDS, options.folder / "pairs.csv", [data.rows[number] for number in chosen])
    digest = hashlib.sha256((options.out / "model.safetensors").read_bytes()).hexdigest()
    print(f"{len(chosen)} sounds; text tower {cosine:.4f} to whitened MiniLM; {options.out}: {digest}", file=sys.stderr)


if __name__ == "__main__":
    main()
