"""Thirty queries that a person would type, asked of two models over all recordings, and judged blind.

    python -m scripts.mini.queries DIR --models ONE OTHER --sheet SHEET
    python -m scripts.mini.queries DIR --models ONE OTHER --sheet SHEET --judged

DIR holds pairs.csv (`scripts.mini.build_pairs`) and the cache of features. Both models have mini's audio tower: "mini",
or folders of models that were fine-tuned from it.

The first command writes a sheet: for each query two lists in random order, each of the first five recordings with
different captions. Judge each line by its caption: write "+" before the hits that answer the query. The second command
reads the sheet, and prints for each model how many first hits, and how many of all hits, do.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scripts.mini.evaluate import embed_windows
from scripts.mini.features import AudioFeatures, Row, read_rows

import openclap

QUERIES = (
    "a dog barking", "a cat meowing", "a rooster crowing", "a horse galloping", "birds singing in the morning",
    "somebody laughing", "a crowd cheering", "applause", "a baby crying", "footsteps on gravel",
    "a door creaking", "breaking glass", "a car engine starting", "a helicopter", "a train passing by",
    "an explosion", "a gun shot", "sword fight", "thunder", "heavy rain",
    "wind howling", "waves on a beach", "dripping water", "a church bell ringing", "an alarm clock",
    "a cello playing", "an electric guitar chord", "a drum roll", "a spaceship laser", "a coin picked up in a game",
)  # fmt: skip
HITS = 5


def first_hits(model: openclap.Embedder, rows: Sequence[Row], windows: Sequence[np.ndarray]) -> Iterator[list[str]]:
    """Yield the captions of the first hits of each query."""
    owner_W = np.repeat(np.arange(len(rows)), [len(part) for part in windows])
    audio_ND = embed_windows(model, np.concatenate(windows), owner_W)
    for similarity_N in model.embed_text(QUERIES) @ audio_ND.T:
        captions = dict.fromkeys(f"{rows[row].captions[0]} ({rows[row].package})" for row in np.argsort(-similarity_N))
        yield [*captions][:HITS]


def orders() -> Iterator[tuple[int, int]]:
    """Yield which model each of the two lists of a query is from."""
    rng = np.random.default_rng(0)
    for _ in QUERIES:
        first = int(rng.integers(2))
        yield first, 1 - first


def write_sheet(sheet: Path, found: Sequence[Sequence[list[str]]]) -> None:
    lines = []
    for number, (query, order) in enumerate(zip(QUERIES, orders(), strict=True)):
        lines.append(f"# {query}")
        for model in order:
            lines += ["list", *(f"  {caption}" for caption in found[model][number])]
    sheet.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_sheet(sheet: Path) -> Iterator[list[list[bool]]]:
    """Yield, for each query, whether each hit of its two lists was judged to answer it."""
    for query in sheet.read_text(encoding="utf-8").split("# ")[1:]:
        lists = query.split("\nlist\n")[1:]
        yield [[line.startswith("+") for line in part.splitlines()] for part in lists]


def count(sheet: Path) -> list[tuple[int, int]]:
    """For each model, how many of the first hits, and of all hits, answer their query."""
    first, whole = [0, 0], [0, 0]
    for order, lists in zip(orders(), read_sheet(sheet), strict=True):
        for model, judged in zip(order, lists, strict=True):
            first[model] += judged[0]
            whole[model] += sum(judged)
    return list(zip(first, whole, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs=2, required=True)
    parser.add_argument("--sheet", type=Path, required=True)
    parser.add_argument("--judged", action="store_true", help="read the sheet in place of writing it")
    options = parser.parse_args()
    if not options.judged:
        if options.sheet.exists():
            raise SystemExit(f"{options.sheet} exists and may hold judgements. Name another file, or add --judged.")
        rows = [row for row in read_rows(options.folder / "pairs.csv") if row.caption_from.startswith("name")]
        windows = AudioFeatures(options.folder)([row.path for row in rows], lambda line: print(line, file=sys.stderr))
        models = [openclap.load(name, device="cpu", runtime="torch") for name in options.models]
        write_sheet(options.sheet, [[*first_hits(model, rows, windows)] for model in models])
        return
    for name, (one, whole) in zip(options.models, count(options.sheet), strict=True):
        print(f"{name}: {one} of {len(QUERIES)} first hits, {whole} of {HITS * len(QUERIES)} hits")


if __name__ == "__main__":
    main()
